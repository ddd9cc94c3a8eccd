"""What a person did on the ranking screen is what the rows hold, what a snapshot exports, what the reward model learns from."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pytest
import torch
from playwright.sync_api import Browser, Page, expect
from sqlalchemy import select

from app import db, snapshot, storage
from app.models import Project, Snapshot, SnapshotKind
from app.services import datasets
from app.settings import get_settings
from studies.ranking_screens import LongTask, open_task
from tests.browser.person import Person, make_person
from tests.browser.ranking import click, drag, letters, press, stored
from tests.workers.training.factories import make_tokenizer
from workers.training import rankings

pytestmark = pytest.mark.browser

Tiers = dict[str, int | None]


def by_key(page: Page) -> Tiers:
    press(page, "j", "1", "j", "2", "j", "2", "j", "x")
    expect(page.locator('[data-letter="D"] select[name^="reason-"]')).to_be_focused()
    press(page, "ArrowDown", "Control+Enter")
    return {"A": 1, "B": 2, "C": 2, "D": None}


def by_numpad(page: Page) -> Tiers:
    press(page, "Numpad2", "o", "b", "Numpad1", "Control+Enter")
    return {"A": 2, "B": 1}


def by_drag(page: Page) -> Tiers:
    drag(page, page.locator('[data-letter="A"] [data-handle]'), "3")
    drag(page, page.locator('[data-letter="B"] [data-handle]'), "1")
    drag(page, page.locator('[data-chip="C"]'), "3")
    drag(page, page.locator('[data-chip="B"]'), "3", edge="bottom")  # a tier of its own, below A and C
    drag(page, page.locator('[data-chip="A"]'), "1", escape=True)
    expect(page.locator("[data-live]")).to_have_text("A stays where it was.")
    drag(page, page.locator('[data-chip="D"]'), "x")
    page.locator('[data-letter="D"] select[name^="reason-"]').select_option("broken")
    page.get_by_role("button", name="Submit and next").click()
    return {"A": 1, "B": 2, "C": 1, "D": None}


def by_touch(page: Page) -> Tiers:
    cards = page.locator("[data-output]")
    for at, tier in enumerate(("2", "1", "2", "4")):
        expect(cards.nth(at)).to_be_visible()
        assert cards.filter(visible=True).count() == 1
        cards.nth(at).locator(f'label:has(input[name^="tier-"][value="{tier}"])').tap()
        if at < 3:
            page.get_by_role("button", name="Next response").tap()
    before = page.locator(".ladder").inner_text()
    swipe = page.context.new_cdp_session(page)
    for place in ('[data-chip="A"]', ".output.is-current .output-text"):
        box = page.locator(place).bounding_box()
        assert box is not None
        for way in ({"xDistance": -150}, {"yDistance": -200}, {"yDistance": 300}):
            at = {"x": box["x"] + box["width"] / 2, "y": box["y"] + 10, "gestureSourceType": "touch"}
            swipe.send("Input.synthesizeScrollGesture", {**at, **way, "speed": 3000})
    assert page.locator(".ladder").inner_text() == before
    page.get_by_role("button", name="Submit and next").tap()
    return {"A": 2, "B": 1, "C": 2, "D": 3}


def with_scripts_off(page: Page) -> Tiers:
    for letter, tier in {"A": "4", "B": "1", "C": "1", "D": "2"}.items():
        click(page, letter, "tier", tier)
    page.get_by_role("button", name="Submit and next").click()
    return {"A": 3, "B": 1, "C": 1, "D": 2}


def by_comparing(page: Page) -> Tiers:
    status, title = page.locator("[data-compare-status]"), page.locator("[data-compare-title]")
    press(page, "j", "c", "b")
    expect(title).to_have_text("A and B")
    press(page, "3", "Enter")  # A is clearly better
    press(page, "o", "c", "c")
    expect(status).to_have_text("Where does C stand? Comparison 1 of at most 2.")
    expect(title).to_have_text("C and B")
    press(page, "2", "Enter", "u")  # ahead of B, and taken back
    expect(title).to_have_text("C and B")
    press(page, "1", "Shift+Enter")  # B is slightly better; that is C's place, and D's is looked for
    expect(title).to_have_text("D and B")
    press(page, "Enter")
    expect(title).to_have_text("D and A")
    page.get_by_role("button", name="Equally good").click()
    expect(page.locator("[data-compare]")).to_be_hidden()
    press(page, "Control+Enter")
    return {"A": 1, "B": 2, "C": 3, "D": 1}


GRADED = {("A", "B"): 3, ("B", "C"): 1}


def by_sorting(page: Page) -> Tiers:
    step = page.locator("[data-sort-step]")
    expect(step).to_have_text("Step 1 of 2: is A good, middling or bad? 0 of 9 sorted.")
    for group in "121312323":
        press(page, group, "j")
    press(page, "o", "a")
    expect(step).to_have_text("Step 2 of 2: where does A stand among the 3 that are good? 9 left.")
    page.locator("[data-sort-digits] button", has_text="2").click()
    for letter, inside in (
        ("c", "1"),
        ("e", "3"),
        ("b", "1"),
        ("f", "1"),
        ("h", "2"),
        ("d", "3"),
        ("g", "1"),
        ("i", "1"),
    ):
        press(page, "o", letter, inside)
    expect(step).to_be_hidden()
    expect(page.locator("[data-live]")).to_have_text("All are in order. These are plain tiers now.")
    with page.expect_response("**/draft"):
        press(page, "u")
        expect(step).to_contain_text("1 left")
    page.reload()
    expect(step).to_contain_text("1 left")
    press(page, "o", "i", "2", "Control+Enter")
    return {"A": 2, "B": 4, "C": 1, "D": 8, "E": 3, "F": 4, "G": 6, "H": 5, "I": 7}


@dataclass(frozen=True)
class Way:
    """How a ranking of `size` responses is made, and the window it is made in."""

    do: Callable[[Page], Tiers]
    size: int = 4
    window: Mapping[str, object] | None = None


PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
WAYS = [
    Way(by_key),
    Way(by_numpad, size=2),
    Way(by_drag),
    Way(by_touch, window=PHONE),
    Way(with_scripts_off, window={"java_script_enabled": False}),
    Way(by_comparing),
    Way(by_sorting, size=9),
]


def test_rows_file_and_batch_equal_the_acts(browser: Browser, live_url: str) -> None:
    said: list[dict[str, int | None]] = []
    graded: dict[tuple[str, str], int] = {}
    for number, way in enumerate(WAYS):
        texts = [f"response {at} of way {number}, long enough to be read. " * 12 for at in range(way.size)]
        open_task(LongTask(f"way {number}", [{"role": "user", "content": f"Question {number}?"}], texts), 100 + number)
        context = browser.new_context(reduced_motion="reduce", **(way.window or {}))
        page = context.new_page()
        take(page, make_person(live_url), way.size)
        names, first = letters(page), page.url
        tiers = way.do(page)
        page.wait_for_url(lambda url, first=first: not url.startswith(first))  # type: ignore[misc]
        said.append({names[letter]: tier for letter, tier in tiers.items()})
        if way.do is by_comparing:
            graded = {(names[better], names[worse]): strength for (better, worse), strength in GRADED.items()}
        assert {sample: row[0] for sample, row in stored()[-1].items()} == said[-1], way.do.__name__
        context.close()
    taken = take_snapshot()
    folder = storage.snapshot_folder(get_settings(), taken.uid)
    rows = list(snapshot.read_rows(folder, "rankings.jsonl"))
    assert [{one["sample"]: one["tier"] for one in row["responses"]} for row in rows] == said
    assert {(pair["left"], pair["right"]): pair["strength"] for row in rows for pair in row["pairs"] or ()} == graded
    read = rankings.read(folder, make_tokenizer(), context=10_000)
    assert len(read.train) == len(said)
    batch = rankings.targets(read.train)
    for at, tiers in enumerate(said):
        size, samples = len(tiers), sorted(tiers)
        wanted, strength = torch.zeros(2, size, size)
        for row, better in enumerate(samples):
            for column, worse in enumerate(samples):
                ahead, behind = tiers[better], tiers[worse]
                wanted[row, column] = float(ahead is not None and behind is not None and ahead < behind)
                levels = graded.get((better, worse), 1) - graded.get((worse, better), 1)
                strength[row, column] = levels
        assert torch.equal(batch.preferred[at, :size, :size], wanted)
        assert torch.equal(batch.strength[at, :size, :size], strength)
        assert not batch.preferred[at, size:].any()


def take(page: Page, person: Person, size: int) -> None:
    person.sign_in(page)
    page.goto(f"{person.url}/p/starter/rank")
    page.get_by_role("button", name="Get a task").click()
    expect(page.locator("[data-output]")).to_have_count(size)
    page.wait_for_load_state()


LCS_BY_TABLE = """() => {
  let state = 7;
  const next = (below) => ((state = (state * 48271) % 2147483647) % below);
  const write = () => Array.from({ length: next(90) }, () => `w${next(6)}`);
  for (let trial = 0; trial < 300; trial += 1) {
    const [one, other] = [write(), write()];
    let row = new Array(other.length + 1).fill(0);
    for (const word of one) {
      const below = [0];
      other.forEach((its, at) => below.push(word === its ? row[at] + 1 : Math.max(row[at + 1], below[at])));
      row = below;
    }
    const isOnly = findDifference(one, other);
    const [kept, same] = [one, other].map((text, at) => text.filter((_, place) => !isOnly[at][place]));
    if (kept.join() !== same.join() || kept.length !== row.at(-1)) return { one, other };
  }
  return null;
}"""


def test_comparing_marks_words_leaves_without_a_trace_and_orders_anew(page: Page, person: Person) -> None:
    texts = ["The cat **sat** on the mat, and $x^2$.", "The cat lay on the mat, and $y^2$."]
    open_task(LongTask("cats", [{"role": "user", "content": "Where?"}], [*texts, "The dog."]), 100)
    take(page, person, 3)
    cat, other = (page.locator("[data-output]", has_text=word).get_attribute("data-letter") for word in ("sat", "lay"))
    press(page, "o", cat or "", "c", other or "", "d")
    marks = page.locator("[data-compare] .is-only")
    expect(marks).to_have_text(["sat", "x2", "lay", "y2"])
    assert page.evaluate(LCS_BY_TABLE) is None
    expect(page.locator("[data-compare-status]")).to_contain_text(f"2 words only in {cat}, 2 only in {other}")
    press(page, "d")
    expect(marks).to_have_count(0)
    press(page, "Escape")
    expect(page.locator("[data-missing]")).to_have_text("No place yet: A, B, C.")
    expect(page.locator(f'[data-letter="{cat}"]')).to_be_focused()
    press(page, "o", "a", "1", "o", "b", "2", "o", "c", "3", "c", "a", "Enter")  # C is better than A after all
    tiers = {letter: page.locator(f'[data-letter="{letter}"] [name^=tier-]:checked').input_value() for letter in "ABC"}
    assert tiers == {"A": "2", "B": "3", "C": "1"}
    press(page, "u")
    expect(page.locator('[data-letter="C"] [name^=tier-][value="3"]')).to_be_checked()
    press(page, "o", "c", "0", "o", "b", "0", "c")  # B finds its place beside A; C has none to tell it by
    page.locator("[data-compare-others] button").click(force=True)
    expect(page.locator("[data-compare-status]")).to_contain_text("Neither B nor C has a place yet")
    page.get_by_role("button", name="Equally good").click()
    expect(page.locator("[data-compare-title]")).to_have_text("C and A")
    press(page, "Escape")
    places = page.locator("[name^=tier-]:checked")
    expect(places).to_have_count(3)
    assert [place.input_value() for place in places.all()] == ["1", "1", ""]
    press(page, "o", "c", "x", "Escape", "c")
    expect(page.locator("[data-live]")).to_contain_text("C is not rankable.")
    press(page, "o", "a", "c", "c")
    expect(page.locator("[data-compare]")).to_be_hidden()


def test_sorting_ends_where_a_tier_is_no_group_and_is_remembered_when_switched_off(page: Page, person: Person) -> None:
    open_task(LongTask("six", [{"role": "user", "content": "Well?"}], [f"answer {at}" for at in range(6)]), 100)
    take(page, person, 6)
    panel, sort = page.locator("[data-sort]"), page.locator("[data-act=sort]")
    press(page, "1", "j", "3")
    expect(page.locator("[data-saved]")).to_contain_text("Saved")
    page.reload()
    expect(panel).to_contain_text("2 of 6 sorted")
    click(page, "C", "tier", "1")
    expect(panel).to_contain_text("3 of 6 sorted")
    click(page, "C", "tier", "5")
    expect(panel).to_be_hidden()
    expect(page.locator("[data-live]")).to_contain_text("Plain tiers.")
    press(page, "u", "u")
    expect(panel).to_contain_text("2 of 6 sorted")
    sort.click()
    expect(sort).to_have_attribute("aria-pressed", "false")
    page.reload()
    expect(panel).to_be_hidden()
    press(page, "o", "d", "5", "t")
    expect(page.locator("[data-live]")).to_contain_text("Take them back to sort first")


def take_snapshot() -> Snapshot:
    with db.transaction(isolation="REPEATABLE READ") as session:
        project = session.scalars(select(Project).where(Project.slug == "starter")).one()
        return datasets.take_snapshot(session, project, SnapshotKind.RANKINGS)
