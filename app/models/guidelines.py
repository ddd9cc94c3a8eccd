"""Guidelines: versioned, and read and acknowledged before the first task."""

from datetime import datetime
from enum import StrEnum

from sqlalchemy import ForeignKey, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import Base, HasUid, InProject, enum_type, refers, scoped


class Phase(StrEnum):
    """The paper asks for helpfulness first while training, for truth and harmlessness first in final evaluations."""

    TRAIN = "train"
    EVALUATE = "evaluate"


class Guideline(InProject, HasUid, Base):
    """One published version; never edited, only followed by the next."""

    __tablename__ = "guidelines"
    __table_args__ = scoped(UniqueConstraint("project_id", "phase", "version"))

    version: Mapped[int]
    phase: Mapped[Phase] = mapped_column(enum_type(Phase), default=Phase.TRAIN, server_default="train")
    body: Mapped[str]
    html: Mapped[str]
    published_at: Mapped[datetime]
    author_id: Mapped[int | None] = mapped_column(ForeignKey("users.id"))


class GuidelineAck(InProject, Base):
    """That a person has read a version, and when."""

    __tablename__ = "guideline_acks"
    __table_args__ = scoped(
        UniqueConstraint("guideline_id", "user_id"), refers("guideline_id", "guidelines", ondelete="CASCADE")
    )

    guideline_id: Mapped[int]
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
