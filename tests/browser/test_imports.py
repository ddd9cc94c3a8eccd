"""An admin brings a file in with a browser: first rows, start, report, quarantine, an edit undone. By keyboard too."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect
from sqlalchemy import select

from app import db
from app.models import Job, JobState, Membership, Project, Role
from app.services import accounts
from app.web.deps import SESSION_COOKIE
from tests.app.registry import make_user
from workers.tasks.imports import import_file

ROWS = (
    {"frage": "Name three birds of the sea, and say where they breed.", "wer": "w1"},
    {"frage": "Name three birds of the sea, and say where they breed!", "wer": "w2"},
    {"frage": "Write to anna@example.com about the boat.", "wer": "w1"},
    {"frage": "Summarize this story in two lines.", "wer": "w3"},
    {"frage": "", "wer": "w3"},
)


@pytest.fixture
def admin(page: Page, live_url: str) -> Iterator[Page]:
    with db.transaction() as session:
        project = session.scalars(select(Project)).one()
        user = make_user(session)
        session.add(Membership(project_id=project.id, user_id=user.id, roles=[Role.ADMIN]))
        token = accounts.sign_in(session, user)
    page.context.add_cookies([{"name": SESSION_COOKIE, "value": token, "url": live_url}])
    yield page


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "fragen.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    return path


def work() -> None:
    """What the cpu worker does, in a thread of its own as the broker is not in it."""
    with db.transaction() as session:
        job_id = session.scalars(select(Job.id).where(Job.state == JobState.QUEUED, Job.kind == "import_file")).one()
    thread = threading.Thread(target=import_file, args=[job_id])
    thread.start()
    thread.join()


def test_from_a_file_to_prompts_and_back(admin: Page, live_url: str, file: Path) -> None:
    admin.goto(f"{live_url}/p/starter/prompts")
    admin.get_by_role("link", name="Import a file").click()
    admin.set_input_files("#file", file)
    admin.get_by_role("button", name="Upload and look at it").click()
    expect(admin.get_by_role("heading", name="fragen.jsonl")).to_be_visible()
    expect(admin.get_by_text("Summarize this story in two lines.")).to_be_visible()
    admin.get_by_label("source", exact=True).select_option("wer")
    admin.get_by_role("button", name="Look at the first rows again").click()
    expect(admin.get_by_text("source w3").first).to_be_visible()
    admin.get_by_role("textbox", name="Licence").fill("CC0")
    admin.get_by_role("button", name="Start the import").click()
    expect(admin.get_by_text("Waits for the worker.")).to_be_visible()
    work()
    expect(admin.get_by_text("Done: 5 rows read.")).to_be_visible()  # the page looks by itself
    admin.reload()
    expect(admin.locator(".line-errors tbody tr")).to_have_count(1)
    admin.get_by_role("link", name="See the prompts").click()
    expect(admin.locator("table.prompts tbody tr")).to_have_count(4)

    admin.get_by_role("checkbox", name="Choose: Summarize this story").check()
    admin.get_by_role("button", name="Accept suggestions").click()
    expect(admin.get_by_text("1 prompt was changed.")).to_be_visible()
    expect(admin.get_by_role("cell", name="summarization", exact=True)).to_be_visible()
    admin.get_by_role("button", name="Undo").click()
    expect(admin.get_by_text("1 prompt is as it was.")).to_be_visible()

    admin.get_by_role("link", name="Quarantine").click()
    expect(admin.locator("mark")).to_have_text("anna@example.com")
    admin.get_by_role("button", name="Mask and let in").click()
    expect(admin.get_by_text("What was found is masked, and the prompt is in.")).to_be_visible()
    expect(admin.get_by_text("Nothing waits here.")).to_be_visible()


def test_by_keyboard_alone_and_without_scripts(live_url: str, admin: Page, file: Path) -> None:
    context = admin.context.browser.new_context(java_script_enabled=False)
    context.add_cookies(admin.context.cookies())
    page = context.new_page()
    page.goto(f"{live_url}/p/starter/imports/new")
    page.set_input_files("#file", file)  # the system's own dialog
    press_on(page, "Upload and look at it")
    page.wait_for_url("**/imports/*-*")
    press_on(page, "Start the import")
    expect(page.get_by_text("Waits for the worker.")).to_be_visible()
    work()
    page.reload()
    expect(page.get_by_text("Done: 5 rows read.")).to_be_visible()
    context.close()


def press_on(page: Page, name: str) -> None:
    """Tab to a button of that name, and press it."""
    for _ in range(120):
        page.keyboard.press("Tab")
        if page.locator("button:focus").count() and page.locator("button:focus").inner_text() == name:
            page.keyboard.press("Enter")
            return
    raise AssertionError(f"Tab never comes to {name}")
