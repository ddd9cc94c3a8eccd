"""The pipeline and run pages in Chromium: live figures and curves, nothing a reader opened closes, accessible in both themes."""

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, Route, expect
from sqlalchemy import select

from app import db
from app.models import Project, Run, RunKind, User
from app.services import accounts, counters, jobs, runs
from app.services.jobs import Claim
from app.services.runs import Report
from app.web.deps import SESSION_COOKIE

pytestmark = pytest.mark.browser


@pytest.fixture
def training(live_url: str) -> tuple[Run, Claim]:
    """An SFT run of the starter project that has done three steps."""
    with db.transaction() as session:
        project = session.scalars(select(Project)).one()
        run = runs.request_run(session, project, kind=RunKind.SFT, reason="The first SFT model.")
    with db.transaction() as session:
        claim = jobs.claim(session, run.job_id)
        assert claim is not None
    for step in (1, 2, 3):
        report(run, claim, step)
    return run, claim


def report(run: Run, claim: Claim, step: int) -> None:
    with db.transaction() as session:
        metrics = {step: {"loss": 4 / step, "lr": 1e-3, "grad_norm": 1.0}}
        said = Report(metrics=metrics, logs=[f"said at step {step}"], step=step, total=40, eta_seconds=60.0)
        runs.save_report(session, claim, run.id, said)


def sign_in(page: Page, url: str) -> None:
    with db.transaction() as session:
        token = accounts.sign_in(session, session.scalars(select(User)).one())
    page.context.add_cookies([{"name": SESSION_COOKIE, "value": token, "url": url}])


def test_a_run_page_follows_its_run(page: Page, live_url: str, training: tuple[Run, Claim]) -> None:
    run, claim = training
    sign_in(page, live_url)
    page.goto(f"{live_url}/p/starter/runs/{run.uid}")
    loss = page.locator(".chart", has_text="Training loss")
    expect(loss.locator(".chart-reading")).to_have_text("1.333")
    loss.locator("canvas").evaluate("canvas => canvas.dataset.mark = 'first'")
    page.get_by_text("The curves as numbers").click()

    report(run, claim, 4)

    expect(loss.locator(".chart-reading")).to_have_text("1.000")
    expect(page.locator(".numbers tbody tr").first).to_contain_text("4")
    expect(page.locator(".numbers tbody")).to_be_visible()
    expect(page.locator("canvas[data-mark=first]")).to_have_count(1)
    expect(page.get_by_text("said at step 4")).to_be_visible()

    with db.transaction() as session:
        jobs.fail(session, claim, "The loss is not a number.")
    expect(page.get_by_text("The loss is not a number.")).to_be_visible()
    expect(page.locator("#run")).not_to_have_attribute("hx-trigger", "every 2s")


def test_the_pipeline_page_follows_the_loop(page: Page, live_url: str, training: tuple[Run, Claim]) -> None:
    run, claim = training
    sign_in(page, live_url)
    page.goto(f"{live_url}/p/starter/pipeline")
    expect(page.get_by_text("Step 3 of 40")).to_be_visible()
    with db.transaction() as session:
        counters.add(session, run.project_id, counters.JUDGEMENTS, 28)
    report(run, claim, 20)
    expect(page.get_by_text("Step 20 of 40")).to_be_visible()
    expect(page.get_by_text("12 to go")).to_be_visible()
    expect(page.locator(".chart").first).to_be_visible()


def test_the_pipeline_page_outlives_a_server_that_is_away(
    page: Page, live_url: str, training: tuple[Run, Claim]
) -> None:
    run, claim = training
    sign_in(page, live_url)

    def refuse(route: Route) -> None:
        route.fulfill(status=503, content_type="text/html", body="<p>Not ready</p>")

    page.route("**/pipeline?block=live", refuse, times=1)
    page.goto(f"{live_url}/p/starter/pipeline")
    with page.expect_response(lambda response: response.status == 503):
        pass
    report(run, claim, 20)
    expect(page.get_by_text("Step 20 of 40")).to_be_visible()
    expect(page.get_by_text("Not ready")).to_have_count(0)


def test_explanations_answer_to_the_keyboard(page: Page, live_url: str) -> None:
    sign_in(page, live_url)
    page.goto(f"{live_url}/p/starter/pipeline")
    text = page.get_by_text("each set of answers is one ranking task")
    expect(text).to_be_hidden()
    page.locator(".explain", has_text="Samples").focus()
    expect(text).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440])
def test_pages_are_accessible_and_fit(
    browser: Browser, live_url: str, training: tuple[Run, Claim], scheme: str, width: int
) -> None:
    # The checker injects a script, which the page's own policy would refuse.
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, bypass_csp=True)  # type: ignore[arg-type]
    page = context.new_page()
    sign_in(page, live_url)
    for path in ("pipeline", "runs", f"runs/{training[0].uid}", "checkpoints"):
        page.goto(f"{live_url}/p/starter/{path}")
        violations = Axe().run(page).response["violations"]
        assert not violations, (path, [violation["id"] for violation in violations])
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path
    context.close()
