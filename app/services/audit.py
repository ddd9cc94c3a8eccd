"""Who did what: one row in the act's own transaction, which nothing ever changes."""

from uuid import UUID

from sqlalchemy.orm import Session

from app.models import AuditEntry, Project, User


def record(
    session: Session,
    *,
    actor: User | None,
    project: Project | None,
    action: str,
    subject_kind: str,
    subject_uid: UUID | None = None,
    **details: str | int | float | bool | list[str] | None,
) -> None:
    """Append to the audit log. `action` is verb and noun ("promote checkpoint"); no actor means the automation."""
    session.add(
        AuditEntry(
            actor_id=actor.id if actor else None,
            project_id=project.id if project else None,
            action=action,
            subject_kind=subject_kind,
            subject_uid=subject_uid,
            details=details,
        )
    )
