"""SQL of rounds: the open one, the history, and the tasks that end with a round."""

from collections.abc import Sequence
from datetime import timedelta
from typing import cast

from sqlalchemy import CursorResult, exists, func, select, update
from sqlalchemy.orm import Session

from app.models import Checkpoint, Draft, Lease, LeaseState, Round, Task, TaskKind, TaskState
from app.models.tasks import Purpose

DRAFT_KEEPS = timedelta(days=7)
"""How long work that was begun keeps its task from retiring with its round."""


def find_open_round(session: Session, project_id: int) -> Round | None:
    """The round that is going on; None before a project's first."""
    return session.scalar(select(Round).where(Round.project_id == project_id, Round.closed_at.is_(None)))


def list_rounds(session: Session, project_id: int) -> Sequence[tuple[Round, Checkpoint]]:
    """Every round with the model judged in it, newest first."""
    rows = session.execute(
        select(Round, Checkpoint)
        .join(Checkpoint, Checkpoint.id == Round.checkpoint_id)
        .where(Round.project_id == project_id)
        .order_by(Round.number.desc())
    )
    return [(row.Round, row.Checkpoint) for row in rows]


def close_round(session: Session, round_: Round) -> None:
    """End a round now, by the database's clock."""
    session.execute(update(Round).where(Round.id == round_.id).values(closed_at=func.now()))
    session.refresh(round_)


def retire_unleased_tasks(session: Session, project_id: int) -> int:
    """Retire the training rank tasks of closed rounds that nobody holds or has begun; how many they were.

    A draft of the last days keeps its task open, so that the person who let its time run out finds it again.

    Two statements on purpose: the first waits for whoever is leasing one of the tasks, so that the second, with a newer
    view of the leases, leaves that task to its labeller.
    """
    of_closed_rounds = (
        Task.project_id == project_id,
        Task.kind == TaskKind.RANK,
        Task.purpose == Purpose.TRAIN,
        Task.state == TaskState.OPEN,
        Task.round_id.in_(select(Round.id).where(Round.project_id == project_id, Round.closed_at.is_not(None))),
    )
    session.execute(select(Task.id).where(*of_closed_rounds).order_by(Task.id).with_for_update(key_share=True))
    is_held = exists().where(Lease.task_id == Task.id, Lease.state == LeaseState.HELD, Lease.expires_at > func.now())
    is_begun = exists().where(
        Draft.task_id == Task.id,
        Draft.updated_at > func.now() - DRAFT_KEEPS,
        Lease.task_id == Draft.task_id,
        Lease.user_id == Draft.user_id,
        Lease.state.in_([LeaseState.EXPIRED, LeaseState.HELD, LeaseState.RELEASED]),
    )
    retired = session.execute(
        update(Task).where(*of_closed_rounds, ~is_held, ~is_begun).values(state=TaskState.RETIRED)
    )
    return cast(CursorResult[object], retired).rowcount
