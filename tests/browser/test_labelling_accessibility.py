"""A labeller's pages in every state, as axe sees them: no violation, light and dark, wide and narrow."""

from collections.abc import Iterator

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from tests.browser.person import Person

pytestmark = pytest.mark.browser


@pytest.fixture(params=[("light", 1440), ("dark", 390)], ids=["light, wide", "dark, narrow"])
def page(browser: Browser, request: pytest.FixtureRequest) -> Iterator[Page]:
    scheme, width = request.param
    # The checker injects a script, which the page's own policy would refuse.
    context = browser.new_context(
        color_scheme=scheme, reduced_motion="reduce", viewport={"width": width, "height": 900}, bypass_csp=True
    )
    yield context.new_page()
    context.close()


def look(page: Page, state: str) -> None:
    """Fail on the first violation in a state of the page, naming it with the elements at fault."""
    found = Axe().run(page).response["violations"]
    faults = {violation["id"]: [node["html"][:200] for node in violation["nodes"]] for violation in found}
    assert not faults, f"{state}: {faults}"
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{state}: wider than the window"


def test_ranking(page: Page, person: Person) -> None:
    person.take(page)
    look(page, "nothing ranked")
    for key in ("j", "1", "j", "x"):
        page.keyboard.press(key)
    look(page, "not rankable, without a reason")
    page.keyboard.press("Escape")
    for key in ("l", "w", "Escape", "j", "f", "q"):
        page.keyboard.press(key)
    look(page, "questions open and answered")
    page.keyboard.press("Escape")
    for key in ("n", "g", "s", "?"):
        page.keyboard.press(key)
        look(page, f"the panel behind {key}")
        page.keyboard.press("Escape")
    page.keyboard.press("m")
    look(page, "raw text")
    page.keyboard.press("m")
    for key in ("o", "d", "c", "a"):
        page.keyboard.press(key)
        look(page, f"after {key} on the way to a comparison")
    page.keyboard.press("d")
    look(page, "words that differ")
    for key in ("Escape", "u", "u", "u", "u", "u", "u", "t"):
        page.keyboard.press(key)
    look(page, "sorting into groups")
    for key in ("1", "j", "1", "j", "2", "j", "3", "o", "a"):
        page.keyboard.press(key)
    expect(page.locator("[data-sort-step]")).to_contain_text("Step 2 of 2")
    look(page, "sorting inside a group")


def test_what_comes_after(page: Page, person: Person) -> None:
    person.sign_in(page)
    page.goto(f"{person.url}/p/starter/")
    look(page, "home")
    page.goto(f"{person.url}/p/starter/history")
    look(page, "a history of nothing")
    person.take(page)
    first = page.url
    for key in ("j", "1", "f", "q", "f", "j", "1", "j", "2", "j", "3"):
        page.keyboard.press(key)
    page.keyboard.press("Control+Enter")
    page.wait_for_url(lambda url: url != first)
    page.goto(first)
    look(page, "what was stored")
    page.get_by_role("link", name="Your last answers").click()
    look(page, "a history of one")
    page.get_by_role("link", name="Revise").click()
    expect(page.get_by_role("button", name="Store the new version")).to_be_visible()
    look(page, "a revision")


def test_what_is_a_person_s_own(page: Page, person: Person) -> None:
    person.sign_in(page)
    page.goto(f"{person.url}/account")
    look(page, "the account")
    page.locator("#key-next").fill("k")
    page.get_by_role("button", name="Save keys").click()
    expect(page.get_by_role("alert")).to_contain_text("is there twice")
    look(page, "keys that cannot be")
    page.goto(f"{person.url}/p/starter/demonstrate")
    look(page, "the queue of demonstrations")
    page.goto(f"{person.url}/p/starter/guidelines")
    look(page, "the guidelines")
