"""A labeller at a browser: signed in, guidelines read, ready for the starter project's queue."""

from dataclasses import dataclass

from playwright.sync_api import Locator, Page, expect
from sqlalchemy import select

from app import db
from app.models import Cohort, Membership, Project, Role
from app.permissions import Access
from app.services import accounts, guidelines
from app.web.deps import SESSION_COOKIE
from tests.app.registry import make_user


@dataclass(frozen=True)
class Person:
    """A labeller of the starter project with their cookie."""

    user_id: int
    token: str
    url: str

    def sign_in(self, page: Page) -> None:
        """Give the browser the cookie."""
        page.context.add_cookies([{"name": SESSION_COOKIE, "value": self.token, "url": self.url}])

    def take(self, page: Page) -> None:
        """Open the queue and take a task."""
        self.sign_in(page)
        page.goto(f"{self.url}/p/starter/rank")
        page.get_by_role("button", name="Get a task").click()
        expect(page.locator("[data-output]")).to_have_count(4)
        page.wait_for_load_state()

    def begin_text(self, page: Page) -> Locator:
        """Take a prompt to write for; the field of the text, which has the focus."""
        self.sign_in(page)
        page.goto(f"{self.url}/p/starter/demonstrate")
        page.get_by_role("button", name="Get a prompt").click()
        text = page.get_by_label("Your response")
        expect(text).to_be_focused()
        page.wait_for_load_state()
        return text


def make_person(url: str) -> Person:
    """A new labeller of the starter project served at `url`. Commits."""
    with db.transaction() as session:
        project = session.scalars(select(Project).where(Project.slug == "starter")).one()
        user = make_user(session)
        session.add(Membership(project_id=project.id, user_id=user.id, roles=[Role.LABELLER]))
        access = Access(user, project, frozenset([Role.LABELLER]), Cohort.TRAINING)
        if guideline := guidelines.unread(session, access):
            guidelines.acknowledge(session, access, guideline)
        return Person(user.id, accounts.sign_in(session, user), url)
