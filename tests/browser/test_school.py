"""A labeller's way in Chromium: practice, a test failed and passed, work with a gold task, a miss, an appeal that is upheld.

By keyboard alone where the labeller acts, and without a violation in any state of any new page.
"""

import io
import json
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect
from sqlalchemy import select

from app import db
from app.models import Project, Purpose, Role
from app.permissions import Access
from app.schemas.projects import SchoolSettings
from app.services import accounts, gold, references
from tests.browser.person import Person
from tests.browser.test_labelling_accessibility import look
from tests.browser.test_people import sign_in

pytestmark = pytest.mark.browser

ROWS = [
    {
        "prompt": f"Name a bird that cannot fly. ({number})",
        "responses": [
            {
                "text": "1 The kiwi, which lives in New Zealand.",
                "tier": 1,
                "explanation": "It answers, and says *where*.",
            },
            {"text": "2 The kiwi.", "tier": 1},
            {"text": "3 A sparrow.", "tier": 2, "explanation": "Sparrows fly."},
            {"text": "4 I cannot say.", "tier": 3, "explanation": "It does not try."},
        ],
        "explanation": "What is asked for is a bird that **cannot** fly; length decides nothing.",
    }
    for number in range(5)
]


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    # The checker injects a script, which the page's own policy would refuse.
    context = browser.new_context(reduced_motion="reduce", viewport={"width": 1280, "height": 900}, bypass_csp=True)
    context.set_default_timeout(30_000)
    yield context.new_page()
    context.close()


@pytest.fixture
def admin(browser: Browser, live_url: str) -> Iterator[Page]:
    context = browser.new_context(reduced_motion="reduce", viewport={"width": 390, "height": 900}, bypass_csp=True)
    opened = context.new_page()
    sign_in(opened, live_url)
    yield opened
    context.close()


@pytest.fixture(autouse=True)
def asks_for_a_test(live_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The starter project with tasks for all three, where the next task after the test is gold."""
    monkeypatch.setattr(gold, "draw", lambda key: 0.0)
    with db.transaction() as session:
        project = session.scalars(select(Project).where(Project.slug == "starter")).one()
        owner = Access(accounts.ensure_owner(session), project, frozenset(Role), accounts.DEFAULT_COHORT)
        for purpose, rows in ((Purpose.PRACTICE, ROWS[:1]), (Purpose.QUALIFY, ROWS[1:4]), (Purpose.GOLD, ROWS[4:])):
            data = "\n".join(json.dumps(row) for row in rows).encode()
            references.import_file(session, owner, purpose=purpose, data=io.BytesIO(data))
        settings = SchoolSettings(requires_qualification=True, test_tasks=1, gold_rate=0.5, shows_gold_misses=True)
        project.school = settings.model_dump()


def rank_by_keys(page: Page, tiers: str) -> None:
    """Give the responses these tiers, by the number each begins with, and submit."""
    before = page.url
    page.wait_for_load_state()
    for card in page.locator("[data-output]").all():
        text = card.locator(".output-text").inner_text()
        page.keyboard.press("j")
        page.keyboard.press(tiers[int(text[0]) - 1])
    page.keyboard.press("Control+Enter")
    page.wait_for_url(lambda url: url != before)


def press(page: Page, role: str, name: str) -> None:
    """Focus something and press Enter on it."""
    page.get_by_role(role, name=name).first.press("Enter")  # type: ignore[arg-type]


def test_from_practice_to_an_appeal_that_is_upheld(page: Page, admin: Page, person: Person) -> None:
    home = f"{person.url}/p/starter"
    person.sign_in(page)
    page.goto(f"{home}/rank")
    look(page, "not qualified")
    press(page, "link", "Practice and test")
    look(page, "practice to be done")
    press(page, "button", "Begin practising")
    look(page, "a practice task")
    rank_by_keys(page, "2143")
    expect(page.get_by_text("4 of 6 pairs")).to_be_visible()
    look(page, "an answer beside its reference")
    press(page, "link", "To the list and the test")

    press(page, "button", "Begin the test")
    look(page, "a task of the test")
    rank_by_keys(page, "4321")
    expect(page.get_by_role("heading", name="You did not pass the test")).to_be_visible()
    look(page, "a test failed")
    press(page, "button", "Take the test again")
    rank_by_keys(page, "1123")
    expect(page.get_by_role("heading", name="You passed the test")).to_be_visible()
    look(page, "a test passed")
    page.goto(f"{home}/qualification")
    look(page, "practised and passed")

    page.goto(f"{home}/rank")
    press(page, "button", "Get a task")
    expect(page.get_by_text("cannot fly. (4)")).to_be_visible()
    gold_task = page.url
    rank_by_keys(page, "4321")
    page.goto(f"{home}/history")
    look(page, "a history with a miss")
    press(page, "link", "Differs from the reference")
    look(page, "a miss")
    page.get_by_label("Say what it overlooks").focus()
    page.keyboard.type("The sparrow is a joke, and a good one.")
    press(page, "button", "Send the appeal")
    expect(page.get_by_role("heading", name="waits for an admin")).to_be_visible()

    decide(admin, home)
    page.goto(f"{gold_task}/miss")
    expect(page.get_by_role("heading", name="Your appeal was upheld")).to_be_visible()
    expect(page.get_by_text("6 of 6 pairs")).to_be_visible()
    look(page, "an appeal upheld")


def decide(admin: Page, home: str) -> None:
    """The admin's side: every page looked at, the appeal upheld."""
    for path in ("school", "school?purpose=gold", "school/choose", "school/import", "school/people", "settings"):
        answer = admin.goto(f"{home}/{path}")
        assert answer is not None and answer.ok, path
        look(admin, path)
    admin.goto(f"{home}/school")
    admin.get_by_role("link", name="cannot fly. (4)").click()
    look(admin, "a reference")
    admin.goto(f"{home}/school/appeals")
    look(admin, "appeals")
    admin.get_by_role("link", name="The sparrow is a joke").click()
    look(admin, "an appeal")
    for card in admin.locator("article.output").all():
        tier = {"1": "4", "2": "3", "3": "2", "4": "1"}[card.locator(".output-text").inner_text()[0]]
        card.locator(f'label:has(input[name^="tier-"][value="{tier}"])').click()
    admin.get_by_label("Words to the labeller").fill("You are right.")
    admin.get_by_role("button", name="Uphold the appeal").click()
    expect(admin.get_by_text("upheld")).to_be_visible()
