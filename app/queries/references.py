"""Reference answers in SQL: the tasks that have one, what it says, and tasks it may be made of."""

import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ScalarSelect, Select, Text, cast, exists, func, select
from sqlalchemy.dialects.postgresql import JSONPATH
from sqlalchemy.orm import Session, aliased

from app.models import (
    SCHOOL,
    Lease,
    LeaseState,
    Prompt,
    PromptStatus,
    Purpose,
    ReferencePlace,
    Sample,
    SampleOrigin,
    Task,
    TaskKind,
    TaskOutput,
    TaskReference,
    TaskState,
)


@dataclass(frozen=True)
class ReferenceRow:
    """A task with a reference, as a list shows it."""

    uid: uuid.UUID
    purpose: Purpose
    state: TaskState
    messages: Sequence[Mapping[str, str]]
    version: int
    outputs: int
    answers: int
    changed_at: datetime


@dataclass(frozen=True)
class PlaceRow:
    """What a reference says about one output."""

    output_id: int
    sample: uuid.UUID
    tier: int | None
    explanation: str
    html: str


@dataclass(frozen=True)
class RankedRow:
    """A ranked task that a reference may be made of."""

    task_id: int
    uid: uuid.UUID
    messages: Sequence[Mapping[str, str]]
    outputs: int
    answers: int
    is_used: bool
    """Whether a task with a reference shows one of its outputs already."""


def current_references(project_id: int) -> Select[int, int]:
    """Task and reference of every task of a project that has one: the newest version."""
    return (
        select(TaskReference.task_id, func.max(TaskReference.id).label("reference_id"))
        .where(TaskReference.project_id == project_id)
        .group_by(TaskReference.task_id)
    )


def list_references(session: Session, project_id: int) -> Sequence[ReferenceRow]:
    """Every task with a reference: those in use first, the newest first among them."""
    current = current_references(project_id).subquery()
    rows = session.execute(
        select(
            Task.uid,
            Task.purpose,
            Task.state,
            Prompt.messages,
            TaskReference.version,
            _count_outputs(),
            _count_answers(),
            TaskReference.created_at,
        )
        .join(current, current.c.task_id == Task.id)
        .join(TaskReference, TaskReference.id == current.c.reference_id)
        .join(Prompt, Prompt.id == Task.prompt_id)
        .where(Task.project_id == project_id, Task.purpose.in_(SCHOOL))
        .order_by(Task.state == TaskState.RETIRED, Task.id.desc())
    )
    return [ReferenceRow(*row) for row in rows]


def find_reference(session: Session, task_id: int) -> TaskReference | None:
    """The reference of a task that holds now."""
    return session.scalar(
        select(TaskReference)
        .where(TaskReference.task_id == task_id)
        .order_by(TaskReference.version.desc())
        .limit(1)
        .execution_options(populate_existing=True)
    )


def get_reference(session: Session, reference_id: int) -> TaskReference:
    """The version with this id."""
    return session.get_one(TaskReference, reference_id)


def list_places(session: Session, reference_id: int) -> Sequence[PlaceRow]:
    """The places of one version, by position of the output."""
    rows = session.execute(
        select(TaskOutput.id, Sample.uid, ReferencePlace.tier, ReferencePlace.explanation, ReferencePlace.html)
        .join(TaskOutput, TaskOutput.id == ReferencePlace.output_id)
        .join(Sample, Sample.id == TaskOutput.sample_id)
        .where(ReferencePlace.reference_id == reference_id)
        .order_by(TaskOutput.position)
    )
    return [PlaceRow(*row) for row in rows]


def insert_reference(session: Session, reference: TaskReference, places: Sequence[ReferencePlace]) -> None:
    """Add a version with its places."""
    session.add(reference)
    session.flush()
    for place in places:
        place.reference_id = reference.id
    session.add_all(places)
    session.flush()


def list_samples(session: Session, task_id: int) -> Sequence[Sample]:
    """The texts of a task as rows, by position."""
    return session.scalars(
        select(Sample)
        .join(TaskOutput, TaskOutput.sample_id == Sample.id)
        .where(TaskOutput.task_id == task_id)
        .order_by(TaskOutput.position)
    ).all()


def map_imported(session: Session, project_id: int, prompt_id: int, texts: Collection[str]) -> Mapping[str, Sample]:
    """Those of these texts that a file gave as finished responses to a prompt, by text."""
    rows = session.scalars(
        select(Sample)
        .where(
            Sample.project_id == project_id,
            Sample.prompt_id == prompt_id,
            Sample.origin == SampleOrigin.IMPORTED,
            Sample.finish_reason == "stop",
            Sample.text.in_(texts),
        )
        .order_by(Sample.id.desc())
    )
    return {sample.text: sample for sample in rows}


def lock_references(session: Session, project_id: int) -> None:
    """Let one request at a time make tasks with a reference in a project, so that a double click makes none twice."""
    session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(f"references/{project_id}", 0))))


def find_same(session: Session, project_id: int, purpose: Purpose, samples: Sequence[Sample]) -> Task | None:
    """The first task for a purpose that shows these texts and no others."""
    shows_another = exists().where(
        TaskOutput.task_id == Task.id, TaskOutput.sample_id.not_in([sample.id for sample in samples])
    )
    return session.scalar(
        select(Task)
        .where(
            Task.project_id == project_id,
            Task.prompt_id == samples[0].prompt_id,
            Task.purpose == purpose,
            _count_outputs() == len(samples),
            ~shows_another,
        )
        .order_by(Task.id)
        .limit(1)
    )


def page_ranked(
    session: Session, project_id: int, *, words: str | None, before: int | None, limit: int
) -> Sequence[RankedRow]:
    """Rank tasks that have all their judgements, those of an id below `before`, the newest first."""
    mine, other, used = aliased(TaskOutput), aliased(TaskOutput), aliased(Task)
    is_used = exists().where(
        mine.task_id == Task.id,
        used.project_id == project_id,
        used.prompt_id == Task.prompt_id,
        used.purpose.in_(SCHOOL),
        other.task_id == used.id,
        other.sample_id == mine.sample_id,
    )
    query = (
        select(Task.id, Task.uid, Prompt.messages, _count_outputs(), _count_answers(), is_used)
        .join(Prompt, Prompt.id == Task.prompt_id)
        .where(
            Task.project_id == project_id,
            Task.kind == TaskKind.RANK,
            Task.state == TaskState.DONE,
            Task.purpose.not_in(SCHOOL),
            Task.derived_from_id.is_(None),
            Prompt.status == PromptStatus.ACTIVE,
        )
        .order_by(Task.id.desc())
        .limit(limit)
    )
    if before is not None:
        query = query.where(Task.id < before)
    if words:
        turns = cast(func.jsonb_path_query_array(Prompt.messages, cast("$[*].content", JSONPATH)), Text)
        query = query.where(turns.icontains(words, autoescape=True))
    return [RankedRow(*row) for row in session.execute(query)]


def _count_outputs() -> ScalarSelect[int]:
    return select(func.count()).where(TaskOutput.task_id == Task.id).correlate(Task).scalar_subquery()


def _count_answers() -> ScalarSelect[int]:
    answered = (Lease.task_id == Task.id) & (Lease.state == LeaseState.SUBMITTED)
    return select(func.count()).select_from(Lease).where(answered).correlate(Task).scalar_subquery()
