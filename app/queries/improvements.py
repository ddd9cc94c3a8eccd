"""Improved outputs in SQL: the texts of a ranking, and the ranking made of them."""

import uuid
from collections.abc import Mapping, Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.models import Lease, Sample, SampleOrigin, Task, TaskOutput


def has_edited(session: Session, task_id: int) -> bool:
    """Whether one of a task's outputs is a person's edit."""
    edited = (
        select(TaskOutput.id)
        .join(Sample, Sample.id == TaskOutput.sample_id)
        .where(TaskOutput.task_id == task_id, Sample.origin == SampleOrigin.EDITED)
    )
    return session.scalar(edited.limit(1)) is not None


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


def insert_outputs(session: Session, task: Task, sample_ids: Sequence[int]) -> Mapping[int, int]:
    """Let a task show stored samples, in this order of positions; ids of the outputs by position."""
    outputs = [
        TaskOutput(project_id=task.project_id, task_id=task.id, position=position, sample_id=sample_id)
        for position, sample_id in enumerate(sample_ids)
    ]
    session.add_all(outputs)
    session.flush()
    return {output.position: output.id for output in outputs}
