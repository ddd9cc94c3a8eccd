"""Sampling plans in Chromium: from the form to the start without any script, and accessible in both schemes and sizes."""

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect
from sqlalchemy import select

from app import db
from app.models import Checkpoint, Job, JobState, Project
from app.services import accounts
from app.web.deps import SESSION_COOKIE
from tests.app import registry

pytestmark = pytest.mark.browser


def sign_in(page: Page, url: str) -> None:
    with db.transaction() as session:
        token = accounts.sign_in(session, accounts.ensure_owner(session))
    page.context.add_cookies([{"name": SESSION_COOKIE, "value": token, "url": url}])


def test_a_plan_is_ordered_without_scripts(browser: Browser, live_url: str) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    sign_in(page, live_url)
    page.goto(f"{live_url}/p/starter/sampling")
    page.get_by_role("link", name="New plan").click()
    page.get_by_label("Name").fill("Two temperatures")
    page.locator("#parts-0-responses").fill("2")
    page.get_by_text("Part 2", exact=True).first.click()
    page.locator("#parts-1-source").select_option(index=1)
    page.locator("#parts-1-responses").fill("2")
    page.locator("#parts-1-temperature").fill("9")
    page.get_by_label("How many").fill("8")
    page.get_by_role("button", name="See what it costs").click()
    page.locator("#parts-1-temperature").fill(
        "0.6"
    )  # the browser's own check kept the form, or the server showed it again
    page.get_by_role("button", name="See what it costs").click()
    expect(page.get_by_text("Nothing is drawn before you start it.")).to_be_visible()
    expect(page.get_by_role("row", name="T 0.6")).to_be_visible()
    page.get_by_role("button", name="Start the plan").click()
    expect(page.get_by_text("Waits for the worker")).to_be_visible()
    page.get_by_role("button", name="Stop the plan").click()
    expect(page.get_by_role("button", name="Go on from where it ended")).to_be_visible()
    context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440])
def test_its_pages_are_accessible_and_fit(browser: Browser, live_url: str, scheme: str, width: int) -> None:
    with db.transaction() as session:
        project = session.scalars(select(Project).where(Project.slug == "starter")).one()
        base = session.scalars(select(Checkpoint)).one()
        registry.make_endpoint(session, project)
        draft, failed = (registry.make_plan(session, project, base) for _ in range(2))
        job = Job(project_id=project.id, kind="sample_plan", state=JobState.FAILED, error="The files are gone.")
        session.add(job)
        session.flush()
        failed.job_id = job.id
    paths = ("sampling", "sampling/new", f"sampling/{draft.uid}", f"sampling/{failed.uid}", "endpoints")
    context = browser.new_context(
        viewport={"width": width, "height": 900},
        color_scheme=scheme,
        reduced_motion="reduce",  # type: ignore[arg-type]
    )
    page = context.new_page()
    sign_in(page, live_url)
    for path in paths:
        page.goto(f"{live_url}/p/starter/{path}")
        page.evaluate("document.querySelectorAll('details').forEach((panel) => (panel.open = true))")
        found = Axe().run(page)
        assert found.violations_count == 0, f"{path}: {found.generate_report()}"
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path
    context.close()
