"""People and the ways in: users, identities, server-side sessions, one-time links, API tokens, and the audit log."""

import uuid
from datetime import datetime

from sqlalchemy import CheckConstraint, ForeignKey, Index, LargeBinary, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column, relationship

from app.models.base import Base, HasId, HasUid, InProject, Json, enum_type, scoped
from app.models.projects import Cohort


class User(HasId, HasUid, Base):
    """A person. Without a password one can come in by a link only."""

    __tablename__ = "users"
    __table_args__ = (CheckConstraint("email = lower(email)", name="email_is_lower"),)

    email: Mapped[str] = mapped_column(unique=True)
    name: Mapped[str]
    password_hash: Mapped[str | None]
    is_owner: Mapped[bool] = mapped_column(default=False, server_default="false")
    is_active: Mapped[bool] = mapped_column(default=True, server_default="true")
    preferences: Mapped[Json] = mapped_column(default=dict, server_default="{}")


class Identity(HasId, Base):
    """A person as an outside provider knows them."""

    __tablename__ = "identities"
    __table_args__ = (UniqueConstraint("provider", "subject"),)

    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    provider: Mapped[str]
    subject: Mapped[str]


class UserSession(HasId, Base):
    """A sign-in. Only the hash of the cookie's token is stored; rotated on sign-in and on a change of roles."""

    __tablename__ = "sessions"

    token_hash: Mapped[bytes] = mapped_column(LargeBinary, unique=True)
    csrf_token: Mapped[str]
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    expires_at: Mapped[datetime]
    last_used_at: Mapped[datetime]

    user: Mapped[User] = relationship()


class SignInLink(HasId, Base):
    """A one-time link that signs one person in."""

    __tablename__ = "sign_in_links"

    token_hash: Mapped[bytes] = mapped_column(LargeBinary, unique=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    expires_at: Mapped[datetime]
    used_at: Mapped[datetime | None]


class Invitation(InProject, HasUid, Base):
    """A one-time, expiring link into a project, with the roles it grants."""

    __tablename__ = "invitations"
    __table_args__ = scoped()

    token_hash: Mapped[bytes] = mapped_column(LargeBinary, unique=True)
    email: Mapped[str | None]
    roles: Mapped[list[str]]
    cohort: Mapped[Cohort] = mapped_column(enum_type(Cohort))
    invited_by_id: Mapped[int] = mapped_column(ForeignKey("users.id"))
    expires_at: Mapped[datetime]
    accepted_by_id: Mapped[int | None] = mapped_column(ForeignKey("users.id"))
    accepted_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]


class ApiToken(InProject, HasUid, Base):
    """A scoped, hashed, expiring token of one person in one project."""

    __tablename__ = "api_tokens"
    __table_args__ = scoped()

    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    name: Mapped[str]
    token_hash: Mapped[bytes] = mapped_column(LargeBinary, unique=True)
    scopes: Mapped[list[str]]
    expires_at: Mapped[datetime]
    last_used_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]


class AuditEntry(HasId, Base):
    """Who did what to which thing; appended in the act's own transaction and never changed (a trigger refuses it)."""

    __tablename__ = "audit_log"
    __table_args__ = (Index(None, "project_id", "id"),)

    project_id: Mapped[int | None] = mapped_column(ForeignKey("projects.id"))
    actor_id: Mapped[int | None] = mapped_column(ForeignKey("users.id"))
    action: Mapped[str]
    subject_kind: Mapped[str]
    subject_uid: Mapped[uuid.UUID | None]
    details: Mapped[Json] = mapped_column(default=dict, server_default="{}")

    actor: Mapped[User | None] = relationship()
