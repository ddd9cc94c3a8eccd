"""What labellers ask about a task, and what an admin does about it: answer, close, or retire the task.

An answer may become an example in the next version of the guidelines.
"""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.errors import BadInput, Conflict, NotFound, TooMany
from app.models import Guideline, Question, QuestionKind, QuestionState, TaskState
from app.permissions import Access, Permission
from app.queries import leases as lease_queries
from app.queries import questions as queries
from app.queries import tasks as task_queries
from app.services import audit, exclusions, notices, tasks

LONGEST_CHARACTERS = 2_000
"""Of a question."""

LONGEST_ANSWER = 10_000
"""Characters of an answer."""

MOST_OPEN = 20
"""Open questions a person may have in a project."""

RETIRED_ANSWER = "The task is retired. Thank you for telling us."
"""The answer to a report where an admin retires the task without a word."""

_RETIRED_NOTICE = (
    "A task you had begun is retired: an admin found it broken. "
    "What you did is kept. Leave it, or submit it all the same."
)
_NO_QUESTION = "There is no such question in the inbox of this project."
_SHOWN = 20


@dataclass(frozen=True)
class Asked:
    """A question its asker looks at, and whether they see for the first time how it was settled."""

    question: Question
    is_new: bool


def ask(session: Session, access: Access, uid: uuid.UUID, *, kind: QuestionKind, text: str, key: uuid.UUID) -> Question:
    """Put a question about a task this person was lent into the inbox; the same key again gives the one stored before.

    Raises NotFound for a task that was not lent to them, BadInput where the text is empty or too long, TooMany where too many of
    their questions wait.
    """
    work = tasks.find_work(session, access, uid)
    if stored := queries.find_by_key(session, key):
        if (stored.task_id, stored.asker_id) != (work.task.id, access.user.id):
            raise Conflict("This page was already used to ask about another task. Reload it and ask again.")
        return stored
    words = _parse(text, LONGEST_CHARACTERS, field="question", name="question")
    if queries.count_open_of(session, access.project.id, access.user.id) >= MOST_OPEN:
        raise TooMany(
            f"{MOST_OPEN} of your questions wait for an answer. Ask again once some are answered.",
            retry_after_seconds=3600,
        )
    question = Question(
        project_id=access.project.id,
        task_id=work.task.id,
        asker_id=access.user.id,
        kind=kind,
        state=QuestionState.OPEN,
        text=words,
        idempotency_key=key,
    )
    try:
        with session.begin_nested():
            queries.insert_question(session, question)
    except IntegrityError:  # the same form, at the same moment
        return ask(session, access, uid, kind=kind, text=text, key=key)
    return question


def look_at(session: Session, access: Access, work: tasks.Work) -> list[Asked]:
    """What this person had asked about a task when it was read; what is new to them counts as read from now on."""
    if not work.has_asked:
        return []
    return _look(session, access, queries.list_of_task(session, work.task.id, asker_id=access.user.id))


def page_own(
    session: Session, access: Access, *, before: int | None, limit: int
) -> tuple[list[tuple[Asked, queries.QuestionRow]], bool]:
    """This person's questions, the newest first, and whether there are earlier ones.

    What is new to them counts as read from now on.
    """
    rows = queries.page_of_asker(session, access.project.id, access.user.id, before=before, limit=limit + 1)
    shown = rows[:limit]
    return list(zip(_look(session, access, [row.question for row in shown]), shown, strict=True)), len(rows) > limit


def list_unread(session: Session, access: Access) -> Sequence[queries.QuestionRow]:
    """This person's questions that were settled since they last looked."""
    return queries.list_unread(session, access.project.id, access.user.id, limit=_SHOWN)


def get_row(session: Session, access: Access, uid: uuid.UUID) -> queries.QuestionRow:
    """A question of the project with its task and people. Raises NotFound."""
    row = queries.find_row(session, access.project.id, uid)
    if row is None:
        raise NotFound(_NO_QUESTION)
    return row


def work_of(session: Session, question: Question) -> tasks.Work:
    """The task as the asker saw it."""
    lease = lease_queries.find_lease_of(session, question.task_id, question.asker_id)
    if lease is None:
        raise NotFound("The asker was never lent this task.")
    return tasks.get_work(session, lease)


def answer(session: Session, access: Access, uid: uuid.UUID, text: str) -> Question:
    """Answer a question, or say otherwise what was answered; the asker is told. Raises NotFound, BadInput."""
    access.demand(Permission.ANSWER)
    question = _lock(session, access, uid)
    words = _parse(text, LONGEST_ANSWER, field="answer", name="answer")
    if question.answer != words:
        question.answer = words
        _settle(session, access, question, QuestionState.ANSWERED, "answer question")
    return question


def close(session: Session, access: Access, uid: uuid.UUID) -> None:
    """Settle a question without an answer. Raises NotFound, Conflict where it was answered."""
    access.demand(Permission.ANSWER)
    question = _lock(session, access, uid)
    if question.state == QuestionState.ANSWERED:
        raise Conflict("This question was answered meanwhile. The answer stands.")
    if question.state == QuestionState.OPEN:
        _settle(session, access, question, QuestionState.CLOSED, "close question")


def retire_task(session: Session, access: Access, uid: uuid.UUID, *, excludes_answers: bool = False) -> int:
    """Give the task of a question to nobody any more; those who have begun it are told, and may still submit.

    With `excludes_answers`, what was said of it, or will be, trains no model: gives how many answers there were. It may be
    said of a task that is retired already. The question, if open, is answered with that. Raises NotFound.
    """
    access.demand(Permission.ANSWER)
    task = task_queries.lock_task(session, get_row(session, access, uid).question.task_id)
    question = _lock(session, access, uid)
    if task.state != TaskState.RETIRED:
        task.state = TaskState.RETIRED
        people = notices.tell_at_work(session, task, _RETIRED_NOTICE, but=question.asker_id)
        audit.record(
            session,
            actor=access.user,
            project=access.project,
            action="retire task",
            subject_kind="task",
            subject_uid=task.uid,
            question=str(question.uid),
            people_told=people,
        )
    excluded = 0
    if excludes_answers:
        excluded = exclusions.exclude_of_task(session, access, task, why=question.text)
        audit.record(
            session,
            actor=access.user,
            project=access.project,
            action="exclude answers",
            subject_kind="task",
            subject_uid=task.uid,
            question=str(question.uid),
            answers=excluded,
        )
    if question.state == QuestionState.OPEN:
        question.answer = RETIRED_ANSWER
        _settle(session, access, question, QuestionState.ANSWERED, "answer question")
    return excluded


def as_example(session: Session, access: Access, uid: uuid.UUID) -> str:
    """A question with its answer as a section of guidelines, in Markdown. Raises NotFound, Conflict where it has no answer."""
    row = get_row(session, access, uid)
    question = row.question
    if question.answer is None:
        raise Conflict("This question has no answer yet. Answer it first.")
    quoted = (_quote(text) for text in (row.messages[-1]["content"], question.text))
    return "\n\n".join((f"### {_line(question.text)}", *quoted, question.answer))


def take_in(session: Session, access: Access, uid: uuid.UUID, guideline: Guideline) -> None:
    """Note which version of the guidelines took a question in as an example. Raises NotFound."""
    access.demand(Permission.MANAGE_GUIDELINES)
    question = _lock(session, access, uid)
    question.guideline_id = guideline.id
    session.flush()


def _look(session: Session, access: Access, questions: Sequence[Question]) -> list[Asked]:
    asked = [Asked(question, bool(question.settled_at and not question.read_at)) for question in questions]
    if new := [row.question.id for row in asked if row.is_new]:
        queries.mark_read(session, access.user.id, new)
    return asked


def _settle(session: Session, access: Access, question: Question, state: QuestionState, action: str) -> None:
    question.state, question.settled_by_id, question.settled_at = state, access.user.id, datetime.now(UTC)
    question.read_at = None
    session.flush()
    audit.record(
        session,
        actor=access.user,
        project=access.project,
        action=action,
        subject_kind="question",
        subject_uid=question.uid,
        kind=question.kind.value,
    )


def _lock(session: Session, access: Access, uid: uuid.UUID) -> Question:
    question = queries.find_question(session, access.project.id, uid, lock=True)
    if question is None:
        raise NotFound(_NO_QUESTION)
    return question


def _parse(text: str, longest: int, *, field: str, name: str) -> str:
    words = text.replace("\r\n", "\n").replace("\r", "\n").replace("\x00", "").strip()
    if not words:
        raise BadInput(f"The {name} is empty. Write it in a few words.", field=field)
    if len(words) > longest:
        raise BadInput(f"The {name} has {len(words):,} characters; shorten it to {longest:,}.", field=field)
    return words


def _line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 80 else line[:79].rstrip() + "…"


def _quote(text: str) -> str:
    return "\n".join(f"> {line}".rstrip() for line in text.strip().splitlines())
