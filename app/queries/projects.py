"""Projects, their bases and label schemas."""

from collections.abc import Sequence

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.models import BaseCheckpoint, LabelSchema, Project


def find_project(session: Session, slug: str, *, lock: bool = False) -> Project | None:
    """The project at `/p/<slug>/`."""
    statement = select(Project).where(Project.slug == slug)
    return session.scalar(statement.with_for_update() if lock else statement)


def list_projects(session: Session) -> Sequence[Project]:
    """Every project of the installation, by name."""
    return session.scalars(select(Project).order_by(func.lower(Project.name), Project.id)).all()


def find_base(session: Session, sha256: str) -> BaseCheckpoint | None:
    """The registered base model with this identity."""
    return session.scalar(select(BaseCheckpoint).where(BaseCheckpoint.sha256 == sha256))


def get_base(session: Session, project: Project) -> BaseCheckpoint:
    """The base model of a project."""
    return session.get_one(BaseCheckpoint, project.base_checkpoint_id)


def list_projects_of_base(session: Session, base_checkpoint_id: int) -> Sequence[Project]:
    """Projects that begin from a base model."""
    return session.scalars(select(Project).where(Project.base_checkpoint_id == base_checkpoint_id)).all()


def get_label_schema(session: Session, project: Project) -> LabelSchema:
    """The fields asked about a task now."""
    return session.scalars(
        select(LabelSchema).where(
            LabelSchema.project_id == project.id, LabelSchema.version == project.label_schema_version
        )
    ).one()
