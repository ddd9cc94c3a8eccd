"""Who belongs to a project, and who is invited."""

import uuid
from collections.abc import Sequence

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from app.models import Invitation, Membership, Project, Role, User


def find_invitation(session: Session, token_hash: bytes, *, lock: bool = False) -> tuple[Invitation, Project] | None:
    """An invitation that can still be accepted, with its project; with `lock`, no other request accepts it meanwhile."""
    statement = (
        select(Invitation, Project)
        .join(Project, Project.id == Invitation.project_id)
        .where(Invitation.token_hash == token_hash, _is_open(Invitation))
    )
    row = session.execute(statement.with_for_update(of=Invitation) if lock else statement).one_or_none()
    return (row[0], row[1]) if row else None


def find_invitation_by_uid(session: Session, project_id: int, uid: uuid.UUID) -> Invitation | None:
    """An open invitation of the project, locked."""
    return session.scalar(
        select(Invitation)
        .where(Invitation.project_id == project_id, Invitation.uid == uid, _is_open(Invitation))
        .with_for_update()
    )


def list_invitations(session: Session, project_id: int) -> Sequence[Invitation]:
    """Invitations that wait to be accepted, newest first."""
    return session.scalars(
        select(Invitation)
        .where(Invitation.project_id == project_id, _is_open(Invitation))
        .order_by(Invitation.id.desc())
    ).all()


def list_invitations_by(session: Session, project_id: int, user_id: int) -> Sequence[Invitation]:
    """Open invitations of the project that this person made, locked."""
    return session.scalars(
        select(Invitation)
        .where(Invitation.project_id == project_id, Invitation.invited_by_id == user_id, _is_open(Invitation))
        .order_by(Invitation.id)
        .with_for_update()
    ).all()


def list_members(session: Session, project_id: int) -> list[tuple[Membership, User]]:
    """Members by name."""
    rows = session.execute(
        select(Membership, User)
        .join(User, User.id == Membership.user_id)
        .where(Membership.project_id == project_id)
        .order_by(func.lower(User.name), User.id)
    )
    return [(membership, user) for membership, user in rows]


def list_projects_of(session: Session, user: User) -> Sequence[Project]:
    """The projects a person may enter, by name; the owner of the installation may enter all."""
    statement = select(Project).order_by(func.lower(Project.name), Project.id)
    if not user.is_owner:
        statement = statement.join(Membership, Membership.project_id == Project.id).where(
            Membership.user_id == user.id, func.cardinality(Membership.roles) > 0
        )
    return session.scalars(statement).all()


def count_owners(session: Session, project_id: int) -> int:
    """Active members with the role owner; their rows are locked, so that two cannot step down at once."""
    rows = session.execute(
        select(Membership.id)
        .join(User, User.id == Membership.user_id)
        .where(
            Membership.project_id == project_id,
            Membership.roles.contains([Role.OWNER.value]),
            User.is_active,
        )
        .with_for_update(of=Membership)
    )
    return len(rows.all())


def _is_open(invitation: type[Invitation]) -> ColumnElement[bool]:
    return invitation.accepted_at.is_(None) & invitation.revoked_at.is_(None) & (invitation.expires_at > func.now())
