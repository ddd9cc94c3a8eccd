"""People, their sign-ins and links, and a person's place in a project."""

import uuid
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, bindparam, delete, func, select, text, update
from sqlalchemy.orm import Session, contains_eager

from app.models import LabelSchema, Membership, Project, SignInLink, User, UserSession


def find_user(session: Session, email: str) -> User | None:
    """The person with this e-mail, in lower case."""
    return session.scalar(select(User).where(User.email == email))


def find_user_by_uid(session: Session, uid: uuid.UUID) -> User | None:
    """The person behind a uid of a URL."""
    return session.scalar(select(User).where(User.uid == uid))


def list_users(session: Session) -> list[User]:
    """Everybody, by e-mail."""
    return list(session.scalars(select(User).order_by(User.email)))


def find_owner(session: Session) -> User | None:
    """The first active owner of the installation."""
    return session.scalar(select(User).where(User.is_owner, User.is_active).order_by(User.id).limit(1))


@dataclass(frozen=True)
class Place:
    """The project of an address with the questions in force there, and a person's place in it; None where there is none."""

    project: Project | None
    label_schema: LabelSchema | None
    membership: Membership | None


def find_session(session: Session, token_hash: bytes, slug: str | None = None) -> tuple[UserSession, Place] | None:
    """The unexpired sign-in of an active person, and their place in the project of an address."""
    row = session.execute(_SIGN_IN, {"token_hash": token_hash, "slug": slug}).one_or_none()
    return (row[0], Place(*row[1:])) if row else None


_SIGN_IN = (
    select(UserSession, Project, LabelSchema, Membership)
    .join(UserSession.user)
    .outerjoin(Project, Project.slug == bindparam("slug", type_=Project.slug.type))
    .outerjoin(
        LabelSchema, (LabelSchema.project_id == Project.id) & (LabelSchema.version == Project.label_schema_version)
    )
    .outerjoin(Membership, (Membership.project_id == Project.id) & (Membership.user_id == User.id))
    .options(contains_eager(UserSession.user))
    .where(UserSession.token_hash == bindparam("token_hash"), UserSession.expires_at > func.now(), User.is_active)
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


def claim_sessions_end(session: Session, user_id: int) -> None:
    """Delete every sign-in of a person."""
    session.execute(delete(UserSession).where(UserSession.user_id == user_id))


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


def find_membership(session: Session, project_id: int, user_id: int, *, lock: bool = False) -> Membership | None:
    """A person's place in a project."""
    statement = select(Membership).where(Membership.project_id == project_id, Membership.user_id == user_id)
    return session.scalar(statement.with_for_update() if lock else statement)


def claim_owner_lock(session: Session) -> None:
    """Let one transaction at a time make the first owner."""
    session.execute(text("SELECT pg_advisory_xact_lock(7203118)"))


def _is_fresh(link: type[SignInLink]) -> ColumnElement[bool]:
    return link.used_at.is_(None) & (link.expires_at > func.now())


def claim_email(session: Session, email: str) -> None:
    """Let one transaction at a time make the account of an e-mail, or a membership of it."""
    session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(f"email/{email}", 0))))
