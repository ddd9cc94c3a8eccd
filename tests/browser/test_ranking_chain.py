"""What a person did on the ranking screen is what the rows hold, what a snapshot exports, what the reward model learns from."""

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
from tests.browser.ranking import click, letters, press, stored
from tests.browser.ways import WAYS, Act, Way, by_sorting, switch_sort
from tests.workers.training.factories import make_tokenizer
from workers.training import rankings

pytestmark = pytest.mark.browser

LETTERS = "ABCDEFGHI"


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.do.__name__)
def test_rows_file_and_batch_equal_the_acts(browser: Browser, live_url: str, way: Way) -> None:
    said: list[dict[str, int | None]] = []
    graded: dict[tuple[str, str], int] = {}
    for number, order in enumerate(way.orders):
        texts = [f"response {at} to question {number}, long enough to be read. " * 12 for at in range(len(order))]
        open_task(LongTask(order, [{"role": "user", "content": f"Question {number}?"}], texts), 200 - number)
    context = browser.new_context(reduced_motion="reduce", **way.window)  # type: ignore[arg-type]
    page = context.new_page()
    take(page, make_person(live_url), len(way.orders[0]))
    for order in way.orders:
        expect(page.locator("[data-output]")).to_have_count(len(order))
        switch_sort(page, is_on=way.do is by_sorting)
        names, first = letters(page), page.url
        act = Act(page, dict(zip(LETTERS, order, strict=False)))
        way.do(act)
        page.wait_for_url(lambda url, first=first: not url.startswith(first))  # type: ignore[misc]
        said.append({names[letter]: tier for letter, tier in act.tiers.items()})
        graded |= {(names[better], names[worse]): strength for (better, worse), strength in act.graded.items()}
        assert {sample: row[0] for sample, row in stored()[-1].items()} == said[-1], order
        columns = {names[letter]: act.ranked.get(letter) for letter in act.columns}
        assert not way.is_direct or {sample: row[1] for sample, row in stored()[-1].items()} == columns, order
        assert [row[2] for row in stored()[-1].values()].count("broken") == order.count("x"), order
    context.close()
    folder = storage.snapshot_folder(get_settings(), take_snapshot().uid)
    rows = list(snapshot.read_rows(folder, "rankings.jsonl"))
    assert [{one["sample"]: one["tier"] for one in row["responses"]} for row in rows] == said
    assert {(pair["left"], pair["right"]): pair["strength"] for row in rows for pair in row["pairs"] or ()} == graded
    learned = rankings.read(folder, make_tokenizer(), context=10_000).train
    check_batch(rankings.targets(learned), [tiers for tiers in said if {1, 2} <= set(tiers.values())], graded)


def check_batch(batch: rankings.Targets, said: list[dict[str, int | None]], graded: dict[tuple[str, str], int]) -> None:
    """The targets of the reward model, against every ranking that orders two responses."""
    assert len(batch.preferred) == len(said)
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
