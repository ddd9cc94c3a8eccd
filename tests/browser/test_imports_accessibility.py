"""The pages of imports and prompts as axe sees them: no violation, light and dark, wide and narrow, and none runs over."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page
from sqlalchemy import select

from app import db
from app.models import Cohort, Import, ImportKind, Project, Prompt, Role, User
from app.permissions import Access
from app.services import accounts
from app.web.deps import SESSION_COOKIE
from tests.browser.test_labelling_accessibility import look
from tests.workers.tasks.importing import bring, put, start

pytestmark = pytest.mark.browser


@pytest.fixture(params=[("light", 1440), ("dark", 390)], ids=["light, wide", "dark, narrow"])
def page(browser: Browser, request: pytest.FixtureRequest) -> Iterator[Page]:
    scheme, width = request.param
    context = browser.new_context(
        color_scheme=scheme, reduced_motion="reduce", viewport={"width": width, "height": 900}, bypass_csp=True
    )
    yield context.new_page()
    context.close()


def test_imports_and_prompts(page: Page, live_url: str) -> None:
    with db.transaction() as session:
        project = session.scalars(select(Project)).one()
        owner = session.scalars(select(User).where(User.is_owner)).one()
        access = Access(owner, project, frozenset(Role), Cohort.TRAINING)
        token = accounts.sign_in(session, owner)
    rows = [{"prompt": f"What is {number} and {number}?"} for number in range(60)]
    bring(access, [*rows, {"prompt": "Write to anna@example.com"}, "{broken"])
    draft = put(access, b"question,answer\nWhat is it?,A bird.\n", ImportKind.RANKINGS, name="table.csv")
    waiting = put(access, b'{"prompt": "One?"}\n')
    start(access, waiting)
    with db.transaction() as session:
        done = session.scalars(select(Import.uid).order_by(Import.id)).first()
        assert session.scalar(select(Prompt.id)) is not None
    page.context.add_cookies([{"name": SESSION_COOKIE, "value": token, "url": live_url}])
    for path in (
        "imports",
        "imports/new",
        f"imports/{draft}",
        f"imports/{waiting}",
        f"imports/{done}",
        "prompts",
        "prompts?status=pii",
        "prompts/figures",
        "prompts/pools",
        "prompts/quarantine",
    ):
        page.goto(f"{live_url}/p/starter/{path}")
        look(page, path)
