"""Background work: jobs (the outbox), and runs, the jobs that train a model."""

from datetime import datetime
from enum import StrEnum

from sqlalchemy import ForeignKey, ForeignKeyConstraint, Index, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from app.models.base import Base, HasUid, InProject, Json, enum_type, refers, scoped


class JobState(StrEnum):
    """queued -> running -> succeeded | failed | cancelled, with cancelling between."""

    QUEUED = "queued"
    RUNNING = "running"
    CANCELLING = "cancelling"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class RunKind(StrEnum):
    """The three stages of the paper."""

    SFT = "sft"
    REWARD = "reward"
    PPO = "ppo"


class Job(InProject, HasUid, Base):
    """Work to be done once, written in the transaction that asks for it. The broker's message is only a hint."""

    __tablename__ = "jobs"
    __table_args__ = scoped(
        Index(
            "ix_jobs_live",
            "state",
            "heartbeat_at",
            postgresql_where=text("state IN ('queued', 'running', 'cancelling')"),
        ),
        Index(None, "project_id", "kind", "id"),
        Index(
            "uq_jobs_once",
            "project_id",
            "dedupe_key",
            unique=True,
            postgresql_where=text("state IN ('queued', 'running', 'cancelling')"),
        ),
    )

    kind: Mapped[str]
    """Name in `app.jobs.KINDS`; it decides the queue."""
    arguments: Mapped[Json] = mapped_column(default=dict, server_default="{}")
    state: Mapped[JobState] = mapped_column(enum_type(JobState), default=JobState.QUEUED, server_default="queued")
    attempt: Mapped[int] = mapped_column(default=0, server_default="0")
    """Fencing number: raised by every claim; writes of an older attempt are refused."""
    handed_back: Mapped[int] = mapped_column(default=0, server_default="0")
    """Attempts that ended by giving the job back in good order: a worker that stops, or lets others go first."""
    dedupe_key: Mapped[str | None]
    """At most one live job per project and key."""
    heartbeat_at: Mapped[datetime | None]
    sent_at: Mapped[datetime | None]
    progress: Mapped[int] = mapped_column(default=0, server_default="0")
    total: Mapped[int | None]
    error: Mapped[str | None]
    result: Mapped[Json | None]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    requested_by_id: Mapped[int | None] = mapped_column(ForeignKey("users.id"))


class Run(InProject, HasUid, Base):
    """A training job: which stage, on which snapshot, from which models, with which hyperparameters."""

    __tablename__ = "runs"
    __table_args__ = scoped(
        ForeignKeyConstraint(["project_id", "job_id"], ["jobs.project_id", "jobs.id"]),
        refers("snapshot_id", "snapshots"),
        refers("init_id", "checkpoints"),
        refers("reward_id", "checkpoints"),
        refers("result_id", "checkpoints"),
        Index(None, "project_id", "kind", "number", unique=True),
    )

    job_id: Mapped[int] = mapped_column(unique=True)
    kind: Mapped[RunKind] = mapped_column(enum_type(RunKind))
    number: Mapped[int]
    snapshot_id: Mapped[int | None]
    """Taken by the worker when the run first starts; a resumed run keeps it."""
    init_id: Mapped[int]
    """The checkpoint the run starts from (and, for PPO, measures KL against)."""
    reward_id: Mapped[int | None]
    """PPO: the reward model it climbs. Reward: the active one it is measured beside."""
    result_id: Mapped[int | None] = mapped_column(unique=True)
    """The checkpoint the run made."""
    config: Mapped[str] = mapped_column(default="", server_default="")
    """TOML the run was started with."""
    judgement_count: Mapped[int] = mapped_column(default=0, server_default="0")
    """The project's count of training judgements when the run was requested; triggers compare against it."""
    demonstration_count: Mapped[int] = mapped_column(default=0, server_default="0")
    reason: Mapped[str] = mapped_column(default="", server_default="")
    """Why it was started, in words: the rule that fired, or the person who asked."""
    eta_seconds: Mapped[float | None]
    metrics: Mapped[Json] = mapped_column(default=dict, server_default="{}")
    """Final metrics, as the trainer reported them."""

    job: Mapped[Job] = relationship(foreign_keys=[job_id], primaryjoin="Run.job_id == Job.id", viewonly=True)


class RunMetric(Base):
    """Live metrics of one step of a run; a resumed run overwrites the steps it repeats."""

    __tablename__ = "run_metrics"
    __table_args__ = (refers("run_id", "runs", ondelete="CASCADE"),)

    run_id: Mapped[int] = mapped_column(primary_key=True)
    step: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int]
    attempt: Mapped[int]
    values: Mapped[Json]


class RunLog(InProject, Base):
    """What a run said in words: counts, what was dropped and why, warnings, its end."""

    __tablename__ = "run_logs"
    __table_args__ = scoped(refers("run_id", "runs", ondelete="CASCADE"), Index(None, "run_id", "id"))

    run_id: Mapped[int]
    attempt: Mapped[int]
    text: Mapped[str]
