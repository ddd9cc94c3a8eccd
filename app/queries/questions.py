"""Questions to an admin, and their answers, in SQL."""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Select, func, select, update
from sqlalchemy.orm import Session, aliased

from app.models import Prompt, Question, QuestionKind, QuestionState, Task, TaskKind, TaskState, User

COUNTED = 100
"""Questions counted per state; more are "100+"."""


@dataclass(frozen=True)
class QuestionRow:
    """A question as a list shows it: with its task and the last turn of its prompt."""

    question: Question
    asker: str
    task: uuid.UUID
    task_kind: TaskKind
    task_state: TaskState
    messages: Sequence[Mapping[str, str]]
    settled_by: str | None
    needs: Sequence[str]


def insert_question(session: Session, question: Question) -> None:
    """Add a question."""
    session.add(question)
    session.flush()


def find_by_key(session: Session, key: uuid.UUID) -> Question | None:
    """The question that was stored under an idempotency key."""
    return session.scalar(select(Question).where(Question.idempotency_key == key))


def find_question(session: Session, project_id: int, uid: uuid.UUID, *, lock: bool = False) -> Question | None:
    """The question with this uid in the project."""
    found = select(Question).where(Question.project_id == project_id, Question.uid == uid)
    return session.scalar(found.with_for_update() if lock else found)


def find_row(session: Session, project_id: int, uid: uuid.UUID) -> QuestionRow | None:
    """The same with its task and people."""
    row = session.execute(_rows().where(Question.project_id == project_id, Question.uid == uid)).one_or_none()
    return QuestionRow(*row) if row else None


def count_open_of(session: Session, project_id: int, asker_id: int) -> int:
    """Questions of this person that wait for an admin."""
    return session.scalars(
        select(func.count()).where(*_asked_by(project_id, asker_id), Question.state == QuestionState.OPEN)
    ).one()


def list_of_task(session: Session, task_id: int, *, asker_id: int | None = None) -> Sequence[Question]:
    """Questions about a task in order of time; those of one person where `asker_id` is given."""
    questions = select(Question).where(Question.task_id == task_id).order_by(Question.id)
    if asker_id is not None:
        questions = questions.where(Question.asker_id == asker_id)
    return session.scalars(questions).all()


def page_of_asker(
    session: Session, project_id: int, asker_id: int, *, before: int | None, limit: int
) -> Sequence[QuestionRow]:
    """A person's questions, the newest first, older than the id `before`."""
    questions = _rows().where(*_asked_by(project_id, asker_id)).order_by(Question.id.desc()).limit(limit)
    if before is not None:
        questions = questions.where(Question.id < before)
    return [QuestionRow(*row) for row in session.execute(questions)]


def list_unread(session: Session, project_id: int, asker_id: int, *, limit: int) -> Sequence[QuestionRow]:
    """Settled questions whose asker has not seen how, the newest first."""
    unread = _rows().where(*_asked_by(project_id, asker_id), *_is_unread()).order_by(Question.id.desc())
    return [QuestionRow(*row) for row in session.execute(unread.limit(limit))]


def mark_read(session: Session, asker_id: int, question_ids: Sequence[int]) -> None:
    """Note that the asker has seen how these were settled."""
    session.execute(
        update(Question)
        .where(Question.id.in_(question_ids), Question.asker_id == asker_id, *_is_unread())
        .values(read_at=func.now())
        .execution_options(synchronize_session=False)
    )


def page_inbox(
    session: Session,
    project_id: int,
    *,
    state: QuestionState,
    kind: QuestionKind | None,
    after: int | None,
    limit: int,
) -> Sequence[QuestionRow]:
    """Questions in one state: the open ones from the oldest on, settled ones from the newest back, beyond the id `after`."""
    is_open = state == QuestionState.OPEN
    order = Question.id if is_open else Question.id.desc()
    page = _rows().where(Question.project_id == project_id, Question.state == state).order_by(order).limit(limit)
    if kind is not None:
        page = page.where(Question.kind == kind)
    if after is not None:
        page = page.where(Question.id > after if is_open else Question.id < after)
    return [QuestionRow(*row) for row in session.execute(page)]


def count_by_state(session: Session, project_id: int) -> dict[QuestionState, int]:
    """Questions in each state, counted up to one more than `COUNTED`."""
    counts = {}
    for state in QuestionState:
        some = select(Question.id).where(Question.project_id == project_id, Question.state == state)
        counts[state] = session.scalars(select(func.count()).select_from(some.limit(COUNTED + 1).subquery())).one()
    return counts


def _rows() -> Select[*tuple[Any, ...]]:
    settler = aliased(User)
    return (
        select(Question, User.name, Task.uid, Task.kind, Task.state, Prompt.messages, settler.name, Task.needs)
        .join(User, User.id == Question.asker_id)
        .outerjoin(settler, settler.id == Question.settled_by_id)
        .join(Task, Task.id == Question.task_id)
        .join(Prompt, Prompt.id == Task.prompt_id)
    )


def _asked_by(project_id: int, asker_id: int) -> tuple[ColumnElement[bool], ...]:
    return (Question.project_id == project_id, Question.asker_id == asker_id)


def _is_unread() -> tuple[ColumnElement[bool], ...]:
    """The condition of the index of unread answers."""
    return (Question.settled_at.is_not(None), Question.read_at.is_(None))
