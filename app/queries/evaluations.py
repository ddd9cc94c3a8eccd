"""SQL of evaluations and of what else people are asked for: prompts and answers to ask about, tasks, outcomes."""

import uuid
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
    TaskState,
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


def lock_asking(session: Session, project_id: int) -> None:
    """Let one request at a time ask for something in a project, so that a double click asks once."""
    session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(f"evaluations/{project_id}", 0))))


def find(session: Session, project_id: int, uid: uuid.UUID) -> Evaluation | None:
    """The evaluation with this uid; its row is locked."""
    return session.scalar(
        select(Evaluation)
        .where(Evaluation.project_id == project_id, Evaluation.uid == uid)
        .with_for_update(key_share=True)
        .execution_options(populate_existing=True)
    )


def find_job(session: Session, evaluation: Evaluation) -> Job | None:
    """The newest job that draws an evaluation's answers."""
    of_evaluation = (Job.project_id == evaluation.project_id, Job.dedupe_key == job_key(evaluation.id))
    return session.scalar(select(Job).where(*of_evaluation).order_by(Job.id.desc()).limit(1))


def lock_open_tasks(session: Session, evaluation: Evaluation) -> Sequence[Task]:
    """The open tasks of an evaluation; their rows are locked."""
    return session.scalars(
        select(Task)
        .where(Task.evaluation_id == evaluation.id, Task.state == TaskState.OPEN)
        .order_by(Task.id)
        .with_for_update(key_share=True)
        .execution_options(populate_existing=True)
    ).all()


def get(session: Session, project_id: int, evaluation_id: int) -> Evaluation:
    """The evaluation with this id; its row is locked."""
    return session.scalars(
        select(Evaluation)
        .where(Evaluation.project_id == project_id, Evaluation.id == evaluation_id)
        .with_for_update(key_share=True)
        .execution_options(populate_existing=True)
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
            ~Prompt.is_private,
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
            Sampler.best_of == 1,  # the best of several is not how the model answers, nor is what a prefix made of it
            Sampler.prefix == "",
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


def _task_uids(request: uuid.UUID, count: int) -> list[uuid.UUID]:
    """Uids of the tasks that a request opens: by them it is known again."""
    return [uuid.uuid5(request, str(number)) for number in range(count)]


def count_asked(session: Session, project_id: int, request: uuid.UUID, *, most: int) -> int:
    """Tasks that a request has opened, which are `most` at most."""
    opened = (Task.project_id == project_id, Task.uid.in_(_task_uids(request, most)))
    return session.scalars(select(func.count()).select_from(Task).where(*opened)).one()


def insert_tasks(
    session: Session,
    project_id: int,
    kind: TaskKind,
    purpose: Purpose,
    asked: Sequence[Asked],
    wanted: int,
    request: uuid.UUID,
) -> None:
    """Open a task for each prompt, over its sample where there is one."""
    tasks = [
        Task(
            project_id=project_id,
            uid=uid,
            kind=kind,
            purpose=purpose,
            prompt_id=prompt.id,
            judgements_wanted=wanted,
            needs=prompt.needs,
        )
        for uid, (prompt, _) in zip(_task_uids(request, len(asked)), asked, strict=True)
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
