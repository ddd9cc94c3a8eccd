"""The queue: rounds, tasks, their outputs, leases and drafts."""

from datetime import datetime
from enum import StrEnum

from sqlalchemy import CheckConstraint, ForeignKey, Index, UniqueConstraint, func, text
from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import Base, HasUid, InProject, Json, enum_type, refers, scoped
from app.models.plans import Stream


class TaskKind(StrEnum):
    """What a person is asked to do."""

    RANK = "rank"
    DEMONSTRATE = "demonstrate"
    COMPARE = "compare"
    RATE = "rate"
    LABEL_PROMPT = "label_prompt"


ORDERING = frozenset({TaskKind.RANK, TaskKind.COMPARE})
"""Kinds whose answers order outputs: what a reward model can learn from."""


class Purpose(StrEnum):
    """What the answer is for. Only `train` reaches a training snapshot by default.

    Those of `SCHOOL` have a reference answer: practice explains it, qualify tests by it, gold is mixed into the work.
    """

    TRAIN = "train"
    EVALUATE = "evaluate"
    GOLD = "gold"
    QUALIFY = "qualify"
    REVIEW = "review"
    PRACTICE = "practice"


SCHOOL = frozenset({Purpose.PRACTICE, Purpose.QUALIFY, Purpose.GOLD})
"""Purposes of tasks that have a reference answer."""

LESSONS = frozenset({Purpose.PRACTICE, Purpose.QUALIFY})
"""Those of them that come before the work: given out by name, never by the queue."""

EVERYONE = 10_000
"""Judgements wanted of a task that is for every labeller."""


class TaskState(StrEnum):
    """Open tasks are leased; done have all judgements wanted; retired were closed with their round or prompt."""

    OPEN = "open"
    WAITING = "waiting"
    """Imported on a prompt that was kept out of the work; it opens when the prompt is let in."""
    DONE = "done"
    RETIRED = "retired"


class LeaseState(StrEnum):
    """A lease is held until it is submitted, skipped, given back, or taken over after its expiry."""

    HELD = "held"
    SUBMITTED = "submitted"
    SKIPPED = "skipped"
    EXPIRED = "expired"
    RELEASED = "released"


class Round(InProject, HasUid, Base):
    """Opens with a promotion and closes with the next."""

    __tablename__ = "rounds"
    __table_args__ = scoped(
        UniqueConstraint("project_id", "number"),
        refers("checkpoint_id", "checkpoints"),
        Index("uq_rounds_open", "project_id", unique=True, postgresql_where=text("closed_at IS NULL")),
    )

    number: Mapped[int]
    checkpoint_id: Mapped[int]
    """The promoted model whose samples are judged in this round."""
    closed_at: Mapped[datetime | None]


class Task(InProject, HasUid, Base):
    """One piece of work, wanted from `judgements_wanted` different people."""

    __tablename__ = "tasks"
    __table_args__ = scoped(
        refers("prompt_id", "prompts", ondelete="CASCADE"),
        refers("round_id", "rounds"),
        refers("evaluation_id", "evaluations"),
        refers("import_id", "imports"),
        refers("plan_id", "sampling_plans"),
        refers("derived_from_id", "tasks"),
        Index("ix_tasks_derived", "derived_from_id", postgresql_where=text("derived_from_id IS NOT NULL")),
        Index("ix_tasks_of_evaluation", "evaluation_id", postgresql_where=text("evaluation_id IS NOT NULL")),
        Index("uq_tasks_of_plan", "plan_id", "prompt_id", unique=True, postgresql_where=text("plan_id IS NOT NULL")),
        CheckConstraint("(plan_id IS NULL) = (stream IS NULL)", name="stream_of_plan"),
        CheckConstraint(
            "judgements_wanted BETWEEN 1 AND"
            " CASE WHEN purpose IN ('gold', 'qualify', 'practice') THEN 10000 ELSE 100 END",
            name="judgements_wanted",
        ),
        Index(
            "ix_tasks_queue",
            "project_id",
            "kind",
            text("priority DESC"),
            "queued_at",
            "id",
            postgresql_where=text("state = 'open'"),
        ),
        Index(None, "project_id", "prompt_id"),
        Index("ix_tasks_needing", "project_id", "kind", postgresql_where=text("state = 'open' AND needs <> '{}'")),
    )

    kind: Mapped[TaskKind] = mapped_column(enum_type(TaskKind))
    purpose: Mapped[Purpose] = mapped_column(enum_type(Purpose), default=Purpose.TRAIN, server_default="train")
    state: Mapped[TaskState] = mapped_column(enum_type(TaskState), default=TaskState.OPEN, server_default="open")
    prompt_id: Mapped[int]
    round_id: Mapped[int | None]
    import_id: Mapped[int | None]
    """The import that brought its outputs."""
    evaluation_id: Mapped[int | None]
    """The evaluation that a comparison is part of."""
    plan_id: Mapped[int | None]
    """The sampling plan that asked for it; such a task belongs to no round, so that no promotion retires it."""
    stream: Mapped[Stream | None] = mapped_column(enum_type(Stream))
    """How that plan came to the prompt; no page of a labeller tells."""
    derived_from_id: Mapped[int | None]
    """The ranking that this one was made of, by improving the output put first; nobody is lent it."""
    excluded_by_id: Mapped[int | None] = mapped_column(ForeignKey("users.id"))
    excluded_why: Mapped[str | None]
    """Why no answer to it trains, not even one that is still to come; None for any other task."""
    judgements_wanted: Mapped[int] = mapped_column(default=1, server_default="1")
    priority: Mapped[int] = mapped_column(default=0, server_default="0")
    queued_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    """Its place among tasks of one priority; a trigger sets it anew when the task re-opens, or its priority, purpose or needs
    change."""
    needs: Mapped[list[str]] = mapped_column(default=list, server_default="{}")
    """Tags (`app.schemas.needs`) that a person must bring, all of them, to be lent the task."""


class TaskOutput(InProject, Base):
    """One of the texts to be judged; `position` is its stored place, never the order shown."""

    __tablename__ = "task_outputs"
    __table_args__ = scoped(
        refers("task_id", "tasks", ondelete="CASCADE"),
        refers("sample_id", "samples"),
        UniqueConstraint("task_id", "position"),
        UniqueConstraint("task_id", "sample_id"),
    )

    task_id: Mapped[int]
    position: Mapped[int]
    sample_id: Mapped[int]


class Lease(InProject, HasUid, Base):
    """A task lent to one person for a while. One row per (task, person), for ever; expiry frees the slot."""

    __tablename__ = "leases"
    __table_args__ = scoped(
        refers("task_id", "tasks", ondelete="CASCADE"),
        UniqueConstraint("task_id", "user_id"),
        Index(
            "uq_leases_slot",
            "task_id",
            "slot",
            unique=True,
            postgresql_where=text("state IN ('held', 'submitted') AND NOT is_surplus"),
        ),
        Index(
            "ix_leases_unfinished",
            "project_id",
            "user_id",
            postgresql_where=text("state IN ('held', 'expired', 'released')"),
        ),
        Index("ix_leases_held", "project_id", postgresql_where=text("state = 'held'")),
        Index("ix_leases_skipped", "project_id", "user_id", postgresql_where=text("state = 'skipped'")),
        Index("ix_leases_opened", "project_id", "user_id", "opened_at", postgresql_where=text("opened_at IS NOT NULL")),
        Index("ix_leases_answered", "project_id", "user_id", "ended_at", postgresql_where=text("state = 'submitted'")),
    )

    task_id: Mapped[int]
    slot: Mapped[int]
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    state: Mapped[LeaseState] = mapped_column(enum_type(LeaseState), default=LeaseState.HELD)
    is_surplus: Mapped[bool] = mapped_column(default=False, server_default="false")
    """A late submit whose slot was taken meanwhile: stored, and outside the count of judgements wanted."""
    expires_at: Mapped[datetime]
    shown_order: Mapped[list[int]]
    """Positions of the outputs in the order shown, shuffled with `order_seed`."""
    order_seed: Mapped[int]
    ended_at: Mapped[datetime | None]
    opened_at: Mapped[datetime | None]
    """When the person chose to see a task with sensitive content; None for any other."""
    skip_reason: Mapped[str | None]


class QueueMark(InProject, Base):
    """Up to when a person need not look for tasks of one priority: there, each open one was theirs already or is not for them."""

    __tablename__ = "queue_marks"
    __table_args__ = scoped(UniqueConstraint("project_id", "user_id", "kind", "priority", "profile"))

    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    kind: Mapped[TaskKind] = mapped_column(enum_type(TaskKind))
    priority: Mapped[int]
    profile: Mapped[str]
    """Purposes and tags that it holds for; a person who brings another skill begins anew."""
    passed: Mapped[datetime]


class Draft(InProject, Base):
    """Work in progress of one person on one task; outlives the lease."""

    __tablename__ = "drafts"
    __table_args__ = scoped(refers("task_id", "tasks", ondelete="CASCADE"), UniqueConstraint("task_id", "user_id"))

    task_id: Mapped[int]
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    content: Mapped[Json]
    updated_at: Mapped[datetime]
