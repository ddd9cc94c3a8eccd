"""SQL of the pipeline page: what waits, what runs, and the same prompts answered by several models."""

import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from sqlalchemy import exists, func, select
from sqlalchemy.orm import Session, joinedload

from app.models import (
    AuditEntry,
    Checkpoint,
    CheckpointState,
    Job,
    Lease,
    LeaseState,
    Prompt,
    PromptPool,
    PromptStatus,
    Purpose,
    Run,
    Sample,
    SampleOrigin,
    Sampler,
    Snapshot,
    Split,
    Task,
    TaskKind,
    TaskOutput,
    TaskState,
)
from app.queries.jobs import LIVE


@dataclass(frozen=True)
class AnswerRow:
    """One model's answer to a held-out prompt."""

    prompt: Prompt
    checkpoint_id: int
    html: str
    finish_reason: str | None


def count_sampled_prompts(session: Session, project_id: int) -> int:
    """Prompts that may be sampled: of active pools, short enough for the model, and not kept for the last test."""
    return session.scalars(
        select(func.count())
        .select_from(Prompt)
        .join(PromptPool, PromptPool.id == Prompt.pool_id)
        .where(
            Prompt.project_id == project_id,
            Prompt.status == PromptStatus.ACTIVE,
            Prompt.problem.is_(None),
            Prompt.split != Split.TEST,
            PromptPool.is_active,
        )
    ).one()


def count_ready_tasks(session: Session, project_id: int, round_id: int) -> int:
    """Training rank tasks of a round that nobody has answered, skipped or holds, so that whoever comes next may take them.

    One that still wants a second answer is not among them: there may be nobody else to give it.
    """
    is_held = (Lease.state == LeaseState.HELD) & (Lease.expires_at > func.now())
    is_over = Lease.state.in_((LeaseState.SUBMITTED, LeaseState.SKIPPED))
    return session.scalars(
        select(func.count()).where(
            Task.project_id == project_id,
            Task.kind == TaskKind.RANK,
            Task.purpose == Purpose.TRAIN,
            Task.state == TaskState.OPEN,
            Task.round_id == round_id,
            ~exists().where(Lease.task_id == Task.id, is_held | is_over),
        )
    ).one()


def list_live_runs(session: Session, project_id: int) -> Sequence[Run]:
    """Runs that wait or go on, with their jobs, oldest first."""
    return session.scalars(
        select(Run)
        .join(Job, Job.id == Run.job_id)
        .where(Run.project_id == project_id, Job.state.in_(LIVE))
        .options(joinedload(Run.job))
        .order_by(Run.id)
    ).all()


def list_candidates(session: Session, project_id: int, *, newer_than: int) -> Sequence[Checkpoint]:
    """Candidates of any kind registered after the checkpoint with that id, newest first."""
    return session.scalars(
        select(Checkpoint)
        .where(
            Checkpoint.project_id == project_id,
            Checkpoint.state == CheckpointState.CANDIDATE,
            Checkpoint.id > newer_than,
        )
        .order_by(Checkpoint.id.desc())
    ).all()


def list_acts(session: Session, project_id: int, subject_uid: uuid.UUID) -> Sequence[AuditEntry]:
    """What people and the automation did to one thing, newest first."""
    return session.scalars(
        select(AuditEntry)
        .where(AuditEntry.project_id == project_id, AuditEntry.subject_uid == subject_uid)
        .options(joinedload(AuditEntry.actor))
        .order_by(AuditEntry.id.desc())
    ).all()


def find_snapshot(session: Session, project_id: int, snapshot_id: int | None) -> Snapshot | None:
    """The data a run learned from, once it has been taken."""
    return session.scalar(select(Snapshot).where(Snapshot.project_id == project_id, Snapshot.id == snapshot_id))


def list_answers(session: Session, project_id: int, checkpoint_ids: Collection[int], limit: int) -> list[AnswerRow]:
    """Answers of these models to held-out prompts that are in no task: what the job `showcase` drew.

    Prompts that more of the models have answered come first, `limit` of them; per model and prompt the first answer.
    """
    answered = (
        select(
            Sample.id.label("sample_id"),
            Sample.prompt_id,
            Sampler.checkpoint_id,
            func.row_number()
            .over(partition_by=(Sample.prompt_id, Sampler.checkpoint_id), order_by=Sample.id)
            .label("place"),
        )
        .join(Sampler, Sampler.id == Sample.sampler_id)
        .join(Prompt, Prompt.id == Sample.prompt_id)
        .where(
            Sample.project_id == project_id,
            Sample.origin == SampleOrigin.MODEL,
            Sampler.checkpoint_id.in_(checkpoint_ids),
            Prompt.split == Split.VALID,
            ~exists().where(TaskOutput.sample_id == Sample.id),
        )
        .subquery()
    )
    prompts = (
        select(answered.c.prompt_id, func.count().label("answers"))
        .where(answered.c.place == 1)
        .group_by(answered.c.prompt_id)
        .order_by(func.count().desc(), answered.c.prompt_id)
        .limit(limit)
        .subquery()
    )
    rows = session.execute(
        select(Prompt, answered.c.checkpoint_id, Sample.html, Sample.finish_reason)
        .join(prompts, prompts.c.prompt_id == Prompt.id)
        .join(answered, answered.c.prompt_id == Prompt.id)
        .join(Sample, Sample.id == answered.c.sample_id)
        .where(answered.c.place == 1)
        .order_by(prompts.c.answers.desc(), Prompt.id)
    )
    return [AnswerRow(*row) for row in rows]
