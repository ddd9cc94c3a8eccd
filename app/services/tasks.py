"""The queue: who gets which task, for how long, and what becomes of a task that is passed on or left.

A person who holds a task gets it again; else the one they let expire, the first of the queue they never had, and last what
they gave back. Locks are taken in the order of `app.queries.leases`.
"""

import random
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from sqlalchemy.orm import Session

from app.errors import BadInput, Conflict, Forbidden, NotFound
from app.markup import render_markdown
from app.models import (
    LESSONS,
    Json,
    Lease,
    LeaseState,
    Membership,
    Project,
    Purpose,
    Sample,
    SampleOrigin,
    Stream,
    Task,
    TaskKind,
)
from app.permissions import Access
from app.queries import accounts as account_queries
from app.queries import leases
from app.queries import qualifications as qualification_queries
from app.queries import tasks as queries
from app.queries import waiting as waiting_queries
from app.schemas.judgements import WhySkipped
from app.schemas.needs import CONTENT, SKILL, name_tags
from app.schemas.projects import SchoolSettings
from app.services import counters, exposure, gold

LEASE_LENGTH = {
    TaskKind.RANK: timedelta(minutes=45),
    TaskKind.DEMONSTRATE: timedelta(hours=2),
    TaskKind.COMPARE: timedelta(minutes=30),
    TaskKind.RATE: timedelta(minutes=20),
    TaskKind.LABEL_PROMPT: timedelta(minutes=20),
}
"""Time for a task; every saved draft gives it anew."""

WORK = frozenset({Purpose.TRAIN, Purpose.EVALUATE, Purpose.REVIEW})
"""Purposes that the queue gives out unless others are asked for."""

_TRIES = 8
"""Times a lost race for a slot is run again."""


@dataclass(frozen=True)
class NewSample:
    """A text a sampler drew for a prompt."""

    text: str
    sampler_id: int
    seed: int | None
    """None where another's server drew it."""
    length_tokens: int | None
    """None where it did not say."""
    finish_reason: str
    html: str | None = None
    """Rendered beforehand by who has time for it; None has it rendered where the task is opened."""


@dataclass(frozen=True)
class Work(queries.Lent):
    """A task in the hands of one person, with what it shows in the order it is shown."""

    outputs: Sequence[queries.OutputRow]

    @property
    def letters(self) -> dict[uuid.UUID, str]:
        """The letter each output goes by on this person's page."""
        return {output.sample: letter(index) for index, output in enumerate(self.outputs)}


class WhyNothing(StrEnum):
    """Why a person gets no task."""

    PAUSED = "paused"
    NOT_QUALIFIED = "not_qualified"
    NONE_OPEN = "none_open"
    DAILY_CAP = "daily_cap"
    ALL_HELD = "all_held"
    NEEDS = "needs"
    ALL_YOURS = "all_yours"


@dataclass(frozen=True)
class Nothing:
    """That there is nothing to do: why, how many tasks others hold, and when there may be something.

    `lacking` names what open tasks need and this person does not bring (`app.schemas.needs`).
    """

    why: WhyNothing
    held: int = 0
    next_free_at: datetime | None = None
    lacking: tuple[str, ...] = ()
    content_free_at: datetime | None = None
    """When sensitive tasks come again to somebody who has opened as many as they may in a day."""
    gives_content: bool = True
    """Whether the project gives out sensitive tasks at all."""

    @property
    def lacking_skills(self) -> list[str]:
        """Names of the skills among `lacking`."""
        return name_tags(self.lacking, SKILL)

    @property
    def lacking_content(self) -> list[str]:
        """Names of the sensitive content among `lacking`."""
        return name_tags(self.lacking, CONTENT)


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
    round_id: int | None,
    samples: Sequence[NewSample],
    kind: TaskKind = TaskKind.RANK,
    evaluation_id: int | None = None,
    of_plan: tuple[int, Stream] | None = None,
    purpose: Purpose = Purpose.TRAIN,
    judgements_wanted: int = 1,
    priority: int = 0,
) -> Task:
    """Open a task to rank (or compare) these samples, storing and rendering them; it needs what its prompt needs.

    Raises BadInput for identical texts or a wrong number.
    """
    if not 2 <= len(samples) <= 9:
        raise BadInput(f"A rank task has 2 to 9 outputs; {len(samples)} were given.")
    texts = [same_text(sample.text) for sample in samples]
    if len(set(texts)) < len(texts):
        doubled = next(text for text in texts if texts.count(text) > 1)
        raise BadInput(f"Two outputs of a task are identical ({doubled[:60]!r}); draw another before showing them.")
    task = Task(
        project_id=project.id,
        kind=kind,
        purpose=purpose,
        prompt_id=prompt_id,
        round_id=round_id,
        evaluation_id=evaluation_id,
        plan_id=of_plan[0] if of_plan else None,
        stream=of_plan[1] if of_plan else None,
        judgements_wanted=judgements_wanted,
        priority=priority,
        needs=queries.get_prompt(session, prompt_id).needs,
    )
    rows = [
        Sample(
            project_id=project.id,
            prompt_id=prompt_id,
            origin=SampleOrigin.MODEL,
            sampler_id=sample.sampler_id,
            seed=sample.seed,
            text=sample.text,
            html=render_markdown(sample.text) if sample.html is None else sample.html,
            length_tokens=sample.length_tokens,
            finish_reason=sample.finish_reason,
        )
        for sample in samples
    ]
    queries.insert_task(session, task, rows)
    return task


def lease_next(
    session: Session, access: Access, kind: TaskKind, *, purposes: frozenset[Purpose] = WORK
) -> Lease | None:
    """The lease of the task that `take_next` gives."""
    lease_id = _lease_next(session, access, kind, purposes)
    return None if lease_id is None else leases.get_lease(session, lease_id)


def take_next(session: Session, access: Access, kind: TaskKind) -> Work | None:
    """The task this person works on next: the one they hold, else one more of the queue.

    None where there is none, or where they have reached their daily cap. Raises Forbidden for a paused person, and for one
    who has not passed the qualification test of a project that requires it.
    """
    lease_id = _lease_next(session, access, kind, WORK)
    return None if lease_id is None else _work(session, queries.get_lent(session, lease_id))


def _lease_next(session: Session, access: Access, kind: TaskKind, purposes: frozenset[Purpose]) -> int | None:
    membership = find_membership(session, access)
    if membership and membership.is_paused:
        raise Forbidden("An admin has paused your work in this project. Ask them when it goes on.")
    if not is_qualified(session, access):
        raise Forbidden("This project gives work to people who have passed its qualification test. Take it first.")
    leases.lock_person(session, access.project.id, access.user.id)
    unfinished = leases.map_unfinished(session, access.project.id, access.user.id, kind)
    held = unfinished.get(LeaseState.HELD)
    if held and leases.renew_lease(session, held, LEASE_LENGTH[kind]):
        return held
    if find_cap_end(session, membership):
        return None
    seeker = _seeker(session, access, membership, kind, purposes)
    for _ in range(_TRIES):
        try:
            return _lease(session, access.project, seeker, unfinished)
        except leases.SlotTaken:
            continue
    raise Conflict("Many people take tasks right now, and each one found was gone. Try again.")


def find_held(session: Session, access: Access, kind: TaskKind) -> Lease | None:
    """The task this person holds; one whose time is over is still theirs until somebody takes it."""
    return leases.find_held(session, access.project.id, access.user.id, kind)


def find_nothing(
    session: Session, access: Access, kind: TaskKind, *, purposes: frozenset[Purpose] = WORK
) -> Nothing | None:
    """Why this person would get no task now; None where they would get one. Leases nothing."""
    membership = find_membership(session, access)
    if membership and membership.is_paused:
        return Nothing(WhyNothing.PAUSED)
    if not is_qualified(session, access):
        return Nothing(WhyNothing.NOT_QUALIFIED)
    if find_held(session, access, kind):
        return None
    if cap_end := find_cap_end(session, membership):
        return Nothing(WhyNothing.DAILY_CAP, next_free_at=cap_end)
    seeker = _seeker(session, access, membership, kind, purposes)
    if leases.can_lease(session, seeker):
        return None
    return replace(
        _why_nothing(session, seeker),
        content_free_at=exposure.find_end(session, membership),
        gives_content=exposure.find_limit(access.project, membership) > 0,
    )


def _why_nothing(session: Session, seeker: leases.Seeker) -> Nothing:
    lacking = tuple(waiting_queries.list_lacking(session, seeker))
    waiting = waiting_queries.get_waiting(session, seeker)
    if waiting.tasks:
        return Nothing(WhyNothing.ALL_HELD, waiting.tasks, waiting.next_free_at, lacking)
    if lacking:
        return Nothing(WhyNothing.NEEDS, lacking=lacking)
    has_open = queries.has_open(session, seeker.project_id, seeker.kind, seeker.purposes)
    return Nothing(WhyNothing.ALL_YOURS if has_open else WhyNothing.NONE_OPEN)


def is_qualified(session: Session, access: Access) -> bool:
    """Whether nothing of the project's qualification keeps this person from work."""
    school = SchoolSettings.model_validate(access.project.school)
    if not school.requires_qualification:
        return True
    return qualification_queries.is_qualified(session, access.project.id, access.user.id)


def find_membership(session: Session, access: Access) -> Membership | None:
    """This person's place in the project; the owner of the installation may have none."""
    return access.membership or account_queries.find_membership(session, access.project.id, access.user.id)


def granted(session: Session, membership: Membership | None) -> frozenset[str]:
    """Tags (`app.schemas.needs`) that a member brings: skills granted to them, and content they opted in to.

    The content counts until they have opened as much of it as they may in a day.
    """
    if membership is None:
        return frozenset()
    opted_in = membership.opted_in if exposure.may_open(session, membership) else []
    return frozenset([*membership.skills, *opted_in])


def find_cap_end(session: Session, membership: Membership | None) -> datetime | None:
    """When a member who has reached their daily cap gets a task again; None where they have not reached it.

    The day is the last 24 hours; a task they hold at the cap may be finished.
    """
    if membership is None or membership.daily_cap is None:
        return None
    first = leases.find_answered_at(session, membership.project_id, membership.user_id, nth=membership.daily_cap)
    cap_end = first + timedelta(days=1) if first else None
    return cap_end if cap_end and cap_end > datetime.now(UTC) else None


def find_work(session: Session, access: Access, uid: uuid.UUID, *, kind: TaskKind | None = None) -> Work:
    """A task this person was lent, whatever became of it; with `kind`, only one that is answered in that way.

    Raises NotFound for any other: its existence is not told.
    """
    return _work(session, _find_lent(session, access, uid, kind))


def lock_work(session: Session, access: Access, uid: uuid.UUID, *, kind: TaskKind | None = None) -> Work:
    """`find_work`, the rows of task and lease locked until the transaction ends; the rest may be from before a wait for them."""
    return _work(session, _find_lent(session, access, uid, kind, lock=True))


def get_work(session: Session, lease: Lease) -> Work:
    """The task that a lease is about."""
    return _work(session, queries.get_lent(session, lease.id))


def _find_lent(
    session: Session, access: Access, uid: uuid.UUID, kind: TaskKind | None = None, *, lock: bool = False
) -> queries.Lent:
    lent = queries.find_lent(session, access.project.id, access.user.id, uid, lock=lock)
    if lent is None or kind not in (None, lent.task.kind):
        raise NotFound("There is no such task among those given to you. Take the next one from the queue.")
    return lent


def _work(session: Session, lent: queries.Lent) -> Work:
    places = {position: index for index, position in enumerate(lent.lease.shown_order)}
    outputs = sorted(queries.list_outputs(session, lent.task.id), key=lambda output: places[output.position])
    return Work(**vars(lent), outputs=outputs)


def skip(session: Session, access: Access, uid: uuid.UUID, *, reason: WhySkipped) -> Lease:
    """Pass a task on for good: its slot is free, its draft stays. Saying so twice is the same as once.

    Raises Conflict where it was answered already.
    """
    lease = _leave(session, access, uid, LeaseState.SKIPPED)
    if lease.state != LeaseState.SKIPPED:
        lease.state, lease.skip_reason = LeaseState.SKIPPED, reason
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
    lent = _find_lent(session, access, uid)
    lease = leases.lock_lease(session, lent.lease.id)  # not the task: whoever looks for one passes over a locked one
    if lease.state == LeaseState.SUBMITTED:
        return None
    queries.save_draft(session, lent.task, access.user.id, content)
    leases.renew_lease(session, lease.id, LEASE_LENGTH[lent.task.kind])
    return datetime.now(UTC)


def settle(session: Session, task: Task, lease: Lease) -> None:
    """Close an answered lease and, where all judgements wanted are there, its task; both rows are locked. The draft goes.

    The lease keeps its slot if nobody else has that, takes another if one is free, and is surplus otherwise.
    """
    if lease.state == LeaseState.SKIPPED:
        counters.add(session, task.project_id, counters.SKIPS, -1)
    leases.settle(session, task, lease)


def expire(session: Session, limit: int = 1000) -> int:
    """Mark leases whose time is over; gives how many. Only tidies: no other code waits for it."""
    return leases.expire_leases(session, limit=limit)


def _seeker(
    session: Session, access: Access, membership: Membership | None, kind: TaskKind, purposes: frozenset[Purpose]
) -> leases.Seeker:
    return leases.Seeker(access.project.id, access.user.id, kind, purposes, granted(session, membership))


def _lease(
    session: Session, project: Project, seeker: leases.Seeker, unfinished: Mapping[LeaseState, int]
) -> int | None:
    length = LEASE_LENGTH[seeker.kind]
    # One that is held here was taken over since: it has expired, or somebody is about to say so.
    has_expired = LeaseState.EXPIRED in unfinished or LeaseState.HELD in unfinished
    return (
        (leases.lease_left(session, seeker, left=LeaseState.EXPIRED, length=length) if has_expired else None)
        or gold.lease_task(session, project, seeker, length=length)
        or leases.lease_new(session, seeker, length=length, seed=random.getrandbits(62))
        or (
            leases.lease_left(session, seeker, left=LeaseState.RELEASED, length=length)
            if LeaseState.RELEASED in unfinished
            else None
        )
    )


def _leave(session: Session, access: Access, uid: uuid.UUID, state: LeaseState) -> Lease:
    """The person's lease of a task, locked to be put into `state`.

    Raises NotFound, Conflict where it was answered or belongs to practice or a test, which nobody else can do for them.
    """
    lent = _find_lent(session, access, uid, lock=True)
    if lent.task.purpose in LESSONS:
        raise Conflict("A task of practice or of a test is not passed on. Leave the page: you find it again as it is.")
    if lent.lease.state == LeaseState.SUBMITTED:
        raise Conflict(f"Your answer to this task is stored already, so it cannot be {state} any more.")
    return lent.lease
