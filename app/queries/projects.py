"""Projects, their bases and label schemas."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.models import BaseCheckpoint, Project


def find_project(session: Session, slug: str, *, lock: bool = False) -> Project | None:
    """The project at `/p/<slug>/`; `lock` makes other changes of it wait, and leaves submits, which refer to it, alone."""
    statement = select(Project).where(Project.slug == slug)
    return session.scalar(statement.with_for_update(key_share=True) if lock else statement)


def claim_slug(session: Session, slug: str) -> None:
    """Let one transaction at a time begin the project of an address."""
    session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(f"slug/{slug}", 0))))


def list_projects(session: Session) -> Sequence[Project]:
    """Every project of the installation, by name."""
    return session.scalars(select(Project).order_by(func.lower(Project.name), Project.id)).all()


def find_base(session: Session, sha256: str) -> BaseCheckpoint | None:
    """The registered base model with this identity."""
    return session.scalar(select(BaseCheckpoint).where(BaseCheckpoint.sha256 == sha256))


def get_base(session: Session, project: Project) -> BaseCheckpoint:
    """The base model of a project."""
    return session.get_one(BaseCheckpoint, project.base_checkpoint_id)


def find_base_by_uid(session: Session, uid: UUID) -> BaseCheckpoint | None:
    """The registered base model behind a uid of a form."""
    return session.scalar(select(BaseCheckpoint).where(BaseCheckpoint.uid == uid))


def list_bases(session: Session) -> Sequence[BaseCheckpoint]:
    """Base models that projects can begin from."""
    return session.scalars(select(BaseCheckpoint).order_by(BaseCheckpoint.id)).all()


def find_project_of_base(session: Session, base_checkpoint_id: int) -> Project | None:
    """The first project that began from a base model."""
    return session.scalar(
        select(Project).where(Project.base_checkpoint_id == base_checkpoint_id).order_by(Project.id).limit(1)
    )
