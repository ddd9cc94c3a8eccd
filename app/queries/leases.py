"""The queue in SQL: one statement picks, locks and leases; expiry is a predicate, so that tidying up is never needed.

A task has its place by priority, then by `queued_at`, which it is given anew whenever it becomes available (a trigger sees to
that). So a person who has had 100,000 tasks that are still open need not pass over them again: a mark per person and priority
says up to when there is nothing for them, and what appears or re-opens lies beyond it.

Order of locks, everywhere: the task's row, then its leases. The unique index over (task, slot) has the last word: where a
snapshot was a moment too old, the insert finds the slot taken and the caller tries again.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    Interval,
    Row,
    Text,
    TextClause,
    bindparam,
    delete,
    func,
    select,
    text,
    update,
)
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session
from sqlalchemy.orm.attributes import set_committed_value

from app.models import LESSONS, Lease, LeaseState, Purpose, QueueMark, Task, TaskKind, TaskState

_MANY = 50
"""Open tasks passed over on the way to the one picked, from which on the way is made shorter."""

_MARGIN = timedelta(minutes=10)
"""Longer than a transaction that opens tasks takes."""

_HIGHEST = 2**63 - 1
"""Above every priority."""

# A lease that fills its slot: answered, or held and not yet expired.
_FILLS = """NOT taken.is_surplus
      AND (taken.state = 'submitted' OR taken.state = 'held' AND taken.expires_at > now())"""


_IN_QUEUE = "task.project_id = :project_id AND task.kind = :kind AND task.state = 'open'"


# Among open tasks, those that a person asks for and brings all it takes.
_FITS = f"{_IN_QUEUE} AND task.purpose = ANY(:purposes) AND task.needs <@ :granted"


SUITS = f"""{_FITS}
    AND NOT EXISTS (
      SELECT FROM task_outputs AS output JOIN samples AS sample ON sample.id = output.sample_id
      WHERE output.task_id = task.id AND sample.author_id = :user_id)
    AND NOT (task.kind = 'demonstrate' AND EXISTS (
      SELECT FROM demonstrations AS written WHERE written.project_id = task.project_id
      AND written.prompt_id = task.prompt_id AND written.author_id = :user_id))"""
"""A task made for that person: fitting, none of its texts their own. Whether it is, never changes while it keeps its place."""


_IS_FREE = f"task.judgements_wanted > (SELECT count(*) FROM leases AS taken WHERE taken.task_id = task.id AND {_FILLS})"


_IS_OPEN = f"{SUITS} AND {_IS_FREE}"


# Not as NOT EXISTS, which would be joined after the slots of every task were counted.
_NEVER_HAD = "(SELECT own.id FROM leases AS own WHERE own.task_id = task.id AND own.user_id = :user_id) IS NULL"


# The highest priority below a given one, and how far this person's mark lets them pass over its tasks.
_PLACE = f"""level AS MATERIALIZED (
  SELECT (SELECT task.priority FROM tasks AS task WHERE {_IN_QUEUE} AND task.priority < :below
          ORDER BY task.priority DESC LIMIT 1) AS priority
), place AS MATERIALIZED (
  SELECT level.priority, coalesce(mark.passed, '-infinity') AS passed, mark.id IS NOT NULL AS is_marked
  FROM level LEFT JOIN queue_marks AS mark ON :uses_marks AND mark.project_id = :project_id AND mark.user_id = :user_id
    AND mark.kind = :kind AND mark.priority = level.priority AND mark.profile = :profile
)"""


_BEYOND_MARK = "task.priority = (SELECT priority FROM place) AND task.queued_at > (SELECT passed FROM place)"


# The first the person never had, in that place.
_FIRST_NEW = f"""tasks AS task WHERE {_NEVER_HAD} AND {_IS_OPEN} AND {_BEYOND_MARK}
  ORDER BY task.queued_at, task.id LIMIT 1"""


# How many open tasks lie between the mark and a moment, counted up to a bound.
_SKIPPED = f"""(SELECT count(*) FROM (
    SELECT FROM tasks AS task WHERE {_IN_QUEUE} AND {_BEYOND_MARK}
    AND task.queued_at < coalesce(picked.queued_at, 'infinity') LIMIT :many) AS few) AS skipped"""


# One the person had and left: gave back, or let expire.
_LEFT = f"""leases AS own JOIN tasks AS task ON task.id = own.task_id
  WHERE own.project_id = :project_id AND own.user_id = :user_id AND own.state = ANY(:left) AND {_IS_OPEN}"""


# Freeing the slots whose time is over comes first: what follows reads the count of these rows.
_EXPIRED = """expired AS (
  UPDATE leases SET state = 'expired', ended_at = now() FROM picked
  WHERE leases.task_id = picked.id AND leases.state = 'held' AND leases.expires_at <= now()
  RETURNING leases.id
)"""


_LOWEST_FREE_SLOT = f"""(
    SELECT min(slot) FROM generate_series(1, picked.judgements_wanted) AS slot WHERE slot NOT IN (
      SELECT taken.slot FROM leases AS taken WHERE taken.task_id = picked.id AND {_FILLS}))"""


_LEASE_NEW = text(f"""
WITH {_PLACE}, picked AS MATERIALIZED (
  SELECT task.id, task.judgements_wanted, task.queued_at FROM {_FIRST_NEW}
  FOR NO KEY UPDATE OF task SKIP LOCKED
), {_EXPIRED}, leased AS (
  INSERT INTO leases (project_id, task_id, slot, user_id, state, expires_at, order_seed, shown_order)
  SELECT :project_id, picked.id, {_LOWEST_FREE_SLOT}, :user_id, 'held', now() + :length, :seed,
    ARRAY(SELECT output.position FROM task_outputs AS output WHERE output.task_id = picked.id
      ORDER BY md5(:seed || ':' || output.position) COLLATE "C")
  FROM picked, (SELECT count(*) FROM expired) AS tidied
  ON CONFLICT DO NOTHING
  RETURNING id
)
SELECT place.priority, place.is_marked, picked.id AS task_id, leased.id AS lease_id, {_SKIPPED},
  set_config('plan_cache_mode', 'auto', true)
FROM place LEFT JOIN picked ON true LEFT JOIN leased ON true
""").bindparams(bindparam("length", type_=Interval), bindparam("seed", type_=Lease.order_seed.type))


_FIND_NEW = text(f"""
WITH {_PLACE}, picked AS MATERIALIZED (SELECT task.id FROM {_FIRST_NEW})
SELECT place.priority, place.is_marked, picked.id AS task_id FROM place LEFT JOIN picked ON true
""")


# A mark goes up to the first task that the person may yet be lent, and never into the last minutes: a task numbered then may
# still be on its way in.
_ADVANCE = text(f"""
INSERT INTO queue_marks AS mark (project_id, user_id, kind, priority, profile, passed)
SELECT :project_id, :user_id, CAST(:kind AS varchar), :priority, :profile, coalesce(
  (SELECT task.queued_at - interval '1 microsecond' FROM tasks AS task
   WHERE {SUITS} AND {_NEVER_HAD} AND task.priority = :priority AND task.queued_at <= now() - :margin
   AND task.queued_at > coalesce(
     (SELECT passed FROM queue_marks WHERE project_id = :project_id AND user_id = :user_id AND kind = :kind
      AND priority = :priority AND profile = :profile), '-infinity')
   ORDER BY task.queued_at LIMIT 1), now() - :margin)
ON CONFLICT (project_id, user_id, kind, priority, profile) DO UPDATE SET passed = excluded.passed
WHERE excluded.passed > mark.passed
""").bindparams(bindparam("margin", type_=Interval))


# The person's row is taken up again, with the order it was shown in.
_LEASE_LEFT = text(f"""
WITH picked AS MATERIALIZED (
  SELECT task.id, task.judgements_wanted, own.id AS lease_id FROM {_LEFT}
  ORDER BY own.id DESC LIMIT 1
  FOR NO KEY UPDATE OF task SKIP LOCKED
), {_EXPIRED}, leased AS (
  UPDATE leases SET state = 'held', expires_at = now() + :length, ended_at = NULL, slot = {_LOWEST_FREE_SLOT}
  FROM picked, (SELECT count(*) FROM expired) AS tidied
  WHERE leases.id = picked.lease_id AND leases.state = ANY(:left)
  RETURNING leases.id
)
SELECT leased.id AS lease_id FROM picked LEFT JOIN leased ON true
""").bindparams(bindparam("length", type_=Interval))


_HAS_LEFT = text(f"SELECT EXISTS (SELECT FROM {_LEFT})")


TAGS = bindparam("granted", type_=ARRAY(Text))
"""Without a type, an empty list would be one of anything."""

_LEASE_NEW, _FIND_NEW, _ADVANCE, _LEASE_LEFT, _HAS_LEFT = (
    statement.bindparams(TAGS) for statement in (_LEASE_NEW, _FIND_NEW, _ADVANCE, _LEASE_LEFT, _HAS_LEFT)
)


@dataclass(frozen=True)
class Seeker:
    """A person who asks for a task, the kind and purposes asked for, and the tags they bring (`app.schemas.needs`)."""

    project_id: int
    user_id: int
    kind: TaskKind
    purposes: frozenset[Purpose]
    granted: frozenset[str]

    @property
    def returning(self) -> "Seeker":
        """Who takes up what they left: a gold task that the draw lent them comes back too."""
        return replace(self, purposes=self.purposes | {Purpose.GOLD})

    @property
    def profile(self) -> str:
        """What of the queue is for this person; a mark holds for one profile."""
        return " ".join([*sorted(self.purposes), *sorted(self.granted)])

    def values(self, **others: object) -> dict[str, object]:
        """Parameters of this module's statements."""
        return {
            "project_id": self.project_id,
            "user_id": self.user_id,
            "kind": self.kind.value,
            "purposes": [purpose.value for purpose in self.purposes],
            "granted": list(self.granted),
            **others,
        }


def lock_person(session: Session, project_id: int, user_id: int) -> None:
    """Let one request at a time lease for this person, so that a double click cannot hold two tasks.

    The plan of the next leasing is the general one: to make one for its values takes longer than the leasing.
    """
    session.execute(_LOCK_PERSON, {"key": f"lease/{project_id}/{user_id}"})


_LOCK_PERSON = text("""SELECT pg_advisory_xact_lock(hashtextextended(:key, 0)),
  set_config('plan_cache_mode', 'force_generic_plan', true)""")


class SlotTaken(Exception):
    """Another person was quicker at the slot that was picked; a second try sees it."""


def lease_new(session: Session, seeker: Seeker, *, length: timedelta, seed: int) -> int | None:
    """Lease the first task of the queue this person never had; gives the lease's id, None where there is no such task.

    Raises SlotTaken where another transaction leased the picked slot since this statement began.
    """
    row = _search(session, seeker, _LEASE_NEW, length=length, seed=seed)
    return _lease_id(row) if row else None


def _search(session: Session, seeker: Seeker, statement: TextClause, **values: object) -> Row[Any] | None:
    """The row of the first priority at which a task is found: from this person's marks on, then everywhere.

    Marks save time only. What they hid by a mistake, a clock set back or a transaction that took minutes, is found before
    there is said to be nothing.
    """
    for uses_marks in (True, False):
        below, was_marked = _HIGHEST, False
        while True:
            given = seeker.values(profile=seeker.profile, below=below, uses_marks=uses_marks, many=_MANY, **values)
            row = session.execute(statement, given).one()
            if row.priority is None:
                break
            if statement is _LEASE_NEW and row.skipped == _MANY:
                _advance(session, seeker, row.priority)
            if row.task_id is not None:
                if not uses_marks and statement is _LEASE_NEW:
                    session.execute(delete(QueueMark).where(*_marks_of(seeker)))
                return row
            below, was_marked = row.priority, was_marked or row.is_marked
        if not was_marked:
            break
    return None


def _marks_of(seeker: Seeker) -> tuple[ColumnElement[bool], ...]:
    return (
        QueueMark.project_id == seeker.project_id,
        QueueMark.user_id == seeker.user_id,
        QueueMark.kind == seeker.kind,
        QueueMark.profile == seeker.profile,
    )


def _advance(session: Session, seeker: Seeker, priority: int) -> None:
    """Move a person's mark over the tasks of one priority that are not for them any more."""
    session.execute(_ADVANCE, seeker.values(profile=seeker.profile, priority=priority, margin=_MARGIN))


def lease_left(session: Session, seeker: Seeker, *, left: LeaseState, length: timedelta) -> int | None:
    """Take up again the task this person left last, by giving it back or by letting it expire; the lease's id or None.

    Raises SlotTaken as `lease_new` does, and where they answered or skipped it since this statement began.
    """
    try:
        with session.begin_nested():
            values = seeker.returning.values(length=length, left=[left.value])
            row = session.execute(_LEASE_LEFT, values).one_or_none()
    except IntegrityError as error:
        raise SlotTaken from error
    return _lease_id(row) if row else None


def _lease_id(row: Row[Any]) -> int:
    """The lease taken. Raises SlotTaken where a task was picked and its lease could not be had."""
    if row.lease_id is None:
        raise SlotTaken
    return int(row.lease_id)


def can_lease(session: Session, seeker: Seeker) -> bool:
    """Whether leasing would find a task right now. Locks nothing."""
    left = [LeaseState.EXPIRED.value, LeaseState.RELEASED.value]
    return bool(session.scalar(_HAS_LEFT, seeker.returning.values(left=left))) or has_new(session, seeker)


def has_new(session: Session, seeker: Seeker) -> bool:
    """Whether the queue has a task this person never had. Locks nothing."""
    return _search(session, seeker, _FIND_NEW) is not None


_COUNTS_AS_WORK = Task.purpose.not_in(LESSONS) & Task.derived_from_id.is_(None)


def _looked_up(condition: ColumnElement[bool]) -> ColumnElement[bool]:
    """A condition on the task of a lease, looked up row by row: a join may be planned over every task."""
    return select(condition).where(Task.id == Lease.task_id).correlate(Lease).scalar_subquery()


IS_WORK = _looked_up(_COUNTS_AS_WORK)
"""That a lease is of no lesson and of no ranking made of another."""


def find_answered_at(session: Session, project_id: int, user_id: int, *, nth: int) -> datetime | None:
    """When this person gave their `nth` last answer, 1 being the last one; None where they gave fewer. Lessons are aside."""
    return session.scalar(
        select(Lease.ended_at)
        .where(Lease.project_id == project_id, Lease.user_id == user_id, text("leases.state = 'submitted'"), IS_WORK)
        .order_by(Lease.ended_at.desc())
        .offset(nth - 1)
        .limit(1)
    )


def count_answered(session: Session, project_id: int, user_id: int, kind: TaskKind, since: datetime) -> int:
    """Tasks of a kind that this person has answered since a moment, lessons aside."""
    values = {"project": project_id, "user": user_id, "kind": kind, "since": since}
    return session.scalars(_COUNT_ANSWERED, values).one()


_COUNT_ANSWERED = (
    select(func.count())
    .select_from(Lease)
    .where(
        Lease.project_id == bindparam("project"),
        Lease.user_id == bindparam("user"),
        text("leases.state = 'submitted'"),  # as the index says it
        Lease.ended_at >= bindparam("since"),
        _looked_up((Task.kind == bindparam("kind")) & _COUNTS_AS_WORK),
    )
)


def get_lease(session: Session, lease_id: int) -> Lease:
    """The lease with this id, as the database has it now."""
    return session.scalars(select(Lease).where(Lease.id == lease_id).execution_options(populate_existing=True)).one()


def find_held(session: Session, project_id: int, user_id: int, kind: TaskKind) -> Lease | None:
    """The task of that kind this person holds, lessons aside; its time may be over, as long as nobody has taken it."""
    return session.scalar(
        select(Lease)
        .join(Task, Task.id == Lease.task_id)
        .where(
            Lease.project_id == project_id,
            Lease.user_id == user_id,
            Lease.state == LeaseState.HELD,
            Task.kind == kind,
            Task.purpose.not_in(LESSONS),
        )
        .order_by(Lease.id)
        .limit(1)
    )


def map_unfinished(session: Session, project_id: int, user_id: int, kind: TaskKind) -> dict[LeaseState, int]:
    """Of this person's leases of open tasks, those that are held, expired or given back: the id of one of each.

    Lessons are aside. One that is held counts whatever became of its task.
    """
    rows = session.execute(_UNFINISHED, {"project": project_id, "user": user_id, "kind": kind})
    return {state: lease_id for state, lease_id in rows}


_UNFINISHED = (
    select(Lease.state, func.min(Lease.id))
    .join(Task, Task.id == Lease.task_id)
    .where(
        Lease.project_id == bindparam("project"),
        Lease.user_id == bindparam("user"),
        text("leases.state IN ('held', 'expired', 'released')"),  # as the index says it
        Task.kind == bindparam("kind"),
        Task.purpose.not_in(LESSONS),
        (Task.state == TaskState.OPEN) | (Lease.state == LeaseState.HELD),
    )
    .group_by(Lease.state)
)


def renew_lease(session: Session, lease_id: int, length: timedelta) -> bool:
    """Give a held lease its full time again; False where it is no longer held."""
    renewed = session.execute(
        update(Lease)
        .where(Lease.id == lease_id, Lease.state == LeaseState.HELD)
        .values(expires_at=func.now() + length)
        .returning(Lease.id)
    )
    return renewed.scalar() is not None


def find_lease_of(session: Session, task_id: int, user_id: int) -> Lease | None:
    """The one lease this person ever had of the task, as the database has it now."""
    return session.scalar(
        select(Lease)
        .where(Lease.task_id == task_id, Lease.user_id == user_id)
        .execution_options(populate_existing=True)
    )


# The others' leases fill slots; of those free, the person's own comes first. One whose time is over is given up before.
_SETTLE = text(f"""
WITH filled AS MATERIALIZED (
  SELECT taken.slot, taken.state FROM leases AS taken
  WHERE taken.task_id = :task_id AND taken.id <> :lease_id AND {_FILLS}
), free AS MATERIALIZED (
  SELECT slot FROM (
    SELECT CAST(:slot AS bigint) AS slot WHERE :slot <= :wanted
    UNION ALL SELECT generate_series(1, least(:wanted, 1 + (SELECT count(*) FROM filled)))
  ) AS candidates WHERE slot NOT IN (SELECT slot FROM filled)
  ORDER BY slot <> :slot, slot LIMIT 1
), expired AS (
  UPDATE leases SET state = 'expired', ended_at = now()
  WHERE task_id = :task_id AND id <> :lease_id AND state = 'held' AND expires_at <= now()
  RETURNING id
), answered AS (
  UPDATE leases SET state = 'submitted', ended_at = clock_timestamp(), skip_reason = NULL,
    slot = coalesce((SELECT slot FROM free), leases.slot), is_surplus = NOT EXISTS (SELECT FROM free)
  FROM (SELECT count(*) FROM expired) AS tidied WHERE leases.id = :lease_id
  RETURNING leases.slot, leases.is_surplus, leases.ended_at
), closed AS (
  UPDATE tasks SET state = 'done' WHERE id = :task_id AND state = 'open' AND judgements_wanted <=
    (SELECT count(*) FROM filled WHERE state = 'submitted') + (SELECT count(*) FROM free)
  RETURNING id
), dropped AS (
  DELETE FROM drafts WHERE task_id = :task_id AND user_id = :user_id
)
SELECT slot, is_surplus, ended_at, EXISTS (SELECT FROM closed) AS is_closed FROM answered
""")


def settle(session: Session, task: Task, lease: Lease) -> None:
    """Close an answered lease in the slot that is free for it, or as surplus; its task, where that was the last one wanted.

    Both rows are locked. Leases of the task whose time is over expire, and the person's draft is forgotten.
    """
    values = {
        "task_id": task.id,
        "lease_id": lease.id,
        "user_id": lease.user_id,
        "slot": lease.slot,
        "wanted": task.judgements_wanted,
    }
    row = session.execute(_SETTLE, values).one()
    set_committed_value(lease, "state", LeaseState.SUBMITTED)
    set_committed_value(lease, "skip_reason", None)
    for name in ("slot", "is_surplus", "ended_at"):
        set_committed_value(lease, name, row._mapping[name])
    if row.is_closed:
        set_committed_value(task, "state", TaskState.DONE)


def expire_leases(session: Session, *, limit: int) -> int:
    """Expire leases whose time is over, those of locked tasks aside; gives how many."""
    stale = (
        select(Lease.id)
        .join(Task, Task.id == Lease.task_id)
        .where(Lease.state == LeaseState.HELD, Lease.expires_at <= func.now())
        .limit(limit)
        .with_for_update(skip_locked=True, key_share=True)
    )
    expired = session.execute(
        update(Lease)
        .where(Lease.id.in_(stale))
        .values(state=LeaseState.EXPIRED, ended_at=func.now())
        .returning(Lease.id)
        .execution_options(synchronize_session=False)
    )
    return len(expired.all())


def lock_lease(session: Session, lease_id: int) -> Lease:
    """The lease's row, locked until the transaction ends."""
    return session.scalars(
        select(Lease).where(Lease.id == lease_id).with_for_update().execution_options(populate_existing=True)
    ).one()
