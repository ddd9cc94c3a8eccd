"""Demonstrations: a labeller writes the response they would want, SFT learns from it."""

import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.errors import BadInput, Conflict
from app.models import (
    Cohort,
    Demonstration,
    DemonstrationOrigin,
    JudgementStatus,
    Lease,
    LeaseState,
    Project,
    Task,
    TaskKind,
    TaskState,
    User,
)
from app.permissions import Access
from app.queries import demonstrations as queries
from app.queries import leases as lease_queries
from app.queries import tasks as task_queries
from app.services import counters, tasks

LONGEST_CHARACTERS = 20_000
"""Characters of a demonstration, whatever the model holds."""

_TASKS_AHEAD = 10
"""Demonstrate tasks opened at once when the queue has none for a person."""

_BATCH = 1000


@dataclass(frozen=True)
class NewDemonstration:
    """A response for `add_many`."""

    prompt_id: int
    text: str


def add(
    session: Session,
    project: Project,
    *,
    prompt_id: int,
    text: str,
    author: User | None,
    origin: DemonstrationOrigin,
    task_id: int | None = None,
    idempotency_key: uuid.UUID | None = None,
    is_counted: bool = True,
) -> Demonstration:
    """Store one demonstration and count it, unless its author only measures. Raises BadInput where it is empty or too long."""
    demonstration = Demonstration(
        project_id=project.id,
        prompt_id=prompt_id,
        task_id=task_id,
        text=check_text(text),
        author_id=author.id if author else None,
        origin=origin,
        idempotency_key=idempotency_key,
        status=JudgementStatus.CURRENT,
    )
    queries.insert_demonstration(session, demonstration)
    if is_counted:
        counters.add(session, project.id, counters.DEMONSTRATIONS)
    return demonstration


def add_many(session: Session, project: Project, rows: Iterable[NewDemonstration]) -> int:
    """Store many imported demonstrations, none of them by a person here; gives how many."""
    count = 0
    remaining = iter(rows)
    while batch := list(islice(remaining, _BATCH)):
        columns = [
            {
                "project_id": project.id,
                "prompt_id": row.prompt_id,
                "text": check_text(row.text),
                "origin": DemonstrationOrigin.IMPORTED,
            }
            for row in batch
        ]
        queries.insert_many(session, columns)
        count += len(batch)
    counters.add(session, project.id, counters.DEMONSTRATIONS, count)
    return count


def check_text(text: str) -> str:
    """A demonstration's text with line ends as \\n and no blank ends. Raises BadInput where it is empty or too long."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").strip()
    if not text:
        raise BadInput("The response is empty. Write what a good assistant would answer.", field="text")
    if "\x00" in text:
        raise BadInput("The response holds a NUL character, which cannot be stored. Remove it.", field="text")
    if len(text) > LONGEST_CHARACTERS:
        raise BadInput(
            f"The response has {len(text):,} characters; shorten it to {LONGEST_CHARACTERS:,} at most.", field="text"
        )
    return text


def lease_next(session: Session, access: Access) -> Lease | None:
    """The next prompt to demonstrate for this person; opens more tasks where the queue has none for them."""
    if lease := tasks.lease_next(session, access, TaskKind.DEMONSTRATE):
        return lease
    membership = tasks.find_membership(session, access)
    if tasks.find_cap_end(session, membership):
        return None
    queries.lock_demonstrate_queue(session, access.project.id)
    if lease := tasks.lease_next(session, access, TaskKind.DEMONSTRATE):
        return lease
    is_more = _open_tasks(session, access, tasks.granted(membership))
    return tasks.lease_next(session, access, TaskKind.DEMONSTRATE) if is_more else None


def can_lease(session: Session, access: Access) -> bool:
    """Whether `lease_next` would find a prompt for this person. Leases nothing and opens no task."""
    nothing = tasks.find_nothing(session, access, TaskKind.DEMONSTRATE)
    if nothing is None:
        return True
    if nothing.why in (tasks.WhyNothing.PAUSED, tasks.WhyNothing.DAILY_CAP):
        return False
    granted = tasks.granted(tasks.find_membership(session, access))
    return bool(queries.list_undemonstrated(session, access.project.id, access.user.id, 1, granted=granted))


def submit(session: Session, access: Access, uid: uuid.UUID, *, text: str, idempotency_key: uuid.UUID) -> Demonstration:
    """Store what a person wrote for a task they were lent; the same key again gives what was stored before.

    Raises NotFound, BadInput, or Conflict where they answered the task already in another way.
    """
    work = tasks.find_work(session, access, uid, kind=TaskKind.DEMONSTRATE)
    task = task_queries.lock_task(session, work.task.id)
    lease = lease_queries.lock_lease(session, work.lease.id)
    if stored := queries.find_by_key(session, idempotency_key):
        if (stored.task_id, stored.author_id) != (task.id, access.user.id):
            raise Conflict("This page was already used to submit another task. Reload it and submit again.")
        return stored
    if lease.state == LeaseState.SUBMITTED:
        raise Conflict(
            "You have already written for this prompt, perhaps in another tab. That text is kept; this one is not."
        )
    try:
        with session.begin_nested():
            demonstration = add(
                session,
                access.project,
                prompt_id=task.prompt_id,
                text=text,
                author=access.user,
                origin=DemonstrationOrigin.WRITTEN,
                task_id=task.id,
                idempotency_key=idempotency_key,
                is_counted=access.cohort == Cohort.TRAINING,
            )
    except IntegrityError as error:  # the same key, at the same moment, for another task
        raise Conflict("This page was used to submit another task just now. Reload it and submit again.") from error
    tasks.settle(session, task, lease)
    task_queries.delete_draft(session, task.id, access.user.id)
    return demonstration


def _open_tasks(session: Session, access: Access, granted: frozenset[str]) -> bool:
    """Open demonstrate tasks on the least demonstrated training prompts; False where every prompt has been asked for."""
    prompts = queries.list_undemonstrated(session, access.project.id, access.user.id, _TASKS_AHEAD, granted=granted)
    rows = [
        Task(
            project_id=access.project.id,
            kind=TaskKind.DEMONSTRATE,
            state=TaskState.OPEN,
            prompt_id=prompt.id,
            round_id=None,
            needs=prompt.needs,
        )
        for prompt in prompts
    ]
    task_queries.insert_tasks(session, rows)
    return bool(rows)
