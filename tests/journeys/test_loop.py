"""The loop once around over HTTP, on a model of a few thousand weights, with a real Celery worker behind the pages."""

import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TypeVar

import pytest
from sqlalchemy import func, select

from app.db import transaction
from app.models import AuditEntry, Checkpoint, Judgement, JudgementRank, Phase, Round, Sample, Sampler, Task, TaskOutput
from app.schemas.projects import AutomationSettings
from app.services import accounts, counters, guidelines
from app.settings import Settings, get_settings
from app.snapshot import folder_sha256
from tests.workers.tasks import tiny
from workers.simulate import models
from workers.simulate.browser import Browser
from workers.simulate.labellers import Labeller, ShownTask, judge_together
from workers.simulate.owner import Owner
from workers.tasks.beat import beat_tick

JUDGEMENTS = 4
CONFIG = f"""{tiny.CONFIG}
[ppo]
episodes = 16
batch_size = 8
minibatch_size = 8
heldout_prompts = 3
"""
Found = TypeVar("Found")


class Picky(Labeller):
    """Prefers what comes first in the alphabet: a model of random weights gives gold nothing to tell apart."""

    def decide(self, task: ShownTask) -> tuple[list[int | None], dict[str, str]]:
        order = sorted(output.text for output in task.outputs)
        tiers: list[int | None] = [order.index(output.text) + 1 for output in task.outputs]
        return tiers, {f"tier-{output.name}": str(tier) for output, tier in zip(task.outputs, tiers, strict=True)}


@pytest.fixture
def site(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Pages and one worker for every queue, over a project that needs few judgements; the owner's sign-in link."""
    monkeypatch.setenv("PREFERABLE_TRAIN_THREADS", "1")
    base = tiny.write_base(tmp_path / "base")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        monkeypatch.setenv("PORT", str(listening.getsockname()[1]))
        get_settings.cache_clear()
        automation = AutomationSettings(ready_tasks=6, judgements_per_reward_model=JUDGEMENTS)
        with transaction() as session:
            project = tiny.make_project(session, base, automation=automation, config=CONFIG)
            guidelines.publish(session, project, body="Be *kind* and right.", phase=Phase.TRAIN, author=None)
            link = accounts.create_login_link(session, accounts.ensure_owner(session))
        web = subprocess.Popen(
            [sys.executable, "-m", "app.serve", str(listening.fileno())], pass_fds=[listening.fileno()]
        )
        try:
            with tiny.start_worker("cpu,sample,train", tmp_path):
                yield get_settings().url + link
        finally:
            web.kill()
            web.wait()


@pytest.mark.timeout(240)
def test_rankings_become_a_policy_that_people_judge_next(site: str, tmp_path: Path) -> None:
    with ExitStack() as stack:
        owner = Owner(stack.enter_context(Browser(site.partition("/enter/")[0])), "tiny")
        owner.enter(site)

        # SFT starts by itself on the demonstrations and is promoted by itself.
        sft = wait(owner, "SFT model", lambda: owner.active("SFT"))

        # Two people join, read the guidelines and rank what it answers.
        people = []
        for number in range(2):
            browser = stack.enter_context(Browser(owner.browser.url))
            email = f"person-{number}@example.org"
            people.append(Picky(browser, "tiny", email, "a long enough password", seed=1, noise=0.0))
            people[-1].join(owner.invite())
        wait(owner, "task", people[0].next_task)
        verdicts = judge_together(people, JUDGEMENTS, patience_seconds=60)
        assert len(verdicts) == JUDGEMENTS
        with transaction() as session:
            assert session.scalar(select(func.count()).select_from(Judgement)) == JUDGEMENTS
            assert session.scalar(select(func.count()).select_from(JudgementRank)) == 3 * JUDGEMENTS
            project_id = session.scalars(select(Judgement.project_id).limit(1)).one()
            assert counters.get(session, project_id, counters.JUDGEMENTS) == JUDGEMENTS

        # The threshold is reached: a reward model, then a policy that waits for a person.
        reward = wait(owner, "active reward model", lambda: owner.active("R"))
        policy = wait(owner, "policy", lambda: owner.newest("P"))
        assert (reward.name, policy.name, policy.state) == ("R 1", "P 1", "candidate")
        assert owner.active("SFT") == sft

        # Its files leave as they are registered.
        identity = owner.identity(policy)
        assert folder_sha256(models.fetch(owner.browser, policy.page, tmp_path / "policy", identity)) == identity

        # The click: a new round, in the audit log, and the next tasks come from the policy.
        owner.promote(policy)
        assert owner.active("SFT", "P") == owner.newest("P")
        wait(owner, "task of the policy", lambda: drawn_from_policy() or None)
        with transaction() as session:
            promotions = select(AuditEntry).where(AuditEntry.action == "promote checkpoint").order_by(AuditEntry.id)
            by_rule, by_click = session.scalars(promotions)
            assert (by_rule.actor_id, by_rule.details["name"], by_click.details["name"]) == (None, "SFT 1", "P 1")
            assert by_click.actor_id is not None


def wait(owner: Owner, what: str, look: Callable[[], Found | None]) -> Found:
    """What beat and the worker bring about, seen on the pages."""

    def tick_and_look() -> Found | None:
        beat_tick()
        return look()

    return owner.wait(what, tick_and_look, seconds=120)


def drawn_from_policy() -> int:
    """Samples in tasks of the open round that the policy drew; every sample there is its."""
    with transaction() as session:
        rows = session.execute(
            select(Checkpoint.kind, func.count())
            .select_from(Task)
            .join(Round, Round.id == Task.round_id)
            .join(TaskOutput, TaskOutput.task_id == Task.id)
            .join(Sample, Sample.id == TaskOutput.sample_id)
            .join(Sampler, Sampler.id == Sample.sampler_id)
            .join(Checkpoint, Checkpoint.id == Sampler.checkpoint_id)
            .where(Round.closed_at.is_(None))
            .group_by(Checkpoint.kind)
        ).all()
    counts = {str(kind): count for kind, count in rows}
    assert set(counts) <= {"policy"} or "policy" not in counts
    return counts.get("policy", 0)
