"""Runs: what each stage needs before it may start, what a report leaves behind, and how a model enters the registry."""

from pathlib import Path

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from app import storage
from app.errors import BadInput, Conflict, Forbidden, StaleAttempt
from app.models import (
    AuditEntry,
    Checkpoint,
    CheckpointKind,
    CheckpointState,
    Job,
    JobState,
    ParentRole,
    Project,
    Role,
    Run,
    RunKind,
    RunLog,
)
from app.queries import runs as queries
from app.services import checkpoints, counters, jobs, lineage, runs
from app.services.runs import Report
from app.settings import Settings
from tests.app import registry


@pytest.fixture
def project(session: Session, settings: Settings, tmp_path: Path) -> Project:
    return registry.make_project(session, tmp_path)[0]


@pytest.fixture
def sft(session: Session, project: Project, tmp_path: Path) -> Checkpoint:
    base = checkpoints.active_policy(session, project.id)
    return registry.make_checkpoint(session, project, tmp_path, CheckpointKind.SFT, init=base)


@pytest.fixture
def reward(session: Session, project: Project, sft: Checkpoint, tmp_path: Path) -> Checkpoint:
    made = registry.make_checkpoint(session, project, tmp_path, CheckpointKind.REWARD, init=sft)
    checkpoints.activate_reward(session, project, made)
    return made


def request(session: Session, project: Project, kind: RunKind = RunKind.SFT) -> Run:
    counters.add(session, project.id, counters.DEMONSTRATIONS)
    return runs.request_run(session, project, kind=kind, reason="because")


def claimed(session: Session, run: Run) -> jobs.Claim:
    claim = jobs.claim(session, run.job_id)
    assert claim is not None
    return claim


class TestRequestRun:
    def test_sft_needs_demonstrations_and_starts_from_the_base(self, session: Session, project: Project) -> None:
        with pytest.raises(Conflict, match="no demonstrations yet"):
            runs.request_run(session, project, kind=RunKind.SFT, reason="because")
        counters.add(session, project.id, counters.DEMONSTRATIONS, 7)
        run = runs.request_run(session, project, kind=RunKind.SFT, reason="because")
        assert run.init_id == checkpoints.active_policy(session, project.id).id
        assert (run.number, run.demonstration_count, run.reason) == (1, 7, "because")
        assert session.get_one(Job, run.job_id).state == JobState.QUEUED

    def test_a_reward_model_needs_sft_and_judgements(self, session: Session, project: Project) -> None:
        with pytest.raises(Conflict, match="run SFT first"):
            request(session, project, RunKind.REWARD)

    def test_a_reward_model_starts_from_the_newest_sft(
        self, session: Session, project: Project, sft: Checkpoint
    ) -> None:
        with pytest.raises(Conflict, match="no judgements to learn from"):
            request(session, project, RunKind.REWARD)
        counters.add(session, project.id, counters.JUDGEMENTS, 3)
        run = request(session, project, RunKind.REWARD)
        assert (run.init_id, run.judgement_count) == (sft.id, 3)

    def test_ppo_needs_an_active_reward_model(self, session: Session, project: Project, sft: Checkpoint) -> None:
        with pytest.raises(Conflict, match="train a reward model first"):
            request(session, project, RunKind.PPO)

    def test_ppo_climbs_the_active_reward_model_from_sft(
        self, session: Session, project: Project, sft: Checkpoint, reward: Checkpoint
    ) -> None:
        run = request(session, project, RunKind.PPO)
        assert (run.init_id, run.reward_id) == (sft.id, reward.id)

    @pytest.mark.parametrize(
        ("config", "expected"),
        [
            ("", {"temperature": 1.0, "max_new_tokens": 512}),
            ("[ppo]\nmax_new_tokens = 20", {"temperature": 1.0}),
            ("[ppo]\nmax_new_tokens = 20\ntemperature = 0.7", {}),
        ],
    )
    def test_ppo_answers_at_the_projects_length_unless_its_table_differs(
        self,
        session: Session,
        project: Project,
        reward: Checkpoint,
        config: str,
        expected: dict[str, float],
    ) -> None:
        project.training_config = config
        run = request(session, project, RunKind.PPO)
        assert session.get_one(Job, run.job_id).arguments == {"overrides": expected}
        assert run.config == config

    def test_one_of_a_kind_at_a_time(self, session: Session, project: Project) -> None:
        first = request(session, project)
        with pytest.raises(Conflict, match="SFT run is under way"):
            request(session, project)
        jobs.fail(session, claimed(session, first), "no luck")
        assert request(session, project).number == 2


class TestCancelAndRetry:
    def test_need_the_right_and_are_in_the_audit_log(self, session: Session, project: Project) -> None:
        run = request(session, project)
        user = registry.make_user(session)
        with pytest.raises(Forbidden):
            runs.request_cancel(session, registry.access_of(user, project, Role.LABELLER), run)
        access = registry.access_of(user, project, Role.RESEARCHER)
        assert runs.request_cancel(session, access, run) == JobState.CANCELLED
        runs.retry(session, access, run)
        assert session.get_one(Job, run.job_id).state == JobState.QUEUED
        session.flush()
        acts = session.scalars(select(AuditEntry.action).where(AuditEntry.actor_id == user.id).order_by(AuditEntry.id))
        assert list(acts) == ["cancel run", "retry run"]

    @pytest.mark.parametrize("saved", ["state/state.pt", "metrics.json", None])
    def test_a_retry_keeps_its_settings_only_where_it_saved_something(
        self, session: Session, project: Project, settings: Settings, reward: Checkpoint, saved: str | None
    ) -> None:
        project.training_config = "[ppo]\nbatch_size = 64\n"
        run = request(session, project, RunKind.PPO)
        jobs.fail(session, claimed(session, run), "out of memory")
        if saved:
            file = storage.run_folder(settings, run.uid) / saved
            file.parent.mkdir(parents=True)
            file.touch()
        project.training_config = mended = "[ppo]\nbatch_size = 8\ntemperature = 0.5\n"
        runs.retry(session, registry.access_of(registry.make_user(session), project, Role.ADMIN), run)
        session.flush()
        session.expire_all()
        assert (run.config == mended) == (saved is None)
        assert ("temperature" in run.job.arguments["overrides"]) == (saved is not None)

    def test_a_retry_waits_for_a_newer_run_of_the_kind(self, session: Session, project: Project) -> None:
        access = registry.access_of(registry.make_user(session), project, Role.ADMIN)
        old = request(session, project)
        runs.request_cancel(session, access, old)
        request(session, project)
        with pytest.raises(Conflict, match="under way"):
            runs.retry(session, access, old)


class TestSaveReport:
    def test_keeps_curves_words_and_progress(self, session: Session, project: Project) -> None:
        run = request(session, project)
        claim = claimed(session, run)
        report = Report(
            metrics={1: {"loss": 2.0}, 2: {"loss": float("nan")}}, logs=["hello"], step=2, total=9, eta_seconds=7.5
        )
        assert runs.save_report(session, claim, run.id, report) == JobState.RUNNING
        session.flush()
        metrics = [(row.step, row.values) for row in queries.list_metrics(session, project.id, run.id)]
        assert metrics == [(1, {"loss": 2.0}), (2, {"loss": None})]
        assert [row.text for row in queries.list_logs(session, project.id, run.id)] == ["hello"]
        job = session.get_one(Job, run.job_id, populate_existing=True)
        assert (job.progress, job.total, run.eta_seconds) == (2, 9, 7.5)

    def test_a_resumed_attempt_overwrites_the_steps_it_repeats(self, session: Session, project: Project) -> None:
        run = request(session, project)
        first = claimed(session, run)
        runs.save_report(session, first, run.id, Report(metrics={1: {"loss": 2.0}, 2: {"loss": 1.5}}))
        jobs.hand_back(session, first)
        second = claimed(session, run)
        runs.save_report(session, second, run.id, Report(metrics={2: {"loss": 1.4}}))
        rows = queries.list_metrics(session, project.id, run.id)
        assert [(row.attempt, row.values["loss"]) for row in rows] == [(1, 2.0), (2, 1.4)]
        with pytest.raises(StaleAttempt):
            runs.save_report(session, first, run.id, Report(logs=["late"]))
        assert session.scalars(select(RunLog)).all() == []


class TestFinish:
    def test_registers_a_candidate_with_its_parents(
        self, session: Session, project: Project, sft: Checkpoint, reward: Checkpoint, tmp_path: Path
    ) -> None:
        run = request(session, project, RunKind.PPO)
        sha256 = registry.put_model(tmp_path / "policy", weights=b"policy")
        made = runs.finish(session, claimed(session, run), sha256=sha256, metrics={"kl": 3.0})
        assert (made.name, made.state, made.metrics) == ("P 1", CheckpointState.CANDIDATE, {"kl": 3.0})
        (node,) = (node for node in lineage.lineage(session, project.id) if node.checkpoint is made)
        parents = {parent.role: parent.checkpoint.id for parent in node.parents}
        assert parents == {ParentRole.INIT: sft.id, ParentRole.REFERENCE: sft.id, ParentRole.REWARD: reward.id}
        assert run.result_id == made.id
        assert session.get_one(Job, run.job_id, populate_existing=True).state == JobState.SUCCEEDED

    def test_a_superseded_attempt_registers_nothing(self, session: Session, project: Project, tmp_path: Path) -> None:
        run = request(session, project)
        claim = claimed(session, run)
        jobs.hand_back(session, claim)
        sha256 = registry.put_model(tmp_path / "sft", weights=b"sft")
        with pytest.raises(StaleAttempt):
            runs.finish(session, claim, sha256=sha256, metrics={})
        assert checkpoints.latest(session, project.id, CheckpointKind.SFT) is None

    def test_registers_no_other_weights_than_those_that_were_trained(
        self, session: Session, settings: Settings, project: Project, tmp_path: Path
    ) -> None:
        claim = claimed(session, request(session, project))
        sha256 = registry.put_model(tmp_path / "sft", weights=b"sft")
        (storage.checkpoint_folder(settings, sha256) / "model.safetensors").write_bytes(b"other")
        session.commit()
        with pytest.raises(BadInput, match="changed or damaged"):
            runs.finish(session, claim, sha256=sha256, metrics={})
        assert not session.in_transaction(), "gigabytes are read before the transaction begins"
