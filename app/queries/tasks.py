"""Tasks, the texts they show, and drafts, in SQL. Who gets which task is in `app.queries.leases`."""

import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, delete, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from app.models import Draft, Json, Lease, Prompt, Purpose, Round, Sample, Task, TaskKind, TaskOutput, TaskState


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


def find_lent(session: Session, project_id: int, user_id: int, uid: uuid.UUID) -> tuple[Task, Lease, Prompt] | None:
    """The task with this uid, this person's lease of it and its prompt; None where it was not lent to them."""
    row = session.execute(
        _LENT.where(Task.project_id == project_id, Task.uid == uid, Lease.user_id == user_id)
    ).one_or_none()
    return (row[0], row[1], row[2]) if row else None


def get_lent(session: Session, lease_id: int) -> tuple[Task, Lease, Prompt]:
    """What a lease is about, as `find_lent` gives it."""
    row = session.execute(_LENT.where(Lease.id == lease_id)).one()
    return row[0], row[1], row[2]


_LENT = (
    select(Task, Lease, Prompt)
    .join(Lease, Lease.task_id == Task.id)
    .join(Prompt, Prompt.id == Task.prompt_id)
    .execution_options(populate_existing=True)
)


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
    rows = session.execute(
        select(TaskOutput.id, TaskOutput.position, Sample.uid, Sample.text, Sample.html, Sample.finish_reason)
        .join(Sample, Sample.id == TaskOutput.sample_id)
        .where(TaskOutput.task_id == task_id)
        .order_by(TaskOutput.position)
    )
    return [OutputRow(*row) for row in rows]


def get_prompt(session: Session, prompt_id: int) -> Prompt:
    """The prompt a task is about."""
    return session.get_one(Prompt, prompt_id)


def get_round_number(session: Session, round_id: int) -> int:
    """The number people know a round by."""
    return session.scalars(select(Round.number).where(Round.id == round_id)).one()


def insert_task(session: Session, task: Task, samples: Sequence[Sample]) -> None:
    """Add a task over new samples, in this order of positions."""
    session.add_all([task, *samples])
    session.flush()
    session.add_all(
        TaskOutput(project_id=task.project_id, task_id=task.id, position=position, sample_id=sample.id)
        for position, sample in enumerate(samples)
    )
    session.flush()


def find_draft(session: Session, task_id: int, user_id: int) -> Draft | None:
    """What this person had chosen so far."""
    return session.scalar(select(Draft).where(Draft.task_id == task_id, Draft.user_id == user_id))


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
