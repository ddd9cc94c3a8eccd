"""A labeller's day in Chromium by keyboard alone: compare, rate, label, write, rank and improve; axe looks at every page."""

from collections.abc import Iterator

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect
from sqlalchemy import select, update

from app import db
from app.models import (
    Demonstration,
    Judgement,
    JudgementPair,
    JudgementRank,
    Lease,
    Project,
    Prompt,
    PromptStatus,
    Round,
    Sample,
    Sampler,
    Split,
    Task,
    TaskKind,
    TaskOutput,
)
from tests.app.kinds import open_task
from tests.app.queue import Queue
from tests.browser.person import Person

pytestmark = pytest.mark.browser


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page that axe may look at: it injects a script, which the page's own policy would refuse."""
    context = browser.new_context(reduced_motion="reduce", viewport={"width": 1280, "height": 900}, bypass_csp=True)
    context.set_default_timeout(30_000)
    opened = context.new_page()
    errors: list[str] = []
    opened.on("pageerror", lambda error: errors.append(str(error)))
    yield opened
    context.close()
    assert not errors, errors


def look(page: Page, state: str) -> None:
    found = Axe().run(page).response["violations"]
    faults = {violation["id"]: [node["html"][:200] for node in violation["nodes"]] for violation in found}
    assert not faults, f"{state}: {faults}"
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{state}: wider than the window"


def tab_to(page: Page, name: str) -> None:
    """Press Tab until the link or button of that name has the focus."""
    for _ in range(60):
        page.keyboard.press("Tab")
        if name in (page.evaluate("document.activeElement.value || document.activeElement.textContent") or ""):
            return
    raise AssertionError(f"Tab never came to {name!r}")


def enter(page: Page, name: str, path: str) -> None:
    """From the home page to the task of a kind, by its link and its queue's button."""
    tab_to(page, name)
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/p/starter/{path}")
    get(page)


def get(page: Page) -> None:
    """Take a task of the queue that is open; its button has the focus."""
    expect(page.locator(".button-primary")).to_be_focused()
    page.keyboard.press("Enter")
    page.wait_for_url("**/p/starter/*/*-*")
    page.wait_for_load_state()


def press(page: Page, *keys: str) -> None:
    for key in keys:
        page.keyboard.press(key)


def open_all() -> None:
    """A task of each kind, and a project that asks to improve what was put first."""
    with db.transaction() as session:
        project = session.scalars(select(Project).where(Project.slug == "starter")).one()
        project.asks_to_edit_best = True
        session.execute(update(Prompt).where(Prompt.project_id == project.id).values(split=Split.TRAIN))
        round_ = session.scalars(select(Round).where(Round.project_id == project.id)).one()
        sampler = session.scalars(select(Sampler).where(Sampler.project_id == project.id)).first()
        assert sampler is not None
        queue = Queue(project, round_, sampler)
        for kind in (TaskKind.COMPARE, TaskKind.RATE, TaskKind.LABEL_PROMPT):
            open_task(session, queue, kind)


def test_every_kind_by_keyboard(page: Page, person: Person) -> None:
    open_all()
    person.sign_in(page)
    home = f"{person.url}/p/starter/"
    page.goto(home)
    look(page, "home with every kind of work")

    enter(page, "Compare", "compare")
    submit = page.locator("[data-submit]")
    expect(submit).to_be_disabled()
    look(page, "two responses")
    press(page, "ArrowRight", "3", "f")
    press(page, "q")  # the first flag of the left response
    look(page, "flags of one of two")
    press(page, "Escape", "u", "u", "u")
    expect(submit).to_be_disabled()
    press(page, "Shift+u", "Shift+u", "Shift+u", "n")
    page.keyboard.type("Close.")
    press(page, "Control+Enter")
    page.wait_for_url(f"{home}compare")
    look(page, "no more to compare")
    with db.transaction() as session:
        pair = session.scalars(select(JudgementPair)).one()
        shown = session.scalars(
            select(Lease.shown_order).join(Task, Task.id == Lease.task_id).where(Task.kind == "compare")
        ).one()
        outputs = session.scalars(select(TaskOutput).where(TaskOutput.id.in_([pair.left_id, pair.right_id]))).all()
        of = {output.position: output.id for output in outputs}
        better = pair.left_id if pair.p_left == 1 else pair.right_id
        assert (better, pair.strength) == (of[shown[1]], 3)
        flagged = session.scalars(select(JudgementRank.output_id).where(JudgementRank.answers != {})).all()
        assert flagged == [of[shown[0]]]
        assert session.scalars(select(Judgement.note)).one() == "Close."

    page.goto(home)
    enter(page, "Rate", "rate")
    expect(submit).to_be_disabled()
    press(page, "6", "q")
    look(page, "one response")
    press(page, "s")
    look(page, "reasons to skip")
    press(page, "Escape", "Control+Enter")
    page.wait_for_url(f"{home}rate")
    with db.transaction() as session:
        assert session.scalars(select(JudgementRank.quality).order_by(JudgementRank.id.desc())).first() == 6

    page.goto(home)
    enter(page, "Label", "label")
    expect(submit).to_be_disabled()
    press(page, "q")
    page.keyboard.type("open")
    press(page, "Escape", "y")  # the sixth question: personal data
    look(page, "questions about a prompt")
    expect(page.get_by_role("checkbox", name="Personal data")).to_be_checked()
    press(page, "Control+Enter")
    page.wait_for_url(f"{home}label")
    with db.transaction() as session:
        prompt = session.scalars(
            select(Prompt).join(Task, Task.prompt_id == Prompt.id).where(Task.kind == "label_prompt")
        ).one()
        assert (prompt.category, prompt.status) == ("open_qa", PromptStatus.PII)

    page.goto(f"{home}demonstrate")
    get(page)
    expect(page.get_by_label("Your response")).to_be_focused()
    page.keyboard.type("A **wren**.")
    expect(page.locator("#preview strong")).to_have_text("wren")
    look(page, "a demonstration")
    first = page.url
    press(page, "Control+Enter")
    page.wait_for_url(lambda url: url != first)

    page.goto(f"{home}rank")
    get(page)
    press(page, "1", "j", "2", "j", "3", "j", "4", "Control+Enter")
    page.wait_for_url("**/improve")
    look(page, "the best response, to be improved")
    tab_to(page, edited_from := page.get_by_label("Your response").input_value().strip())
    press(page, "Control+End")
    page.keyboard.type(" And more.")
    press(page, "Control+Enter")
    page.wait_for_url(lambda url: "/improve" not in url)
    with db.transaction() as session:
        edited = session.scalars(select(Sample).where(Sample.origin == "edited")).one()
        assert edited.text == f"{edited_from} And more." and edited.author_id == person.user_id
        assert session.scalars(select(Demonstration.text).order_by(Demonstration.id.desc())).first() == edited.text
    page.wait_for_load_state()
    first = page.url
    press(page, "1", "j", "2", "j", "3", "j", "4", "Control+Enter")
    page.wait_for_url("**/improve")
    page.wait_for_load_state()
    press(page, "s")
    page.wait_for_url(lambda url: "/improve" not in url and url != first)

    page.goto(f"{home}history")
    look(page, "a history of every kind")
    expect(page.get_by_role("link", name="Revise")).to_have_count(7)
    with db.transaction() as session:
        task = session.scalars(select(Task.uid).where(Task.kind == "compare")).one()
    page.goto(f"{home}compare/{task}")
    look(page, "a stored comparison")
    page.goto(f"{home}compare/{task}/revise")
    look(page, "its revision")
