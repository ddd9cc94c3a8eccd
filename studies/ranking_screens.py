"""Pictures of the ranking screen with nine real long texts, at three widths, light and dark.

    python -m studies.ranking_screens --data FOLDER --out docs/images/long

FOLDER holds `squality/dev.jsonl` (stories with summaries by people) and `oasst_en_100/en_100_tree.jsonl` (conversations with
replies). Starts the app on servers and a Chromium of its own, ranks half of the responses by key as a labeller would, and
writes a picture of each. Nothing of the data is kept but what the pictures show.
"""

import argparse
import json
import os
import socket
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn
from PIL import Image
from playwright.sync_api import Browser, Page
from sqlalchemy import select

from app import db
from app.main import create_app
from app.models import Project, Round, Sampler
from app.services import tasks
from app.settings import get_settings
from tests.app.registry import make_prompt
from tests.browser.person import make_person
from tests.chromium import start_browser
from tests.servers import start_servers

SIZES = {"1440": (1440, 900), "768": (768, 1024), "390": (390, 844)}
SCHEMES = ("light", "dark")
OUTPUTS = 9
COLOURS = 64
"""Of a picture: text and few hues look the same with it, at a third of the bytes."""


@dataclass(frozen=True)
class LongTask:
    """A prompt and nine responses to it."""

    name: str
    messages: Sequence[Mapping[str, str]]
    responses: Sequence[str]


def read_story(path: Path) -> LongTask:
    """A story to be summarised, and nine summaries of it that people wrote."""
    with path.open(encoding="utf-8") as lines:
        stories = [json.loads(line) for line in lines]
    story = min(stories, key=lambda row: len(row["document"]))
    told = [answer["response_text"] for question in story["questions"] for answer in question["responses"]]
    text = f"Summarise this story.\n\n{story['document']}"
    return LongTask("story", [{"role": "user", "content": text}], sorted(told, key=len)[-OUTPUTS:])


def read_conversation(path: Path) -> LongTask:
    """The conversation with the most replies to one turn, and the longest nine of those."""
    with path.open(encoding="utf-8") as lines:
        trees = [json.loads(line)["prompt"] for line in lines]
    turns, replies = max(
        (found for tree in trees for found in _forks(tree, [])), key=lambda found: (len(found[1]), len(found[0]))
    )
    roles = {"prompter": "user", "assistant": "assistant"}
    return LongTask(
        "conversation",
        [{"role": roles[turn["role"]], "content": turn["text"]} for turn in turns],
        sorted(replies, key=len)[-OUTPUTS:],
    )


def _forks(turn: Mapping[str, Any], before: Sequence[Mapping[str, Any]]) -> Iterator[tuple[list[Any], list[str]]]:
    """Every user turn below, as the conversation up to it with the texts that reply to it."""
    path = [*before, turn]
    if turn["role"] == "prompter":
        yield path, [reply["text"] for reply in turn["replies"]]
    for reply in turn["replies"]:
        yield from _forks(reply, path)


@contextmanager
def serve(folder: Path) -> Iterator[str]:
    """The app with its starter project on a free port of this machine; gives the address."""
    with (
        start_servers() as servers,
        servers.database(has_starter=True) as url,
        socket.create_server(("127.0.0.1", 0)) as listening,
    ):
        port = str(listening.getsockname()[1])
        os.environ |= {
            "DATABASE_URL": url,
            "REDIS_URL": servers.redis_url,
            "PREFERABLE_HOME": str(folder),
            "PORT": port,
        }
        get_settings.cache_clear()
        server = uvicorn.Server(uvicorn.Config(create_app(), log_level="warning"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        yield get_settings().url
        server.should_exit = True
        thread.join(10)
        db.get_engine().dispose()


def open_task(task: LongTask, priority: int) -> None:
    """Put the task at the head of the starter project's queue. Commits."""
    with db.transaction() as session:
        project = session.scalars(select(Project).where(Project.slug == "starter")).one()
        prompt = make_prompt(session, project, task.name)
        prompt.messages = [dict(message) for message in task.messages]
        sampler = session.scalars(select(Sampler).where(Sampler.project_id == project.id)).first()
        rounds = select(Round.id).where(Round.project_id == project.id, Round.closed_at.is_(None))
        tasks.create_rank_task(
            session,
            project,
            prompt_id=prompt.id,
            round_id=session.scalars(rounds).one(),
            samples=[tasks.NewSample(text, sampler.id, seed, 1, "stop") for seed, text in enumerate(task.responses)],
            priority=priority,
        )


def take_pictures(browser: Browser, url: str, task: LongTask, out: Path) -> Iterator[Path]:
    """A labeller opens the task in each size and scheme, ranks half of it and goes on reading; gives every picture's path."""
    person = make_person(url)
    address = ""
    for size, (width, height) in SIZES.items():
        for scheme in SCHEMES:
            context = browser.new_context(
                viewport={"width": width, "height": height}, color_scheme=scheme, reduced_motion="reduce"
            )
            page = context.new_page()
            person.sign_in(page)
            page.goto(address or f"{url}/p/starter/rank")
            if not address:
                page.get_by_role("button", name="Get a task").click()
                page.locator("[data-output]").first.wait_for()
                address = page.url
            rank_half(page)
            path = out / f"{task.name}-{size}-{scheme}.png"
            page.screenshot(path=path)
            Image.open(path).quantize(COLOURS).save(path, optimize=True)
            yield path
            context.close()


def rank_half(page: Page) -> None:
    """Four responses placed in plain tiers, two of them tied, one not rankable; the sixth is being read."""
    if page.locator("[data-sort]").is_visible():
        page.keyboard.press("t")
    for key in ("j", "2", "j", "1", "j", "4", "j", "2", "j", "x", "Escape", "j"):
        page.keyboard.press(key)
    page.wait_for_timeout(1500)  # milliseconds: the draft is kept by then


def main() -> None:
    """Make all pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with squality and oasst_en_100")
    parser.add_argument("--out", type=Path, required=True, help="folder for the pictures")
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    long_tasks = [
        read_story(asked.data / "squality" / "dev.jsonl"),
        read_conversation(asked.data / "oasst_en_100" / "en_100_tree.jsonl"),
    ]
    with tempfile.TemporaryDirectory() as folder, serve(Path(folder)) as url, start_browser() as browser:
        for task in long_tasks:
            open_task(task, priority=100)
            for path in take_pictures(browser, url, task, asked.out):
                print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
