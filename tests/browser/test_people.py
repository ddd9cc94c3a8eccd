"""The way in and the admin's pages in Chromium: by link to the guidelines, accessible everywhere, and nothing untrusted runs."""

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from app import db
from app.models import Phase
from app.queries import projects
from app.services import accounts, guidelines
from app.web.deps import SESSION_COOKIE

pytestmark = pytest.mark.browser

SCRIPT = "<img src=x onerror=\"document.title='run'\"><script>document.title='run'</script>"


@pytest.fixture
def link(live_url: str) -> str:
    """A sign-in link of the owner."""
    with db.transaction() as session:
        return live_url + accounts.create_login_link(session, accounts.ensure_owner(session))


def sign_in(page: Page, url: str) -> None:
    with db.transaction() as session:
        token = accounts.sign_in(session, accounts.ensure_owner(session))
    page.context.add_cookies([{"name": SESSION_COOKIE, "value": token, "url": url}])


def test_a_link_leads_by_the_guidelines_to_the_first_task(page: Page, link: str) -> None:
    page.goto(link)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("link", name="Read the guidelines").click()
    expect(page.get_by_role("heading", name="Guidelines")).to_be_visible()
    page.get_by_role("button", name="I have read them").click()
    expect(page.get_by_role("button", name="Get a task")).to_be_visible()


def test_an_invited_person_makes_an_account_and_comes_in(browser: Browser, page: Page, live_url: str) -> None:
    sign_in(page, live_url)
    page.goto(f"{live_url}/p/starter/people")
    page.get_by_role("button", name="Make an invitation link").click()
    invitation = page.locator("#link").inner_text()

    context = browser.new_context()
    guest = context.new_page()
    guest.goto(invitation)
    guest.get_by_label("Your name").fill("Bo")
    guest.get_by_label("E-mail").fill("bo@example.org")
    guest.get_by_label("Password").fill("four words in a row")
    guest.get_by_role("button", name="Create account and join").click()
    expect(guest.get_by_role("heading", name="Your work", exact=True)).to_be_visible()
    expect(guest.get_by_role("link", name="People")).to_have_count(0)
    guest.get_by_role("button", name="Sign out").click()
    expect(guest.get_by_role("heading", name="Sign in")).to_be_visible()
    context.close()

    page.reload()
    page.goto(f"{live_url}/p/starter/people")
    expect(page.get_by_text("bo@example.org")).to_be_visible()


def test_nothing_untrusted_runs(page: Page, live_url: str) -> None:
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    sign_in(page, live_url)
    with db.transaction() as session:
        owner = accounts.ensure_owner(session)
        accounts.change_profile(session, owner, name=SCRIPT[:100], theme="system")
        project = projects.find_project(session, "starter")
        assert project is not None
        guidelines.publish(session, project, body=f"{SCRIPT} $\\text{{{SCRIPT}}}$", phase=Phase.TRAIN, author=owner)
    for path in ("/p/starter/", "/p/starter/guidelines", "/p/starter/people", "/p/starter/audit", "/account"):
        page.goto(live_url + path)
        page.wait_for_load_state("networkidle")
        assert page.title().endswith("· Preferable"), path
    assert complaints == [], "the content policy refused something, or a script failed"


def test_a_long_name_fits_a_narrow_page(page: Page, live_url: str) -> None:
    sign_in(page, live_url)
    page.set_viewport_size({"width": 390, "height": 800})
    with db.transaction() as session:
        accounts.change_profile(session, accounts.ensure_owner(session), name="Wilhelmina" * 4, theme="system")
        project = projects.find_project(session, "starter")
        assert project is not None
        project.name = "Preferences" * 4
    for path in ("", "pipeline", "people", "rank", "demonstrate"):
        page.goto(f"{live_url}/p/starter/{path}")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, path


def test_the_open_tab_is_seen_on_a_narrow_page(page: Page, live_url: str) -> None:
    sign_in(page, live_url)
    page.set_viewport_size({"width": 390, "height": 800})
    for name in ("Home", "Prompts", "Audit"):
        page.goto(f"{live_url}/p/starter/{'' if name == 'Home' else name.lower()}")
        tab = page.get_by_role("navigation", name="Project").get_by_role("link", name=name)
        box = tab.bounding_box()
        assert box is not None and box["x"] >= 0 and box["x"] + box["width"] <= 390, name


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440])
def test_pages_are_accessible_and_fit(browser: Browser, live_url: str, link: str, scheme: str, width: int) -> None:
    # The checker injects a script, which the page's own policy would refuse.
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, bypass_csp=True)  # type: ignore[arg-type]
    page = context.new_page()
    doors = [f"{live_url}/login", link]
    inside = ["", "guidelines", "guidelines/edit", "people", "settings", "audit"]
    for address in (
        doors + [f"{live_url}/p/starter/{path}" for path in inside] + [f"{live_url}/projects", f"{live_url}/account"]
    ):
        if address not in doors:
            sign_in(page, live_url)
        page.goto(address)
        violations = Axe().run(page).response["violations"]
        assert not violations, (address, [(violation["id"], violation["nodes"][0]["html"]) for violation in violations])
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), address
    context.close()
