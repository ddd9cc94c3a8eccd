"""Tasks with reference answers for tests, made the way an admin makes them."""

from collections.abc import Sequence
from datetime import UTC, datetime

from sqlalchemy.orm import Session

from app.models import Appeal, Purpose, Qualification, QualificationState, Role, Task
from app.permissions import Access
from app.queries import tasks as task_queries
from app.schemas.references import ReferenceForm
from app.services import judgements, references
from tests.app import registry
from tests.app.queue import Queue, rank, take


def teacher(session: Session, queue: Queue) -> Access:
    """A new admin of the project."""
    return registry.access_of(registry.make_user(session, name="Tea"), queue.project, Role.ADMIN)


def ranked(session: Session, queue: Queue, texts: Sequence[str] = ("first", "second", "third")) -> Task:
    """A task that somebody has ranked."""
    task = queue.task(session, texts, priority=100)
    person = queue.person(session)
    work = take(session, person)
    judgements.submit_ranking(session, person, work.task.uid, rank(work))
    return task


def form_of(session: Session, task: Task, tiers: Sequence[str], *, explanation: str = "Because.") -> ReferenceForm:
    """A reference with these tiers by position; the text of each output explains its place."""
    outputs = task_queries.list_outputs(session, task.id)
    return ReferenceForm(
        tiers={str(output.sample): tier for output, tier in zip(outputs, tiers, strict=True)},
        whys={str(output.sample): f"It says *{output.text}*." for output in outputs},
        explanation=explanation,
    )


def referenced(
    session: Session,
    queue: Queue,
    purpose: Purpose = Purpose.GOLD,
    tiers: Sequence[str] = ("1", "2", "3"),
    texts: Sequence[str] = ("first", "second", "third"),
) -> Task:
    """A task with a reference, made of a ranked one."""
    of = ranked(session, queue, texts)
    form = form_of(session, of, tiers)
    return references.create_of_task(session, teacher(session, queue), of.uid, purpose, form)


def attempted(session: Session, queue: Queue) -> Qualification:
    """A test that somebody failed."""
    attempt = Qualification(
        project_id=queue.project.id,
        user_id=queue.person(session).user.id,
        attempt=1,
        state=QualificationState.FAILED,
        pass_mark=0.75,
        score=0.5,
        ended_at=datetime.now(UTC),
    )
    session.add(attempt)
    session.flush()
    return attempt


def appealed(session: Session, queue: Queue) -> Appeal:
    """An appeal about a gold task."""
    task, person = referenced(session, queue), queue.person(session)
    made = Appeal(project_id=queue.project.id, task_id=task.id, user_id=person.user.id, body="I see it otherwise.")
    session.add(made)
    session.flush()
    return made
