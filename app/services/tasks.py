"""The queue: who gets which task, for how long, and what becomes of a task that is passed on or left.

A person who holds a task gets it again; else the one they let expire, the first of the queue they never had, and last what
they gave back. Locks are taken in the order of `app.queries.leases`.
"""

import random
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from sqlalchemy.orm import Session

from app.errors import BadInput, Conflict, Forbidden, NotFound
from app.markup import render_markdown
from app.models import (
    Json,
    Lease,
    LeaseState,
    Project,
    Prompt,
    Purpose,
    Sample,
    SampleOrigin,
    Task,
    TaskKind,
    TaskState,
)
from app.permissions import Access
from app.queries import accounts as account_queries
from app.queries import leases
from app.queries import tasks as queries
from app.schemas.judgements import NOTE_LIMIT, WhySkipped
from app.services import counters

LEASE_LENGTH = {TaskKind.RANK: timedelta(minutes=45), TaskKind.DEMONSTRATE: timedelta(hours=2)}
"""Time for a task; every saved draft gives it anew."""

_TRIES = 8
"""Times a lost race for a slot is run again."""


@dataclass(frozen=True)
class NewSample:
    """A text a sampler drew for a prompt."""

    text: str
    sampler_id: int
    seed: int
    length_tokens: int
    finish_reason: str


@dataclass(frozen=True)
class Work:
    """A task in the hands of one person, with what it shows in the order it is shown."""

    task: Task
    lease: Lease
    prompt: Prompt
    outputs: Sequence[queries.OutputRow]

    @property
    def letters(self) -> dict[uuid.UUID, str]:
        """The letter each output goes by on this person's page."""
        return {output.sample: letter(index) for index, output in enumerate(self.outputs)}


class WhyNothing(StrEnum):
    """Why a person gets no task."""

    PAUSED = "paused"
    NONE_OPEN = "none_open"
    ALL_HELD = "all_held"
    ALL_YOURS = "all_yours"


@dataclass(frozen=True)
class Nothing:
    """That there is nothing to do: why, how many tasks others hold, and when the first of those frees."""

    why: WhyNothing
    held: int = 0
    next_free_at: datetime | None = None


def same_text(text: str) -> str:
    """What makes two texts the same to a reader: their words, whatever white space is between them."""
    return " ".join(text.split())


def letter(index: int) -> str:
    """A for the output shown first."""
    return chr(ord("A") + index)


def create_rank_task(
    session: Session,
    project: Project,
    *,
    prompt_id: int,
    round_id: int,
    samples: Sequence[NewSample],
    purpose: Purpose = Purpose.TRAIN,
    judgements_wanted: int = 1,
    priority: int = 0,
) -> Task:
    """Open a task to rank these samples, storing and rendering them. Raises BadInput for identical texts or a wrong number."""
    if not 2 <= len(samples) <= 9:
        raise BadInput(f"A rank task has 2 to 9 outputs; {len(samples)} were given.")
    texts = [same_text(sample.text) for sample in samples]
    if len(set(texts)) < len(texts):
        doubled = next(text for text in texts if texts.count(text) > 1)
        raise BadInput(f"Two outputs of a task are identical ({doubled[:60]!r}); draw another before showing them.")
    task = Task(
        project_id=project.id,
        kind=TaskKind.RANK,
        purpose=purpose,
        prompt_id=prompt_id,
        round_id=round_id,
        judgements_wanted=judgements_wanted,
        priority=priority,
    )
    rows = [
        Sample(
            project_id=project.id,
            prompt_id=prompt_id,
            origin=SampleOrigin.MODEL,
            sampler_id=sample.sampler_id,
            seed=sample.seed,
            text=sample.text,
            html=render_markdown(sample.text),
            length_tokens=sample.length_tokens,
            finish_reason=sample.finish_reason,
        )
        for sample in samples
    ]
    queries.insert_task(session, task, rows)
    return task


def lease_next(session: Session, access: Access, kind: TaskKind) -> Lease | None:
    """The task this person works on next: the one they hold, else one more of the queue; None where there is none.

    Raises Forbidden for a paused person.
    """
    if _is_paused(session, access):
        raise Forbidden("An admin has paused your work in this project. Ask them when it goes on.")
    leases.lock_person(session, access.project.id, access.user.id)
    held = find_held(session, access, kind)
    if held and leases.renew_lease(session, held.id, LEASE_LENGTH[kind]):
        return leases.get_lease(session, held.id)
    for _ in range(_TRIES):
        try:
            lease_id = _lease(session, access, kind)
        except leases.SlotTaken:
            continue
        return None if lease_id is None else leases.get_lease(session, lease_id)
    raise Conflict("Many people take tasks right now, and each one found was gone. Try again.")


def find_held(session: Session, access: Access, kind: TaskKind) -> Lease | None:
    """The task this person holds; one whose time is over is still theirs until somebody takes it."""
    return leases.find_held(session, access.project.id, access.user.id, kind)


def find_nothing(session: Session, access: Access, kind: TaskKind) -> Nothing | None:
    """Why this person would get no task now; None where they would get one. Leases nothing."""
    if _is_paused(session, access):
        return Nothing(WhyNothing.PAUSED)
    place = (session, access.project.id, access.user.id, kind)
    if leases.find_held(*place) or leases.can_lease(*place):
        return None
    if not queries.has_open(session, access.project.id, kind):
        return Nothing(WhyNothing.NONE_OPEN)
    waiting = leases.get_waiting(*place)
    if waiting.tasks:
        return Nothing(WhyNothing.ALL_HELD, waiting.tasks, waiting.next_free_at)
    return Nothing(WhyNothing.ALL_YOURS)


def find_work(session: Session, access: Access, uid: uuid.UUID, *, kind: TaskKind | None = None) -> Work:
    """A task this person was lent, whatever became of it; with `kind`, only one that is answered in that way.

    Raises NotFound for any other: its existence is not told.
    """
    task = queries.find_task(session, access.project.id, uid)
    if task is not None and kind is not None and task.kind != kind:
        task = None
    lease = leases.find_lease_of(session, task.id, access.user.id) if task else None
    if task is None or lease is None:
        raise NotFound("There is no such task among those given to you. Take the next one from the queue.")
    places = {position: index for index, position in enumerate(lease.shown_order)}
    outputs = sorted(queries.list_outputs(session, task.id), key=lambda output: places[output.position])
    return Work(task=task, lease=lease, prompt=queries.get_prompt(session, task.prompt_id), outputs=outputs)


def skip(session: Session, access: Access, uid: uuid.UUID, *, reason: WhySkipped, note: str = "") -> Lease:
    """Pass a task on for good: its slot is free, its draft stays. Saying so twice is the same as once.

    Raises Conflict where it was answered already.
    """
    if len(note) > NOTE_LIMIT:
        raise BadInput(f"The note has {len(note):,} characters; shorten it to {NOTE_LIMIT:,}.", field="note")
    lease = _leave(session, access, uid, LeaseState.SKIPPED)
    if lease.state != LeaseState.SKIPPED:
        lease.state, lease.skip_reason, lease.skip_note = LeaseState.SKIPPED, reason, note or None
        lease.ended_at = datetime.now(UTC)
        counters.add(session, access.project.id, counters.SKIPS)
    return lease


def release(session: Session, access: Access, uid: uuid.UUID) -> Lease:
    """Give a task back unanswered; it may come again when nothing else waits. Raises Conflict where it was answered."""
    lease = _leave(session, access, uid, LeaseState.RELEASED)
    if lease.state in (LeaseState.HELD, LeaseState.EXPIRED):
        lease.state, lease.ended_at = LeaseState.RELEASED, datetime.now(UTC)
    return lease


def save_draft(session: Session, access: Access, uid: uuid.UUID, content: Json) -> datetime | None:
    """Keep work in progress and renew the lease; gives the time, or None where the task was answered meanwhile."""
    work = find_work(session, access, uid)
    lease = leases.lock_lease(session, work.lease.id)
    if lease.state == LeaseState.SUBMITTED:
        return None
    queries.save_draft(session, work.task, access.user.id, content)
    leases.renew_lease(session, lease.id, LEASE_LENGTH[work.task.kind])
    return datetime.now(UTC)


def settle(session: Session, task: Task, lease: Lease) -> None:
    """Close an answered lease and, where all judgements wanted are there, its task; both rows are locked.

    The lease keeps its slot if nobody else has that, takes another if one is free, and is surplus otherwise.
    """
    leases.expire_of_task(session, task.id, but=lease.id)
    filled = leases.list_filled_slots(session, task.id, but=lease.id)
    free = [slot for slot in (lease.slot, *range(1, task.judgements_wanted + 1)) if slot not in filled]
    if lease.state == LeaseState.SKIPPED:
        counters.add(session, task.project_id, counters.SKIPS, -1)
        lease.skip_reason = lease.skip_note = None
    lease.slot = free[0] if free else lease.slot
    lease.is_surplus = not free
    lease.state = LeaseState.SUBMITTED
    lease.ended_at = datetime.now(UTC)
    session.flush()
    if task.state == TaskState.OPEN and leases.count_answers(session, task.id) >= task.judgements_wanted:
        task.state = TaskState.DONE


def find_draft(session: Session, work: Work) -> Json | None:
    """The work in progress of the person who holds this work."""
    draft = queries.find_draft(session, work.task.id, work.lease.user_id)
    return draft.content if draft else None


def expire(session: Session, limit: int = 1000) -> int:
    """Mark leases whose time is over; gives how many. Only tidies: no other code waits for it."""
    return leases.expire_leases(session, limit=limit)


def _lease(session: Session, access: Access, kind: TaskKind) -> int | None:
    place, length = (session, access.project.id, access.user.id, kind), LEASE_LENGTH[kind]
    return (
        leases.lease_left(*place, left=LeaseState.EXPIRED, length=length)
        or leases.lease_new(*place, length=length, seed=random.getrandbits(62))
        or leases.lease_left(*place, left=LeaseState.RELEASED, length=length)
    )


def _leave(session: Session, access: Access, uid: uuid.UUID, state: LeaseState) -> Lease:
    """The person's lease of a task, locked to be put into `state`. Raises NotFound, or Conflict where it was answered."""
    work = find_work(session, access, uid)
    queries.lock_task(session, work.task.id)
    lease = leases.lock_lease(session, work.lease.id)
    if lease.state == LeaseState.SUBMITTED:
        raise Conflict(f"Your answer to this task is stored already, so it cannot be {state} any more.")
    return lease


def _is_paused(session: Session, access: Access) -> bool:
    membership = account_queries.find_membership(session, access.project.id, access.user.id)
    return membership is not None and membership.is_paused
