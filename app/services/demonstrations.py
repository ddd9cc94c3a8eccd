"""Demonstrations: a labeller writes the response they would want, SFT learns from it."""

import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from statistics import quantiles

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.errors import BadInput, Conflict, NotFound
from app.models import (
    Cohort,
    Demonstration,
    DemonstrationOrigin,
    JudgementStatus,
    Lease,
    LeaseState,
    Project,
    Sample,
    Task,
    TaskKind,
    TaskState,
    User,
)
from app.permissions import Access
from app.queries import demonstrations as queries
from app.queries import tasks as task_queries
from app.schemas.demonstrations import UsualLength, Writing
from app.services import checkpoints, content, counters, tasks

LONGEST_CHARACTERS = 20_000
"""Characters of a demonstration, whatever the model holds."""

LENGTH_OF_NEWEST = 200
"""Demonstrations, the newest, whose length is called usual."""

LENGTH_FROM = 5
"""Demonstrations without which none is."""

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
    parent: Sample | None = None,
    idempotency_key: uuid.UUID | None = None,
    clocks: tuple[int | None, int | None] = (None, None),
    former: Demonstration | None = None,
    is_counted: bool = True,
    is_excluded: bool = False,
) -> Demonstration:
    """Store one demonstration, `former` becoming superseded by it; a first one is counted, unless it trains nothing.

    `clocks` are the page's milliseconds, active and idle. Raises BadInput where the text is empty or too long.
    """
    demonstration = Demonstration(
        project_id=project.id,
        prompt_id=prompt_id,
        task_id=task_id,
        text=check_text(text),
        author_id=author.id if author else None,
        origin=origin,
        parent_id=parent.id if parent else None,
        revision=former.revision + 1 if former else 1,
        active_ms=clocks[0],
        idle_ms=clocks[1],
        idempotency_key=idempotency_key,
        status=JudgementStatus.EXCLUDED if is_excluded else JudgementStatus.CURRENT,
    )
    if former:
        queries.supersede(session, former)
    queries.insert_demonstration(session, demonstration)
    if is_counted and not is_excluded and not former:
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
    is_more = _open_tasks(session, access, tasks.granted(session, membership))
    return tasks.lease_next(session, access, TaskKind.DEMONSTRATE) if is_more else None


def can_lease(session: Session, access: Access) -> bool:
    """Whether `lease_next` would find a prompt for this person. Leases nothing and opens no task."""
    nothing = tasks.find_nothing(session, access, TaskKind.DEMONSTRATE)
    if nothing is None:
        return True
    if nothing.why in (tasks.WhyNothing.PAUSED, tasks.WhyNothing.NOT_QUALIFIED, tasks.WhyNothing.DAILY_CAP):
        return False
    granted = tasks.granted(session, tasks.find_membership(session, access))
    return bool(queries.list_undemonstrated(session, access.project.id, access.user.id, 1, granted=granted))


def find_start(session: Session, project: Project, prompt_id: int) -> Sample | None:
    """A model's answer to the prompt that one may start from: of the active policy if it gave one, else of any model."""
    policy = checkpoints.active_policy(session, project.id)
    return queries.find_start(session, project.id, prompt_id, checkpoint_id=policy.id)


def find_parent(session: Session, project: Project, prompt_id: int, writing: Writing) -> Sample | None:
    """The model's answer that a text says it began as. Raises BadInput where the prompt has no such answer."""
    if writing.parent is None:
        return None
    parent = queries.find_sample(session, project.id, prompt_id, writing.parent)
    if parent is None:
        raise BadInput("The response you started from is not one to this prompt. Copy your text and reload the page.")
    return parent


def find_usual_length(session: Session, project: Project) -> UsualLength | None:
    """How long demonstrations are here; None where there are too few to say."""
    counts = queries.count_words(session, project.id, newest=LENGTH_OF_NEWEST)
    if len(counts) < LENGTH_FROM:
        return None
    low, _, high = quantiles(counts, n=4, method="inclusive")
    return UsualLength(round(low), round(high), len(counts))


def submit(
    session: Session, access: Access, uid: uuid.UUID, writing: Writing, *, idempotency_key: uuid.UUID
) -> Demonstration:
    """Store what a person wrote for a task they were lent; the same key again gives what was stored before.

    Raises NotFound, BadInput, or Conflict where they answered the task already in another way.
    """
    work = tasks.lock_work(session, access, uid, kind=TaskKind.DEMONSTRATE)
    task, lease = work.task, work.lease
    if stored := _find_repeated(session, access, task, idempotency_key):
        return stored
    if lease.state == LeaseState.SUBMITTED:
        raise Conflict(
            "You have already written for this prompt, perhaps in another tab. That text is kept; this one is not."
        )
    content.check_opened(work)
    demonstration = _store(session, access, task, writing, idempotency_key)
    tasks.settle(session, task, lease)
    return demonstration


def revise(
    session: Session,
    access: Access,
    uid: uuid.UUID,
    writing: Writing,
    *,
    idempotency_key: uuid.UUID,
    of_revision: int,
) -> Demonstration:
    """Store a new version of a person's own text; the one before is kept and marked superseded.

    Raises NotFound as `submit`, and where nothing was submitted; BadInput; Conflict where `of_revision` is no longer the
    newest, or the text was excluded.
    """
    task = tasks.lock_work(session, access, uid, kind=TaskKind.DEMONSTRATE).task
    if stored := _find_repeated(session, access, task, idempotency_key):
        return stored
    former = queries.find_of_task(session, task.id, access.user.id)
    if former is None:
        raise NotFound("There is no text of yours for this prompt that could be revised.")
    if former.status != JudgementStatus.CURRENT:
        raise Conflict("An admin has taken this text out of training, so it cannot be revised.")
    if former.revision != of_revision:
        raise Conflict(
            f"You revised version {of_revision}, but version {former.revision} is the newest. Look at it first."
        )
    return _store(session, access, task, writing, idempotency_key, former=former)


def _find_repeated(session: Session, access: Access, task: Task, key: uuid.UUID) -> Demonstration | None:
    """What was stored under this key before. Raises Conflict where that was for another task."""
    stored = queries.find_by_key(session, key)
    if stored and (stored.task_id, stored.author_id) != (task.id, access.user.id):
        raise Conflict("This page was already used to submit another task. Reload it and submit again.")
    return stored


def _store(
    session: Session,
    access: Access,
    task: Task,
    writing: Writing,
    key: uuid.UUID,
    *,
    former: Demonstration | None = None,
) -> Demonstration:
    parent = find_parent(session, access.project, task.prompt_id, writing)
    try:
        with session.begin_nested():
            return add(
                session,
                access.project,
                prompt_id=task.prompt_id,
                text=writing.text,
                author=access.user,
                origin=DemonstrationOrigin.EDITED if parent else DemonstrationOrigin.WRITTEN,
                task_id=task.id,
                parent=parent,
                idempotency_key=key,
                clocks=(writing.active_ms, writing.idle_ms),
                former=former,
                is_counted=access.cohort == Cohort.TRAINING,
                is_excluded=task.excluded_why is not None,
            )
    except IntegrityError as error:
        if not queries.is_key_taken(error):
            raise
        raise Conflict("This page was used to submit another task just now. Reload it and submit again.") from error


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
