"""A person's own work in numbers, for them to read: nothing in it tells what others said of a task still before them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

from sqlalchemy.orm import Session

from app.models import LeaseState, TaskKind
from app.permissions import Access
from app.queries import progress as queries
from app.queries import tasks as task_queries
from app.services import agreements
from app.services.agreements import WithOthers
from app.services.tasks import WORK

DAYS = 14
"""Days of the strip on the home page, today included."""

COUNTED_OPEN = 100
"""Open tasks that are counted; more are "100+"."""


@dataclass(frozen=True)
class Day:
    """One day of the strip: what was done, and the height of its bar in parts of 100."""

    day: date
    count: int
    height: int


@dataclass(frozen=True)
class Progress:
    """What a person has done in a project."""

    days: Sequence[Day]
    tasks: int
    skips: int
    judgements: int
    """Newest current rankings that the next two are taken over."""
    median_active_seconds: float | None
    ties_share: float | None
    with_others: WithOthers

    @property
    def today(self) -> int:
        """Tasks answered since midnight (UTC)."""
        return self.days[-1].count

    @property
    def total(self) -> int:
        """Tasks answered on the days of the strip."""
        return sum(day.count for day in self.days)


def find_progress(session: Session, access: Access, *, now: datetime | None = None) -> Progress:
    """What this person has done, by now."""
    place = (session, access.project.id, access.user.id)
    habits = queries.get_habits(*place)
    return Progress(
        days=_strip(session, access, (now or datetime.now(UTC)).date()),
        tasks=queries.count_leases(*place, LeaseState.SUBMITTED),
        skips=queries.count_leases(*place, LeaseState.SKIPPED),
        judgements=habits.judgements,
        median_active_seconds=None if habits.median_active_ms is None else habits.median_active_ms / 1000,
        ties_share=habits.tied / habits.pairs if habits.pairs else None,
        with_others=agreements.with_others(session, access),
    )


def count_open(session: Session, access: Access, kind: TaskKind) -> int:
    """Open tasks of a kind that the queue gives out, whoever may take them, counted up to one more than `COUNTED_OPEN`."""
    return task_queries.count_open(session, access.project.id, kind, WORK, limit=COUNTED_OPEN + 1)


def _strip(session: Session, access: Access, today: date) -> list[Day]:
    first = today - timedelta(days=DAYS - 1)
    since = datetime.combine(first, time(), UTC)
    counts = queries.count_by_day(session, access.project.id, access.user.id, since=since)
    most = max(counts.values(), default=0)
    days = (first + timedelta(days=number) for number in range(DAYS))
    return [Day(day, counts.get(day, 0), round(100 * counts.get(day, 0) / most) if most else 0) for day in days]
