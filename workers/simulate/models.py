"""The models under measurement: their files fetched over HTTP, then sampled and asked for scores by the commands of the shell."""

import json
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app import snapshot
from workers.simulate.browser import Browser
from workers.simulate.measure import Answer, HeldOutPrompt, Message, Said

THREADS = 2


class ModelError(RuntimeError):
    """A model's files are not what they were said to be, or a command failed; the message carries its last words."""


@dataclass(frozen=True)
class Decoding:
    """How answers are drawn for the measurement: as for the ranking page."""

    samples: int
    temperature: float
    max_new_tokens: int
    seed: int


@dataclass(frozen=True)
class ToScore:
    """A text for the reward model. One that was cut off carries no end token."""

    prompt: str
    messages: tuple[Message, ...]
    said: Said


def fetch(browser: Browser, page: str, folder: Path, sha256: str) -> Path:
    """The checkpoint of that page (`/p/<project>/checkpoints/<uid>`), unpacked at `folder` and checked against its identity."""
    archive = browser.download(f"{page}/files.zip", folder.with_suffix(".zip"))
    with zipfile.ZipFile(archive) as files:
        files.extractall(folder)  # zipfile refuses names that lead out of the folder
    archive.unlink()
    (model,) = (found.parent for found in folder.rglob("config.json"))
    if (actual := snapshot.folder_sha256(model)) != sha256:
        raise ModelError(f"the files of {page} have identity {actual}; its page says {sha256}")
    return model


def sample(
    model: Path, prompts: Sequence[HeldOutPrompt], decoding: Decoding, folder: Path, reference: Path | None = None
) -> dict[str, tuple[Answer, ...]]:
    """Draw answers to every prompt, with their KL to `reference` where one is given. Files are kept in the empty `folder`."""
    folder.mkdir(parents=True)
    asked, said = folder / "prompts.jsonl", folder / "samples.jsonl"
    write_rows(asked, ({"id": prompt.key, "prompt": list(prompt.messages)} for prompt in prompts))
    options: dict[str, object] = {
        "--model": model,
        "--data": asked,
        "--out": said,
        "--n": decoding.samples,
        "--temperature": decoding.temperature,
        "--max-new-tokens": decoding.max_new_tokens,
        "--seed": decoding.seed,
        "--threads": THREADS,
    }
    run_command("sample", options | ({"--reference": reference} if reference else {}))
    return {
        row["id"]: tuple(
            Answer(said["text"], said["finish_reason"], said["token_count"], said.get("kl"))
            for said in row["responses"]
        )
        for row in read_rows(said)
    }


def score(model: Path, texts: Iterable[ToScore], folder: Path) -> dict[tuple[str, Said], float]:
    """A reward model's score of each answer, by (prompt key, answer). Files are kept in the empty `folder`."""
    folder.mkdir(parents=True)
    asked, said = folder / "texts.jsonl", folder / "scores.jsonl"
    different = {(one.prompt, one.said): one for one in texts}
    write_rows(
        asked,
        (
            {"prompt": list(one.messages), "response": one.said[0], "finish_reason": one.said[1]}
            for one in different.values()
        ),
    )
    run_command("score", {"--model": model, "--data": asked, "--out": said, "--threads": THREADS})
    return {key: row["score"] for key, row in zip(different, read_rows(said), strict=True)}


def run_command(name: str, options: Mapping[str, object]) -> None:
    """Run a command of `preferable` that works on files. Raises ModelError with its last words where it fails."""
    arguments = [str(part) for option in options.items() for part in option]
    done = subprocess.run(
        [sys.executable, "-m", "workers.cli", name, *arguments], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise ModelError(f"`preferable {name}` ended with code {done.returncode}: {done.stderr.strip()[-1500:]}")


def write_rows(path: Path, rows: Iterable[Mapping[str, object]]) -> None:
    """Write JSON lines."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Read JSON lines."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
