"""What the pages that compare and write share with the ranking screen, in Chromium: questions by key, panels, no connection."""

import pytest
from playwright.sync_api import Page, expect
from sqlalchemy import select

from app import db
from app.models import Demonstration, Judgement, Question
from tests.browser.person import Person
from tests.browser.ranking import press
from tests.browser.test_kinds import open_all

pytestmark = pytest.mark.browser


def test_a_comparison_is_asked_about_and_waits_for_a_connection(page: Page, person: Person) -> None:
    open_all()
    person.sign_in(page)
    page.goto(f"{person.url}/p/starter/compare")
    page.get_by_role("button", name="Get a task").click()
    page.wait_for_load_state()
    task = page.url
    submit = page.locator("[data-submit]")
    press(page, "ArrowLeft", "Shift+ArrowRight", "9")
    chosen = page.locator("[name=preference]:checked")
    expect(chosen).to_have_attribute("data-side", "left")
    expect(page.locator("[data-live]")).not_to_contain_text("Choose a side first")
    press(page, "d")
    expect(page.locator("mark.is-only").first).to_be_visible()
    press(page, "d")
    expect(page.locator("mark.is-only")).to_have_count(0)
    press(page, "Shift+A")
    page.keyboard.type("Which one?")
    press(page, "Control+Enter")
    expect(page.locator("#asked")).to_contain_text("Waits for an admin")
    assert page.url.split("#")[0] == task
    expect(chosen).to_have_attribute("data-side", "left")
    with db.transaction() as session:
        assert session.scalars(select(Question.text)).one() == "Which one?"
        assert session.scalars(select(Judgement)).all() == []
    press(page, "Escape")
    page.context.set_offline(True)
    submit.click()
    expect(page.locator("[data-offline]:not(:empty)")).to_contain_text("Your answer waits on this device")
    page.context.set_offline(False)
    page.wait_for_url("**/p/starter/compare")
    with db.transaction() as session:
        assert len(session.scalars(select(Judgement)).all()) == 1


def test_a_text_waits_for_a_connection_and_its_panels_lie_within_the_window(page: Page, person: Person) -> None:
    page.set_viewport_size({"width": 768, "height": 900})
    text = person.begin_text(page)
    first = page.url
    for name in ("ask", "skip"):
        page.locator(f"[data-menu={name}] > summary").click()
        box = page.locator("[open] > .rank-panel").bounding_box()
        assert box is not None and box["x"] >= 0 and box["x"] + box["width"] <= 768, (name, box)
        press(page, "Escape")
        expect(page.locator("[open] > .rank-panel")).to_have_count(0)
    page.route("**/draft", lambda route: route.abort())
    page.route("**/submit", lambda route: route.abort())
    text.fill("A wren.")
    press(page, "Control+Enter")
    expect(page.locator("[data-offline]:not(:empty)")).to_be_visible()
    page.locator("[data-menu=skip] > summary").click()
    page.get_by_role("button", name="Another reason").click()
    expect(page.locator("[data-offline]:not(:empty)")).to_contain_text("Not done")
    assert (page.url, text.input_value()) == (first, "A wren.")
    page.unroute("**/submit")
    page.unroute("**/draft")
    page.wait_for_url(lambda url: url != first)
    with db.transaction() as session:
        written = session.scalars(select(Demonstration.text).where(Demonstration.author_id == person.user_id)).all()
        assert written == ["A wren."]
