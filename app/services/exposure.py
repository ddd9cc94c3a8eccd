"""How much sensitive content one person is shown in a day: the project's limit, or their own where that is lower."""

from datetime import UTC, datetime, timedelta

from sqlalchemy.orm import Session

from app.models import Membership
from app.queries import exposure as queries
from app.schemas.projects import SamplingSettings


def find_limit(membership: Membership) -> int:
    """Tasks with sensitive content that a member may open in 24 hours."""
    of_project = SamplingSettings.model_validate(membership.project.sampling).sensitive_tasks_a_day
    return of_project if membership.content_cap is None else min(of_project, membership.content_cap)


def find_end(session: Session, membership: Membership | None) -> datetime | None:
    """When a member who has opened as many as they may gets such tasks again; None where they get them now."""
    if membership is None or not membership.opted_in:
        return None
    limit = find_limit(membership)
    if limit == 0:
        return datetime.now(UTC) + timedelta(days=1)
    first = queries.find_opened_at(session, membership.project_id, membership.user_id, nth=limit)
    end = first + timedelta(days=1) if first else None
    return end if end and end > datetime.now(UTC) else None
