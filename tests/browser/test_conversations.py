"""A conversation of many turns on the ranking page: the last exchange in full, the rest folded, with scripts and without."""

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect
from sqlalchemy import select

from app import db
from app.models import Project
from app.schemas.projects import SamplingSettings
from app.services import checkpoints, samplers, tasks
from tests.app import registry
from tests.browser.person import Person

pytestmark = pytest.mark.browser

TURNS = 41
EARLIER = TURNS - 2
ARABIC = "\u0645\u0631\u062d\u0628\u0627\u060c \u0643\u064a\u0641 \u0623\u0641\u0639\u0644 \u0630\u0644\u0643\u061f"


def converse(messages: list[dict[str, str]]) -> None:
    """Put a task over this conversation first in the starter's queue. Commits."""
    with db.transaction() as session:
        project = session.scalars(select(Project).where(Project.slug == "starter")).one()
        prompt = registry.make_prompt(session, project)
        prompt.messages = messages
        base = checkpoints.active_policy(session, project.id)
        sampler = samplers.ensure_sampler(session, project, base, SamplingSettings())
        tasks.create_rank_task(
            session,
            project,
            prompt_id=prompt.id,
            round_id=checkpoints.open_round(session, project.id).id,
            samples=[tasks.NewSample(f"Answer {n}.", sampler.id, n, 3, "stop") for n in range(4)],
            priority=9,
        )


def talk() -> list[dict[str, str]]:
    """41 turns of some length, one of them from right to left."""
    turns = [
        {"role": "user", "content": f"Question {n}? " + "More of it. " * 40}
        if n % 2 == 0
        else {"role": "assistant", "content": f"**Answer {n}.**\n\n1. one\n2. two\n\n" + "And more of it. " * 40}
        for n in range(TURNS)
    ]
    turns[2]["content"] = ARABIC
    return turns


@pytest.fixture
def taken(page: Page, person: Person) -> Page:
    converse(talk())
    person.take(page)
    return page


def test_the_last_exchange_is_open_and_the_rest_a_line_each(taken: Page) -> None:
    page, folds = taken, taken.locator("#turns details")
    expect(folds).to_have_count(EARLIER)
    expect(page.locator("#turns details[open]")).to_have_count(0)
    shown = page.locator("#turns > li > .turn-text")
    expect(shown).to_have_count(2)
    expect(shown.first).to_contain_text(f"Answer {TURNS - 2}.")
    expect(shown.last).to_contain_text(f"Question {TURNS - 1}?")
    expect(folds.nth(1).locator("summary")).to_contain_text("Assistant")
    expect(folds.nth(1).locator("summary")).to_contain_text("Answer 1.")
    expect(folds.nth(0).locator(".turn-length")).to_have_text("122 words")
    assert folds.nth(2).locator(".turn-begins").evaluate("text => getComputedStyle(text).direction") == "rtl"
    expect(page.locator("#turns").get_by_role("listitem").first).to_contain_text("User")

    folds.nth(1).locator("summary").focus()
    page.keyboard.press("Enter")
    expect(folds.nth(1)).to_have_attribute("open", "")
    expect(folds.nth(1).locator("strong")).to_be_visible()
    every = page.get_by_role("button", name=f"Open the {EARLIER} earlier turns")
    every.click()
    expect(page.locator("#turns details[open]")).to_have_count(EARLIER)
    expect(every).to_have_attribute("aria-expanded", "true")
    every.click()
    expect(page.locator("#turns details[open]")).to_have_count(0)


def test_it_works_without_scripts(browser: Browser, person: Person) -> None:
    converse(talk())
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    person.take(page)
    expect(page.locator("[data-unfold]")).to_be_hidden()
    page.locator("#turns summary").nth(1).click()
    expect(page.locator("#turns details").nth(1).locator("strong")).to_be_visible()
    context.close()


def test_axe_finds_nothing_folded_or_open(browser: Browser, person: Person) -> None:
    converse(talk())
    context = browser.new_context(bypass_csp=True, reduced_motion="reduce", viewport={"width": 390, "height": 844})
    page = context.new_page()
    person.take(page)
    for state in ("folded", "open"):
        found = Axe().run(page).response["violations"]
        assert found == [], (state, [(fault["id"], fault["nodes"][0]["html"]) for fault in found])
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), state
        page.locator("[data-unfold]").click()
    context.close()
