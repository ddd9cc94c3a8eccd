"""SQL of evaluations and of what else people are asked for: prompts and answers to ask about, tasks, outcomes."""

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Select, Text, cast, exists, func, select
from sqlalchemy.orm import Session, aliased

from app.models import (
    Checkpoint,
    Evaluation,
    EvaluationPrompt,
    Job,
    Judge,
    JudgeKind,
    Judgement,
    JudgementPair,
    JudgementStatus,
    Prompt,
    PromptPool,
    PromptStatus,
    Purpose,
    Sample,
    SampleOrigin,
    Sampler,
    Split,
    Task,
    TaskKind,
    TaskOutput,
)

Asked = tuple[Prompt, int | None]
"""A prompt to ask about, and the sample to show, if any."""


def job_key(evaluation_id: int) -> str:
    """Dedupe key of the job that draws an evaluation's answers."""
    return f"compare/{evaluation_id}"


def insert(session: Session, evaluation: Evaluation, prompt_ids: Iterable[int]) -> None:
    """Add an evaluation with its frozen prompts."""
    session.add(evaluation)
    session.flush()
    session.add_all(
        EvaluationPrompt(project_id=evaluation.project_id, evaluation_id=evaluation.id, prompt_id=prompt_id)
        for prompt_id in prompt_ids
    )
    session.flush()


def get(session: Session, project_id: int, evaluation_id: int) -> Evaluation:
    """The evaluation with this id."""
    return session.scalars(
        select(Evaluation).where(Evaluation.project_id == project_id, Evaluation.id == evaluation_id)
    ).one()


def list_samplers(session: Session, evaluation: Evaluation) -> list[Sampler]:
    """The left and the right one."""
    return [session.get_one(Sampler, sampler_id) for sampler_id in (evaluation.left_id, evaluation.right_id)]


def list_prompts(session: Session, project_id: int, split: Split, *, limit: int) -> Sequence[Prompt]:
    """Prompts of a split that may be answered, in an order nobody chose; every evaluation gets the same."""
    return session.scalars(_active(select(Prompt), project_id, split).limit(limit)).all()


def list_frozen(session: Session, evaluation: Evaluation) -> Sequence[Prompt]:
    """The prompts of an evaluation."""
    return session.scalars(
        select(Prompt)
        .join(EvaluationPrompt, EvaluationPrompt.prompt_id == Prompt.id)
        .where(EvaluationPrompt.evaluation_id == evaluation.id, Prompt.status == PromptStatus.ACTIVE)
        .order_by(Prompt.id)
    ).all()


def list_all(session: Session, project_id: int) -> Sequence[tuple[Evaluation, str, str, Job | None]]:
    """Evaluations with the names of their models and the newest job that draws for them, the newest first."""
    left, right = aliased(Sampler), aliased(Sampler)
    left_model, right_model = aliased(Checkpoint), aliased(Checkpoint)
    newest = (
        select(func.max(Job.id))
        .where(Job.project_id == project_id, Job.dedupe_key == func.concat("compare/", Evaluation.id))
        .correlate(Evaluation)
        .scalar_subquery()
    )
    rows = session.execute(
        select(Evaluation, left_model, right_model, Job)
        .join(left, left.id == Evaluation.left_id)
        .join(right, right.id == Evaluation.right_id)
        .join(left_model, left_model.id == left.checkpoint_id)
        .join(right_model, right_model.id == right.checkpoint_id)
        .outerjoin(Job, Job.id == newest)
        .where(Evaluation.project_id == project_id)
        .order_by(Evaluation.id.desc())
    )
    return [(evaluation, one.name, other.name, job) for evaluation, one, other, job in rows]


def list_outcomes(session: Session, project_id: int, evaluation_id: int) -> Sequence[tuple[str, float]]:
    """Prompt and p_left of every current answer of a person: the left output of a task is the left sampler's."""
    rows = session.execute(
        select(cast(Prompt.uid, Text), JudgementPair.p_left)
        .join(Judgement, Judgement.id == JudgementPair.judgement_id)
        .join(Judge, Judge.id == Judgement.judge_id)
        .join(Task, Task.id == Judgement.task_id)
        .join(Prompt, Prompt.id == Task.prompt_id)
        .where(
            Task.project_id == project_id,
            Task.evaluation_id == evaluation_id,
            Judgement.status == JudgementStatus.CURRENT,
            Judge.kind == JudgeKind.HUMAN,
            Prompt.status != PromptStatus.PII,
        )
    )
    return [(prompt, p_left) for prompt, p_left in rows]


def count_tasks(session: Session, evaluation_id: int) -> int:
    """Tasks of an evaluation."""
    return session.scalars(select(func.count()).where(Task.evaluation_id == evaluation_id)).one()


def list_unrated(session: Session, project_id: int, checkpoint_id: int, split: Split, *, limit: int) -> Sequence[Asked]:
    """Prompts with the newest answer a model gave to each, of which nobody was asked to rate one."""
    newest = (
        select(func.max(Sample.id))
        .join(Sampler, Sampler.id == Sample.sampler_id)
        .where(
            Sample.project_id == project_id,
            Sample.prompt_id == Prompt.id,
            Sample.origin == SampleOrigin.MODEL,
            Sampler.checkpoint_id == checkpoint_id,
        )
        .correlate(Prompt)
        .scalar_subquery()
    )
    rated = (
        exists()
        .where(Task.project_id == project_id, Task.prompt_id == Prompt.id, Task.kind == TaskKind.RATE)
        .where(TaskOutput.task_id == Task.id, Sample.id == TaskOutput.sample_id)
        .where(Sampler.id == Sample.sampler_id, Sampler.checkpoint_id == checkpoint_id)
        .correlate(Prompt)
    )
    query = _active(select(Prompt, newest), project_id, split).where(newest.is_not(None), ~rated)
    return [(prompt, sample_id) for prompt, sample_id in session.execute(query.limit(limit))]


def list_unlabelled(session: Session, project_id: int, split: Split, *, limit: int) -> Sequence[Asked]:
    """Prompts that nobody was asked to label, those without a category first."""
    asked = exists().where(
        Task.project_id == project_id, Task.prompt_id == Prompt.id, Task.kind == TaskKind.LABEL_PROMPT
    )
    query = _active(select(Prompt), project_id, split, Prompt.category.is_not(None)).where(~asked)
    return [(prompt, None) for prompt in session.scalars(query.limit(limit))]


def insert_tasks(
    session: Session, project_id: int, kind: TaskKind, purpose: Purpose, asked: Sequence[Asked], wanted: int
) -> None:
    """Open a task for each prompt, over its sample where there is one."""
    tasks = [
        Task(
            project_id=project_id,
            kind=kind,
            purpose=purpose,
            prompt_id=prompt.id,
            judgements_wanted=wanted,
            needs=prompt.needs,
        )
        for prompt, _ in asked
    ]
    session.add_all(tasks)
    session.flush()
    session.add_all(
        TaskOutput(project_id=project_id, task_id=task.id, position=0, sample_id=sample_id)
        for task, (_, sample_id) in zip(tasks, asked, strict=True)
        if sample_id is not None
    )
    session.flush()


def _active(query: Select[Any], project_id: int, split: Split, *first: ColumnElement[bool]) -> Select[Any]:
    """Of prompts that may be asked about, in an order nobody chose."""
    return (
        query.join(PromptPool, PromptPool.id == Prompt.pool_id)
        .where(
            Prompt.project_id == project_id,
            Prompt.status == PromptStatus.ACTIVE,
            Prompt.problem.is_(None),
            Prompt.split == split,
            PromptPool.is_active,
        )
        .order_by(*first, func.md5(cast(Prompt.uid, Text)))
    )
