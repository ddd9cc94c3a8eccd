"""Show 4: one person, one browser, the whole loop, from the sign-in link to a task drawn from the policy they promoted."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from playwright.sync_api import Locator, Page, expect

from app import embedded
from app.settings import Settings
from tests.chromium import start_browser
from workers.simulate import stack

CONFIG = """
[sft]
epochs = 1
lr = 5e-4
batch_size = 32
[reward]
lr = 1e-4
[ppo]
episodes = 128
batch_size = 64
minibatch_size = 32
heldout_prompts = 8
lr = 1e-4
[sample]
max_new_tokens = 32
"""
DEMONSTRATION = "A small boat sails on the lake, and everyone waves."
TRAINING_MS, DRAWING_MS = 400_000, 120_000

Choice = tuple[int | None, str | None, int | None]
"""Tier, reason why not rankable, quality."""


@dataclass(frozen=True)
class Site:
    """A running installation of this test's own."""

    link: str
    home: Path

    def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """What Postgres holds."""
        with psycopg.connect(embedded.postgres_url(self.home)) as connection:
            return connection.execute(query, values).fetchall()  # type: ignore[arg-type]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    home = tmp_path / "home"
    with stack.running(Settings(home=home), tmp_path / "up.log") as link:
        yield Site(link, home)


@pytest.fixture
def page() -> Iterator[Page]:
    with start_browser() as browser:
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        problems: list[str] = []
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda said: problems.append(said.text) if said.type == "error" else None)
        yield page
        assert problems == []


def choose(output: Locator, *, tier: str, quality: str = "", reason: str = "") -> tuple[str, Choice]:
    """Click an output's place; its uid and what was chosen."""
    output.locator(f'.scale-tier label:has(input[value="{tier}"])').click()
    if quality:
        output.locator(f'.scale-quality label:has(input[value="{quality}"])').click()
    if reason:
        output.locator("select").select_option(reason)
    uid = output.get_attribute("data-output")
    assert uid
    return uid, (None if tier == "x" else int(tier), reason or None, int(quality) if quality else None)


def rank(page: Page, *places: dict[str, str]) -> dict[str, Choice]:
    """Place every output of the task on the page, submit, and wait for the next page."""
    outputs = page.locator("[data-output]")
    expect(outputs).to_have_count(len(places))
    clicks = dict(choose(outputs.nth(at), **place) for at, place in enumerate(places))
    with page.expect_navigation():
        page.get_by_role("button", name="Submit and next").click()
    return clicks


@pytest.mark.browser
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_one_person_closes_the_loop(site: Site, page: Page) -> None:
    # The sign-in link and a pace that suits a test.
    page.goto(site.link)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", level=1, name="Starter")).to_be_visible()
    page.get_by_role("link", name="Settings").click()
    page.locator('[name="automation-judgements_per_reward_model"]').fill("3")
    page.locator('[name="training_config"]').fill(CONFIG)
    page.get_by_role("button", name="Save settings").click()
    expect(page.get_by_text("Saved.")).to_be_visible()

    # The guidelines come before the first task.
    page.get_by_role("link", name="Rank", exact=True).click()
    page.get_by_role("link", name="Read the guidelines").click()
    page.get_by_role("button", name="I have read them").click()
    assert site.rows("SELECT count(*) FROM guideline_acks") == [(1,)]

    # One demonstration.
    page.get_by_role("link", name="Demonstrate").click()
    page.get_by_role("button", name="Get a prompt").click()
    page.get_by_label("Your response").fill(DEMONSTRATION)
    with page.expect_navigation():
        page.get_by_role("button", name="Submit and next").click()
    assert site.rows("SELECT text, origin FROM demonstrations WHERE author_id IS NOT NULL") == [
        (DEMONSTRATION, "written")
    ]

    # Three rankings: a plain one, one with a tie, one with an output that cannot be ranked.
    page.get_by_role("link", name="Rank", exact=True).click()
    page.get_by_role("button", name="Get a task").click()
    clicks = rank(page, {"tier": "1", "quality": "7"}, {"tier": "2"}, {"tier": "3"}, {"tier": "4", "quality": "1"})
    clicks |= rank(page, {"tier": "2"}, {"tier": "1"}, {"tier": "1"}, {"tier": "3", "quality": "2"})
    clicks |= rank(page, {"tier": "1"}, {"tier": "x", "reason": "broken"}, {"tier": "2"}, {"tier": "3"})
    stored = site.rows(
        "SELECT s.uid, r.tier, r.reason, r.quality FROM judgement_ranks r "
        "JOIN task_outputs o ON o.id = r.output_id JOIN samples s ON s.id = o.sample_id"
    )
    assert {str(uid): (tier, reason, quality) for uid, tier, reason, quality in stored} == clicks
    assert site.rows("SELECT count(*) FROM judgements") == [(3,)]

    # The threshold is reached: a reward model, then a policy that waits for the click.
    page.get_by_role("link", name="Pipeline").click()
    promote = page.get_by_role("button", name="Promote P 1")
    expect(promote).to_be_visible(timeout=TRAINING_MS)
    expect(page.get_by_role("link", name="R 1").first).to_be_visible()
    with page.expect_navigation():
        promote.click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Round 3")
    expect(page.locator(".page-head").first).to_contain_text("P 1")
    assert site.rows("SELECT count(*) FROM audit_log WHERE action = 'promote checkpoint' AND actor_id IS NOT NULL") == [
        (1,)
    ]

    # What was in hand finishes in the old round; the next task comes from the new policy.
    page.get_by_role("link", name="Rank", exact=True).click()
    page.locator("summary", has_text="Skip").click()
    page.get_by_role("button", name="Give it back").click()
    page.get_by_role("link", name="Pipeline").click()
    ready = page.locator(".station", has_text="Samples").locator(".station-figure")
    expect(ready).not_to_have_text("0", timeout=DRAWING_MS)
    page.get_by_role("link", name="Rank", exact=True).click()
    page.get_by_role("button", name="Get a task").click()
    expect(page.locator("[data-output]").first).to_be_visible()
    uid = page.url.rstrip("/").rpartition("/")[2].partition("?")[0]
    drawn_from = site.rows(
        "SELECT DISTINCT c.kind, c.number FROM tasks t JOIN task_outputs o ON o.task_id = t.id "
        "JOIN samples s ON s.id = o.sample_id JOIN samplers m ON m.id = s.sampler_id "
        "JOIN checkpoints c ON c.id = m.checkpoint_id WHERE t.uid = %s",
        uid,
    )
    assert drawn_from == [("policy", 1)]
