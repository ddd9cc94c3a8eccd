"""What WCAG 2.2 AA asks of a labeller's pages and axe cannot see; docs/accessibility.md names the criteria."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from app import db, security
from app.models import User
from studies.ranking_screens import LongTask, open_task
from tests.browser.person import Person, make_person
from tests.browser.ranking import stored

pytestmark = pytest.mark.browser

PAGES = (
    "/p/starter/",
    "/p/starter/rank",
    "/p/starter/history",
    "/p/starter/guidelines",
    "/p/starter/demonstrate",
    "/account",
)

# WCAG 1.4.12, word by word.
SPACING = """* { line-height: 1.5 !important; letter-spacing: .12em !important; word-spacing: .16em !important }
p { margin-block-end: 2em !important }"""

CUT_OFF = """() => [...document.querySelectorAll("button, a, label, summary, h1, h2, legend, td, th")]
  .filter((one) => one.checkVisibility() && getComputedStyle(one).overflow !== "visible")
  .filter((one) => getComputedStyle(one).textOverflow !== "ellipsis")
  .filter((one) => !one.matches(".visually-hidden") && one.scrollWidth > one.clientWidth + 1)
  .map((one) => one.outerHTML.slice(0, 120))"""

# Smaller than 24 px, not in a line of text, and nearer than 24 px to another target's centre (WCAG 2.5.8).
SMALL = """() => {
  const targets = [...document.querySelectorAll("a[href], button, summary, select, textarea, input:not([type=hidden])")]
    .map((one) => one.matches("[type=radio], [type=checkbox]") ? one.closest("label") ?? one : one)
    .filter((one, at, all) => all.indexOf(one) === at && one.checkVisibility() && one.getBoundingClientRect().width > 1);
  const centre = (one) => { const box = one.getBoundingClientRect(); return [box.x + box.width / 2, box.y + box.height / 2]; };
  const isSmall = (one) => { const box = one.getBoundingClientRect(); return box.width < 24 || box.height < 24; };
  const texts = "p, li, td, dd, .rank-prompt-text, .output-text";
  const isInText = (one) => getComputedStyle(one).display === "inline" && one.closest(texts);
  return targets.filter((one) => isSmall(one) && !isInText(one)).filter((one) => targets.some((other) => {
    if (other === one || one.contains(other) || other.contains(one)) return false;
    const [x, y] = centre(one), [ox, oy] = centre(other);
    return Math.hypot(x - ox, y - oy) < 24;
  })).map((one) => one.outerHTML.slice(0, 160));
}"""

# Whether the element in focus can be seen: an outline of its own, its own middle not under something that sticks or floats.
FOCUS = """() => {
  const one = document.activeElement;
  if (!one || one === document.body) return null;
  const shown = one.matches("[type=radio], [type=checkbox]") ? one.closest("label") ?? one : one;
  const styles = [one, shown].map((each) => getComputedStyle(each));
  const isMarked = styles.some((style) => style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2);
  const box = shown.getBoundingClientRect();
  const left = Math.max(box.left, 0), right = Math.min(box.right, innerWidth);
  const top = Math.max(box.top, 0), bottom = Math.min(box.bottom, innerHeight);
  let isSeen = false;
  for (const part of [0.1, 0.5, 0.9]) {
    const hit = document.elementFromPoint((left + right) / 2, top + (bottom - top) * part);
    isSeen ||= Boolean(hit) && (shown.contains(hit) || hit.contains(shown));
  }
  return { html: one.outerHTML.slice(0, 140), isMarked, isSeen };
}"""


ADD_STYLE = """(text) => {
  const sheet = new CSSStyleSheet();
  sheet.replaceSync(text);
  document.adoptedStyleSheets = [...document.adoptedStyleSheets, sheet];
}"""

TO_THE_TOP = """() => {
  document.body.tabIndex = -1;
  document.body.focus();
  document.body.removeAttribute("tabindex");
}"""


def add_style(page: Page, text: str) -> None:
    """As a reader's own style sheet would, which the page's policy does not bind."""
    page.evaluate(ADD_STYLE, text)


def is_wider_than_window(page: Page) -> bool:
    return bool(page.evaluate("document.documentElement.scrollWidth > innerWidth"))


def open_pages(page: Page, person: Person) -> Iterator[str]:
    """Each page of a labeller, then a task to rank; gives the name of what is open."""
    person.sign_in(page)
    for path in PAGES:
        page.goto(person.url + path)
        yield path
    person.take(page)
    yield "ranking"
    page.goto(f"{person.url}/p/starter/demonstrate")
    page.get_by_role("button", name="Get a prompt").click()
    expect(page.get_by_label("Your response")).to_be_visible()
    yield "a demonstration"


def test_pages_reflow_in_320_pixels(page: Page, person: Person) -> None:
    page.set_viewport_size({"width": 320, "height": 640})
    for name in open_pages(page, person):
        assert not is_wider_than_window(page), name
    open_task(LongTask("nine", [{"role": "user", "content": "Which?"}], [f"Answer {n}." for n in range(9)]), 100)
    other = make_person(person.url)
    other.sign_in(page)
    page.goto(f"{person.url}/p/starter/rank")
    page.get_by_role("button", name="Get a task").click()
    expect(page.locator("[data-output]")).to_have_count(9)
    expect(page.locator("[data-sort]")).to_be_visible()
    assert not is_wider_than_window(page)


def test_text_may_be_spaced_out(page: Page, person: Person) -> None:
    for name in open_pages(page, person):
        add_style(page, SPACING)
        assert not is_wider_than_window(page), name
        assert page.evaluate(CUT_OFF) == [], name


@pytest.mark.parametrize("width", [1440, 768, 390])
def test_targets_are_large_or_apart(page: Page, person: Person, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    for name in open_pages(page, person):
        assert page.evaluate(SMALL) == [], name


def walk(page: Page, state: str, key: str) -> int:
    """Press Tab or Shift+Tab until focus leaves the page; each stop must be marked and seen. Gives how many there were."""
    for stops in range(250):
        page.keyboard.press(key)
        focus = page.evaluate(FOCUS)
        if focus is None:
            return stops
        assert focus["isMarked"], f"{state}, {key}: no outline on {focus['html']}"
        assert focus["isSeen"], f"{state}, {key}: hidden {focus['html']}"
    pytest.fail(f"{state}: {key} never left the page")


@pytest.mark.parametrize("width", [1280, 390])
def test_focus_is_seen_wherever_tab_takes_it_and_caught_nowhere(page: Page, person: Person, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    for state in open_pages(page, person):
        page.evaluate(TO_THE_TOP)
        assert walk(page, state, "Tab") > 3, state
        if state not in PAGES:
            assert walk(page, state, "Shift+Tab") > 3, state


# Roles that a person acts on; each must have a name (WCAG 4.1.2).
ACTED_ON = {"button", "link", "radio", "checkbox", "textbox", "combobox", "spinbutton", "DisclosureTriangle"}


def names_of(page: Page) -> list[tuple[str, str]]:
    """Role and name of everything a person can act on, as a screen reader is told."""
    tree = page.context.new_cdp_session(page).send("Accessibility.getFullAXTree")
    nodes = [node for node in tree["nodes"] if not node["ignored"] and node["role"]["value"] in ACTED_ON]
    return [(node["role"]["value"], node.get("name", {}).get("value", "")) for node in nodes]


def test_everything_acted_on_has_a_name_and_the_ranking_those_it_is_known_by(page: Page, person: Person) -> None:
    for state in open_pages(page, person):
        names = names_of(page)
        assert names, state
        assert [role for role, name in names if not name.strip()] == [], state
        if state == "ranking":
            assert {("radio", "1"), ("radio", "not rankable"), ("button", "Submit and next Ctrl ⏎")} <= set(names)
            assert page.get_by_role("group", name="Tier of ").count() == 4


def tab_to(page: Page, name: str) -> None:
    """Press Tab until the element with this text or label is in focus."""
    for _ in range(80):
        page.keyboard.press("Tab")
        said = page.evaluate(
            '() => { const one = document.activeElement; return one.labels?.[0]?.textContent ?? one.textContent ?? ""; }'
        )
        if name in said:
            return
    pytest.fail(f"Tab never came to {name!r}")


def test_from_signing_in_to_a_stored_ranking_by_keyboard_alone(page: Page, person: Person) -> None:
    with db.transaction() as session:
        user = session.get_one(User, person.user_id)
        user.password_hash = security.hash_password("correct horse battery")
        email = user.email
    page.goto(f"{person.url}/login")
    expect(page.get_by_label("E-mail")).to_be_focused()
    page.keyboard.type(email)
    page.keyboard.press("Tab")
    page.keyboard.type("correct horse battery")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Starter", level=1)).to_be_visible()
    page.evaluate(TO_THE_TOP)
    page.keyboard.press("Tab")
    expect(page.locator(":focus")).to_have_text("Skip to content")
    page.keyboard.press("Enter")
    expect(page.locator("#main")).to_be_focused()
    tab_to(page, "Rank")
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Get a task")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("[data-output]")).to_have_count(4)
    page.wait_for_load_state()
    first = page.url
    for key in ("j", "1", "j", "2", "j", "2", "j", "4"):
        page.keyboard.press(key)
    tab_to(page, "Submit and next")
    page.keyboard.press("Enter")
    expect(page).not_to_have_url(first)
    assert sorted(place[0] for place in stored()[0].values()) == [1, 2, 2, 3]
