"""SQL of the automation: one look at a project at a time, and the dates its rules go by."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Integer, cast, func, select
from sqlalchemy.orm import Session

from app.models import (
    ORDERING,
    BaseCheckpoint,
    Checkpoint,
    CheckpointKind,
    Cohort,
    Job,
    Judge,
    JudgeKind,
    Judgement,
    JudgementStatus,
    Membership,
    Project,
    Purpose,
    Task,
)

_LOCK = 7_203_118
"""First key of the advisory locks taken here; the second is the project."""


def list_project_ids(session: Session) -> Sequence[int]:
    """Every project, oldest first."""
    return session.scalars(select(Project.id).order_by(Project.id)).all()


def has_base(session: Session, source: str) -> bool:
    """Whether a base model from this folder or hub name is registered."""
    return session.scalar(select(BaseCheckpoint.id).where(BaseCheckpoint.source == source).limit(1)) is not None


def try_lock(session: Session, project_id: int) -> bool:
    """Take the project's automation until the transaction ends; False where another tick has it."""
    return bool(session.scalar(select(func.pg_try_advisory_xact_lock(_LOCK, cast(project_id, Integer)))))


def get_now(session: Session) -> datetime:
    """The transaction's time, by the database's clock."""
    return session.scalars(select(func.now())).one()


def find_latest_job(session: Session, project_id: int, kind: str) -> Job | None:
    """The job of this kind that was asked for last."""
    return session.scalar(
        select(Job).where(Job.project_id == project_id, Job.kind == kind).order_by(Job.id.desc()).limit(1)
    )


def list_unshown(session: Session, project_id: int) -> Sequence[Checkpoint]:
    """Models that answer prompts and were never asked to answer the showcase."""
    asked = select(Job.arguments["checkpoint_id"].as_integer()).where(
        Job.project_id == project_id, Job.kind == "showcase"
    )
    return session.scalars(
        select(Checkpoint)
        .where(
            Checkpoint.project_id == project_id,
            Checkpoint.kind != CheckpointKind.REWARD,
            Checkpoint.id.not_in(asked),
        )
        .order_by(Checkpoint.id)
    ).all()


def find_waiting_since(session: Session, project_id: int, count: int) -> datetime | None:
    """When the oldest of the `count` newest training judgements was given; walks back over those, however many there are."""
    return session.scalar(
        select(Judgement.created_at)
        .join(Task, Task.id == Judgement.task_id)
        .join(Judge, Judge.id == Judgement.judge_id)
        .outerjoin(Membership, (Membership.project_id == project_id) & (Membership.user_id == Judge.user_id))
        .where(
            Judgement.project_id == project_id,
            Judgement.status == JudgementStatus.CURRENT,
            Task.purpose == Purpose.TRAIN,
            Task.kind.in_(ORDERING),
            Judge.kind == JudgeKind.HUMAN,
            func.coalesce(Membership.cohort, Cohort.TRAINING) == Cohort.TRAINING,
        )
        .order_by(Judgement.id.desc())
        .offset(count - 1)
        .limit(1)
    )
