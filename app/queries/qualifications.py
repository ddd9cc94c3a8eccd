"""Practice and the qualification test in SQL: which tasks, who has had them, and the attempts."""

import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import ARRAY, ColumnElement, Exists, Text, cast, exists, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session, aliased

from app.models import (
    Judge,
    Judgement,
    JudgementStatus,
    Lease,
    LeaseState,
    Prompt,
    Purpose,
    Qualification,
    QualificationState,
    QualificationTask,
    Task,
    TaskOutput,
    TaskState,
)


@dataclass(frozen=True)
class PracticeRow:
    """A practice task as its list shows it."""

    task_id: int
    uid: uuid.UUID
    messages: Sequence[Mapping[str, str]]
    is_done: bool


@dataclass(frozen=True)
class AttemptRow:
    """A task of an attempt; no judgement, no answer yet."""

    task: Task
    judgement_id: int | None
    reference_id: int | None


def lease_task(
    session: Session, task: Task, user_id: int, *, length: timedelta, order: Sequence[int], seed: int
) -> int:
    """Lend a task to a person, again if they had it before, in a new order; gives the lease's id.

    The slot is one that nobody else can take, so that the task need not be locked: it is there for everybody.
    """
    row = insert(Lease).values(
        project_id=task.project_id,
        task_id=task.id,
        slot=-user_id,
        user_id=user_id,
        state=LeaseState.HELD,
        expires_at=func.now() + length,
        shown_order=list(order),
        order_seed=seed,
    )
    lent = row.on_conflict_do_update(
        index_elements=[Lease.task_id, Lease.user_id],
        set_={
            "state": LeaseState.HELD,
            "expires_at": row.excluded.expires_at,
            "shown_order": row.excluded.shown_order,
            "order_seed": row.excluded.order_seed,
            "ended_at": None,
        },
    )
    return session.scalars(lent.returning(Lease.id)).one()


def list_practice(session: Session, project_id: int, user_id: int, granted: frozenset[str]) -> Sequence[PracticeRow]:
    """The practice tasks a person may do, the oldest first."""
    is_done = exists().where(
        Judgement.task_id == Task.id,
        Judgement.status == JudgementStatus.CURRENT,
        Judge.id == Judgement.judge_id,
        Judge.user_id == user_id,
    )
    rows = session.execute(
        select(Task.id, Task.uid, Prompt.messages, is_done)
        .join(Prompt, Prompt.id == Task.prompt_id)
        .where(*_fits(project_id, Purpose.PRACTICE, granted))
        .order_by(Task.id)
    )
    return [PracticeRow(*row) for row in rows]


def count_test_tasks(session: Session, project_id: int, user_id: int, granted: frozenset[str]) -> int:
    """Tasks that a person's test can be made of."""
    return session.scalars(select(func.count()).select_from(Task).where(*_tests(project_id, user_id, granted))).one()


def count_unexplained(session: Session, project_id: int) -> int:
    """Test tasks in use that show no output of a practice task in use: those that a test can be made of for everybody."""
    practice = aliased(Task)
    is_explained = exists().where(
        practice.purpose == Purpose.PRACTICE, practice.state == TaskState.OPEN, *_shares_output(practice)
    )
    return session.scalars(
        select(func.count())
        .select_from(Task)
        .where(
            Task.project_id == project_id,
            Task.purpose == Purpose.QUALIFY,
            Task.state == TaskState.OPEN,
            ~is_explained,
        )
    ).one()


def draw_test_tasks(
    session: Session, project_id: int, user_id: int, granted: frozenset[str], limit: int
) -> Sequence[Task]:
    """Tasks for an attempt: those the person has not seen first, by chance among equals."""
    had = exists().where(Lease.task_id == Task.id, Lease.user_id == user_id)
    return session.scalars(
        select(Task)
        .where(*_tests(project_id, user_id, granted))
        .order_by(had, has_seen(user_id), func.random())
        .limit(limit)
    ).all()


def has_seen(user_id: int, purposes: Collection[Purpose] = tuple(Purpose)) -> Exists:
    """That a person had another task, for one of these purposes, which shows an output of `Task`."""
    other, had = aliased(Task), aliased(Lease)
    return exists().where(
        had.task_id == other.id, had.user_id == user_id, other.purpose.in_(purposes), *_shares_output(other)
    )


def insert_attempt(session: Session, attempt: Qualification, tasks: Sequence[Task]) -> None:
    """Add an attempt with its tasks, in this order."""
    session.add(attempt)
    session.flush()
    session.add_all(
        QualificationTask(
            project_id=attempt.project_id, qualification_id=attempt.id, position=position, task_id=task.id
        )
        for position, task in enumerate(tasks)
    )
    session.flush()


def list_attempts(session: Session, project_id: int, user_id: int, *, lock: bool = False) -> Sequence[Qualification]:
    """Every attempt of a person, the newest first; with `lock`, nobody else ends or voids one until the transaction ends."""
    attempts = (
        select(Qualification)
        .where(Qualification.project_id == project_id, Qualification.user_id == user_id)
        .order_by(Qualification.attempt.desc())
    )
    if lock:
        attempts = attempts.with_for_update(key_share=True).execution_options(populate_existing=True)
    return session.scalars(attempts).all()


def list_attempts_of_all(session: Session, project_id: int) -> Mapping[int, Sequence[Qualification]]:
    """The attempts that count, by person, the newest first."""
    found: dict[int, list[Qualification]] = {}
    rows = session.scalars(
        select(Qualification)
        .where(Qualification.project_id == project_id, Qualification.state != QualificationState.VOID)
        .order_by(Qualification.attempt.desc())
    )
    for attempt in rows:
        found.setdefault(attempt.user_id, []).append(attempt)
    return found


def find_attempt(session: Session, project_id: int, user_id: int, uid: uuid.UUID) -> Qualification | None:
    """An attempt of this person."""
    return session.scalar(
        select(Qualification).where(
            Qualification.project_id == project_id, Qualification.user_id == user_id, Qualification.uid == uid
        )
    )


def is_qualified(session: Session, project_id: int, user_id: int) -> bool:
    """Whether a person has passed."""
    passed = select(Qualification.id).where(
        Qualification.project_id == project_id,
        Qualification.user_id == user_id,
        Qualification.state == QualificationState.PASSED,
    )
    return session.scalar(passed.limit(1)) is not None


def list_tasks(session: Session, attempt_id: int) -> Sequence[AttemptRow]:
    """The tasks of an attempt in their order."""
    rows = session.execute(
        select(Task, QualificationTask.judgement_id, QualificationTask.reference_id)
        .join(Task, Task.id == QualificationTask.task_id)
        .where(QualificationTask.qualification_id == attempt_id)
        .order_by(QualificationTask.position)
    )
    return [AttemptRow(*row) for row in rows]


def set_answer(session: Session, attempt_id: int, task_id: int, judgement_id: int, reference_id: int) -> None:
    """Note the answer to a task of an attempt, and the reference that measures it."""
    session.execute(
        update(QualificationTask)
        .where(QualificationTask.qualification_id == attempt_id, QualificationTask.task_id == task_id)
        .values(judgement_id=judgement_id, reference_id=reference_id)
    )


def count_practised(session: Session, project_id: int) -> Mapping[int, int]:
    """Open practice tasks that each person has done."""
    rows = session.execute(
        select(Judge.user_id, func.count())
        .join(Judgement, Judgement.judge_id == Judge.id)
        .join(Task, Task.id == Judgement.task_id)
        .where(
            Task.project_id == project_id,
            Task.purpose == Purpose.PRACTICE,
            Task.state == TaskState.OPEN,
            Judgement.status == JudgementStatus.CURRENT,
            Judge.user_id.is_not(None),
        )
        .group_by(Judge.user_id)
    )
    return {user_id: count for user_id, count in rows if user_id is not None}


def _shares_output(other: type[Task]) -> tuple[ColumnElement[bool], ...]:
    """That another task shows an output of `Task`."""
    mine, theirs = aliased(TaskOutput), aliased(TaskOutput)
    return (
        other.project_id == Task.project_id,
        other.prompt_id == Task.prompt_id,
        other.id != Task.id,
        theirs.task_id == other.id,
        mine.task_id == Task.id,
        mine.sample_id == theirs.sample_id,
    )


def _tests(project_id: int, user_id: int, granted: frozenset[str]) -> tuple[ColumnElement[bool], ...]:
    """What a person may be tested by: no response was explained to them in practice."""
    return (*_fits(project_id, Purpose.QUALIFY, granted), ~has_seen(user_id, (Purpose.PRACTICE,)))


def _fits(project_id: int, purpose: Purpose, granted: frozenset[str]) -> tuple[ColumnElement[bool], ...]:
    return (
        Task.project_id == project_id,
        Task.purpose == purpose,
        Task.state == TaskState.OPEN,
        Task.needs.contained_by(cast(sorted(granted), ARRAY(Text))),
    )
