"""The ranking screen's further ways in Chromium: back and forth, own keys, panels, without a connection, what is told."""

import time
from functools import partial

import pytest
from playwright.sync_api import Browser, Page, Route, expect
from sqlalchemy import select

from app import db
from app.models import Draft, Judgement, Lease, LeaseState
from tests.browser.person import Person
from tests.browser.ranking import click, letters, press, stored

pytestmark = pytest.mark.browser


def drafted() -> list[str]:
    """The tiers that the one draft has."""
    with db.transaction() as session:
        content = session.scalars(select(Draft.content)).one_or_none()
    return [choice["tier"] for choice in content["choices"].values() if choice["tier"]] if content else []


class TestUndo:
    def tiers(self, page: Page) -> dict[str, str]:
        """The tier of every letter as the form holds it; empty where there is none."""
        cards = page.locator("[data-output]").all()
        return {
            card.get_attribute("data-letter") or "": card.locator('input[name^="tier-"]:checked').input_value()
            for card in cards
        }

    def test_goes_back_to_the_start_and_forth_again(self, page: Page, person: Person) -> None:
        person.take(page)
        undo, redo = page.locator("[data-act=undo]"), page.locator("[data-act=redo]")
        expect(undo).to_be_disabled()
        seen = [self.tiers(page)]
        for keys in (
            "oa1",
            "ob1",
            "oc3",
            ["o", "c", "Shift+Digit6"],
            "fq",
            "0",
        ):  # by letter: the focus goes on by itself
            press(page, *keys)
            seen.append(self.tiers(page))
        for expected in reversed(seen[:-1]):
            page.keyboard.press("u")
            assert self.tiers(page) == expected
        expect(undo).to_be_disabled()
        page.keyboard.press("u")
        expect(page.locator("[data-live]")).to_have_text("Nothing to undo.")
        assert page.locator(".flag :checked, [name^=quality-]:checked:not([value=''])").count() == 0
        for expected in seen[1:]:
            redo.click()
            assert self.tiers(page) == expected
        expect(redo).to_be_disabled()
        assert page.locator(".flag :checked").count() == 1
        expect(page.locator('[data-letter="C"] [name^=quality-][value="6"]')).to_be_checked()
        page.keyboard.press("Control+z")
        assert self.tiers(page) == seen[-2]
        expect(page.locator("[data-live]")).to_contain_text("C is in tier 3")
        press(page, "4")
        expect(redo).to_be_disabled()

    def test_what_is_typed_is_one_step_and_the_field_s_own_undo_is_left_alone(self, page: Page, person: Person) -> None:
        person.take(page)
        press(page, "j", "2", "n")
        note = page.locator("#note")
        page.keyboard.type("a word")
        page.keyboard.press("Control+z")
        assert page.locator("#note").input_value() != "a word"
        press(page, "Escape", "u")
        expect(note).to_have_value("")
        assert self.tiers(page)["A"] == "2"

    def test_is_kept_as_a_draft(self, page: Page, person: Person) -> None:
        person.take(page)
        press(page, "j", "1", "2", "u")
        expect(page.locator("[data-saved]")).to_contain_text("Saved")
        page.reload()
        assert self.tiers(page)["A"] == "1"


class TestMoves:
    def test_brackets_and_arrows_move_a_tier_and_equals_ties(self, page: Page, person: Person) -> None:
        person.take(page)
        names, first = letters(page), page.url
        press(page, "j", "2", "[", "[", "j", "3", "Alt+ArrowDown", "]", "j", "=", "j", "3", "=")
        press(page, "Control+Enter")
        page.wait_for_url(lambda url: url != first)
        raw = {sample: row[1] for sample, row in stored()[0].items()}
        assert raw == {names["A"]: 1, names["B"]: 4, names["C"]: 4, names["D"]: 1}

    def test_focus_goes_on_to_the_next_without_a_place(self, browser: Browser, person: Person) -> None:
        context = browser.new_context(reduced_motion="no-preference")
        page = context.new_page()
        person.take(page)
        press(page, "j", "1")
        expect(page.locator('[data-letter="B"]')).to_be_focused()
        press(page, "2")
        expect(page.locator('[data-letter="C"]')).to_be_focused()
        context.close()


class TestEffort:
    def test_tells_what_was_in_view_and_how_often_minds_changed(self, page: Page, person: Person) -> None:
        page.set_viewport_size({"width": 390, "height": 500})
        person.take(page)
        names, first = letters(page), page.url
        press(page, "1", "2", "u", "Shift+U")
        page.wait_for_timeout(1200)
        with page.expect_response("**/draft"):
            press(page, "j", "1")
        page.reload()
        press(page, "o", "b", "j", "1", "j", "1")
        press(page, "Control+Enter")
        page.wait_for_url(lambda url: url != first)
        with db.transaction() as session:
            effort, active_ms = session.execute(select(Judgement.effort, Judgement.active_ms)).one()
        assert active_ms >= 1200
        assert (effort["moves"], effort["undos"], effort["window"]) == (5, 2, "phone")
        assert effort["cards"].keys() == set(names.values())
        assert effort["cards"][names["A"]]["ms"] >= 1000
        assert effort["cards"][names["A"]]["depth"] == 1
        assert effort["cards"][names["A"]]["ms"] > effort["cards"][names["D"]]["ms"]


class TestOffline:
    def test_a_change_of_mind_takes_it_back_and_is_drafted(self, page: Page, person: Person) -> None:
        person.take(page)
        first = page.url
        page.context.set_offline(True)
        press(page, "1", "j", "2", "j", "3", "j", "4", "Control+Enter")
        expect(page.locator("[data-offline]:not(:empty)")).to_contain_text("waits")
        press(page, "1")
        expect(page.locator("[data-offline]:not(:empty)")).to_contain_text("You can go on")
        page.context.set_offline(False)
        expect(page.locator("[data-saved]")).to_contain_text("Saved")
        assert (page.url, stored()) == (first, [])
        press(page, "Control+Enter")
        page.wait_for_url(lambda url: url != first)
        assert [row[1] for row in stored()[0].values()].count(1) == 2

    def test_a_server_that_cannot_be_reached_is_no_connection_either(self, page: Page, person: Person) -> None:
        person.take(page)
        page.route("**/draft", lambda route: route.abort())
        page.route("**/submit", lambda route: route.abort())
        press(page, "1", "j", "2", "j", "3", "j", "4")
        expect(page.locator("[data-offline]:not(:empty)")).to_be_visible()
        press(page, "Control+Enter")
        expect(page.locator("[data-offline]:not(:empty)")).to_contain_text("waits")
        expect(page.locator("#rank")).not_to_have_attribute("inert", "")  # as it is while the answer is tried once more
        press(page, "s", "1")
        expect(page.locator("[data-offline]:not(:empty)")).to_contain_text("Not skipped: no connection.")
        page.goto(f"{person.url}/p/starter/history")  # from where it goes out as well
        expect(page.locator("[data-offline]:not(:empty)")).to_have_text("Sending your answer.")
        page.unroute("**/submit")
        expect(page.locator("[data-offline]:not(:empty)")).to_contain_text("is stored")
        assert (len(stored()), page.evaluate("localStorage.length")) == (1, 0)

    def test_a_skip_that_fails_keeps_the_page_and_a_form_that_is_sent_is_still(
        self, page: Page, person: Person
    ) -> None:
        person.take(page)
        first = page.url
        page.route("**/skip", lambda route: route.abort())
        press(page, "1", "s", "2")
        expect(page.locator("[data-offline]:not(:empty)")).to_contain_text("Not skipped: no connection.")
        assert page.url == first
        held: list[Route] = []
        page.unroute("**/skip")
        page.route("**/skip", partial(list.append, held))
        press(page, "2")
        expect(page.locator("#rank")).to_have_attribute("inert", "")
        press(page, "Escape", "o", "b", "3")
        expect(page.locator('[data-letter="B"] [name^=tier-][value=""]')).to_be_checked()
        held[0].continue_()
        page.wait_for_url(lambda url: url != first)
        with db.transaction() as session:
            assert (
                session.scalars(select(Lease.skip_reason).where(Lease.state == LeaseState.SKIPPED)).one() == "unclear"
            )

    def test_a_draft_is_never_overtaken_and_one_signed_out_says_so(self, page: Page, person: Person) -> None:
        person.take(page)
        held: list[Route] = []
        page.route("**/draft", partial(list.append, held))
        press(page, "1")
        page.wait_for_timeout(1000)
        press(page, "2")
        page.wait_for_timeout(1000)
        assert len(held) == 1  # the second waits for the first
        held[0].continue_()
        page.unroute("**/draft")
        give_up = time.monotonic() + 20
        while "2" not in drafted():
            assert time.monotonic() < give_up
            page.wait_for_timeout(100)
        page.context.clear_cookies()
        press(page, "3")
        expect(page.locator("[data-saved]")).to_contain_text("Your sign-in has ended")
        assert page.locator("[data-offline]").all_inner_texts() == ["", ""]
        assert "2" in drafted() and "3" not in drafted()
        page.locator("[data-saved]").get_by_role("link", name="Sign in").click()
        page.wait_for_url(lambda url: "/login?next=/p/starter/tasks/" in url)

    def test_one_that_was_answered_elsewhere_meanwhile_is_not_stored_twice(self, page: Page, person: Person) -> None:
        person.take(page)
        first = page.url
        page.context.set_offline(True)
        press(page, "1", "j", "1", "j", "1", "j", "1", "Control+Enter")
        expect(page.locator("[data-offline]:not(:empty)")).to_contain_text("waits")
        shelf, kept = page.evaluate("Object.entries(localStorage)[0]")
        page.evaluate("localStorage.clear()")
        page.context.set_offline(False)
        other = page.context.new_page()
        other.goto(first)
        press(other, "2", "j", "2", "j", "2", "j", "2", "Control+Enter")
        other.wait_for_url(lambda url: url != first)
        other.evaluate("([shelf, kept]) => localStorage.setItem(shelf, kept)", [shelf, kept])
        other.reload()
        other.wait_for_url(f"{first}/submit")
        expect(other.get_by_role("heading", name="Your answer is stored")).to_be_visible()
        assert other.evaluate("localStorage.length") == 0
        assert len(stored()) == 1


class TestKeys:
    def choose(self, page: Page, person: Person, **keys: str) -> None:
        """Change keys on one's account page."""
        page.goto(f"{person.url}/account")
        for act, key in keys.items():
            page.locator(f"#key-{act}").fill(key)

    def test_do_what_the_person_chose(self, page: Page, person: Person) -> None:
        person.sign_in(page)
        self.choose(page, person, next="v", skip="X")
        page.get_by_role("button", name="Save keys").click()
        person.take(page)
        press(page, "v", "1", "v", "2", "j", "3")
        names = page.locator("[data-output]:has(input[name^=tier-][value='3']:checked)")
        expect(names).to_have_attribute("data-letter", "B")  # j does nothing any more
        press(page, "Shift+X")
        expect(page.locator('[data-menu="skip"]')).to_have_attribute("open", "")

    def test_off_leave_letters_and_digits_alone(self, page: Page, person: Person) -> None:
        person.sign_in(page)
        self.choose(page, person)
        page.get_by_label("Single keys are on").uncheck()
        page.get_by_role("button", name="Save keys").click()
        person.take(page)
        press(page, "j", "1", "x", "s", "u", "m")
        assert page.locator("input[name^=tier-]:checked:not([value=''])").count() == 0
        expect(page.locator('[data-menu="skip"]')).not_to_have_attribute("open", "")
        click(page, "A", "tier", "2")
        press(page, "Alt+ArrowUp")
        expect(page.locator('[data-letter="A"] input[name^="tier-"][value="1"]')).to_be_checked()
        press(page, "Control+z", "Control+z")
        assert page.locator("input[name^=tier-]:checked:not([value=''])").count() == 0


class TestPanels:
    def test_raw_text_comes_and_goes(self, page: Page, person: Person) -> None:
        person.take(page)
        raw, rendered = page.locator(".output-raw").first, page.locator(".output-text").first
        expect(raw).to_be_hidden()
        page.keyboard.press("m")
        expect(raw).to_be_visible()
        expect(rendered).to_be_hidden()
        page.get_by_role("button", name="Raw").click()
        expect(rendered).to_be_visible()

    def test_guidelines_open_beside_the_task_and_focus_comes_back(self, page: Page, person: Person) -> None:
        person.take(page)
        press(page, "j", "j", "g")
        panel = page.get_by_role("group", name="Guidelines")
        expect(panel).to_be_focused()
        page.keyboard.press("Escape")
        expect(panel).to_be_hidden()
        expect(page.locator('[data-letter="B"]')).to_be_focused()

    @pytest.mark.parametrize("width", [390, 768, 1280, 1440])
    def test_every_panel_lies_within_the_window(self, page: Page, person: Person, width: int) -> None:
        page.set_viewport_size({"width": width, "height": 900})
        person.take(page)
        for key in ("g", "n", "s") + (("?",) if width >= 768 else ()):
            page.keyboard.press(key)
            box = page.locator("[open] > .rank-panel").bounding_box()
            assert box is not None
            assert box["x"] >= 0 and box["x"] + box["width"] <= width and box["y"] >= 0, (key, box)
            page.keyboard.press("Escape")

    def test_the_prompt_is_a_key_away(self, page: Page, person: Person) -> None:
        person.take(page)
        press(page, "j", "j", "p")
        expect(page.locator(".rank-prompt-text")).to_be_focused()
        page.keyboard.press("p")
        expect(page.locator('[data-letter="B"]')).to_be_focused()


class TestNext:
    def rank_all(self, page: Page) -> None:
        press(page, "1", "j", "2", "j", "3", "j", "4", "Control+Enter")

    def test_submit_and_skip_swap_the_next_task_in(self, page: Page, person: Person) -> None:
        person.take(page)
        first, names = page.url, letters(page)
        page.evaluate("window.isSamePage = true")
        self.rank_all(page)
        page.wait_for_url(lambda url: url != first)
        live = page.locator("[data-live]")
        expect(live).to_have_text("Stored. Next task.")
        expect(page.locator('[data-letter="A"]')).to_be_focused()
        assert page.evaluate("[isSamePage, scrollY]") == [True, 0]
        assert set(letters(page).values()).isdisjoint(names.values())
        expect(page.locator("[data-act=undo]")).to_be_disabled()
        second = page.url
        press(page, "j", "k", "2", "s", "1")
        page.wait_for_url(lambda url: not url.startswith(second))
        expect(live).to_have_text("Skipped. Next task.")
        assert page.evaluate("isSamePage")
        page.get_by_role("link", name="Go back to it after all").click()
        expect(page.locator('[data-letter="A"] input[name^="tier-"][value="2"]')).to_be_checked()
        assert len(stored()) == 1

    def test_back_leads_to_the_task_before(self, page: Page, person: Person) -> None:
        person.take(page)
        first = page.url
        self.rank_all(page)
        page.wait_for_url(lambda url: url != first)
        page.evaluate("history.back()")
        expect(page.get_by_role("heading", name="Your answer is stored")).to_be_visible()
        assert page.url == first

    def test_what_is_refused_comes_back_in_place_with_what_was_chosen(self, page: Page, person: Person) -> None:
        person.take(page)
        first = page.url
        page.evaluate("window.isSamePage = true")
        page.locator("[name=schema]").evaluate("field => field.value = '99'")
        self.rank_all(page)
        expect(page.get_by_role("alert")).to_contain_text("There is no version 99")
        assert (page.url, page.evaluate("isSamePage"), stored()) == (first, True, [])
        expect(page.locator('[data-letter="D"] input[name^="tier-"][value="4"]')).to_be_checked()
        self.rank_all(page)
        page.wait_for_url(lambda url: url != first)
        assert len(stored()) == 1

    def test_a_server_that_fails_gets_the_answer_once_it_works(self, page: Page, person: Person) -> None:
        person.take(page)
        first = page.url
        page.route("**/submit", lambda route: route.fulfill(status=503, body="busy"), times=2)
        self.rank_all(page)
        expect(page.locator("[data-offline]:not(:empty)")).to_contain_text("Sending your answer")
        page.wait_for_url(lambda url: url != first)
        assert len(stored()) == 1
