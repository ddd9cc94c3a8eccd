"""The supervisor's side of a training process, tried with programs that misbehave: killed, mute, chatty, stubborn, left over."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import select

from app.db import transaction
from app.models import Job, JobState, Run, RunKind, RunLog
from app.services import counters, runs
from app.settings import Settings
from tests.app import registry
from workers.tasks import train as task
from workers.tasks import trainer

HOLD = """
import fcntl, sys, time
lock = open(sys.argv[1] + "/lock", "a"); fcntl.flock(lock, fcntl.LOCK_EX); print("held", flush=True); time.sleep(60)
"""


@pytest.fixture
def run(settings: Settings, tmp_path: Path) -> Run:
    """A queued SFT run of a project whose model is never opened."""
    with transaction() as session:
        project = registry.make_project(session, tmp_path)[0]
        counters.add(session, project.id, counters.DEMONSTRATIONS)
        return runs.request_run(session, project, kind=RunKind.SFT, reason="a test")


def train_with(program: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> Job:
    """The job after a training whose program is `program`."""
    monkeypatch.setattr(trainer, "COMMAND", ("-c", program))
    task.train(run.job_id)
    with transaction() as session:
        return session.get_one(Job, run.job_id)


def logs_of(run: Run) -> list[str]:
    with transaction() as session:
        return list(session.scalars(select(RunLog.text).where(RunLog.run_id == run.id).order_by(RunLog.id)))


class TestTrain:
    def test_a_trainer_killed_again_and_again_is_given_up(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        job = train_with("import os; os.kill(os.getpid(), 9)", run, monkeypatch)
        assert job.state == JobState.FAILED
        assert job.error is not None and job.error.startswith(
            "The training process was killed 3 times, last by SIGKILL."
        )
        assert len([text for text in logs_of(run) if "starting it again" in text]) == 2

    def test_a_trainer_that_dies_without_an_event_is_quoted(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        job = train_with("raise SystemExit('torch is not installed')", run, monkeypatch)
        assert job.error == "The training process left with code 1; it said: torch is not installed"

    def test_an_error_event_is_the_error(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        program = """import sys; print('{"type": "error", "message": "no rows"}'); sys.exit(1)"""
        assert train_with(program, run, monkeypatch).error == "no rows"

    def test_what_a_library_prints_is_a_line_of_the_log(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        train_with("print('advice'); print('[1, 2]'); raise SystemExit(1)", run, monkeypatch)
        assert logs_of(run) == ["advice", "[1, 2]"]

    def test_a_trainer_that_ignores_a_cancel_is_ended(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(task, "CANCEL_WITHIN_SECONDS", 0.5)
        monkeypatch.setattr(task, "HEARTBEAT_SECONDS", 0.5)
        cancelling = """
import json, time
for step in range(1000):
    print(json.dumps({"type": "progress", "step": step, "total": 1000, "eta_seconds": 1}), flush=True); time.sleep(0.1)
"""
        save = runs.save_report

        def cancel_then_save(session, claim, run_id, report):  # type: ignore[no-untyped-def]
            session.get_one(Job, run.job_id).state = JobState.CANCELLING
            session.flush()
            return save(session, claim, run_id, report)

        monkeypatch.setattr(runs, "save_report", cancel_then_save)
        began = time.monotonic()
        assert train_with(cancelling, run, monkeypatch).state == JobState.CANCELLED
        assert time.monotonic() - began < 15


class TestFreeFolder:
    @pytest.fixture
    def holder(self, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
        """A process that holds the run folder's lock, as a trainer does."""
        command = [sys.executable, "-c", HOLD, str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
            assert process.stdout is not None and process.stdout.readline() == "held\n"
            yield process
            process.kill()

    def test_waits_for_a_trainer_that_leaves(self, tmp_path: Path, holder: subprocess.Popen[str]) -> None:
        beats: list[float] = []

        def beat() -> None:
            beats.append(time.monotonic())
            holder.kill()

        trainer.free_folder(tmp_path, beat)
        assert beats

    def test_ends_the_trainer_of_a_supervisor_that_only_sleeps(
        self, tmp_path: Path, holder: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(trainer, "FORMER_EXITS_WITHIN_SECONDS", 0.0)
        trainer._note_trainer(tmp_path, holder.pid)
        trainer.free_folder(tmp_path, lambda: None)
        assert holder.wait(timeout=5) < 0

    def test_says_so_where_a_stranger_holds_the_folder(
        self, tmp_path: Path, holder: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(trainer, "FORMER_EXITS_WITHIN_SECONDS", 0.0)
        with pytest.raises(TimeoutError, match="still works in"):
            trainer.free_folder(tmp_path, lambda: None)


class TestPerform:
    def test_an_unexpected_error_is_written_down_and_raised(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        def explode(*_: object) -> None:
            raise ZeroDivisionError("nothing left")

        monkeypatch.setattr(task, "free_folder", explode)
        with pytest.raises(ZeroDivisionError):
            task.train(run.job_id)
        with transaction() as session:
            assert session.get_one(Job, run.job_id).error == "ZeroDivisionError: nothing left"

    def test_a_doubled_message_does_nothing(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        job = train_with("raise SystemExit(1)", run, monkeypatch)
        assert train_with("raise SystemExit(2)", run, monkeypatch).error == job.error
