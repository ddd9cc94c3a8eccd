"""Who may work: the attempts of a person at the project's qualification test."""

from datetime import datetime
from enum import StrEnum

from sqlalchemy import CheckConstraint, ForeignKey, Index, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import Base, HasUid, InProject, enum_type, refers, scoped


class QualificationState(StrEnum):
    """An attempt is open until its last task is answered; void ones were reset by an admin and count for nothing."""

    OPEN = "open"
    PASSED = "passed"
    FAILED = "failed"
    VOID = "void"


class Qualification(InProject, HasUid, Base):
    """One attempt of a person, or the word of an admin in its place."""

    __tablename__ = "qualifications"
    __table_args__ = scoped(
        UniqueConstraint("project_id", "user_id", "attempt"),
        Index("uq_qualifications_open", "project_id", "user_id", unique=True, postgresql_where=text("state = 'open'")),
        CheckConstraint("score BETWEEN 0 AND 1", name="score"),
        CheckConstraint("pass_mark BETWEEN 0 AND 1", name="pass_mark"),
    )

    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    attempt: Mapped[int]
    state: Mapped[QualificationState] = mapped_column(enum_type(QualificationState), default=QualificationState.OPEN)
    pass_mark: Mapped[float]
    """The project's when the attempt began."""
    score: Mapped[float | None]
    """Share of the references' pairs ordered alike, mean over prompts; none of an open attempt, and where an admin decided."""
    ended_at: Mapped[datetime | None]
    decided_by_id: Mapped[int | None] = mapped_column(ForeignKey("users.id"))
    """The admin who passed the person by hand or took the attempt back."""


class QualificationTask(InProject, Base):
    """One task of an attempt, with the answer once it is given and the reference it was measured by."""

    __tablename__ = "qualification_tasks"
    __table_args__ = scoped(
        refers("qualification_id", "qualifications", ondelete="CASCADE"),
        refers("task_id", "tasks", ondelete="CASCADE"),
        refers("judgement_id", "judgements", ondelete="CASCADE"),
        refers("reference_id", "task_references", ondelete="CASCADE"),
        UniqueConstraint("qualification_id", "position"),
        UniqueConstraint("qualification_id", "task_id"),
    )

    qualification_id: Mapped[int]
    position: Mapped[int]
    task_id: Mapped[int]
    judgement_id: Mapped[int | None]
    reference_id: Mapped[int | None]
