"""The ways to rank on the ranking screen, for any number of responses; each takes an order and ends in having sent it."""

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from playwright.sync_api import Page, expect
from sqlalchemy import select

from app import db
from app.models import Judgement, Lease, LeaseState
from tests.browser.ranking import click, drag, press, stored

WHY = ("ArrowDown", "Escape")
"""What chooses the first reason in the list that `x` puts the focus in."""


@dataclass(frozen=True)
class Act:
    """What is to be said on a page, and how much better one response was said to be than another on the way there."""

    page: Page
    columns: Mapping[str, str]
    """For each letter its tier as the keys say it, `x` where it is not rankable."""
    graded: dict[tuple[str, str], int] = field(default_factory=dict)

    @property
    def ranked(self) -> dict[str, int]:
        """The tiers of those that are rankable."""
        return {letter: int(column) for letter, column in self.columns.items() if column != "x"}

    @property
    def tiers(self) -> dict[str, int | None]:
        """The tiers as they are stored, without gaps."""
        columns = sorted(set(self.ranked.values()))
        return {
            letter: columns.index(self.ranked[letter]) + 1 if letter in self.ranked else None for letter in self.columns
        }


def switch_sort(page: Page, *, is_on: bool) -> None:
    """Sort in groups first, as a page of six or more begins, or say tiers at once."""
    if (page.locator("[data-act=sort][aria-pressed=true]").count() > 0) != is_on:
        press(page, "t")


def key_in(act: Act, digit: str = "") -> None:
    """Choose by keys, going from one response to the next."""
    press(act.page, "o", "a")
    for column in act.columns.values():
        press(act.page, *(("x", *WHY) if column == "x" else (digit + column,)), "j")


def click_in(act: Act) -> None:
    """Choose by the mouse, as it goes with scripts off."""
    for letter, column in act.columns.items():
        click(act.page, letter, "tier", column)
        if column == "x":
            say_why(act.page, letter)


def say_why(page: Page, letter: str) -> None:
    page.locator(f'[data-letter="{letter}"] select[name^="reason-"]').select_option("broken")


def by_key(act: Act) -> None:
    key_in(act)
    press(act.page, "Control+Enter")


def by_numpad(act: Act) -> None:
    key_in(act, "Numpad")
    press(act.page, "Control+Enter")


def by_moves(act: Act) -> None:
    """Each from the second tier on."""
    for letter, column in act.columns.items():
        down = itertools.cycle(("]", "Alt+ArrowDown"))
        moves = ["["] if column == "1" else ["x", *WHY] if column == "x" else itertools.islice(down, int(column) - 2)
        press(act.page, "o", letter.lower(), "2", *moves)
    press(act.page, "Control+Enter")


def by_mouse(act: Act) -> None:
    click_in(act)
    act.page.get_by_role("button", name="Submit and next").click()


def with_scripts_off(act: Act) -> None:
    """Sent once too early: what was chosen is kept."""
    expect(act.page.locator("[data-ladder]")).to_be_hidden()
    *others, last = act.columns
    click_in(replace(act, columns={letter: act.columns[letter] for letter in others}))
    act.page.get_by_role("button", name="Submit and next").click()
    expect(act.page.get_by_role("alert")).to_contain_text(f"Output {last} has no place yet")
    by_mouse(replace(act, columns={last: act.columns[last]}))


def by_drag(act: Act) -> None:
    """The first by its handle, the others by their chips; the last of all goes to the first tier, then below the others."""
    page = act.page
    *others, last = sorted(act.columns, key=lambda letter: act.ranked.get(letter, 0))
    for letter in others:
        handle = f'[data-letter="{letter}"] [data-handle]' if letter == "A" else f'[data-chip="{letter}"]'
        drag(page, page.locator(handle), act.columns[letter])
        if act.columns[letter] == "x":
            say_why(page, letter)
    drag(page, page.locator(f'[data-chip="{last}"]'), "1")
    drag(page, page.locator(f'[data-chip="{last}"]'), act.columns[others[-1]], edge="bottom")
    drag(page, page.locator(f'[data-chip="{last}"]'), "1", escape=True)
    expect(page.locator("[data-live]")).to_have_text(f"{last} stays where it was.")
    page.get_by_role("button", name="Submit and next").click()


def by_touch(act: Act) -> None:
    """One response at a time."""
    page, cards = act.page, act.page.locator("[data-output]")
    for at, (letter, column) in enumerate(act.columns.items()):
        expect(cards.nth(at)).to_be_visible()
        assert cards.filter(visible=True).count() == 1
        cards.nth(at).locator(f'label:has(input[name^="tier-"][value="{column}"])').tap()
        if column == "x":
            say_why(page, letter)
        if at < len(act.columns) - 1:
            page.get_by_role("button", name="Next response").tap()
    if len(act.columns) > 4:
        swipe_about(page)
    page.get_by_role("button", name="Submit and next").tap()


def swipe_about(page: Page) -> None:
    """Swipes scroll and move no response."""
    before = page.locator(".ladder").inner_text()
    swipe = page.context.new_cdp_session(page)
    for place in ('[data-chip="A"]', ".output.is-current .output-text"):
        page.locator(place).scroll_into_view_if_needed()
        box = page.locator(place).bounding_box()
        assert box is not None
        for way in ({"xDistance": -150}, {"yDistance": -200}, {"yDistance": 300}):
            start = {"x": box["x"] + box["width"] / 2, "y": box["y"] + 10, "gestureSourceType": "touch"}
            swipe.send("Input.synthesizeScrollGesture", {**start, **way, "speed": 3000})
    assert page.locator(".ladder").inner_text() == before


def by_comparing(act: Act) -> None:
    """Two that are chosen, graded, then every other finds its place; one answer is taken back on the way."""
    page, title, ranked = act.page, act.page.locator("[data-compare-title]"), act.ranked
    for letter in act.columns.keys() - ranked.keys():
        press(page, "o", letter.lower(), "x", *WHY)
    first, second, *others = ranked
    press(page, "o", first.lower(), "c", second.lower())
    answer(act, strength=3)
    if others:
        press(page, "o", others[0].lower(), "c", "c")
        asked = title.inner_text()
        press(page, "2", "Enter", "u")
        if page.locator("[data-compare]").is_visible():
            expect(title).to_have_text(asked)
        else:  # that answer was all it took; asked anew, its sides and whom it ties with are drawn anew
            press(page, "o", others[0].lower(), "c")
    for number in itertools.count():
        if not page.locator("[data-compare]").is_visible():
            break
        answer(act, strength=number % 3)
    press(page, "Control+Enter")


def answer(act: Act, *, strength: int) -> None:
    """Say which of the two that are shown is better, and by how much where there is a strength."""
    left, right = act.page.locator("[data-compare-title]").inner_text().split(" and ")
    ahead = act.ranked[right] - act.ranked[left]
    if strength and ahead:
        press(act.page, str(strength))
        act.graded[(left, right) if ahead > 0 else (right, left)] = strength
    press(act.page, "Enter" if ahead > 0 else "Shift+Enter" if ahead else "=")


def by_sorting(act: Act) -> None:
    """In three groups first, then in order inside each; the last step is taken back, and stays so on the page loaded anew."""
    page, step, tiers = act.page, act.page.locator("[data-sort-step]"), act.tiers
    ranked = {letter: tier for letter, tier in tiers.items() if tier is not None}
    groups = {letter: (3 * tier - 1) // max(ranked.values()) + 1 for letter, tier in ranked.items()}
    expect(step).to_contain_text(f"Step 1 of 2: is A good, middling or bad? 0 of {len(tiers)} sorted.")
    key_in(replace(act, columns={letter: str(groups.get(letter, "x")) for letter in tiers}))
    inside = {}
    for group in (1, 2, 3):
        members = [letter for letter in ranked if groups[letter] == group]
        places = sorted({ranked[letter] for letter in members})
        inside |= {letter: places.index(ranked[letter]) + 1 for letter in members if len(members) > 1}
    press(page, "o", next(iter(inside)).lower())
    expect(step).to_contain_text(f"Step 2 of 2: where does {next(iter(inside))} stand")
    for letter, place in inside.items():
        press(page, "o", letter.lower())
        page.locator("[data-sort-digits] button", has_text=str(place)).click()
    expect(step).to_be_hidden()
    expect(page.locator("[data-live]")).to_have_text("All are in order. These are plain tiers now.")
    with page.expect_response("**/draft"):
        press(page, "u")
        expect(step).to_contain_text("1 left")
    page.reload()
    expect(step).to_contain_text("1 left")
    last, place = list(inside.items())[-1]
    press(page, "o", last.lower(), str(place), "Control+Enter")


def after_undoing_all(act: Act) -> None:
    key_in(replace(act, columns=dict(zip(act.columns, reversed(act.columns.values()), strict=True))))
    undo = act.page.locator("[data-act=undo]")
    while undo.is_enabled():
        press(act.page, "u")
    switch_sort(act.page, is_on=False)  # which was undone as well
    expect(act.page.locator("[data-missing]")).to_have_text(f"No place yet: {', '.join(act.columns)}.")
    by_key(act)


def offline_and_back(act: Act) -> None:
    act.page.context.set_offline(True)
    banner = act.page.locator("#rank [data-offline]")
    expect(banner).to_contain_text("You are offline.")
    before = stored()
    by_key(act)
    expect(banner).to_contain_text("Your answer waits on this device")
    assert stored() == before
    act.page.context.set_offline(False)


def in_two_tabs(act: Act) -> None:
    """The second says something else, and is told that the first was stored."""
    task = act.page.url
    other = act.page.context.new_page()
    other.goto(task)
    key_in(replace(act, page=other, columns=dict.fromkeys(act.columns, "1")))
    by_key(act)
    act.page.wait_for_url(lambda url: url != task)
    press(other, "Control+Enter")
    expect(other.get_by_role("alert")).to_contain_text("already submitted")
    other.close()


def on_a_lease_that_expires(act: Act) -> None:
    """While the note is typed; the draft survives, and what is sent late is stored."""
    page, (first, column) = act.page, next(iter(act.columns.items()))
    key_in(replace(act, columns={first: column}))
    press(page, "n")
    with db.transaction() as session:
        lease = session.scalars(select(Lease).where(Lease.state == LeaseState.HELD)).one()
        lease.expires_at = datetime.now(UTC) - timedelta(minutes=1)
    page.keyboard.type("still at it")
    expect(page.locator("[data-saved]")).to_contain_text("Saved")
    page.reload()
    expect(page.locator("#note")).to_have_value("still at it")
    expect(page.locator(f'[data-letter="{first}"] [name^="tier-"][value="{column}"]')).to_be_checked()
    task = page.url
    press(page, "Escape")
    by_key(act)
    page.wait_for_url(lambda url: url != task)
    with db.transaction() as session:
        assert session.scalars(select(Judgement.note).order_by(Judgement.id.desc())).first() == "still at it"


@dataclass(frozen=True)
class Way:
    """How rankings are made, the window they are made in, and those it can make: a digit or `x` for each letter."""

    do: Callable[[Act], None]
    pair: str = "21"
    four: str = "13x1"
    nine: str = "2425x1436"
    window: Mapping[str, object] = field(default_factory=dict)
    is_direct: bool = True
    """Whether the tiers said are the columns stored; else they are found on the way."""

    @property
    def orders(self) -> list[str]:
        return [order for order in (self.pair, self.four, self.nine) if order]


PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
WAYS = [
    Way(by_key, pair="x1"),
    Way(by_numpad, pair="11"),
    Way(by_moves),
    Way(by_mouse, pair="1x"),
    Way(by_drag, is_direct=False),
    Way(by_touch, pair="11", window=PHONE),
    Way(with_scripts_off, pair="1x", window={"java_script_enabled": False}),
    Way(by_comparing, is_direct=False),
    Way(by_sorting, pair="", is_direct=False),  # two or three are not sorted first
    Way(after_undoing_all),
    Way(offline_and_back, pair="11"),
    Way(in_two_tabs),
    Way(on_a_lease_that_expires),
]
