"""How a person lays the ranking screen out in a wide window: in columns, with the prompt folded away."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from studies.ranking_screens import LongTask, open_task
from tests.browser.person import Person
from tests.browser.ranking import press
from tests.browser.test_labelling_accessibility import look

pytestmark = pytest.mark.browser

WIDE, LAPTOP, TABLET = ({"width": width, "height": 900} for width in (1920, 1440, 1000))


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    # The checker injects a script, which the page's own policy would refuse.
    context = browser.new_context(reduced_motion="reduce", viewport=LAPTOP, bypass_csp=True)
    yield context.new_page()
    context.close()


def columns(page: Page) -> int:
    """How many responses stand beside the first, itself counted."""
    tops = page.locator("[data-output]").evaluate_all("all => all.map((one) => one.getBoundingClientRect().top)")
    return sum(abs(top - tops[0]) < 2 for top in tops)


def test_columns_take_the_room_of_the_prompt_where_there_is_none_and_are_kept(page: Page, person: Person) -> None:
    person.take(page)
    prompt, live = page.locator(".rank-prompt"), page.locator("[data-live]")
    assert columns(page) == 1
    press(page, ",")
    expect(live).to_have_text("2 columns. The prompt is folded away.")
    assert columns(page) == 2
    expect(prompt).to_be_hidden()
    look(page, "in columns, the prompt folded away")
    page.reload()
    expect(prompt).to_be_hidden()
    assert columns(page) == 2
    page.set_viewport_size(WIDE)
    page.get_by_role("button", name="Fold prompt").click()
    expect(live).to_have_text("The prompt is back.")
    expect(prompt).to_be_visible()
    assert columns(page) == 2
    page.get_by_role("button", name="Columns").click()
    expect(live).to_have_text("One column.")
    assert columns(page) == 1


def test_the_room_that_columns_took_is_given_back_with_them(page: Page, person: Person) -> None:
    person.take(page)
    press(page, ",", ",")
    expect(page.locator(".rank-prompt")).to_be_visible()
    press(page, ".", ",", ",")
    expect(page.locator(".rank-prompt")).to_be_hidden()


def test_two_responses_are_two_columns_however_wide_the_window(page: Page, person: Person) -> None:
    open_task(LongTask("two", [{"role": "user", "content": "Well?"}], ["Yes.", "No."]), 100)
    page.set_viewport_size(WIDE)
    person.sign_in(page)
    page.goto(f"{person.url}/p/starter/rank")
    page.get_by_role("button", name="Get a task").click()
    expect(page.locator("[data-output]")).to_have_count(2)
    page.wait_for_load_state()
    press(page, ".", ",")
    expect(page.locator("[data-live]")).to_have_text("2 columns.")


def test_a_folded_prompt_is_looked_at_and_answered_about_by_key(page: Page, person: Person) -> None:
    person.take(page)
    prompt = page.locator(".rank-prompt")
    press(page, "j", ".")
    expect(prompt).to_be_hidden()
    for leave in ("p", "Escape", "j"):
        press(page, "p")
        expect(prompt).to_be_visible()
        expect(page.locator(".rank-prompt-text")).to_be_focused()
        press(page, leave)
        expect(prompt).to_be_hidden()
        expect(page.locator(".output.is-current")).to_be_focused()
    press(page, "l")
    expect(prompt.get_by_text("About this prompt")).to_be_focused()
    look(page, "a folded prompt that is looked at")
    press(page, "Escape")
    page.locator(".rank-peek").click()
    expect(page.locator(".rank-prompt-text")).to_be_focused()
    press(page, "Escape")
    expect(prompt).to_be_hidden()


def test_a_narrow_window_knows_nothing_of_it(page: Page, person: Person) -> None:
    person.take(page)
    expect(page.get_by_role("button", name="Columns")).to_be_visible()
    press(page, ",")
    page.set_viewport_size(TABLET)
    expect(page.locator(".rank-prompt")).to_be_visible()
    expect(page.get_by_role("button", name="Columns")).to_be_hidden()
    assert columns(page) == 1
    for key in (",", "."):
        press(page, key)
        expect(page.locator("[data-live]")).to_have_text("Only a wider window has room for that.")
    page.set_viewport_size(LAPTOP)
    assert columns(page) == 2
