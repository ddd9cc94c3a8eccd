"""People, their sign-ins and links, and their memberships."""

import uuid
from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, delete, func, select, text, update
from sqlalchemy.orm import Session, contains_eager, joinedload

from app.models import Invitation, Membership, Project, Role, SignInLink, User, UserSession


def find_user(session: Session, email: str) -> User | None:
    """The person with this e-mail, in lower case."""
    return session.scalar(select(User).where(User.email == email))


def find_user_by_uid(session: Session, uid: uuid.UUID) -> User | None:
    """The person behind a uid of a URL."""
    return session.scalar(select(User).where(User.uid == uid))


def find_owner(session: Session) -> User | None:
    """The first active owner of the installation."""
    return session.scalar(select(User).where(User.is_owner, User.is_active).order_by(User.id).limit(1))


def find_session(session: Session, token_hash: bytes) -> UserSession | None:
    """The unexpired sign-in of an active person."""
    return session.scalar(
        select(UserSession)
        .join(UserSession.user)
        .options(contains_eager(UserSession.user))
        .where(UserSession.token_hash == token_hash, UserSession.expires_at > func.now(), User.is_active)
    )


def claim_session_touch(session: Session, session_id: int, *, before: datetime, expires_at: datetime) -> None:
    """Note the use of a sign-in and move its end, unless another request did so since `before`."""
    session.execute(
        update(UserSession)
        .where(UserSession.id == session_id, UserSession.last_used_at < before)
        .values(last_used_at=func.now(), expires_at=expires_at)
    )


def claim_session_end(session: Session, token_hash: bytes) -> None:
    """Delete one sign-in."""
    session.execute(delete(UserSession).where(UserSession.token_hash == token_hash))


def claim_sessions_end(session: Session, user_id: int, *, but: int | None = None) -> None:
    """Delete every sign-in of a person, but for the one with id `but`."""
    statement = delete(UserSession).where(UserSession.user_id == user_id)
    session.execute(statement if but is None else statement.where(UserSession.id != but))


def claim_expired(session: Session) -> None:
    """Delete sign-ins and links whose time is over."""
    session.execute(delete(UserSession).where(UserSession.expires_at < func.now()))
    session.execute(delete(SignInLink).where(SignInLink.expires_at < func.now()))


def find_sign_in_link(session: Session, token_hash: bytes) -> SignInLink | None:
    """The link, if it can still be used."""
    return session.scalar(select(SignInLink).where(SignInLink.token_hash == token_hash, _is_fresh(SignInLink)))


def claim_sign_in_link(session: Session, token_hash: bytes) -> User | None:
    """Use up the link and return whom it signs in; None if it was used, has expired or never was."""
    user_id = session.scalar(
        update(SignInLink)
        .where(SignInLink.token_hash == token_hash, _is_fresh(SignInLink))
        .values(used_at=func.now())
        .returning(SignInLink.user_id)
    )
    return session.scalar(select(User).where(User.id == user_id, User.is_active)) if user_id is not None else None


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


def find_membership(session: Session, project_id: int, user_id: int, *, lock: bool = False) -> Membership | None:
    """A person's place in a project."""
    statement = select(Membership).where(Membership.project_id == project_id, Membership.user_id == user_id)
    return session.scalar(statement.with_for_update() if lock else statement)


def list_members(session: Session, project_id: int) -> list[tuple[Membership, User]]:
    """Members by name."""
    rows = session.execute(
        select(Membership, User)
        .join(User, User.id == Membership.user_id)
        .where(Membership.project_id == project_id)
        .order_by(func.lower(User.name), User.id)
    )
    return [(membership, user) for membership, user in rows]


def list_memberships(session: Session, user_id: int) -> Sequence[Membership]:
    """The projects of one person, by name."""
    return session.scalars(
        select(Membership)
        .join(Membership.project)
        .options(joinedload(Membership.project))
        .where(Membership.user_id == user_id)
        .order_by(func.lower(Project.name))
    ).all()


def count_owners(session: Session, project_id: int) -> int:
    """Active, unpaused members with the role owner; their rows are locked, so that two cannot step down at once."""
    rows = session.execute(
        select(Membership.id)
        .join(User, User.id == Membership.user_id)
        .where(
            Membership.project_id == project_id,
            Membership.roles.contains([Role.OWNER.value]),
            ~Membership.is_paused,
            User.is_active,
        )
        .with_for_update(of=Membership)
    )
    return len(rows.all())


def claim_owner_lock(session: Session) -> None:
    """Let one transaction at a time make the first owner."""
    session.execute(text("SELECT pg_advisory_xact_lock(7203118)"))


def _is_fresh(link: type[SignInLink]) -> ColumnElement[bool]:
    return link.used_at.is_(None) & (link.expires_at > func.now())


def _is_open(invitation: type[Invitation]) -> ColumnElement[bool]:
    return invitation.accepted_at.is_(None) & invitation.revoked_at.is_(None) & (invitation.expires_at > func.now())
