"""The `train` job: supervise ONE training process over a snapshot, save what it says, and enter its model into the registry."""

import shutil
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.exc import OperationalError

from app import storage
from app.db import transaction
from app.errors import AppError
from app.jobs import DEAD_AFTER_SECONDS, HEARTBEAT_SECONDS
from app.models import JobState, RunKind
from app.services import datasets, runs
from app.services.jobs import Claim
from app.services.runs import Report
from app.settings import Settings, get_settings
from workers.celery_app import celery, is_stopping
from workers.tasks.perform import CancelledError, StoppingError, check, perform
from workers.tasks.trainer import Event, Trainer, free_folder

SAVE_SECONDS = 1.0
"""What the trainer says is written to the database at most this often."""

CANCEL_WITHIN_SECONDS = 120.0
"""Time for the step in progress when a run is cancelled; then the trainer is ended, and its last saved state stays."""

STOP_WITHIN_SECONDS = 7.0
"""The same when the worker is asked to end; whoever stops it waits a little longer than this."""

INTERRUPTED = 130
"""Exit code of a trainer that was sent SIGTERM or SIGINT and saved its state."""

MAX_RESUMES = 2
"""How often one attempt starts a killed trainer again."""


class TrainingFailed(AppError):
    """The trainer says, or shows, that the run cannot succeed."""


@dataclass(frozen=True)
class Plan:
    """One run as its supervisor needs it."""

    run_id: int
    folder: Path
    arguments: tuple[str, ...]


@dataclass(frozen=True)
class Ending:
    """How a training process ended: its exit code (negative for a signal), and its result or error where it told one."""

    code: int
    result: Event | None
    error: str | None


@celery.task(name="preferable.train")
def train(job_id: int) -> None:
    """Train the model of a run, from its first start or from where another attempt left it."""
    perform(job_id, _train)


def _train(claim: Claim) -> None:
    settings = get_settings()
    plan = _plan(claim, settings)
    free_folder(plan.folder, lambda: check(claim))
    result = _run(claim, plan, settings)
    sha256 = storage.put_checkpoint(settings, Path(result["checkpoint"]))
    with transaction() as session:
        runs.finish(session, claim, sha256=sha256, metrics=result["metrics"])
    shutil.rmtree(plan.folder / "checkpoint", ignore_errors=True)  # the store has it


def _plan(claim: Claim, settings: Settings) -> Plan:
    """Load the run, take its snapshot if it has none, and lay out its folder."""
    with transaction() as session:
        inputs = runs.load_inputs(session, claim)
    run, snapshot = inputs.run, inputs.snapshot
    if snapshot is None:
        with transaction(isolation="REPEATABLE READ") as session:
            snapshot = datasets.take_snapshot(session, inputs.project, runs.LEARNS_FROM[run.kind])
        with transaction() as session:
            runs.attach_snapshot(session, claim, run.id, snapshot.id)
    folder = storage.run_folder(settings, run.uid).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.toml").write_text(run.config, encoding="utf-8")
    models = {"--model": inputs.init, "--incumbent" if run.kind == RunKind.REWARD else "--reward": inputs.reward}
    options = {
        **{
            name: storage.checkpoint_folder(settings, model.sha256).resolve() for name, model in models.items() if model
        },
        "--data": storage.snapshot_folder(settings, snapshot.uid).resolve(),
        "--out": folder,
        "--config": folder / "config.toml",
        "--device": settings.device,
        "--threads": settings.train_threads,
        "--state-seconds": settings.train_state_seconds,
    }
    overrides = [f"--set={name}={value}" for name, value in claim.arguments["overrides"].items()]
    processes = ("--processes", str(settings.train_processes)) if settings.train_processes > 1 else ()
    arguments = (*processes, str(run.kind), *(str(part) for option in options.items() for part in option), *overrides)
    return Plan(run.id, folder, arguments)


def _run(claim: Claim, plan: Plan, settings: Settings) -> Event:
    """Train until there is a result; a killed trainer is started again from its saved state. Raises TrainingFailed."""
    for resumes in range(MAX_RESUMES + 1):
        trainer = Trainer(plan.arguments, plan.folder, niceness=settings.train_niceness)
        try:
            ending = _supervise(claim, plan, trainer)
        finally:
            trainer.close()
        if ending.result is not None and ending.code == 0:
            return ending.result
        if ending.error is not None:
            raise TrainingFailed(ending.error)
        if ending.code > 0 and ending.code != INTERRUPTED:
            raise TrainingFailed(f"The training process left with code {ending.code}; it said: {trainer.last_words()}")
        if resumes < MAX_RESUMES:
            note = f"The training process was killed ({_signal(ending.code)}); starting it again from its last saved state."
            _save(claim, plan, Report(logs=[note]))
    raise TrainingFailed(
        f"The training process was killed {MAX_RESUMES + 1} times, last by {_signal(ending.code)}. If the machine ran out of "
        "memory, lower the batch size in the project's training settings, then retry the run, or where it had saved its state "
        "start a new one."
    )


def _supervise(claim: Claim, plan: Plan, trainer: Trainer) -> Ending:
    """Read and save events until the trainer has left. Raises CancelledError or StoppingError once it left on request."""
    report, saved_at = Report(), time.monotonic()
    result: Event | None = None
    error: str | None = None
    reason: type[Exception] | None = None
    deadline = float("inf")
    while not trainer.has_ended and time.monotonic() < deadline:
        for event in trainer.read(seconds=0.25):
            if event["type"] == "result":
                result = event
            elif event["type"] == "error":
                error = str(event["message"])
            _note(report, event)
        if reason is None and is_stopping():
            reason, deadline = StoppingError, time.monotonic() + STOP_WITHIN_SECONDS
            trainer.cancel()
        if time.monotonic() - saved_at < (SAVE_SECONDS if report else HEARTBEAT_SECONDS / 2) and not trainer.has_ended:
            continue
        state = _save(claim, plan, report)
        if state is not None:
            report, saved_at = Report(), time.monotonic()
        elif time.monotonic() - saved_at > DEAD_AFTER_SECONDS or is_stopping():
            raise StoppingError  # the database has been away for a minute: the job may be another's by now
        if reason is None and state == JobState.CANCELLING:
            reason, deadline = CancelledError, time.monotonic() + CANCEL_WITHIN_SECONDS
            trainer.cancel()
    code = trainer.wait() if trainer.has_ended else trainer.close()
    if reason is not None and result is None:
        raise reason
    return Ending(code, result, error)


def _note(report: Report, event: Event) -> None:
    """Add an event to what is to be saved."""
    match event:
        case {"type": "start", "counts": counts}:
            settings = event.get("config") or {}
            report.logs.append("settings: " + ", ".join(f"{name} {value}" for name, value in settings.items()))
            report.logs.append("learning from " + ", ".join(f"{count} {name}" for name, count in counts.items()))
        case {"type": "progress", "step": step, "total": total}:
            report.step, report.total, report.eta_seconds = step, total, event.get("eta_seconds")
        case {"type": "metrics", "step": step, "values": values}:
            report.metrics[step] = values
        case {"type": "log", "text": text}:
            report.logs.append(str(text))


def _save(claim: Claim, plan: Plan, report: Report) -> JobState | None:
    """Write a report, which is a heartbeat too; None where the database is away: what was said is kept and saved later."""
    try:
        with transaction() as session:
            return runs.save_report(session, claim, plan.run_id, report)
    except OperationalError:
        return None


def _signal(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else "SIGTERM"
