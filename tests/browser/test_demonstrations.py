"""Writing a demonstration in Chromium: the live count, the draft, and the text that is stored."""

import pytest
from playwright.sync_api import Page, expect
from sqlalchemy import select

from app import db
from app.models import (
    Cohort,
    Demonstration,
    DemonstrationOrigin,
    Project,
    Role,
    Sample,
    SampleOrigin,
    Sampler,
    Task,
    User,
)
from app.permissions import Access
from app.services import demonstrations
from tests.browser.person import Person

pytestmark = pytest.mark.browser


def test_the_text_survives_a_reload_and_is_stored_as_written(page: Page, person: Person) -> None:
    text = person.begin_text(page)
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


def test_the_text_is_shown_rendered_and_a_model_s_response_can_be_taken_back(page: Page, person: Person) -> None:
    with db.transaction() as session:
        project = session.scalars(select(Project).where(Project.slug == "starter")).one()
        access = Access(session.get_one(User, person.user_id), project, frozenset([Role.LABELLER]), Cohort.TRAINING)
        lease = demonstrations.lease_next(session, access)
        assert lease is not None
        task = session.get_one(Task, lease.task_id)
        sampler = session.scalars(select(Sampler).where(Sampler.project_id == project.id)).first()
        sample = Sample(
            project_id=project.id,
            prompt_id=task.prompt_id,
            origin=SampleOrigin.MODEL,
            sampler_id=sampler.id if sampler else None,
            text="A *robin*.",
            html="",
        )
        session.add(sample)
    person.sign_in(page)
    page.goto(f"{person.url}/p/starter/demonstrate")
    text, preview = page.get_by_label("Your response"), page.locator("#preview")
    expect(page.get_by_role("button", name="Preview")).to_be_hidden()
    page.keyboard.type("An **owl** of $2^3$")
    expect(preview.locator("strong")).to_have_text("owl")
    expect(preview.locator("math")).to_be_visible()
    page.get_by_text("Start from a response of the model").click()
    page.get_by_role("button", name="Put it into the field").click()
    expect(text).to_have_value("A *robin*.")
    expect(preview.locator("em")).to_have_text("robin")
    parent = page.locator("[name=parent]")
    assert parent.input_value() == str(sample.uid)
    page.keyboard.press("Control+z")
    expect(text).to_have_value("An **owl** of $2^3$")
    assert parent.input_value() == ""
    page.keyboard.press("Control+Shift+z")
    expect(text).to_have_value("A *robin*.")
    page.keyboard.type(" Or two.")
    page.keyboard.press("Control+Enter")
    page.wait_for_url(lambda url: str(task.uid) not in url)
    with db.transaction() as session:
        written = session.scalars(select(Demonstration).where(Demonstration.author_id == person.user_id)).one()
        assert (written.origin, written.parent_id) == (DemonstrationOrigin.EDITED, sample.id)
        assert written.text.startswith("A *robin*.") and written.active_ms is not None


def test_an_empty_text_is_refused_with_the_reason(page: Page, person: Person) -> None:
    person.sign_in(page)
    page.goto(f"{person.url}/p/starter/demonstrate")
    page.get_by_role("button", name="Get a prompt").click()
    page.get_by_role("button", name="Submit and next").click()
    expect(page.get_by_role("alert")).to_contain_text("The response is empty")
