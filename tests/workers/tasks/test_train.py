"""The `train` job in a real Celery worker: a model comes out, or people read why not; a run stops and goes on when asked."""

from pathlib import Path

import pytest
from sqlalchemy import select

from app import storage
from app.db import transaction
from app.models import (
    Checkpoint,
    CheckpointState,
    Job,
    JobState,
    Project,
    Run,
    RunKind,
    RunLog,
    RunMetric,
)
from app.services import runs
from app.settings import get_settings
from app.snapshot import folder_sha256
from tests.workers.tasks import tiny
from workers.tasks.train import train

ENDLESS = "[sft]\nepochs = 100000\nbatch_size = 8\n"


@pytest.fixture(autouse=True)
def quick_states(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFERABLE_TRAIN_STATE_SECONDS", "0.5")
    monkeypatch.setenv("PREFERABLE_TRAIN_THREADS", "1")


def request(project: Project, kind: RunKind = RunKind.SFT, config: str | None = None) -> Run:
    with transaction() as session:
        project = session.get_one(Project, project.id)
        project.training_config = project.training_config if config is None else config
        return runs.request_run(session, project, kind=kind, reason="a test")


def logs_of(run: Run) -> str:
    with transaction() as session:
        return "\n".join(session.scalars(select(RunLog.text).where(RunLog.run_id == run.id).order_by(RunLog.id)))


def wait_for_steps(run: Run, *, after: int = 0) -> int:
    """The last step reported, once it is beyond `after`."""
    return tiny.wait_until(
        lambda session: session.scalar(
            select(RunMetric.step)
            .where(RunMetric.run_id == run.id, RunMetric.step > after)
            .order_by(RunMetric.step.desc())
            .limit(1)
        )
    )


class TestTrain:
    @pytest.mark.parametrize("processes", [1, 2])
    def test_a_run_becomes_a_candidate_whose_files_are_in_the_store(
        self, project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, processes: int
    ) -> None:
        monkeypatch.setenv("PREFERABLE_TRAIN_PROCESSES", str(processes))
        run = request(project)
        with tiny.start_worker("train", tmp_path):
            job = tiny.wait_for_end(run.job_id)
        assert (job.state, job.error, job.attempt) == (JobState.SUCCEEDED, None, 1)
        with transaction() as session:
            run = session.get_one(Run, run.id)
            made = session.get_one(Checkpoint, run.result_id)
            steps = session.scalars(select(RunMetric.step).where(RunMetric.run_id == run.id)).all()
        folder = storage.checkpoint_folder(get_settings(), made.sha256)
        assert folder_sha256(folder) == made.sha256
        assert (made.name, made.state) == ("SFT 1", CheckpointState.CANDIDATE)
        assert made.metrics["train_loss"] > 0 and made.metrics == run.metrics
        assert (job.progress, job.total, max(steps)) == (4, 4, 4)
        assert "learning from 9 demonstrations" in logs_of(run)
        run_folder = storage.run_folder(get_settings(), run.uid)
        assert not (run_folder / "checkpoint").exists(), "the store has it; twice is too much"
        assert (run_folder / "metrics.json").is_file()

    def test_a_run_stops_when_asked_and_a_retry_goes_on(self, project: Project, tmp_path: Path) -> None:
        run = request(project, config=ENDLESS)
        with transaction() as session:
            access = tiny.labeller(session, project)
        with tiny.start_worker("train", tmp_path) as worker:
            wait_for_steps(run)
            (trainer,) = worker.trainers()
            assert trainer.nice() == get_settings().train_niceness
            self.cancel(run, access)
            reached = wait_for_steps(run)
            assert not trainer.is_running()
            with transaction() as session:
                snapshot_id = session.get_one(Run, run.id).snapshot_id

            with transaction() as session:
                runs.retry(session, access, session.get_one(Run, run.id))
            assert wait_for_steps(run, after=reached) > reached
            assert "continuing from step" in logs_of(run)
            self.cancel(run, access)
        with transaction() as session:
            assert session.get_one(Run, run.id).snapshot_id == snapshot_id

    def cancel(self, run: Run, access: tiny.Access) -> None:
        with transaction() as session:
            assert runs.request_cancel(session, access, session.get_one(Run, run.id)) == JobState.CANCELLING
        assert tiny.wait_for_end(run.job_id, seconds=20).state == JobState.CANCELLED
        with transaction() as session:
            assert session.get_one(Run, run.id).result_id is None

    def test_a_worker_asked_to_end_hands_its_run_to_the_next(self, project: Project, tmp_path: Path) -> None:
        run = request(project, config=ENDLESS)
        with tiny.start_worker("train", tmp_path) as worker:
            wait_for_steps(run)
            worker.process.terminate()
            assert worker.process.wait(timeout=15) == 0
        with transaction() as session:
            job = session.get_one(Job, run.job_id)
        assert (job.state, job.attempt) == (JobState.QUEUED, 1)
        assert (storage.run_folder(get_settings(), run.uid) / "state").is_dir()

    def test_says_why_a_run_cannot_succeed(self, project: Project) -> None:
        run = request(project, config="[sft]\nepoch = 3\n")
        train(run.job_id)
        with transaction() as session:
            job = session.get_one(Job, run.job_id)
        assert job.state == JobState.FAILED
        assert job.error is not None and job.error.startswith(
            "unknown setting 'epoch' in [sft]; known are lora_rank, lora_alpha, epochs,"
        )
