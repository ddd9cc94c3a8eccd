"""SQL of the outbox. Every change names the state, and where a worker writes the attempt, that it expects to find."""

from collections.abc import Collection, Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import case, delete, exists, func, select, update
from sqlalchemy.orm import Session, aliased

from app.models import Job, JobState

LIVE = (JobState.QUEUED, JobState.RUNNING, JobState.CANCELLING)
"""States of a job that is not over."""
WORKED_ON = (JobState.RUNNING, JobState.CANCELLING)
"""States in which some worker holds the job."""


def find_live(session: Session, project_id: int, dedupe_key: str) -> Job | None:
    """The live job of this key, of which there is at most one."""
    return session.scalar(
        select(Job).where(Job.project_id == project_id, Job.dedupe_key == dedupe_key, Job.state.in_(LIVE))
    )


def find_newest(session: Session, project_id: int, kind: str, state: JobState) -> Job | None:
    """The newest job of this kind in this state."""
    statement = select(Job).where(Job.project_id == project_id, Job.kind == kind, Job.state == state)
    return session.scalar(statement.order_by(Job.id.desc()).limit(1))


def claim_job(session: Session, job_id: int) -> Job | None:
    """Make a queued job running and raise its attempt; None where it is not queued."""
    return session.scalar(
        update(Job)
        .where(Job.id == job_id, Job.state == JobState.QUEUED)
        .values(
            state=JobState.RUNNING,
            attempt=Job.attempt + 1,
            heartbeat_at=func.now(),
            started_at=func.coalesce(Job.started_at, func.now()),
            error=None,
        )
        .returning(Job)
        .execution_options(populate_existing=True)
    )


def touch(session: Session, job_id: int, attempt: int, *, progress: int | None, total: int | None) -> JobState | None:
    """Write a heartbeat and lock the row; its state, or None where another attempt holds the job or it is over."""
    values: dict[str, Any] = {"heartbeat_at": func.now()}
    if progress is not None:
        values["progress"] = progress
    if total is not None:
        values["total"] = total
    return session.scalar(
        update(Job)
        .where(Job.id == job_id, Job.attempt == attempt, Job.state.in_(WORKED_ON))
        .values(**values)
        .returning(Job.state)
    )


def end_attempt(session: Session, job_id: int, attempt: int, **values: Any) -> bool:
    """Write `values` over a job that this attempt holds; False where it no longer does."""
    statement = update(Job).where(Job.id == job_id, Job.attempt == attempt, Job.state.in_(WORKED_ON))
    return session.scalar(statement.values(**values).returning(Job.id)) is not None


def request_cancel(session: Session, job_id: int) -> JobState | None:
    """Cancel a queued job at once, ask the worker of a running one; the new state, None where the job was over."""
    is_queued = Job.state == JobState.QUEUED
    return session.scalar(
        update(Job)
        .where(Job.id == job_id, Job.state.in_(LIVE))
        .values(
            state=case((is_queued, JobState.CANCELLED), else_=JobState.CANCELLING),
            finished_at=case((is_queued, func.now()), else_=None),
        )
        .returning(Job.state)
    )


def delete_finished(session: Session, *, kinds: Collection[str], before_days: int, limit: int) -> int:
    """Delete jobs of these kinds that ended so many days ago, all but the latest of each project, kind and key; how many."""
    newer = aliased(Job)
    old = (
        select(Job.id)
        .where(
            Job.kind.in_(kinds),
            Job.state.not_in(LIVE),
            Job.finished_at < func.now() - timedelta(days=before_days),
            exists().where(
                newer.project_id == Job.project_id,
                newer.kind == Job.kind,
                newer.dedupe_key.is_not_distinct_from(Job.dedupe_key),
                newer.id > Job.id,
            ),
        )
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    deleted = session.execute(delete(Job).where(Job.id.in_(old)).returning(Job.id))
    return len(deleted.all())


def list_dead(session: Session, after_seconds: float) -> Sequence[Job]:
    """Jobs whose worker has not been heard of for `after_seconds`, locked; those another process has locked are left to it."""
    return session.scalars(
        select(Job)
        .where(Job.state.in_(WORKED_ON), Job.heartbeat_at < func.now() - timedelta(seconds=after_seconds))
        .order_by(Job.id)
        .with_for_update(skip_locked=True)
    ).all()


def list_unheard(session: Session, after_seconds: float) -> Sequence[Job]:
    """Queued jobs whose last message is old, locked. The longer a job has waited, the rarer it is sent again."""
    told = func.coalesce(Job.sent_at, Job.created_at)
    waited_seconds = func.extract("epoch", func.now() - Job.created_at)
    patience = func.least(func.greatest(after_seconds, waited_seconds / 10), 600)
    return session.scalars(
        select(Job)
        .where(Job.state == JobState.QUEUED, func.extract("epoch", func.now() - told) > patience)
        .order_by(Job.id)
        .with_for_update(skip_locked=True)
    ).all()


def reopen_job(session: Session, job_id: int) -> bool:
    """Queue a failed or cancelled job again; False where it is neither."""
    values = {"state": JobState.QUEUED, "error": None, "finished_at": None, "sent_at": func.now()}
    statement = update(Job).where(Job.id == job_id, Job.state.in_((JobState.FAILED, JobState.CANCELLED)))
    return session.scalar(statement.values(**values).returning(Job.id)) is not None
