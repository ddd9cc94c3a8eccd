"""The labeller's desk in Chromium: ask by key and keep the work, an admin's answer, sensitive content, the home page."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect
from sqlalchemy import select, update

from app import db
from app.models import Membership, Project, Question, Role, Task
from app.services import accounts
from app.web.deps import SESSION_COOKIE
from tests.app.registry import make_user
from tests.browser.person import Person
from tests.browser.ranking import press
from tests.browser.test_labelling_accessibility import look

pytestmark = pytest.mark.browser


@pytest.fixture(params=[("light", 1440), ("dark", 390)], ids=["light, wide", "dark, narrow"])
def pages(browser: Browser, request: pytest.FixtureRequest, person: Person) -> Iterator[tuple[Page, Page]]:
    """A labeller's page and an admin's. The checker injects a script, which the page's own policy would refuse."""
    scheme, width = request.param
    with db.transaction() as session:
        project = session.scalars(select(Project).where(Project.slug == "starter")).one()
        admin = make_user(session, name="Grace")
        session.add(Membership(project_id=project.id, user_id=admin.id, roles=[Role.ADMIN]))
        token = accounts.sign_in(session, admin)
    contexts = [
        browser.new_context(
            color_scheme=scheme, reduced_motion="reduce", viewport={"width": width, "height": 900}, bypass_csp=True
        )
        for _ in "ab"
    ]
    labeller, inbox = (context.new_page() for context in contexts)
    person.sign_in(labeller)
    inbox.context.add_cookies([{"name": SESSION_COOKIE, "value": token, "url": person.url}])
    yield labeller, inbox
    for context in contexts:
        context.close()


def test_a_question_by_key_comes_back_answered(pages: tuple[Page, Page], person: Person) -> None:
    page, admin = pages
    person.take(page)
    task = page.url
    press(page, "j", "2", "Shift+A")
    expect(page.locator("#question")).to_be_focused()
    look(page, "the panel that asks")
    page.keyboard.type("Is the second cut off?")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator("#asked")).to_contain_text("Waits for an admin")
    assert page.url.split("#")[0] == task.split("#")[0]
    expect(page.locator('input[name^="tier-"][value="2"]:checked')).to_have_count(1)
    look(page, "a question that waits")

    admin.goto(f"{person.url}/p/starter/")
    look(admin, "an admin's home")
    admin.get_by_role("link", name="One question waits in the inbox").click()
    look(admin, "the inbox")
    admin.get_by_role("link", name="Is the second cut off?").click()
    look(admin, "a question")
    admin.get_by_role("textbox", name="Answer").fill("Yes. Rank what is there.")
    admin.get_by_role("button", name="Send the answer").click()
    admin.get_by_role("link", name="Make this a guideline example").click()
    look(admin, "guidelines with an example")
    admin.get_by_role("button", name="Publish").click()

    page.goto(f"{person.url}/p/starter/")
    look(page, "home with notices")
    page.get_by_role("link", name="Read the answer").click()
    expect(page.get_by_text("Yes. Rank what is there.")).to_be_visible()
    look(page, "one's own questions")
    page.goto(f"{person.url}/p/starter/guidelines")
    expect(page.locator(".changes ins").first).to_be_visible()
    look(page, "guidelines with changes")
    with db.transaction() as session:
        assert session.scalars(select(Question.guideline_id)).one() is not None


def test_sensitive_content_is_shown_by_a_key_and_left_by_a_click(pages: tuple[Page, Page], person: Person) -> None:
    page, admin = pages
    with db.transaction() as session:
        session.execute(update(Task).values(needs=["content:violence"]))
    page.goto(f"{person.url}/p/starter/rank")
    page.get_by_role("link", name="Your choice").click()
    page.get_by_label("Violence").check()
    look(page, "the choice of content")
    page.get_by_role("button", name="Save").click()
    page.goto(f"{person.url}/p/starter/rank")
    page.get_by_role("button", name="Get a task").click()
    expect(page.get_by_role("button", name="Show the task")).to_be_focused()
    look(page, "before a task with sensitive content")
    page.keyboard.press("Enter")
    expect(page.locator("[data-output]")).to_have_count(4)
    page.wait_for_load_state()
    page.reload()
    expect(page.locator("[data-output]")).to_have_count(4)
    press(page, "s")
    page.get_by_role("button", name="show me no more of this kind").click()
    told = page.get_by_role("status").filter(has_text="You get no more tasks with: Violence")
    expect(told).to_be_visible()
    admin.goto(f"{person.url}/p/starter/people")
    look(admin, "people, with announcements")
