"""What people said: judgements with their ranks, and demonstrations."""

import uuid
from datetime import datetime
from enum import StrEnum

from sqlalchemy import CheckConstraint, ForeignKey, Index, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from app.models.base import Base, HasUid, InProject, Json, enum_type, refers, scoped
from app.models.tasks import Task


class JudgeKind(StrEnum):
    """Who judges. Only people train the reward model unless a snapshot says otherwise."""

    HUMAN = "human"
    MODEL = "model"
    SIMULATED = "simulated"
    IMPORTED = "imported"


class JudgementStatus(StrEnum):
    """A revision supersedes its forerunner; exclusion takes a judgement out of training and keeps it."""

    CURRENT = "current"
    SUPERSEDED = "superseded"
    EXCLUDED = "excluded"


class DemonstrationOrigin(StrEnum):
    """How a demonstration came about."""

    WRITTEN = "written"
    EDITED = "edited"
    IMPORTED = "imported"


class Judge(InProject, HasUid, Base):
    """The author of judgements: a person, a model with its prompt version, a simulation, or an import."""

    __tablename__ = "judges"
    __table_args__ = scoped(
        refers("checkpoint_id", "checkpoints"),
        UniqueConstraint(
            "project_id", "kind", "user_id", "checkpoint_id", "version", postgresql_nulls_not_distinct=True
        ),
    )

    kind: Mapped[JudgeKind] = mapped_column(enum_type(JudgeKind))
    user_id: Mapped[int | None] = mapped_column(ForeignKey("users.id"))
    checkpoint_id: Mapped[int | None]
    version: Mapped[str | None]


class Judgement(InProject, HasUid, Base):
    """One person's answer to one task."""

    __tablename__ = "judgements"
    __table_args__ = scoped(
        refers("task_id", "tasks"),
        refers("judge_id", "judges"),
        refers("lease_id", "leases"),
        refers("guideline_id", "guidelines"),
        refers("label_schema_id", "label_schemas"),
        UniqueConstraint("task_id", "judge_id", "revision"),
        Index("uq_judgements_current", "task_id", "judge_id", unique=True, postgresql_where=text("status = 'current'")),
        Index("ix_judgements_of_judge", "project_id", "judge_id", "id"),
        CheckConstraint("(status = 'excluded') = (excluded_at IS NOT NULL)", name="exclusion_is_signed"),
    )

    task_id: Mapped[int]
    judge_id: Mapped[int]
    lease_id: Mapped[int | None]
    revision: Mapped[int] = mapped_column(default=1, server_default="1")
    idempotency_key: Mapped[uuid.UUID] = mapped_column(unique=True)
    status: Mapped[JudgementStatus] = mapped_column(enum_type(JudgementStatus), default=JudgementStatus.CURRENT)
    guideline_id: Mapped[int | None]
    label_schema_id: Mapped[int | None]
    confidence: Mapped[int | None]
    note: Mapped[str | None]
    active_ms: Mapped[int | None]
    idle_ms: Mapped[int | None]
    answers: Mapped[Json] = mapped_column(default=dict, server_default="{}")
    """Fields of scope task and prompt, as the label schema names them."""
    effort: Mapped[Json] = mapped_column(default=dict, server_default="{}")
    """How it was made, by the page's own account (`app.schemas.effort`)."""
    task: Mapped[Task] = relationship(primaryjoin="foreign(Judgement.task_id) == Task.id", viewonly=True)
    excluded_by_id: Mapped[int | None] = mapped_column(ForeignKey("users.id"))
    excluded_at: Mapped[datetime | None]
    excluded_why: Mapped[str | None]


class JudgementRank(InProject, Base):
    """The place one output was given. Equal tiers are a tie; no tier means not rankable, with a reason."""

    __tablename__ = "judgement_ranks"
    __table_args__ = scoped(
        refers("judgement_id", "judgements", ondelete="CASCADE"),
        refers("output_id", "task_outputs"),
        UniqueConstraint("judgement_id", "output_id"),
        CheckConstraint("tier >= 1", name="tier"),
        CheckConstraint("quality BETWEEN 1 AND 7", name="quality"),
        CheckConstraint("(tier IS NULL) = (reason IS NOT NULL)", name="not_rankable_has_a_reason"),
    )

    judgement_id: Mapped[int]
    output_id: Mapped[int]
    tier: Mapped[int | None]
    """1 is best; made dense on submit."""
    raw_column: Mapped[int | None]
    """The column the person chose, gaps included."""
    reason: Mapped[str | None]
    quality: Mapped[int | None]
    answers: Mapped[Json] = mapped_column(default=dict, server_default="{}")
    """Fields of scope output, as the label schema names them."""


class JudgementPair(InProject, Base):
    """A direct comparison of two outputs: compare tasks, soft judges, and pairs of a ranking that were graded."""

    __tablename__ = "judgement_pairs"
    __table_args__ = scoped(
        refers("judgement_id", "judgements", ondelete="CASCADE"),
        refers("left_id", "task_outputs"),
        refers("right_id", "task_outputs"),
        UniqueConstraint("judgement_id", "left_id", "right_id"),
        CheckConstraint("p_left BETWEEN 0 AND 1", name="p_left"),
        CheckConstraint("strength BETWEEN 1 AND 4", name="strength"),
    )

    judgement_id: Mapped[int]
    left_id: Mapped[int]
    right_id: Mapped[int]
    p_left: Mapped[float]
    strength: Mapped[int | None]


class Demonstration(InProject, HasUid, Base):
    """The ideal response to a prompt, as a person would write it."""

    __tablename__ = "demonstrations"
    __table_args__ = scoped(
        refers("prompt_id", "prompts", ondelete="CASCADE"),
        refers("task_id", "tasks"),
        refers("parent_id", "samples"),
        Index(None, "project_id", "prompt_id"),
        Index(
            "uq_demonstrations_current",
            "task_id",
            "author_id",
            unique=True,
            postgresql_where=text("status = 'current'"),
        ),
        Index("ix_demonstrations_of_author", "project_id", "author_id", "id"),
    )

    prompt_id: Mapped[int]
    task_id: Mapped[int | None]
    """The task it was written for; of an improved output the rank task that had this."""
    text: Mapped[str]
    parent_id: Mapped[int | None]
    """The sample it was edited from."""
    revision: Mapped[int] = mapped_column(default=1, server_default="1")
    active_ms: Mapped[int | None]
    idle_ms: Mapped[int | None]
    author_id: Mapped[int | None] = mapped_column(ForeignKey("users.id"))
    origin: Mapped[DemonstrationOrigin] = mapped_column(enum_type(DemonstrationOrigin))
    idempotency_key: Mapped[uuid.UUID | None] = mapped_column(unique=True)
    status: Mapped[JudgementStatus] = mapped_column(enum_type(JudgementStatus), default=JudgementStatus.CURRENT)
