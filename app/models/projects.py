"""A project: one base model, its people, its label schemas and its counters."""

from enum import StrEnum

from sqlalchemy import CheckConstraint, ForeignKey, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column, relationship

from app.models.base import Base, HasId, HasUid, InProject, Json, enum_type, scoped


class Role(StrEnum):
    """What a person may do in a project; the owner of the installation holds all of them everywhere."""

    OWNER = "owner"
    ADMIN = "admin"
    RESEARCHER = "researcher"
    LABELLER = "labeller"


class Cohort(StrEnum):
    """Whether a labeller's judgements may train a model, or only measure it (the paper's held-out labellers)."""

    TRAINING = "training"
    HELD_OUT = "held_out"


class Project(HasId, HasUid, Base):
    """A loop of its own. Its base checkpoint never changes: another base makes another project."""

    __tablename__ = "projects"
    __table_args__ = (
        CheckConstraint("outputs_per_task BETWEEN 2 AND 9", name="outputs_per_task"),
        CheckConstraint("slug ~ '^[a-z0-9][a-z0-9-]{0,62}$'", name="slug"),
    )

    slug: Mapped[str] = mapped_column(unique=True)
    name: Mapped[str]
    base_checkpoint_id: Mapped[int] = mapped_column(ForeignKey("base_checkpoints.id"))
    outputs_per_task: Mapped[int] = mapped_column(default=4)
    asks_to_edit_best: Mapped[bool] = mapped_column(default=False, server_default="false")
    """Whether a labeller is asked, after a ranking, to improve the output put first."""
    label_schema_version: Mapped[int] = mapped_column(default=1)
    sampling: Mapped[Json]
    """`app.schemas.projects.SamplingSettings`."""
    automation: Mapped[Json]
    """`app.schemas.projects.AutomationSettings`."""
    school: Mapped[Json] = mapped_column(default=dict, server_default="{}")
    """`app.schemas.projects.SchoolSettings`."""
    training_config: Mapped[str] = mapped_column(default="", server_default="")
    """TOML with the tables [sft], [reward], [ppo]; empty means the paper's values."""


class Membership(InProject, Base):
    """A person's roles and cohort in a project."""

    __tablename__ = "memberships"
    __table_args__ = scoped(
        UniqueConstraint("project_id", "user_id"),
        CheckConstraint("roles <@ ARRAY['owner', 'admin', 'researcher', 'labeller']::text[]", name="roles_are_known"),
        CheckConstraint("daily_cap BETWEEN 1 AND 1000", name="daily_cap"),
        CheckConstraint("content_cap BETWEEN 1 AND 1000", name="content_cap"),
    )

    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    roles: Mapped[list[str]]
    cohort: Mapped[Cohort] = mapped_column(enum_type(Cohort), default=Cohort.TRAINING, server_default="training")
    is_paused: Mapped[bool] = mapped_column(default=False, server_default="false")
    skills: Mapped[list[str]] = mapped_column(default=list, server_default="{}")
    """Tags such as `skill:math`, set by an admin."""
    opted_in: Mapped[list[str]] = mapped_column(default=list, server_default="{}")
    """Tags such as `content:violence`: sensitive content the person has agreed to see."""
    daily_cap: Mapped[int | None]
    """Tasks the person may answer in 24 hours; None for as many as there are."""
    content_cap: Mapped[int | None]
    """Tasks with sensitive content the person wants to see in 24 hours at most; None for what the project allows."""

    project: Mapped[Project] = relationship()


class LabelSchema(InProject, Base):
    """The fields asked about a task and its outputs; immutable once a judgement uses it."""

    __tablename__ = "label_schemas"
    __table_args__ = scoped(UniqueConstraint("project_id", "version"))

    version: Mapped[int]
    fields: Mapped[list[Json]]
    """Each: key, label, scope (prompt | output | task), type, choices, required, shown_if."""


class Counter(Base):
    """Counts kept in the transaction that changes them, spread over shards so that submits do not queue on one row."""

    __tablename__ = "counters"

    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id", ondelete="CASCADE"), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    shard: Mapped[int] = mapped_column(primary_key=True)
    value: Mapped[int] = mapped_column(default=0, server_default="0")
