"""Who works on a job: claims, heartbeats, endings, and the recovery of what a dead worker or a lost message left behind.

A worker holds a job by the attempt it claimed. Every write of its goes with `heartbeat` or an ending in one transaction: they
lock the row and refuse an older attempt, so that a worker given up for dead changes nothing when it comes back.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func  # sql: the database's clock, as a value
from sqlalchemy.orm import Session

from app import jobs as outbox
from app.db import after_commit
from app.errors import Conflict, StaleAttempt
from app.models import Job, JobState
from app.queries import jobs as queries

RESEND_AFTER_SECONDS = 15.0
"""A queued job is announced again when its last message is older than this (and a tenth of the time it has waited)."""

MAX_ATTEMPTS = 20
"""A job that was begun this often and whose worker is lost once more is not given another: it most likely kills them."""

FORGOTTEN = ("sample_tasks", "test_endpoint")
"""Kinds of which nobody asks how an old one ended. A run's job is part of its history; a showcase is drawn once per model."""

FORGOTTEN_AFTER_DAYS = 7


@dataclass(frozen=True)
class Claim:
    """A worker's hold on a job."""

    job_id: int
    attempt: int
    project_id: int
    kind: str
    arguments: Mapping[str, Any]


def claim(session: Session, job_id: int) -> Claim | None:
    """Take a queued job; None where someone has it, it is over, or it was never committed. Doubled messages end here."""
    job = queries.claim_job(session, job_id)
    return Claim(job.id, job.attempt, job.project_id, job.kind, job.arguments) if job else None


def heartbeat(session: Session, claim: Claim, *, progress: int | None = None, total: int | None = None) -> JobState:
    """Say that the work goes on; `running`, or `cancelling` where someone wants it stopped.

    Locks the job until the transaction ends, so what is written after it is fenced. Raises StaleAttempt.
    """
    state = queries.touch(session, claim.job_id, claim.attempt, progress=progress, total=total)
    if state is None:
        raise StaleAttempt(f"Attempt {claim.attempt} of job {claim.job_id} was superseded; nothing was saved.")
    return state


def succeed(session: Session, claim: Claim, result: Mapping[str, Any] | None = None) -> None:
    """The work is done. Raises StaleAttempt."""
    _end(session, claim, state=JobState.SUCCEEDED, result=dict(result or {}), error=None, finished_at=func.now())


def fail(session: Session, claim: Claim, error: str) -> None:
    """The work cannot be done; `error` is one sentence for people. Raises StaleAttempt."""
    _end(session, claim, state=JobState.FAILED, error=error, finished_at=func.now())


def mark_cancelled(session: Session, claim: Claim) -> None:
    """The work stopped because it was asked to. Raises StaleAttempt."""
    _end(session, claim, state=JobState.CANCELLED, finished_at=func.now())


def hand_back(session: Session, claim: Claim) -> None:
    """This worker is stopping: queue the job for the next, or end it if a cancel was under way. Raises StaleAttempt."""
    if heartbeat(session, claim) == JobState.CANCELLING:
        mark_cancelled(session, claim)
    else:
        _end(
            session,
            claim,
            state=JobState.QUEUED,
            heartbeat_at=None,
            sent_at=func.now(),
            handed_back=Job.handed_back + 1,
        )
        after_commit(session, lambda: outbox.send(claim.job_id, claim.kind))


def request_cancel(session: Session, job: Job) -> JobState:
    """Stop a job: at once if queued, else its worker sees it at the next heartbeat. Raises Conflict if it is over."""
    state = queries.request_cancel(session, job.id)
    if state is None:
        raise Conflict("This job is over already; there is nothing to cancel.")
    session.refresh(job)
    return state


def reopen(session: Session, job: Job) -> None:
    """Queue a failed or cancelled job once more; it goes on from what it has saved. Raises Conflict."""
    if job.dedupe_key and queries.find_live(session, job.project_id, job.dedupe_key):
        raise Conflict("Another job of this kind is under way; wait for it, or cancel it first.")
    if not queries.reopen_job(session, job.id):
        raise Conflict("Only a failed or cancelled job can be retried.")
    session.refresh(job)
    after_commit(session, lambda: outbox.send(job.id, job.kind))


def requeue_dead(session: Session, *, after_seconds: float = outbox.DEAD_AFTER_SECONDS) -> list[int]:
    """Give the jobs of silent workers back to the queue and announce them; end those that were being cancelled. Ids changed."""
    dead = queries.list_dead(session, after_seconds)
    for job in dead:
        if job.state == JobState.CANCELLING:
            job.state, job.finished_at = JobState.CANCELLED, func.now()
        elif job.attempt - job.handed_back >= MAX_ATTEMPTS:
            job.state, job.finished_at = JobState.FAILED, func.now()
            job.error = (
                f"It was begun {job.attempt - job.handed_back} times and never came to an end: its worker stopped each time, "
                "the last time without a word; see the worker's log."
            )
        else:
            job.state, job.heartbeat_at = JobState.QUEUED, None
            _announce(session, job)
    session.flush()
    return [job.id for job in dead]


def resend_queued(session: Session, *, after_seconds: float = RESEND_AFTER_SECONDS) -> list[int]:
    """Announce again the queued jobs whose message may be lost (a wiped broker, a killed worker's last message). Ids sent."""
    waiting = queries.list_unheard(session, after_seconds)
    for job in waiting:
        _announce(session, job)
    session.flush()
    return [job.id for job in waiting]


def forget_finished(session: Session, limit: int = 1000) -> int:
    """Delete the routine jobs that ended more than a week ago; how many. Filling the queue adds one every few minutes."""
    return queries.delete_finished(session, kinds=FORGOTTEN, before_days=FORGOTTEN_AFTER_DAYS, limit=limit)


def _announce(session: Session, job: Job) -> None:
    job.sent_at = func.now()
    job_id, kind = job.id, job.kind
    after_commit(session, lambda: outbox.send(job_id, kind))


def _end(session: Session, claim: Claim, **values: Any) -> None:
    if not queries.end_attempt(session, claim.job_id, claim.attempt, **values):
        raise StaleAttempt(f"Attempt {claim.attempt} of job {claim.job_id} was superseded; nothing was saved.")
