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
from tests.browser.ranking import click, letters, press, stored

pytestmark = pytest.mark.browser


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
        press(page, "j", "3")
        third = page.locator('[data-letter="A"] input[name^="tier-"][value="3"]')
        expect(third).to_be_checked()
        press(page, "s", "2")
        page.wait_for_url(lambda url: url != first)
        with db.transaction() as session:
            lease = session.scalars(select(Lease).where(Lease.state == LeaseState.SKIPPED)).one()
            assert lease.skip_reason == "unclear"
        page.get_by_role("link", name="Go back to it after all").click()
        expect(page.get_by_text("You skipped this task.")).to_be_visible()
        expect(third).to_be_checked()

    def test_says_where_an_output_moved(self, page: Page, person: Person) -> None:
        person.take(page)
        press(page, "j", "2", "j", "2")
        expect(page.locator("[data-live]")).to_have_text("B is in tier 2, tied with A. 2 unranked.")


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
        press(page, "q", "e", "j", "2", "f", "y", "y", "f", "j", "3", "j", "4")
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
        expect(page.locator("[data-saved]")).to_contain_text("Saved")
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


def test_every_output_is_a_different_sample(page: Page, person: Person) -> None:
    person.take(page)
    assert len({uuid.UUID(sample) for sample in letters(page).values()}) == 4
