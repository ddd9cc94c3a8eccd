"""The ranking screen in Chromium: by mouse, by keyboard, with scripts off; each ends in rows equal to the acts."""

import uuid

import pytest
from playwright.sync_api import Browser, Page, expect
from sqlalchemy import select

from app import db
from app.models import (
    Draft,
    Judgement,
    JudgementRank,
    Lease,
    LeaseState,
    Sample,
    TaskOutput,
)
from tests.browser.person import Person

pytestmark = pytest.mark.browser


def letters(page: Page) -> dict[str, str]:
    """The sample behind each letter."""
    cards = page.locator("[data-output]")
    return {card.get_attribute("data-letter") or "": card.get_attribute("data-output") or "" for card in cards.all()}


def stored() -> list[dict[str, tuple[int | None, int | None, str | None, int | None]]]:
    """Every judgement in order of time: tier, raw column, reason and quality by sample."""
    with db.transaction() as session:
        rows = session.execute(
            select(JudgementRank, Sample.uid)
            .join(TaskOutput, TaskOutput.id == JudgementRank.output_id)
            .join(Sample, Sample.id == TaskOutput.sample_id)
            .order_by(JudgementRank.judgement_id)
        ).all()
        found: dict[int, dict[str, tuple[int | None, int | None, str | None, int | None]]] = {}
        for rank, sample in rows:
            found.setdefault(rank.judgement_id, {})[str(sample)] = (
                rank.tier,
                rank.raw_column,
                rank.reason,
                rank.quality,
            )
        return list(found.values())


def click(page: Page, letter: str, part: str, value: str) -> None:
    """Click one key of a scale, where a person would."""
    page.locator(f'[data-letter="{letter}"] label:has(input[name^="{part}-"][value="{value}"])').click()


def press(page: Page, *keys: str) -> None:
    for key in keys:
        page.keyboard.press(key)


class TestByMouse:
    def test_rows_equal_the_clicks(self, page: Page, person: Person) -> None:
        person.take(page)
        names, first = letters(page), page.url
        submit = page.get_by_role("button", name="Submit and next")
        expect(submit).to_be_disabled()
        expect(page.locator("[data-missing]")).to_have_text("No place yet: A, B, C, D.")
        for letter, tier in {"A": "3", "B": "1", "C": "3"}.items():
            click(page, letter, "tier", tier)
        click(page, "D", "tier", "x")
        expect(page.locator("[data-missing]")).to_have_text("No reason yet: D.")
        expect(submit).to_be_disabled()
        page.locator('[data-letter="D"] select[name^="reason-"]').select_option("broken")
        click(page, "B", "quality", "7")
        rows = page.locator(".ladder-row")
        assert [row.locator(".chip").count() for row in rows.all()] == [1, 0, 2, 0, 0, 1]
        submit.click()
        page.wait_for_url(lambda url: url != first)
        assert stored() == [
            {
                names["A"]: (2, 3, None, None),
                names["B"]: (1, 1, None, 7),
                names["C"]: (2, 3, None, None),
                names["D"]: (None, None, "broken", None),
            }
        ]
        with db.transaction() as session:
            judgement = session.scalars(select(Judgement)).one()
            assert judgement.active_ms is not None
            assert 0 < judgement.active_ms < 60_000

    def test_a_choice_can_be_taken_back(self, page: Page, person: Person) -> None:
        person.take(page)
        for letter in "ABCD":
            click(page, letter, "tier", "1")
        expect(page.get_by_role("button", name="Submit and next")).to_be_enabled()
        click(page, "C", "tier", "")
        expect(page.locator("[data-missing]")).to_have_text("No place yet: C.")

    def test_a_double_click_on_submit_is_stored_once(self, page: Page, person: Person) -> None:
        person.take(page)
        first = page.url
        for letter, tier in zip("ABCD", "1234", strict=True):
            click(page, letter, "tier", tier)
        page.get_by_role("button", name="Submit and next").dblclick()
        page.wait_for_url(lambda url: url != first)
        expect(page.locator("[data-output]")).to_have_count(4)
        assert len(stored()) == 1


class TestByKeyboard:
    def test_rows_equal_the_keys(self, page: Page, person: Person) -> None:
        person.take(page)
        names, first = letters(page), page.url
        press(page, "j", "2", "Shift+Digit6")
        press(page, "j", "Numpad1", "j", "2", "j", "x")
        expect(page.locator('[data-letter="D"] select[name^="reason-"]')).to_be_focused()
        page.keyboard.press("ArrowDown")
        press(page, "Escape", "k", "0", "4", "n")
        page.keyboard.type("1 2 x s j: typed, not done")
        press(page, "Escape", "Control+Enter")
        page.wait_for_url(lambda url: url != first)
        assert stored() == [
            {
                names["A"]: (2, 2, None, 6),
                names["B"]: (1, 1, None, None),
                names["C"]: (3, 4, None, None),
                names["D"]: (None, None, "broken", None),
            }
        ]
        with db.transaction() as session:
            assert session.scalars(select(Judgement.note)).one() == "1 2 x s j: typed, not done"

    def test_a_digit_first_takes_the_first_response_and_j_goes_on_to_the_second(
        self, page: Page, person: Person
    ) -> None:
        person.take(page)
        names, first = letters(page), page.url
        press(page, "1", "j", "2", "j", "3", "j", "4")
        press(page, "Control+Enter")
        page.wait_for_url(lambda url: url != first)
        tiers = {sample: row[0] for sample, row in stored()[0].items()}
        assert tiers == {names["A"]: 1, names["B"]: 2, names["C"]: 3, names["D"]: 4}

    def test_control_enter_does_nothing_before_every_output_has_a_place(self, page: Page, person: Person) -> None:
        person.take(page)
        first = page.url
        press(page, "j", "1", "j", "2", "Control+Enter")
        page.wait_for_timeout(300)
        assert page.url == first
        assert stored() == []

    def test_a_bare_enter_submits_nothing(self, page: Page, person: Person) -> None:
        person.take(page)
        first = page.url
        for letter in "ABCD":
            click(page, letter, "tier", "1")
        page.keyboard.press("Enter")
        page.wait_for_timeout(300)
        assert page.url == first
        assert stored() == []

    def test_skip_goes_by_two_keys_and_can_be_undone(self, page: Page, person: Person) -> None:
        person.take(page)
        first = page.url
        press(page, "j", "3", "s", "2")
        page.wait_for_url(lambda url: url != first)
        with db.transaction() as session:
            lease = session.scalars(select(Lease).where(Lease.state == LeaseState.SKIPPED)).one()
            assert lease.skip_reason == "unclear"
        page.get_by_role("link", name="Go back to it after all").click()
        expect(page.get_by_text("You skipped this task.")).to_be_visible()
        expect(page.locator('[data-letter="A"] input[name^="tier-"][value="3"]')).to_be_checked()

    def test_says_where_an_output_moved(self, page: Page, person: Person) -> None:
        person.take(page)
        press(page, "j", "2", "j", "2")
        expect(page.locator("[data-live]")).to_have_text("B is in tier 2, tied with A. 2 unranked.")


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
        for keys in (["j", "1"], ["j", "1"], ["j", "3"], ["Shift+Digit6"], ["f", "q"], ["0"]):
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


class TestKeys:
    def choose(self, page: Page, person: Person, **keys: str) -> None:
        """Change keys on one's account page."""
        page.goto(f"{person.url}/account")
        for act, key in keys.items():
            page.locator(f"#key-{act}").fill(key)

    def test_do_what_the_person_chose(self, page: Page, person: Person) -> None:
        person.sign_in(page)
        self.choose(page, person, next="d", skip="X")
        page.get_by_role("button", name="Save keys").click()
        person.take(page)
        press(page, "d", "1", "d", "2", "j", "3")
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

    def test_the_prompt_is_a_key_away(self, page: Page, person: Person) -> None:
        person.take(page)
        press(page, "j", "j", "p")
        expect(page.locator(".rank-prompt-text")).to_be_focused()
        page.keyboard.press("p")
        expect(page.locator('[data-letter="B"]')).to_be_focused()


class TestQuestions:
    """What the label schema asks: the paper's fields, by key, by mouse and with scripts off."""

    def answers(self) -> tuple[int | None, dict[str, object], dict[str, dict[str, object]]]:
        """Confidence, answers about prompt and task, and those about each sample, of the one judgement there is."""
        with db.transaction() as session:
            judgement = session.scalars(select(Judgement)).one()
            rows = session.execute(
                select(Sample.uid, JudgementRank.answers)
                .join(TaskOutput, TaskOutput.id == JudgementRank.output_id)
                .join(Sample, Sample.id == TaskOutput.sample_id)
            ).all()
            return judgement.confidence, judgement.answers, {str(sample): said for sample, said in rows}

    def test_rows_equal_the_keys(self, page: Page, person: Person) -> None:
        person.take(page)
        names, first = letters(page), page.url
        hallucinates = page.locator('[data-letter="A"] [data-field="hallucinates"]')
        press(page, "l", "w", "Escape")  # closed domain, so that the next is asked
        press(page, "1", "f")
        expect(hallucinates).to_be_visible()
        press(page, "q", "e", "j", "2", "f", "t", "t", "f", "j", "3", "j", "4")
        press(page, "n")
        page.locator('.rank-panel [name="ask-confidence"][value="3"]').check()
        press(page, "5")  # the scale has the focus, not a response
        expect(page.locator('[data-letter="A"] [data-count]')).to_have_text("2")
        expect(page.locator('[data-letter="B"] [data-count]')).to_have_text("")
        press(page, "Control+Enter")
        page.wait_for_url(lambda url: url != first)
        assert self.answers() == (
            5,
            {"closed_domain": True},
            {names["A"]: {"fails_task": True, "hallucinates": True}, names["B"]: {}, names["C"]: {}, names["D"]: {}},
        )

    def test_a_question_that_depends_on_another_comes_and_goes_with_it(self, page: Page, person: Person) -> None:
        person.take(page)
        names, first = letters(page), page.url
        field = page.locator('[data-letter="A"] [data-field="meets_constraints"]')
        page.locator('[data-letter="A"] summary').click()
        expect(field).to_be_hidden()
        page.get_by_text("About this prompt").click()
        constraint = page.get_by_label("States a constraint")
        constraint.check()
        field.locator("input").check()
        constraint.uncheck()
        expect(field).to_be_hidden()
        for at, letter in enumerate("ABCD", start=1):
            click(page, letter, "tier", str(at))
        page.get_by_role("button", name="Submit and next").click()
        page.wait_for_url(lambda url: url != first)
        assert self.answers() == (None, {}, {sample: {} for sample in names.values()})

    def test_are_answered_with_scripts_off(self, browser: Browser, person: Person) -> None:
        context = browser.new_context(java_script_enabled=False)
        page = context.new_page()
        person.take(page)
        names, first = letters(page), page.url
        page.get_by_text("About this prompt").click()
        page.get_by_label("Use case").select_option("chat")
        page.locator('[data-letter="B"] summary').click()
        page.locator('[data-letter="B"]').get_by_label("Sexual content").check()
        for letter in "ABCD":
            click(page, letter, "tier", "1")
        page.get_by_role("button", name="Submit and next").click()
        page.wait_for_url(lambda url: "/tasks/" in url and not url.startswith(first))
        confidence, about, outputs = self.answers()
        assert (confidence, about) == (None, {"use_case": "chat"})
        assert outputs == {sample: {"sexual": True} if sample == names["B"] else {} for sample in names.values()}
        context.close()


class TestDraft:
    def test_is_saved_within_a_second_and_restored(self, page: Page, person: Person) -> None:
        person.take(page)
        click(page, "B", "tier", "4")
        click(page, "A", "quality", "2")
        expect(page.locator("[data-saved]")).to_contain_text("Saved", timeout=2500)
        page.reload()
        expect(page.locator('[data-letter="B"] input[name^="tier-"][value="4"]')).to_be_checked()
        expect(page.locator('[data-letter="A"] input[name^="quality-"][value="2"]')).to_be_checked()
        expect(page.locator("[data-missing]")).to_have_text("No place yet: A, C, D.")

    def test_is_sent_on_leaving_the_page(self, page: Page, person: Person) -> None:
        person.take(page)
        sample = letters(page)["B"]
        click(page, "B", "tier", "3")
        page.goto(f"{person.url}/p/starter/guidelines")
        page.wait_for_timeout(500)
        with db.transaction() as session:
            assert session.scalars(select(Draft.content)).one()["choices"][sample]["tier"] == "3"


class TestTwoTabs:
    def test_the_second_is_told_that_the_first_was_stored(self, page: Page, person: Person) -> None:
        person.take(page)
        task = page.url
        other = page.context.new_page()
        other.goto(task)
        for letter, tier in zip("ABCD", "1234", strict=True):
            click(page, letter, "tier", tier)
            click(other, letter, "tier", "1")
        page.get_by_role("button", name="Submit and next").click()
        page.wait_for_url(lambda url: url != task)
        other.get_by_role("button", name="Submit and next").click()
        expect(other.get_by_role("alert")).to_contain_text("already submitted")
        assert len(stored()) == 1


class TestScriptsOff:
    def test_the_plain_form_ranks_all_the_same(self, browser: Browser, person: Person) -> None:
        context = browser.new_context(java_script_enabled=False)
        page = context.new_page()
        person.take(page)
        names, first = letters(page), page.url
        expect(page.locator("[data-ladder]")).to_be_hidden()
        for letter, tier in {"A": "1", "B": "1", "C": "2"}.items():
            click(page, letter, "tier", tier)
        page.get_by_role("button", name="Submit and next").click()
        expect(page.get_by_role("alert")).to_contain_text("Output D has no place yet")
        expect(page.locator('[data-letter="C"] input[name^="tier-"][value="2"]')).to_be_checked()
        click(page, "D", "tier", "x")
        page.locator('[data-letter="D"] select[name^="reason-"]').select_option("unsure")
        page.get_by_role("button", name="Submit and next").click()
        page.wait_for_url(lambda url: "/tasks/" in url and not url.startswith(first))
        assert stored() == [
            {
                names["A"]: (1, 1, None, None),
                names["B"]: (1, 1, None, None),
                names["C"]: (2, 2, None, None),
                names["D"]: (None, None, "unsure", None),
            }
        ]
        context.close()


def test_every_output_is_a_different_sample(page: Page, person: Person) -> None:
    person.take(page)
    assert len({uuid.UUID(sample) for sample in letters(page).values()}) == 4
