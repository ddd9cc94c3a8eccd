"""Reference answers of practice, qualification and gold tasks: how an admin orders the outputs, and why."""

from sqlalchemy import CheckConstraint, ForeignKey, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import Base, InProject, refers, scoped


class TaskReference(InProject, Base):
    """One version of a task's reference answer; the highest holds, the earlier ones are kept."""

    __tablename__ = "task_references"
    __table_args__ = scoped(
        refers("task_id", "tasks", ondelete="CASCADE"),
        UniqueConstraint("task_id", "version"),
        CheckConstraint("version >= 1", name="version"),
    )

    task_id: Mapped[int]
    version: Mapped[int]
    explanation: Mapped[str]
    """Why this order, in Markdown; empty where the order speaks for itself."""
    html: Mapped[str]
    """`explanation` as sanitised HTML, rendered once."""
    author_id: Mapped[int | None] = mapped_column(ForeignKey("users.id"))


class ReferencePlace(InProject, Base):
    """The place a reference gives to one output. Equal tiers are a tie; no tier means not rankable."""

    __tablename__ = "reference_places"
    __table_args__ = scoped(
        refers("reference_id", "task_references", ondelete="CASCADE"),
        refers("output_id", "task_outputs", ondelete="CASCADE"),
        UniqueConstraint("reference_id", "output_id"),
        CheckConstraint("tier >= 1", name="tier"),
    )

    reference_id: Mapped[int]
    output_id: Mapped[int]
    tier: Mapped[int | None]
    """1 is best; without gaps."""
    explanation: Mapped[str]
    """What decides the place of this output, in Markdown; may be empty."""
    html: Mapped[str]
