"""Writing a demonstration in Chromium: the live count, the draft, and the text that is stored."""

import pytest
from playwright.sync_api import Page, expect
from sqlalchemy import select

from app import db
from app.models import Demonstration
from tests.browser.person import Person

pytestmark = pytest.mark.browser


def test_the_text_survives_a_reload_and_is_stored_as_written(page: Page, person: Person) -> None:
    person.sign_in(page)
    page.goto(f"{person.url}/p/starter/demonstrate")
    page.get_by_role("button", name="Get a prompt").click()
    text = page.get_by_label("Your response")
    expect(text).to_be_focused()
    page.wait_for_load_state()
    first = page.url
    text.fill("A wren.\n\nOr **two**.")
    expect(page.locator("[data-count]")).to_have_text("4 words, 20 characters.")
    expect(page.locator("[data-saved]")).to_contain_text("Saved")
    page.reload()
    expect(text).to_have_value("A wren.\n\nOr **two**.")
    page.keyboard.press("Control+Enter")
    page.wait_for_url(lambda url: url != first)
    with db.transaction() as session:
        written = session.scalars(select(Demonstration).where(Demonstration.author_id == person.user_id)).one()
        assert written.text == "A wren.\n\nOr **two**."


def test_an_empty_text_is_refused_with_the_reason(page: Page, person: Person) -> None:
    person.sign_in(page)
    page.goto(f"{person.url}/p/starter/demonstrate")
    page.get_by_role("button", name="Get a prompt").click()
    page.get_by_role("button", name="Submit and next").click()
    expect(page.get_by_role("alert")).to_contain_text("The response is empty")
