"""How much sensitive content one person is shown in a day: the project's limit, or their own where that is lower."""

from datetime import UTC, datetime, timedelta

from sqlalchemy.orm import Session

from app.models import Membership, Project
from app.queries import exposure as queries
from app.schemas.projects import SamplingSettings


def find_limit(project: Project, membership: Membership | None) -> int:
    """Tasks with sensitive content that a person may open in 24 hours; 0 where the project gives out none."""
    of_project = SamplingSettings.model_validate(project.sampling).sensitive_tasks_a_day
    return (
        of_project if membership is None or membership.content_cap is None else min(of_project, membership.content_cap)
    )


def may_open(session: Session, membership: Membership) -> bool:
    """Whether a member may open one more."""
    return find_limit(membership.project, membership) > 0 and find_end(session, membership) is None


def find_end(session: Session, membership: Membership | None) -> datetime | None:
    """When a member who has opened as many as they may gets such tasks again; None where no time brings more."""
    if membership is None or not membership.opted_in:
        return None
    limit = find_limit(membership.project, membership)
    if limit == 0:
        return None
    first = queries.find_opened_at(session, membership.project_id, membership.user_id, nth=limit)
    end = first + timedelta(days=1) if first else None
    return end if end and end > datetime.now(UTC) else None
