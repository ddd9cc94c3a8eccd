"""The rules of the loop: what starts by itself when, in which order, with which reason, and what never does."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import func, select, text, update
from sqlalchemy.orm import Session

from app import db
from app.models import (
    Checkpoint,
    CheckpointKind,
    CheckpointState,
    Job,
    JobState,
    Judgement,
    LeaseState,
    Project,
    Run,
    RunKind,
    Task,
    TaskState,
)
from app.queries.checkpoints import lock_registry
from app.queries.leases import lock_lease
from app.queries.tasks import lock_task
from app.schemas.projects import AutomationSettings, SamplingSettings
from app.services import automation, checkpoints, counters, judgements, samplers, sampling
from app.services.automation import Standing, due_runs
from app.settings import Settings
from tests.app import registry
from tests.app.queue import Queue, rank, take

NOW = datetime(2026, 1, 2, tzinfo=UTC)
SFT_1 = Checkpoint(id=11, kind=CheckpointKind.SFT, number=1)
SFT_2 = Checkpoint(id=12, kind=CheckpointKind.SFT, number=2)
R_1 = Checkpoint(id=21, kind=CheckpointKind.REWARD, number=1)
SETTINGS = AutomationSettings(
    judgements_per_reward_model=100, hours_per_reward_model=24, demonstrations_growth=0.25, train_policy=True
)

NEW = Standing(
    now=NOW,
    demonstrations=0,
    judgements=0,
    waiting_since=None,
    last_sft=None,
    last_reward=None,
    sft=None,
    reward=None,
    is_reward_of_sft=False,
    has_policy_run=False,
    live=frozenset(),
)
TRAINED = replace(NEW, demonstrations=200, last_sft=Run(demonstration_count=200), sft=SFT_1)
REWARDED = replace(
    TRAINED, judgements=100, last_reward=Run(judgement_count=100, init_id=SFT_1.id), reward=R_1, is_reward_of_sft=True
)


def due(standing: Standing, settings: AutomationSettings = SETTINGS) -> dict[RunKind, str]:
    return {one.kind: one.reason for one in due_runs(standing, settings)}


class TestSft:
    def test_starts_with_the_first_demonstrations(self) -> None:
        assert due(NEW) == {}
        assert due(replace(NEW, demonstrations=300)) == {RunKind.SFT: "The first SFT model, from 300 demonstrations."}

    def test_is_not_repeated_for_a_run_that_failed(self) -> None:
        assert due(replace(NEW, demonstrations=300, last_sft=Run(demonstration_count=300))) == {}

    @pytest.mark.parametrize(("demonstrations", "is_due"), [(249, False), (250, True)])
    def test_is_trained_again_when_demonstrations_grew_by_the_share(self, demonstrations: int, is_due: bool) -> None:
        assert (RunKind.SFT in due(replace(TRAINED, demonstrations=demonstrations))) == is_due

    def test_a_handful_is_no_growth_whatever_its_share(self) -> None:
        few = replace(TRAINED, last_sft=Run(demonstration_count=4))
        assert due(replace(few, demonstrations=13)) == {}
        assert RunKind.SFT in due(replace(few, demonstrations=14))


class TestReward:
    @pytest.mark.parametrize(("judgements", "is_due"), [(99, False), (100, True)])
    def test_is_due_after_n_new_judgements(self, judgements: int, is_due: bool) -> None:
        assert (RunKind.REWARD in due(replace(TRAINED, judgements=judgements))) == is_due

    def test_counts_from_the_last_run_that_was_requested(self) -> None:
        assert RunKind.REWARD not in due(replace(REWARDED, judgements=199))
        reason = due(replace(REWARDED, judgements=200))[RunKind.REWARD]
        assert reason == "100 new judgements (a reward model every 100)."

    @pytest.mark.parametrize(("hours", "is_due"), [(23, False), (24, True)])
    def test_is_due_when_the_oldest_new_judgement_has_waited_long(self, hours: int, is_due: bool) -> None:
        waiting = replace(REWARDED, judgements=101, waiting_since=NOW - timedelta(hours=hours), has_policy_run=True)
        assert (RunKind.REWARD in due(waiting)) == is_due

    def test_follows_a_new_sft_model(self) -> None:
        assert due(replace(REWARDED, sft=SFT_2)) == {RunKind.REWARD: "SFT 2 is new; the reward model starts from it."}

    def test_waits_for_an_sft_model(self) -> None:
        assert due(replace(NEW, judgements=1000)) == {}
        assert due(replace(TRAINED, judgements=1000, live=frozenset({RunKind.SFT}))) == {}


class TestPolicy:
    def test_is_due_once_for_each_pair_of_sft_and_active_reward_model(self) -> None:
        assert due(REWARDED) == {RunKind.PPO: "R 1 became active; no policy has climbed it from SFT 1 yet."}
        assert due(replace(REWARDED, has_policy_run=True)) == {}

    @pytest.mark.parametrize("live", [RunKind.REWARD, RunKind.PPO, RunKind.SFT])
    def test_waits_for_what_is_under_way(self, live: RunKind) -> None:
        assert due(replace(REWARDED, live=frozenset({live}))) == {}

    def test_gives_way_to_a_reward_model_that_is_due(self) -> None:
        assert list(due(replace(REWARDED, judgements=500))) == [RunKind.REWARD]

    def test_waits_for_a_reward_model_of_the_newest_sft_model(self) -> None:
        failed = Run(judgement_count=100, init_id=SFT_2.id)
        assert due(replace(REWARDED, sft=SFT_2, last_reward=failed, is_reward_of_sft=False)) == {}

    def test_can_be_switched_off(self) -> None:
        assert due(REWARDED, SETTINGS.model_copy(update={"train_policy": False})) == {}


@pytest.fixture
def project(session: Session, settings: Settings, tmp_path: Path) -> Project:
    return registry.make_project(session, tmp_path)[0]


def runs_of(session: Session) -> list[tuple[RunKind, str]]:
    return [(run.kind, run.reason) for run in session.scalars(select(Run).order_by(Run.id))]


def finish_jobs(session: Session, **values: object) -> None:
    """End every live job."""
    finished: dict[str, object] = {"state": JobState.SUCCEEDED, "finished_at": func.now()}
    session.execute(update(Job).where(Job.state.in_([JobState.QUEUED, JobState.RUNNING])).values(**(finished | values)))


class TestTick:
    def test_starts_the_first_sft_once_and_fills_the_queue(self, session: Session, project: Project) -> None:
        counters.add(session, project.id, counters.DEMONSTRATIONS, 5)
        for _ in range(3):
            automation.tick(session, project.id)
        assert runs_of(session) == [(RunKind.SFT, "The first SFT model, from 5 demonstrations.")]
        kinds = sorted(session.scalars(select(Job.kind)))
        assert kinds == ["sample_tasks", "showcase", "train"]

    def test_promotes_the_first_sft_and_no_later_one(self, session: Session, project: Project, tmp_path: Path) -> None:
        base = checkpoints.active_policy(session, project.id)
        first = registry.make_checkpoint(session, project, tmp_path, CheckpointKind.SFT, init=base)
        automation.tick(session, project.id)
        assert checkpoints.active_policy(session, project.id).id == first.id
        registry.make_checkpoint(session, project, tmp_path, CheckpointKind.SFT, init=base)
        registry.make_checkpoint(session, project, tmp_path, CheckpointKind.POLICY, init=first)
        automation.tick(session, project.id)
        assert checkpoints.active_policy(session, project.id).id == first.id
        assert checkpoints.open_round(session, project.id).number == 2

    def test_a_better_reward_model_takes_over_and_starts_ppo(
        self, session: Session, project: Project, tmp_path: Path
    ) -> None:
        base = checkpoints.active_policy(session, project.id)
        sft = registry.make_checkpoint(session, project, tmp_path, CheckpointKind.SFT, init=base)
        better, worse = (
            registry.make_checkpoint(
                session, project, tmp_path, CheckpointKind.REWARD, init=sft, metrics={"accuracy": a, "accuracy_high": a}
            )
            for a in (0.8, 0.6)
        )
        worse.state = CheckpointState.RETIRED
        session.flush()
        checkpoints.activate_reward(session, project, better)
        automation.tick(session, project.id)
        assert runs_of(session) == [(RunKind.PPO, "R 1 became active; no policy has climbed it from SFT 1 yet.")]

        finish_jobs(session)
        last = registry.make_checkpoint(
            session,
            project,
            tmp_path,
            CheckpointKind.REWARD,
            init=sft,
            metrics={"accuracy": 0.7, "accuracy_high": 0.75},
        )
        automation.tick(session, project.id)
        assert (last.state, better.state) == (CheckpointState.CANDIDATE, CheckpointState.ACTIVE)
        assert len(runs_of(session)) == 1

    def test_ppo_does_not_climb_a_reward_model_of_an_earlier_sft_model(
        self, session: Session, project: Project, tmp_path: Path
    ) -> None:
        base = checkpoints.active_policy(session, project.id)
        sft = registry.make_checkpoint(session, project, tmp_path, CheckpointKind.SFT, init=base)
        reward = registry.make_checkpoint(session, project, tmp_path, CheckpointKind.REWARD, init=sft)
        registry.make_checkpoint(session, project, tmp_path, CheckpointKind.SFT, init=base)
        checkpoints.activate_reward(session, project, reward)
        automation.tick(session, project.id)
        assert runs_of(session) == []

    def test_does_nothing_while_it_is_off_but_tidy_and_show(self, session: Session, project: Project) -> None:
        project.automation = AutomationSettings(is_on=False).model_dump()
        counters.add(session, project.id, counters.DEMONSTRATIONS, 5)
        automation.tick(session, project.id)
        assert session.scalars(select(Job.kind)).all() == ["showcase"]

    @pytest.mark.parametrize(
        ("ending", "minutes", "asks_again"),
        [
            ({"state": JobState.SUCCEEDED, "result": {"made": 5, "missing": 3}}, 0, True),
            ({"state": JobState.SUCCEEDED, "result": {"made": 0, "missing": 0}}, 0, True),
            ({"state": JobState.SUCCEEDED, "result": {"made": 0, "missing": 3}}, 9, False),
            ({"state": JobState.SUCCEEDED, "result": {"made": 0, "missing": 3}}, 11, True),
            ({"state": JobState.FAILED}, 0, False),
            ({"state": JobState.FAILED}, 2, True),
        ],
    )
    def test_waits_a_while_after_a_refill_that_came_to_nothing(
        self, session: Session, project: Project, ending: dict[str, object], minutes: int, asks_again: bool
    ) -> None:
        sampling.request_tasks(session, project)
        if isinstance(result := ending.get("result"), dict):
            ending = ending | {"result": result | {"round": checkpoints.open_round(session, project.id).id}}
        finish_jobs(session, **ending, finished_at=func.now() - timedelta(minutes=minutes))
        automation.tick(session, project.id)
        live = select(func.count()).where(Job.kind == "sample_tasks", Job.state == JobState.QUEUED)
        assert session.scalar(live) == int(asks_again)

    def test_a_failed_reward_run_is_not_started_again_until_its_rule_fires_anew(
        self, session: Session, project: Project, tmp_path: Path
    ) -> None:
        base = checkpoints.active_policy(session, project.id)
        registry.make_checkpoint(session, project, tmp_path, CheckpointKind.SFT, init=base)
        counters.add(session, project.id, counters.JUDGEMENTS, 500)
        automation.tick(session, project.id)
        assert [kind for kind, _ in runs_of(session)] == [RunKind.REWARD]
        finish_jobs(session, state=JobState.FAILED)
        automation.tick(session, project.id)
        assert len(runs_of(session)) == 1
        counters.add(session, project.id, counters.JUDGEMENTS, 500)
        automation.tick(session, project.id)
        assert len(runs_of(session)) == 2

    def test_a_few_judgements_make_a_reward_model_once_the_first_has_waited_long(
        self, session: Session, project: Project, tmp_path: Path
    ) -> None:
        base = checkpoints.active_policy(session, project.id)
        registry.make_checkpoint(session, project, tmp_path, CheckpointKind.SFT, init=base)
        automation.tick(session, project.id)
        sampler = samplers.ensure_sampler(session, project, base, SamplingSettings())
        queue = Queue(project, checkpoints.open_round(session, project.id), sampler)
        for hours in (23, 5):
            queue.task(session)
            person = queue.person(session)
            work = take(session, person)
            given = judgements.submit_ranking(session, person, work.task.uid, rank(work))
            session.execute(
                update(Judgement).where(Judgement.id == given.id).values(created_at=func.now() - timedelta(hours=hours))
            )
        automation.tick(session, project.id)
        assert runs_of(session) == []
        session.execute(update(Judgement).values(created_at=Judgement.created_at - timedelta(hours=2)))
        automation.tick(session, project.id)
        assert runs_of(session) == [(RunKind.REWARD, "2 new judgements, the first more than 24 hours old.")]

    def test_holds_no_task_while_it_waits_for_the_registry(self, settings: Settings, tmp_path: Path) -> None:
        """A promotion holds the registry and then takes the tasks; the other way round the two would wait for each other."""
        with db.transaction() as session:
            project, base = registry.make_project(session, tmp_path)
            leftover = registry.make_rank_task(session, project, registry.make_prompt(session, project))
            sft = registry.make_checkpoint(session, project, tmp_path, CheckpointKind.SFT, init=base)
            held = registry.hold(session, leftover, registry.make_user(session), until=func.now() + timedelta(hours=1))
            checkpoints.promote(session, None, project, sft)
            held.expires_at = func.now()
            counters.add(session, project.id, counters.JUDGEMENTS, 500)

        def tick() -> None:
            with db.transaction() as session:
                automation.tick(session, project.id)

        with ThreadPoolExecutor(1) as pool:
            with db.transaction() as session:
                lock_registry(session, project.id)
                ticking = pool.submit(tick)
                with pytest.raises(TimeoutError):
                    ticking.result(timeout=0.5)
                session.execute(text("SET LOCAL lock_timeout = '1s'"))
                assert lock_task(session, leftover.id).state == TaskState.OPEN
                assert lock_lease(session, held.id).state == LeaseState.HELD
            ticking.result(timeout=10)
        with db.transaction() as session:
            assert session.get_one(Task, leftover.id).state == TaskState.RETIRED
