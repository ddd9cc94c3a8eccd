"""The queue in SQL: one statement picks, locks and leases; expiry is a predicate, so that tidying up is never needed.

Order of locks, everywhere: the task's row, then its leases. The unique index over (task, slot) has the last word: where a
snapshot was a moment too old, the insert finds the slot taken and the caller tries again.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ARRAY, Interval, Row, Text, bindparam, func, select, text, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.models import LESSONS, Lease, LeaseState, Purpose, Task, TaskKind

# A lease that fills its slot: answered, or held and not yet expired.
_FILLS = """NOT taken.is_surplus
      AND (taken.state = 'submitted' OR taken.state = 'held' AND taken.expires_at > now())"""


# Among open tasks, those that a person asks for and brings all it takes.
_FITS = """task.project_id = :project_id AND task.kind = :kind AND task.state = 'open'
    AND task.purpose = ANY(:purposes) AND task.needs <@ :granted"""


# A task that person may be lent: a slot free, none of its texts their own.
_IS_OPEN = f"""{_FITS}
    AND NOT EXISTS (
      SELECT FROM task_outputs AS output JOIN samples AS sample ON sample.id = output.sample_id
      WHERE output.task_id = task.id AND sample.author_id = :user_id)
    AND NOT (task.kind = 'demonstrate' AND EXISTS (
      SELECT FROM demonstrations AS written WHERE written.project_id = task.project_id
      AND written.prompt_id = task.prompt_id AND written.author_id = :user_id))
    AND task.judgements_wanted > (SELECT count(*) FROM leases AS taken WHERE taken.task_id = task.id AND {_FILLS})"""


# One the person never had.
_NEW = f"""tasks AS task WHERE {_IS_OPEN}
    AND NOT EXISTS (SELECT FROM leases AS own WHERE own.task_id = task.id AND own.user_id = :user_id)"""


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
WITH picked AS MATERIALIZED (
  SELECT task.id, task.judgements_wanted FROM {_NEW}
  ORDER BY task.priority DESC, task.id LIMIT 1
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
SELECT leased.id AS lease_id FROM picked LEFT JOIN leased ON true
""").bindparams(bindparam("length", type_=Interval), bindparam("seed", type_=Lease.order_seed.type))


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


_CAN_LEASE = text(f"SELECT EXISTS (SELECT FROM {_NEW}) OR EXISTS (SELECT FROM {_LEFT})")


_WAITING = text(f"""
SELECT count(*) AS tasks, min(held.expires_at) AS next_free_at
FROM tasks AS task
JOIN leases AS held ON held.task_id = task.id AND held.state = 'held' AND held.expires_at > now() AND NOT held.is_surplus
WHERE {_FITS}
  AND NOT EXISTS (SELECT FROM leases AS own WHERE own.task_id = task.id AND own.user_id = :user_id
                  AND own.state NOT IN ('expired', 'released'))
""")


# The condition `needs <> '{}'` is that of the index.
_LACKING = text("""
SELECT DISTINCT tag FROM (
  SELECT task.needs FROM tasks AS task
  WHERE task.project_id = :project_id AND task.kind = :kind AND task.state = 'open' AND task.needs <> '{}'
    AND task.purpose = ANY(:purposes) AND NOT task.needs <@ :granted
  LIMIT 1000
) AS beyond, unnest(beyond.needs) AS tag
WHERE tag <> ALL(:granted) ORDER BY tag
""")

# Without a type, an empty list would be one of anything.
_TAGS = bindparam("granted", type_=ARRAY(Text))
_LEASE_NEW, _LEASE_LEFT, _CAN_LEASE, _WAITING, _LACKING = (
    statement.bindparams(_TAGS) for statement in (_LEASE_NEW, _LEASE_LEFT, _CAN_LEASE, _WAITING, _LACKING)
)


@dataclass(frozen=True)
class Seeker:
    """A person who asks for a task, the kind and purposes asked for, and the tags they bring (`app.schemas.needs`)."""

    project_id: int
    user_id: int
    kind: TaskKind
    purposes: frozenset[Purpose]
    granted: frozenset[str]

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


@dataclass(frozen=True)
class Waiting:
    """Open tasks a person could do if others did not hold them, and when the first of them frees."""

    tasks: int
    next_free_at: datetime | None


def lock_person(session: Session, project_id: int, user_id: int) -> None:
    """Let one request at a time lease for this person, so that a double click cannot hold two tasks."""
    key = f"lease/{project_id}/{user_id}"
    session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(key, 0))))


class SlotTaken(Exception):
    """Another person was quicker at the slot that was picked; a second try sees it."""


def lease_new(session: Session, seeker: Seeker, *, length: timedelta, seed: int) -> int | None:
    """Lease the first task of the queue this person never had; gives the lease's id, None where there is no such task.

    Raises SlotTaken where another transaction leased the picked slot since this statement began.
    """
    return _lease_id(session.execute(_LEASE_NEW, seeker.values(length=length, seed=seed)).one_or_none())


def lease_left(session: Session, seeker: Seeker, *, left: LeaseState, length: timedelta) -> int | None:
    """Take up again the task this person left last, by giving it back or by letting it expire; the lease's id or None.

    Raises SlotTaken as `lease_new` does, and where they answered or skipped it since this statement began.
    """
    try:
        with session.begin_nested():
            row = session.execute(_LEASE_LEFT, seeker.values(length=length, left=[left.value])).one_or_none()
    except IntegrityError as error:
        raise SlotTaken from error
    return _lease_id(row)


def _lease_id(row: Row[tuple[int | None]] | None) -> int | None:
    """The lease taken; None where no task was picked. Raises SlotTaken where one was and its lease could not be had."""
    if row is None:
        return None
    if row.lease_id is None:
        raise SlotTaken
    return int(row.lease_id)


def can_lease(session: Session, seeker: Seeker) -> bool:
    """Whether leasing would find a task right now. Locks nothing."""
    left = [LeaseState.EXPIRED.value, LeaseState.RELEASED.value]
    return bool(session.scalar(_CAN_LEASE, seeker.values(left=left)))


def get_waiting(session: Session, seeker: Seeker) -> Waiting:
    """What others hold of the tasks this person could do."""
    row = session.execute(_WAITING, seeker.values()).one()
    return Waiting(tasks=row.tasks, next_free_at=row.next_free_at)


def list_lacking(session: Session, seeker: Seeker) -> list[str]:
    """Tags that open tasks need and this person lacks."""
    return list(session.scalars(_LACKING, seeker.values()))


def find_answered_at(session: Session, project_id: int, user_id: int, *, nth: int) -> datetime | None:
    """When this person gave their `nth` last answer, 1 being the last one; None where they gave fewer."""
    return session.scalar(
        select(Lease.ended_at)
        .where(Lease.project_id == project_id, Lease.user_id == user_id, Lease.state == LeaseState.SUBMITTED)
        .order_by(Lease.ended_at.desc())
        .offset(nth - 1)
        .limit(1)
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


def list_filled_slots(session: Session, task_id: int, *, but: int | None = None) -> set[int]:
    """Slots of a task that are answered or held in time, those of lease `but` aside."""
    live = (Lease.state == LeaseState.SUBMITTED) | ((Lease.state == LeaseState.HELD) & (Lease.expires_at > func.now()))
    slots = select(Lease.slot).where(Lease.task_id == task_id, ~Lease.is_surplus, live)
    return set(session.scalars(slots if but is None else slots.where(Lease.id != but)))


def expire_of_task(session: Session, task_id: int, *, but: int) -> None:
    """Expire the leases of one locked task whose time is over, `but` aside."""
    session.execute(
        update(Lease)
        .where(
            Lease.task_id == task_id,
            Lease.state == LeaseState.HELD,
            Lease.expires_at <= func.now(),
            Lease.id != but,
        )
        .values(state=LeaseState.EXPIRED, ended_at=func.now())
    )


def count_answers(session: Session, task_id: int) -> int:
    """Leases of a task answered within the number wanted."""
    answered = select(func.count()).where(
        Lease.task_id == task_id, Lease.state == LeaseState.SUBMITTED, ~Lease.is_surplus
    )
    return session.scalars(answered).one()


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
