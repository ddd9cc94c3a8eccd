"""Tasks, the texts they show, and drafts, in SQL. Who gets which task is in `app.queries.leases`."""

import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, bindparam, delete, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from app.models import (
    Draft,
    Json,
    Lease,
    Prompt,
    Purpose,
    Question,
    Round,
    Sample,
    Task,
    TaskKind,
    TaskOutput,
    TaskState,
)


@dataclass(frozen=True)
class OutputRow:
    """One text of a task, as the ranking page needs it."""

    output_id: int
    position: int
    sample: uuid.UUID
    text: str
    html: str
    finish_reason: str | None


def has_open(session: Session, project_id: int, kind: TaskKind, purposes: Collection[Purpose]) -> bool:
    """Whether any task of that kind and of one of these purposes is open, whoever holds it."""
    open_task = select(Task.id).where(*_is_open(project_id, kind, purposes))
    return session.scalar(open_task.limit(1)) is not None


def _is_open(project_id: int, kind: TaskKind, purposes: Collection[Purpose]) -> tuple[ColumnElement[bool], ...]:
    return (
        Task.project_id == project_id,
        Task.kind == kind,
        Task.state == TaskState.OPEN,
        Task.purpose.in_(purposes),
    )


@dataclass(frozen=True)
class Lent:
    """A task with one person's lease of it, its prompt, and the number of the round its answers are counted in."""

    task: Task
    lease: Lease
    prompt: Prompt
    round_number: int | None
    draft: Json | None
    """What the person had chosen so far."""
    has_asked: bool
    """Whether they have asked something about it."""


_LENT = (
    select(
        Task,
        Lease,
        Prompt,
        Round.number,
        Draft.content,
        select(Question.id).where(Question.task_id == Lease.task_id, Question.asker_id == Lease.user_id).exists(),
    )
    .join(Lease, Lease.task_id == Task.id)
    .join(Prompt, Prompt.id == Task.prompt_id)
    .outerjoin(Round, Round.id == Task.round_id)
    .outerjoin(Draft, (Draft.task_id == Lease.task_id) & (Draft.user_id == Lease.user_id))
    .execution_options(populate_existing=True)
)

_FIND_LENT = _LENT.where(
    Task.project_id == bindparam("project"), Task.uid == bindparam("uid"), Lease.user_id == bindparam("user")
)

# The rows are locked in this order, as everywhere: the task's, then the lease's.
_LOCK_LENT = _FIND_LENT.with_for_update(of=[Task, Lease], key_share=True)

_GET_LENT = _LENT.where(Lease.id == bindparam("lease"))


def find_lent(session: Session, project_id: int, user_id: int, uid: uuid.UUID, *, lock: bool = False) -> Lent | None:
    """The task with this uid as it was lent to this person, None where it was not; with `lock`, until the transaction ends."""
    values = {"project": project_id, "uid": uid, "user": user_id}
    row = session.execute(_LOCK_LENT if lock else _FIND_LENT, values).one_or_none()
    return Lent(*row) if row else None


def get_lent(session: Session, lease_id: int) -> Lent:
    """What a lease is about."""
    return Lent(*session.execute(_GET_LENT, {"lease": lease_id}).one())


def count_open(session: Session, project_id: int, kind: TaskKind, purposes: Collection[Purpose], *, limit: int) -> int:
    """Open tasks of that kind and of one of these purposes, whoever may take them, counted up to `limit`."""
    some = select(Task.id).where(*_is_open(project_id, kind, purposes))
    return session.scalars(select(func.count()).select_from(some.limit(limit).subquery())).one()


def find_task(session: Session, project_id: int, uid: uuid.UUID) -> Task | None:
    """The task with this uid in the project."""
    return session.scalar(select(Task).where(Task.project_id == project_id, Task.uid == uid))


def get_task(session: Session, task_id: int) -> Task:
    """The task with this id; no question to the database where it was read already."""
    return session.get_one(Task, task_id)


def lock_task(session: Session, task_id: int) -> Task:
    """The task's row, locked against leasing and submitting until the transaction ends."""
    return session.scalars(
        select(Task).where(Task.id == task_id).with_for_update(key_share=True).execution_options(populate_existing=True)
    ).one()


def lock_derived(session: Session, task_id: int) -> Sequence[Task]:
    """The rankings made of a locked task, locked too."""
    return session.scalars(
        select(Task)
        .where(Task.derived_from_id == task_id)
        .order_by(Task.id)
        .with_for_update(key_share=True)
        .execution_options(populate_existing=True)
    ).all()


def list_outputs(session: Session, task_id: int) -> Sequence[OutputRow]:
    """The texts of a task by position."""
    return [OutputRow(*row) for row in session.execute(_OUTPUTS, {"task": task_id})]


_OUTPUTS = (
    select(TaskOutput.id, TaskOutput.position, Sample.uid, Sample.text, Sample.html, Sample.finish_reason)
    .join(Sample, Sample.id == TaskOutput.sample_id)
    .where(TaskOutput.task_id == bindparam("task"))
    .order_by(TaskOutput.position)
)


def get_prompt(session: Session, prompt_id: int) -> Prompt:
    """The prompt a task is about."""
    return session.get_one(Prompt, prompt_id)


def find_round_number(session: Session, task: Task) -> int | None:
    """The number of the round that a task's answers are counted in."""
    return session.scalar(select(Round.number).where(Round.id == task.round_id))


def insert_task(session: Session, task: Task, samples: Sequence[Sample]) -> None:
    """Add a task over new samples, in this order of positions."""
    session.add_all([task, *samples])
    session.flush()
    session.add_all(
        TaskOutput(project_id=task.project_id, task_id=task.id, position=position, sample_id=sample.id)
        for position, sample in enumerate(samples)
    )
    session.flush()


def save_draft(session: Session, task: Task, user_id: int, content: Json) -> None:
    """Keep what a person has chosen so far, over what was kept before."""
    row = insert(Draft).values(
        project_id=task.project_id, task_id=task.id, user_id=user_id, content=content, updated_at=func.now()
    )
    session.execute(
        row.on_conflict_do_update(
            index_elements=[Draft.task_id, Draft.user_id],
            set_={"content": row.excluded.content, "updated_at": row.excluded.updated_at},
        )
    )


def delete_draft(session: Session, task_id: int, user_id: int) -> None:
    """Forget a draft that became an answer."""
    session.execute(delete(Draft).where(Draft.task_id == task_id, Draft.user_id == user_id))


def insert_tasks(session: Session, tasks: Sequence[Task]) -> None:
    """Add tasks without outputs."""
    session.add_all(tasks)
    session.flush()


def get_uid(session: Session, task_id: int) -> uuid.UUID:
    """What a task goes by in addresses."""
    return session.scalars(select(Task.uid).where(Task.id == task_id)).one()
