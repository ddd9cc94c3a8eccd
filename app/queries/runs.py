"""SQL of runs: finding them, and what they report while they train."""

import uuid
from collections.abc import Mapping, Sequence

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session, joinedload

from app.models import Checkpoint, CheckpointKind, Job, Json, Project, Run, RunKind, RunLog, RunMetric, Snapshot
from app.queries.jobs import LIVE


def find_run(session: Session, project_id: int, uid: uuid.UUID) -> Run | None:
    """One run of the project, with its job."""
    return session.scalar(select(Run).where(Run.project_id == project_id, Run.uid == uid).options(joinedload(Run.job)))


def get_run(session: Session, project_id: int, run_id: int) -> Run:
    """A run by its id."""
    return session.scalars(select(Run).where(Run.project_id == project_id, Run.id == run_id)).one()


def get_project(session: Session, project_id: int) -> Project:
    """The project a job is for."""
    return session.get_one(Project, project_id)


def get_snapshot(session: Session, project_id: int, snapshot_id: int) -> Snapshot:
    """The snapshot a run learns from."""
    return session.scalars(select(Snapshot).where(Snapshot.project_id == project_id, Snapshot.id == snapshot_id)).one()


def get_run_of_job(session: Session, project_id: int, job_id: int) -> Run:
    """The run that a `train` job is for."""
    return session.scalars(select(Run).where(Run.project_id == project_id, Run.job_id == job_id)).one()


def list_runs(session: Session, project_id: int, *, limit: int = 100) -> Sequence[Run]:
    """Runs of all kinds with their jobs, newest first."""
    return session.scalars(
        select(Run)
        .where(Run.project_id == project_id)
        .options(joinedload(Run.job))
        .order_by(Run.id.desc())
        .limit(limit)
    ).all()


def find_latest_run(session: Session, project_id: int, kind: RunKind) -> Run | None:
    """The run of this kind that was requested last, however it ended."""
    return session.scalar(
        select(Run)
        .where(Run.project_id == project_id, Run.kind == kind)
        .options(joinedload(Run.job))
        .order_by(Run.number.desc())
        .limit(1)
    )


def list_live_kinds(session: Session, project_id: int) -> frozenset[RunKind]:
    """The kinds of run that wait or go on now."""
    rows = session.scalars(
        select(Run.kind).join(Job, Job.id == Run.job_id).where(Run.project_id == project_id, Job.state.in_(LIVE))
    )
    return frozenset(rows)


def find_policy_run(session: Session, project_id: int, *, init_id: int, reward_id: int) -> Run | None:
    """A PPO run of this pair of SFT and reward model, however it ended."""
    return session.scalar(
        select(Run)
        .where(
            Run.project_id == project_id,
            Run.kind == RunKind.PPO,
            Run.init_id == init_id,
            Run.reward_id == reward_id,
        )
        .limit(1)
    )


def get_next_number(session: Session, project_id: int, kind: RunKind) -> int:
    """The number the next run of this kind takes; hold the registry's lock."""
    highest = session.scalar(select(func.max(Run.number)).where(Run.project_id == project_id, Run.kind == kind))
    return (highest or 0) + 1


def get_checkpoint(session: Session, project_id: int, checkpoint_id: int) -> Checkpoint:
    """A model that a run refers to."""
    return session.scalars(
        select(Checkpoint).where(Checkpoint.project_id == project_id, Checkpoint.id == checkpoint_id)
    ).one()


def get_base(session: Session, project_id: int) -> Checkpoint:
    """The project's base model."""
    return session.scalars(
        select(Checkpoint).where(Checkpoint.project_id == project_id, Checkpoint.kind == CheckpointKind.BASE)
    ).one()


def upsert_metrics(session: Session, project_id: int, run_id: int, attempt: int, steps: Mapping[int, Json]) -> None:
    """Store the metrics of some steps; a step that was reported before is overwritten."""
    rows = [
        {"project_id": project_id, "run_id": run_id, "step": step, "attempt": attempt, "values": values}
        for step, values in steps.items()
    ]
    statement = insert(RunMetric).values(rows)
    new = statement.excluded
    session.execute(
        statement.on_conflict_do_update(
            index_elements=["run_id", "step"], set_={"attempt": new.attempt, "values": new["values"]}
        )
    )


def list_metrics(session: Session, project_id: int, run_id: int, *, after_step: int = -1) -> Sequence[RunMetric]:
    """The metrics of a run after a step, in order."""
    return session.scalars(
        select(RunMetric)
        .where(RunMetric.project_id == project_id, RunMetric.run_id == run_id, RunMetric.step > after_step)
        .order_by(RunMetric.step)
    ).all()


def list_logs(session: Session, project_id: int, run_id: int, *, limit: int = 500) -> Sequence[RunLog]:
    """What a run said last, oldest of these first."""
    latest = session.scalars(
        select(RunLog)
        .where(RunLog.project_id == project_id, RunLog.run_id == run_id)
        .order_by(RunLog.id.desc())
        .limit(limit)
    ).all()
    return latest[::-1]
