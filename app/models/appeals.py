"""What labellers say against a reference that their answer to a gold task missed."""

from datetime import datetime
from enum import StrEnum

from sqlalchemy import CheckConstraint, ForeignKey, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import Base, HasUid, InProject, enum_type, refers, scoped


class AppealState(StrEnum):
    """An appeal is open until an admin upholds it, by another version of the reference, or declines it in words."""

    OPEN = "open"
    UPHELD = "upheld"
    DECLINED = "declined"


class Appeal(InProject, HasUid, Base):
    """One person's appeal about one gold task."""

    __tablename__ = "appeals"
    __table_args__ = scoped(
        refers("task_id", "tasks", ondelete="CASCADE"),
        UniqueConstraint("task_id", "user_id"),
        CheckConstraint("(state = 'open') = (decided_at IS NULL)", name="decision_is_dated"),
    )

    task_id: Mapped[int]
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    body: Mapped[str]
    state: Mapped[AppealState] = mapped_column(enum_type(AppealState), default=AppealState.OPEN)
    reply: Mapped[str | None]
    """The admin's words, which the labeller reads."""
    decided_by_id: Mapped[int | None] = mapped_column(ForeignKey("users.id"))
    decided_at: Mapped[datetime | None]
