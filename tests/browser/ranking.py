"""The ranking screen in Chromium, as its tests work it, and the rows behind it."""

from playwright.sync_api import Locator, Page
from sqlalchemy import select

from app import db
from app.models import JudgementRank, Sample, TaskOutput


def letters(page: Page) -> dict[str, str]:
    """The sample behind each letter."""
    cards = page.locator("[data-output]")
    return {card.get_attribute("data-letter") or "": card.get_attribute("data-output") or "" for card in cards.all()}


def stored() -> list[dict[str, tuple[int | None, int | None, str | None, int | None]]]:
    """Every judgement in order of time: tier, raw column, reason and quality by sample."""
    with db.transaction() as session:
        rows = session.execute(
            select(JudgementRank, Sample.uid)
            .join(TaskOutput, TaskOutput.id == JudgementRank.output_id)
            .join(Sample, Sample.id == TaskOutput.sample_id)
            .order_by(JudgementRank.judgement_id)
        ).all()
        found: dict[int, dict[str, tuple[int | None, int | None, str | None, int | None]]] = {}
        for rank, sample in rows:
            found.setdefault(rank.judgement_id, {})[str(sample)] = (
                rank.tier,
                rank.raw_column,
                rank.reason,
                rank.quality,
            )
        return list(found.values())


def click(page: Page, letter: str, part: str, value: str) -> None:
    """Click one key of a scale, where a person would."""
    page.locator(f'[data-letter="{letter}"] label:has(input[name^="{part}-"][value="{value}"])').click()


def press(page: Page, *keys: str) -> None:
    for key in keys:
        page.keyboard.press(key)


def drag(page: Page, handle: Locator, tier: str, *, edge: str = "", escape: bool = False) -> None:
    """Drag a handle or chip onto the ladder's row of a tier, or to its `bottom` edge; let go with Escape where asked."""
    row = page.locator(f'.ladder-row[data-tier="{tier}"]')
    handle.scroll_into_view_if_needed()
    start = handle.bounding_box()
    assert start is not None
    page.mouse.move(start["x"] + start["width"] / 2, start["y"] + start["height"] / 2)
    page.mouse.down()
    page.mouse.move(start["x"] + start["width"] / 2 + 12, start["y"] + 12, steps=2)
    box = row.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 6, box["y"] + box["height"] * (0.95 if edge == "bottom" else 0.5), steps=3)
    if escape:
        page.keyboard.press("Escape")
    page.mouse.up()
