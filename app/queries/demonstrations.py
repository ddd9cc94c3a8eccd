"""Demonstrations in SQL."""

import uuid
from collections.abc import Collection, Sequence

from sqlalchemy import ARRAY, Text, cast, exists, func, insert, select
from sqlalchemy.orm import Session

from app.models import (
    Demonstration,
    Json,
    JudgementStatus,
    Lease,
    Prompt,
    PromptPool,
    PromptStatus,
    Split,
    Task,
    TaskKind,
    TaskState,
)


def find_by_key(session: Session, key: uuid.UUID) -> Demonstration | None:
    """The demonstration that was stored under an idempotency key."""
    return session.scalar(select(Demonstration).where(Demonstration.idempotency_key == key))


def find_of_task(session: Session, task_id: int, author_id: int) -> Demonstration | None:
    """What this person wrote for the task."""
    return session.scalar(
        select(Demonstration).where(Demonstration.task_id == task_id, Demonstration.author_id == author_id)
    )


def insert_demonstration(session: Session, demonstration: Demonstration) -> None:
    """Add one demonstration."""
    session.add(demonstration)
    session.flush()


def insert_many(session: Session, rows: Sequence[Json]) -> None:
    """Add many at once; each row holds the columns by name."""
    session.execute(insert(Demonstration), rows)


def count_of_author(session: Session, project_id: int, author_id: int) -> int:
    """A person's demonstrations that stand."""
    return session.scalars(
        select(func.count()).where(
            Demonstration.project_id == project_id,
            Demonstration.author_id == author_id,
            Demonstration.status == JudgementStatus.CURRENT,
        )
    ).one()


def list_undemonstrated(
    session: Session, project_id: int, user_id: int, limit: int, *, granted: Collection[str]
) -> Sequence[Prompt]:
    """Training prompts to ask a demonstration of: the least demonstrated first, in no order a person could foresee.

    Prompts with an open task for it, those this person wrote one for or was asked to, and those that need more than the
    tags `granted` to them are left out.
    """
    count = (
        select(func.count())
        .where(Demonstration.project_id == project_id, Demonstration.prompt_id == Prompt.id)
        .scalar_subquery()
    )
    asked = exists().where(
        Task.project_id == project_id,
        Task.prompt_id == Prompt.id,
        Task.kind == TaskKind.DEMONSTRATE,
        (Task.state == TaskState.OPEN) | exists().where(Lease.task_id == Task.id, Lease.user_id == user_id),
    )
    own = exists().where(
        Demonstration.project_id == project_id,
        Demonstration.prompt_id == Prompt.id,
        Demonstration.author_id == user_id,
    )
    return session.scalars(
        select(Prompt)
        .join(PromptPool, PromptPool.id == Prompt.pool_id)
        .where(
            PromptPool.is_active,
            Prompt.project_id == project_id,
            Prompt.status == PromptStatus.ACTIVE,
            Prompt.problem.is_(None),
            Prompt.split == Split.TRAIN,
            Prompt.needs.contained_by(cast(list(granted), ARRAY(Text))),
            ~asked,
            ~own,
        )
        .order_by(count, func.md5(cast(Prompt.uid, Text)))
        .limit(limit)
    ).all()


def lock_demonstrate_queue(session: Session, project_id: int) -> None:
    """Let one request at a time add demonstrate tasks, so that a prompt is not asked twice."""
    session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(f"demonstrate/{project_id}", 0))))
