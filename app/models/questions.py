"""What labellers ask an admin about a task, and what they are answered."""

import uuid
from datetime import datetime
from enum import StrEnum

from sqlalchemy import CheckConstraint, ForeignKey, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import Base, HasUid, InProject, enum_type, refers, scoped


class QuestionKind(StrEnum):
    """A question about a task, or a report that it is broken."""

    QUESTION = "question"
    BROKEN = "broken"


class QuestionState(StrEnum):
    """Open ones wait for an admin; a closed one was settled without an answer."""

    OPEN = "open"
    ANSWERED = "answered"
    CLOSED = "closed"


class Question(InProject, HasUid, Base):
    """One question of one person about one task, with its answer."""

    __tablename__ = "questions"
    __table_args__ = scoped(
        refers("task_id", "tasks", ondelete="CASCADE"),
        refers("guideline_id", "guidelines"),
        Index(None, "project_id", "state", "id"),
        Index(None, "project_id", "asker_id", "id"),
        Index(None, "task_id"),
        Index(
            "ix_questions_unread",
            "project_id",
            "asker_id",
            postgresql_where=text("settled_at IS NOT NULL AND read_at IS NULL"),
        ),
        CheckConstraint("(state = 'open') = (settled_at IS NULL)", name="settled_is_dated"),
        CheckConstraint("(state = 'answered') = (answer IS NOT NULL)", name="answered_has_an_answer"),
    )

    task_id: Mapped[int]
    asker_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    kind: Mapped[QuestionKind] = mapped_column(enum_type(QuestionKind))
    state: Mapped[QuestionState] = mapped_column(enum_type(QuestionState), default=QuestionState.OPEN)
    idempotency_key: Mapped[uuid.UUID] = mapped_column(unique=True)
    text: Mapped[str]
    answer: Mapped[str | None]
    settled_by_id: Mapped[int | None] = mapped_column(ForeignKey("users.id"))
    settled_at: Mapped[datetime | None]
    read_at: Mapped[datetime | None]
    """When the asker first saw how it was settled."""
    guideline_id: Mapped[int | None]
    """The version of the guidelines that took it in as an example."""
