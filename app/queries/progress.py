"""What one person has done in a project, in SQL that reads a bounded number of rows."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime

from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from app.models import Lease, LeaseState
from app.queries.leases import IS_WORK

COUNTED = 10_000
"""Answers and skips of one person that are counted; more are "10,000+"."""

NEWEST = 500
"""Newest rankings that medians and shares are taken over."""


@dataclass(frozen=True)
class HabitsRow:
    """Over a person's newest current rankings: how many, the middle active time, and pairs, tied and all."""

    judgements: int
    median_active_ms: float | None
    tied: int
    pairs: int


def count_leases(session: Session, project_id: int, user_id: int, state: LeaseState) -> int:
    """Tasks that a person answered, or skipped, counted up to one more than `COUNTED`; lessons aside."""
    of_person = (Lease.project_id == project_id, Lease.user_id == user_id, Lease.state == state)
    some = select(Lease.id).where(*of_person, IS_WORK)
    return session.scalars(select(func.count()).select_from(some.limit(COUNTED + 1).subquery())).one()


def count_by_day(session: Session, project_id: int, user_id: int, *, since: datetime) -> Mapping[date, int]:
    """Tasks of every kind that a person answered on each day (UTC), lessons and days without any left out."""
    day = func.date(func.timezone("UTC", Lease.ended_at))
    rows = session.execute(
        select(day, func.count())
        .where(
            Lease.project_id == project_id,
            Lease.user_id == user_id,
            Lease.state == LeaseState.SUBMITTED,
            Lease.ended_at >= since,
            IS_WORK,
        )
        .group_by(day)
    )
    return {on: count for on, count in rows}


_HABITS = text("""
WITH newest AS MATERIALIZED (
  SELECT judgement.id, judgement.active_ms FROM judgements AS judgement
  JOIN judges AS judge ON judge.id = judgement.judge_id AND judge.project_id = judgement.project_id
  JOIN tasks AS task ON task.id = judgement.task_id AND task.kind = 'rank' AND task.purpose NOT IN ('practice', 'qualify')
    AND task.derived_from_id IS NULL
  WHERE judgement.project_id = :project_id AND judge.kind = 'human' AND judge.user_id = :user_id
    AND judgement.status = 'current'
  ORDER BY judgement.id DESC LIMIT :newest
), tiers AS (
  SELECT place.judgement_id, count(*) AS size FROM judgement_ranks AS place
  JOIN newest ON newest.id = place.judgement_id WHERE place.tier IS NOT NULL
  GROUP BY place.judgement_id, place.tier
), ranked AS (
  SELECT sum(size * (size - 1) / 2) AS tied, sum(size) * (sum(size) - 1) / 2 AS pairs FROM tiers GROUP BY judgement_id
)
SELECT (SELECT count(*) FROM newest) AS judgements,
  (SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY active_ms) FROM newest) AS median_active_ms,
  (SELECT coalesce(sum(tied), 0)::bigint FROM ranked) AS tied, (SELECT coalesce(sum(pairs), 0)::bigint FROM ranked) AS pairs
""")


def get_habits(session: Session, project_id: int, user_id: int) -> HabitsRow:
    """How long a person takes for a ranking and how often they tie, lessons aside."""
    row = session.execute(_HABITS, {"project_id": project_id, "user_id": user_id, "newest": NEWEST}).one()
    return HabitsRow(row.judgements, row.median_active_ms, row.tied, row.pairs)
