"""What people are told on their home page."""

from datetime import datetime

from sqlalchemy import CheckConstraint, ForeignKey, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import Base, HasUid, InProject, refers, scoped


class Notice(InProject, HasUid, Base):
    """A few words to one person until they put them away, or to everybody in the project until a day."""

    __tablename__ = "notices"
    __table_args__ = scoped(
        refers("task_id", "tasks", ondelete="CASCADE"),
        CheckConstraint("(user_id IS NULL) = (ends_at IS NOT NULL)", name="announcement_ends"),
        Index("ix_notices_unread", "project_id", "user_id", postgresql_where=text("read_at IS NULL")),
    )

    user_id: Mapped[int | None] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    """None: an announcement to everybody."""
    task_id: Mapped[int | None]
    text: Mapped[str]
    author_id: Mapped[int | None] = mapped_column(ForeignKey("users.id"))
    ends_at: Mapped[datetime | None]
    read_at: Mapped[datetime | None]
