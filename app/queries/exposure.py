"""When people opened tasks with sensitive content, in SQL."""

from datetime import datetime

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from app.models import Lease
from app.queries.leases import get_lease


def find_opened_at(session: Session, project_id: int, user_id: int, *, nth: int) -> datetime | None:
    """When this person opened their `nth` last task with sensitive content, 1 being the last; None where they opened fewer."""
    return session.scalar(
        select(Lease.opened_at)
        .where(Lease.project_id == project_id, Lease.user_id == user_id, Lease.opened_at.is_not(None))
        .order_by(Lease.opened_at.desc())
        .offset(nth - 1)
        .limit(1)
    )


def open_lease(session: Session, lease_id: int) -> Lease:
    """Note when a task with sensitive content was first opened."""
    session.execute(update(Lease).where(Lease.id == lease_id, Lease.opened_at.is_(None)).values(opened_at=func.now()))
    return get_lease(session, lease_id)
