"""The audit log, newest first."""

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session, joinedload

from app.models import AuditEntry


def page_entries(
    session: Session, project_id: int, *, before: int | None = None, action: str = "", limit: int = 50
) -> Sequence[AuditEntry]:
    """Up to `limit` entries older than the id `before`, of one `action` where given."""
    statement = (
        select(AuditEntry)
        .options(joinedload(AuditEntry.actor))
        .where(AuditEntry.project_id == project_id)
        .order_by(AuditEntry.id.desc())
        .limit(limit)
    )
    if before is not None:
        statement = statement.where(AuditEntry.id < before)
    if action:
        statement = statement.where(AuditEntry.action == action)
    return session.scalars(statement).all()


def list_actions(session: Session, project_id: int) -> Sequence[str]:
    """The kinds of act that occur in the project."""
    return session.scalars(
        select(AuditEntry.action).where(AuditEntry.project_id == project_id).distinct().order_by(AuditEntry.action)
    ).all()
