"""Demonstrations in SQL."""

import uuid
from collections.abc import Collection, Sequence

from sqlalchemy import ARRAY, Text, cast, exists, func, insert, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.models import (
    Demonstration,
    Json,
    JudgementStatus,
    Lease,
    Prompt,
    PromptPool,
    PromptStatus,
    Purpose,
    Sample,
    SampleOrigin,
    Sampler,
    Split,
    Task,
    TaskKind,
    TaskState,
)
from app.queries.judgements import RecentRow


def find_by_key(session: Session, key: uuid.UUID) -> Demonstration | None:
    """The demonstration that was stored under an idempotency key."""
    return session.scalar(select(Demonstration).where(Demonstration.idempotency_key == key))


def find_of_task(session: Session, task_id: int, author_id: int) -> Demonstration | None:
    """The newest version of what this person wrote for the task."""
    return session.scalar(
        select(Demonstration)
        .where(Demonstration.task_id == task_id, Demonstration.author_id == author_id)
        .order_by(Demonstration.revision.desc())
        .limit(1)
    )


def supersede(session: Session, demonstration: Demonstration) -> None:
    """Make room for a revision: there is one current demonstration per task and author."""
    demonstration.status = JudgementStatus.SUPERSEDED
    session.flush()


def list_recent(session: Session, project_id: int, author_id: int, limit: int) -> Sequence[RecentRow]:
    """The last demonstrations a person wrote for prompts, the newest first, of each the newest version."""
    rows = session.execute(
        select(
            Task.uid,
            Task.kind,
            Prompt.messages,
            Demonstration.created_at,
            Demonstration.revision,
            Demonstration.status,
        )
        .join(Task, Task.id == Demonstration.task_id)
        .join(Prompt, Prompt.id == Demonstration.prompt_id)
        .where(
            Demonstration.project_id == project_id,
            Demonstration.author_id == author_id,
            Demonstration.status != JudgementStatus.SUPERSEDED,
            Task.kind == TaskKind.DEMONSTRATE,
        )
        .order_by(Demonstration.id.desc())
        .limit(limit)
    )
    return [RecentRow(*row) for row in rows]


def count_words(session: Session, project_id: int, *, newest: int) -> Sequence[int]:
    """Words of each of the project's newest current demonstrations."""
    words = func.array_length(func.regexp_split_to_array(Demonstration.text, r"\s+"), 1)
    return session.scalars(
        select(words)
        .where(Demonstration.project_id == project_id, Demonstration.status == JudgementStatus.CURRENT)
        .order_by(Demonstration.id.desc())
        .limit(newest)
    ).all()


def find_start(session: Session, project_id: int, prompt_id: int, *, checkpoint_id: int) -> Sample | None:
    """A model's answer to the prompt: the newest of this checkpoint, else of any model of the project.

    Neither the best of several, nor what a prefix made of it, nor an endpoint's: they are not how a model answers.
    """
    return session.scalar(
        select(Sample)
        .join(Sampler, Sampler.id == Sample.sampler_id)
        .where(
            Sample.project_id == project_id,
            Sample.prompt_id == prompt_id,
            Sample.origin == SampleOrigin.MODEL,
            Sampler.checkpoint_id.is_not(None),
            Sampler.best_of == 1,
            Sampler.prefix == "",
        )
        .order_by((Sampler.checkpoint_id == checkpoint_id).desc().nulls_last(), Sample.id.desc())
        .limit(1)
    )


def find_sample(session: Session, project_id: int, prompt_id: int, uid: uuid.UUID) -> Sample | None:
    """A model's answer to the prompt by its uid."""
    return session.scalar(
        select(Sample).where(
            Sample.project_id == project_id,
            Sample.prompt_id == prompt_id,
            Sample.uid == uid,
            Sample.origin == SampleOrigin.MODEL,
        )
    )


def get_parent(session: Session, demonstration: Demonstration) -> Sample | None:
    """The sample a demonstration was edited from."""
    return session.get_one(Sample, demonstration.parent_id) if demonstration.parent_id else None


def insert_demonstration(session: Session, demonstration: Demonstration) -> None:
    """Add one demonstration."""
    session.add(demonstration)
    session.flush()


def insert_many(session: Session, rows: Sequence[Json]) -> None:
    """Add many at once; each row holds the columns by name."""
    session.execute(insert(Demonstration), rows)


def count_of_author(session: Session, project_id: int, author_id: int) -> int:
    """A person's demonstrations that stand and are for training."""
    return session.scalars(
        select(func.count())
        .select_from(Demonstration)
        .outerjoin(Task, Task.id == Demonstration.task_id)
        .where(
            Demonstration.project_id == project_id,
            Demonstration.author_id == author_id,
            Demonstration.status == JudgementStatus.CURRENT,
            func.coalesce(Task.purpose, Purpose.TRAIN) == Purpose.TRAIN,
        )
    ).one()


def list_current_of_task(session: Session, task_id: int) -> Sequence[Demonstration]:
    """What was written for a task, or as an improvement of its best output, and stands."""
    return session.scalars(
        select(Demonstration)
        .where(Demonstration.task_id == task_id, Demonstration.status == JudgementStatus.CURRENT)
        .order_by(Demonstration.id)
    ).all()


def is_key_taken(error: IntegrityError) -> bool:
    """Whether a row was refused because its idempotency key is another's already, and for nothing else."""
    return "idempotency_key" in (getattr(getattr(error.orig, "diag", None), "constraint_name", None) or "")


def list_undemonstrated(
    session: Session, project_id: int, user_id: int, limit: int, *, granted: Collection[str]
) -> Sequence[Prompt]:
    """Training prompts to ask a demonstration of: the least demonstrated first, in no order a person could foresee.

    Prompts with an open task for it, those this person wrote one for or was asked to, and those that need more than the
    tags `granted` to them are left out.
    """
    count = (
        select(func.count())
        .where(
            Demonstration.project_id == project_id,
            Demonstration.prompt_id == Prompt.id,
            Demonstration.status != JudgementStatus.SUPERSEDED,
        )
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
