"""Improved outputs in SQL: the texts of a ranking, and the ranking made of them."""

import uuid
from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session, aliased

from app.models import Judgement, Lease, Sample, SampleOrigin, Task, TaskOutput


def find_derived(session: Session, task_id: int, user_id: int) -> Task | None:
    """The ranking that this person's improvement made of a locked task; its row is locked."""
    return session.scalar(
        select(Task)
        .join(Lease, Lease.task_id == Task.id)
        .where(Task.derived_from_id == task_id, Lease.user_id == user_id)
        .with_for_update(of=Task, key_share=True)
    )


def find_newest(session: Session, task_id: int) -> Judgement | None:
    """The newest version of the judgement of a derived ranking, whatever became of it."""
    return session.scalar(
        select(Judgement).where(Judgement.task_id == task_id).order_by(Judgement.revision.desc()).limit(1)
    )


def get_improved(session: Session, task_id: int) -> uuid.UUID:
    """The sample that was improved for a derived ranking."""
    edited, improved = aliased(Sample), aliased(Sample)
    return session.scalars(
        select(improved.uid)
        .join(edited, edited.parent_id == improved.id)
        .join(TaskOutput, TaskOutput.sample_id == edited.id)
        .where(TaskOutput.task_id == task_id, edited.origin == SampleOrigin.EDITED)
    ).one()


def get_sample(session: Session, project_id: int, uid: uuid.UUID) -> Sample:
    """The sample with this uid."""
    return session.scalars(select(Sample).where(Sample.project_id == project_id, Sample.uid == uid)).one()


def list_sample_ids(session: Session, task_id: int) -> Sequence[int]:
    """Ids of a task's samples by position."""
    return session.scalars(
        select(TaskOutput.sample_id).where(TaskOutput.task_id == task_id).order_by(TaskOutput.position)
    ).all()


def insert(session: Session, row: Sample | Task | Lease) -> None:
    """Add one row."""
    session.add(row)
    session.flush()


def insert_outputs(session: Session, task: Task, sample_ids: Sequence[int]) -> None:
    """Let a task show stored samples, in this order of positions."""
    session.add_all(
        TaskOutput(project_id=task.project_id, task_id=task.id, position=position, sample_id=sample_id)
        for position, sample_id in enumerate(sample_ids)
    )
    session.flush()
