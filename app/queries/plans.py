"""SQL of sampling plans: the plans, the prompts they take up in which order, and what came of them."""

import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Select, Text, and_, cast, exists, func, insert, literal, or_, select, update
from sqlalchemy.orm import Session, joinedload

from app.models import (
    Category,
    Checkpoint,
    Job,
    JobState,
    Judge,
    JudgeKind,
    Judgement,
    JudgementStatus,
    PlanPrompt,
    Prompt,
    PromptPool,
    PromptStatus,
    Purpose,
    Sample,
    SampleOrigin,
    Sampler,
    SamplingPlan,
    Split,
    Stream,
    Task,
    TaskKind,
    TaskState,
)
from app.queries.jobs import LIVE

RECENT_SAMPLES = 500
"""Newest responses of a model that its mean length is taken over."""

RECENT_JUDGEMENTS = 500

TAKEN_OUT = "It was taken out of the work meanwhile, or its pool was switched off."
RANKED_MEANWHILE = "Responses to it were ranked meanwhile, or wait to be."


@dataclass(frozen=True)
class Wanted:
    """Which prompts a plan may take."""

    project_id: int
    pools: Collection[uuid.UUID]
    """None means every pool that is switched on."""
    categories: Collection[Category]


def job_key(plan_id: int) -> str:
    """Dedupe key of the job that works a plan off."""
    return f"plan/{plan_id}"


def lock_drafting(session: Session, project_id: int) -> None:
    """Let one request at a time draft a plan of a project, so that a double click makes one."""
    session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(f"plans/{project_id}", 0))))


def insert_plan(session: Session, plan: SamplingPlan) -> None:
    """Add a plan."""
    session.add(plan)
    session.flush()


def delete_plan(session: Session, plan: SamplingPlan) -> None:
    """Remove a draft."""
    session.delete(plan)
    session.flush()


def find(session: Session, project_id: int, uid: uuid.UUID, *, lock: bool = False) -> SamplingPlan | None:
    """The plan with this uid and its job; with `lock`, the plan's row is locked until the transaction ends."""
    query = select(SamplingPlan).where(SamplingPlan.project_id == project_id, SamplingPlan.uid == uid)
    if lock:
        return session.scalar(query.with_for_update(key_share=True).execution_options(populate_existing=True))
    return session.scalar(query.options(joinedload(SamplingPlan.job)))


def lock(session: Session, project_id: int, plan_id: int) -> SamplingPlan:
    """The plan with this id, locked until the transaction ends."""
    return session.scalars(
        select(SamplingPlan)
        .where(SamplingPlan.project_id == project_id, SamplingPlan.id == plan_id)
        .with_for_update(key_share=True)
        .execution_options(populate_existing=True)
    ).one()


def page(session: Session, project_id: int, *, before: int | None, limit: int) -> Sequence[SamplingPlan]:
    """Plans with their jobs, the newest first, those with an id below `before`."""
    query = select(SamplingPlan).where(SamplingPlan.project_id == project_id).options(joinedload(SamplingPlan.job))
    if before is not None:
        query = query.where(SamplingPlan.id < before)
    return session.scalars(query.order_by(SamplingPlan.id.desc()).limit(limit)).all()


def list_recent(session: Session, project_id: int, *, limit: int) -> Sequence[SamplingPlan]:
    """The newest plans that were started."""
    return session.scalars(
        select(SamplingPlan)
        .where(SamplingPlan.project_id == project_id, SamplingPlan.job_id.is_not(None))
        .order_by(SamplingPlan.id.desc())
        .limit(limit)
    ).all()


def _matching(query: Select[tuple[int]], wanted: Wanted, split: Split) -> Select[tuple[int]]:
    query = query.join(PromptPool, PromptPool.id == Prompt.pool_id).where(
        Prompt.project_id == wanted.project_id,
        Prompt.split == split,
        *_is_fit(),
    )
    if wanted.pools:
        query = query.where(PromptPool.uid.in_(wanted.pools))
    if wanted.categories:
        query = query.where(Prompt.category.in_(wanted.categories))
    return query


def list_to_come(session: Session, project_id: int) -> Sequence[SamplingPlan]:
    """Plans that are not over: drafts, and those whose job is live."""
    return session.scalars(
        select(SamplingPlan)
        .outerjoin(Job, Job.id == SamplingPlan.job_id)
        .where(SamplingPlan.project_id == project_id, or_(Job.id.is_(None), Job.state.in_(LIVE)))
    ).all()


def _is_fit() -> tuple[ColumnElement[bool], ...]:
    """Of a prompt joined with its pool: it may be answered."""
    return Prompt.status == PromptStatus.ACTIVE, Prompt.problem.is_(None), PromptPool.is_active.is_(True)


def lapse(session: Session, plan_id: int, *, never_ranked: bool) -> int:
    """Pass over the waiting prompts that may no longer be taken: taken out of the work, or their pool switched off; how many.

    With `never_ranked`, those of the chosen stream that were ranked meanwhile, too. To be called before every draw.
    """
    fit = select(Prompt.id).join(PromptPool, PromptPool.id == Prompt.pool_id)
    fit = fit.where(Prompt.id == PlanPrompt.prompt_id, *_is_fit())
    reasons = [(~fit.exists(), TAKEN_OUT)]
    if never_ranked:
        is_ranked = ~fit.where(_is_never_ranked()).exists()
        reasons.append((and_(PlanPrompt.stream == Stream.CHOSEN, is_ranked), RANKED_MEANWHILE))
    count = 0
    for reason, problem in reasons:
        lapsed = session.execute(
            update(PlanPrompt)
            .where(PlanPrompt.plan_id == plan_id, ~PlanPrompt.is_over, reason)
            .values(is_over=True, problem=problem)
            .returning(PlanPrompt.prompt_id)
            .execution_options(synchronize_session=False)
        )
        count += len(lapsed.all())
    return count


def list_fit(session: Session, prompt_ids: Collection[int]) -> set[int]:
    """Those of these prompts that may be answered now."""
    fit = select(Prompt.id).join(PromptPool, PromptPool.id == Prompt.pool_id)
    return set(session.scalars(fit.where(Prompt.id.in_(prompt_ids), *_is_fit())))


def _is_never_ranked() -> ColumnElement[bool]:
    """No response to it was ranked by anybody, and none waits to be."""
    of_prompt = (Task.project_id == Prompt.project_id, Task.prompt_id == Prompt.id, Task.kind == TaskKind.RANK)
    waits = exists().where(*of_prompt, Task.state.in_((TaskState.OPEN, TaskState.DONE)))
    was_judged = exists().where(*of_prompt, Judgement.task_id == Task.id, Judgement.status == JudgementStatus.CURRENT)
    return ~waits & ~was_judged


def count_matching(
    session: Session, wanted: Wanted, split: Split, *, never_ranked: bool = False, unknown_to: int | None = None
) -> int:
    """Prompts that a plan could take; with `unknown_to`, those that the plan with this id has not taken up yet."""
    query = _matching(select(Prompt.id), wanted, split)
    if unknown_to is not None:
        query = query.where(~exists().where(PlanPrompt.plan_id == unknown_to, PlanPrompt.prompt_id == Prompt.id))
    if never_ranked:
        query = query.where(_is_never_ranked())
    return session.scalars(select(func.count()).select_from(query.subquery())).one()


def prompt_characters(session: Session, wanted: Wanted, split: Split) -> tuple[float, int]:
    """Mean and largest length of up to 1,000 prompts that a plan could take, as the JSON of their turns; zeros without any."""
    some = _matching(select(Prompt.id), wanted, split).limit(1000)
    length = func.length(cast(Prompt.messages, Text))
    row = session.execute(select(func.avg(length), func.max(length)).where(Prompt.id.in_(some))).one()
    return float(row[0] or 0), row[1] or 0


def take_up(
    session: Session,
    plan_id: int,
    wanted: Wanted,
    stream: Stream,
    split: Split,
    *,
    count: int,
    never_ranked: bool = False,
) -> int:
    """Take up to `count` prompts that the plan does not know yet, at random; how many there were."""
    known = exists().where(PlanPrompt.plan_id == plan_id, PlanPrompt.prompt_id == Prompt.id)
    query = _matching(select(Prompt.id), wanted, split).where(~known)
    if never_ranked:
        query = query.where(_is_never_ranked())
    chosen = query.order_by(func.random()).limit(count).subquery()
    after = (
        select(func.coalesce(func.max(PlanPrompt.position), 0))
        .where(PlanPrompt.plan_id == plan_id, PlanPrompt.stream == stream, PlanPrompt.split == split)
        .scalar_subquery()
    )
    rows = select(
        literal(wanted.project_id),
        literal(plan_id),
        chosen.c.id,
        literal(stream.value),
        literal(split.value),
        after + func.row_number().over(),
    )
    names = ["project_id", "plan_id", "prompt_id", "stream", "split", "position"]
    taken = session.execute(insert(PlanPrompt).from_select(names, rows).returning(PlanPrompt.prompt_id))
    return len(taken.all())


def count_taken(session: Session, plan_id: int, stream: Stream, split: Split) -> tuple[int, int]:
    """Prompts that a plan has taken up of one stream and split: all, and those whose turn is still to come."""
    of_lane = (PlanPrompt.plan_id == plan_id, PlanPrompt.stream == stream, PlanPrompt.split == split)
    row = session.execute(select(func.count(), func.count().filter(~PlanPrompt.is_over)).where(*of_lane)).one()
    return row[0], row[1]


def list_waiting(session: Session, plan_id: int, stream: Stream, split: Split, *, limit: int) -> Sequence[Prompt]:
    """Prompts of one stream and split whose turn it is: by disagreement where that was measured, else as they were taken up.

    `lapse` them first: what was taken out of the work meanwhile is among them until then.
    """
    return session.scalars(
        select(Prompt)
        .join(PlanPrompt, PlanPrompt.prompt_id == Prompt.id)
        .where(
            PlanPrompt.plan_id == plan_id,
            PlanPrompt.stream == stream,
            PlanPrompt.split == split,
            ~PlanPrompt.is_over,
        )
        .order_by(PlanPrompt.disagreement.desc().nulls_last(), PlanPrompt.position)
        .limit(limit)
    ).all()


def list_unmeasured(session: Session, plan_id: int, *, limit: int) -> Sequence[Prompt]:
    """Candidates whose disagreement nobody has measured. `lapse` them first."""
    return session.scalars(
        select(Prompt)
        .join(PlanPrompt, PlanPrompt.prompt_id == Prompt.id)
        .where(
            PlanPrompt.plan_id == plan_id,
            PlanPrompt.stream == Stream.CHOSEN,
            ~PlanPrompt.is_over,
            PlanPrompt.disagreement.is_(None),
        )
        .order_by(PlanPrompt.split, PlanPrompt.position)
        .limit(limit)
    ).all()


def list_texts(session: Session, prompt_ids: Collection[int], *, each: int) -> Mapping[int, list[tuple[str, bool]]]:
    """The newest responses that models gave to each prompt: text, and whether it ended by itself."""
    place = func.row_number().over(partition_by=Sample.prompt_id, order_by=Sample.id.desc())
    newest = (
        select(Sample.id, place.label("place"))
        .where(Sample.prompt_id.in_(prompt_ids), Sample.origin == SampleOrigin.MODEL)
        .subquery()
    )
    rows = session.execute(
        select(Sample.prompt_id, Sample.text, Sample.finish_reason)
        .join(newest, newest.c.id == Sample.id)
        .where(newest.c.place <= each)
        .order_by(Sample.id)
    )
    found: dict[int, list[tuple[str, bool]]] = {}
    for prompt_id, text, finish_reason in rows:
        found.setdefault(prompt_id, []).append((text, finish_reason != "length"))
    return found


def set_disagreement(session: Session, plan_id: int, values: Mapping[int, float]) -> None:
    """Keep how differently two reward models judge the responses to each prompt."""
    for prompt_id, value in values.items():
        session.execute(
            update(PlanPrompt)
            .where(PlanPrompt.plan_id == plan_id, PlanPrompt.prompt_id == prompt_id)
            .values(disagreement=value)
        )


def close_prompts(session: Session, plan_id: int, problems: Mapping[int, str | None]) -> None:
    """Note that these prompts have had their turn, and of those passed over why."""
    for prompt_id, problem in problems.items():
        session.execute(
            update(PlanPrompt)
            .where(PlanPrompt.plan_id == plan_id, PlanPrompt.prompt_id == prompt_id)
            .values(is_over=True, problem=problem)
        )


def list_passed_over(session: Session, plan_id: int, *, limit: int) -> Sequence[tuple[Prompt | None, str]]:
    """Prompts that a plan passed over, with the reason; None for one that is not active, whose text is not to be shown."""
    rows = session.execute(
        select(Prompt, PlanPrompt.problem)
        .join(PlanPrompt, PlanPrompt.prompt_id == Prompt.id)
        .where(PlanPrompt.plan_id == plan_id, PlanPrompt.problem.is_not(None))
        .order_by(PlanPrompt.prompt_id)
        .limit(limit)
    )
    return [(row.Prompt if row.Prompt.status == PromptStatus.ACTIVE else None, row.problem or "") for row in rows]


def mean_disagreements(session: Session, plan_id: int) -> Mapping[bool, float]:
    """Mean disagreement of candidates by whether they were chosen: what became a task, and what did not."""
    rows = session.execute(
        select(PlanPrompt.is_over, func.avg(PlanPrompt.disagreement))
        .where(PlanPrompt.plan_id == plan_id, PlanPrompt.disagreement.is_not(None), PlanPrompt.problem.is_(None))
        .group_by(PlanPrompt.is_over)
    )
    return {is_over: float(mean) for is_over, mean in rows}


def count_tasks(session: Session, plan_id: int) -> Mapping[tuple[Stream, TaskState], int]:
    """A plan's tasks by stream and state."""
    rows = session.execute(
        select(Task.stream, Task.state, func.count()).where(Task.plan_id == plan_id).group_by(Task.stream, Task.state)
    )
    return {(stream, state): count for stream, state, count in rows if stream is not None}


def lock_open_tasks(session: Session, plan: SamplingPlan) -> Sequence[Task]:
    """The open tasks of a plan; their rows are locked."""
    return session.scalars(
        select(Task)
        .where(Task.plan_id == plan.id, Task.state == TaskState.OPEN)
        .order_by(Task.id)
        .with_for_update(key_share=True)
        .execution_options(populate_existing=True)
    ).all()


def mean_length_tokens(
    session: Session, project_id: int, *, checkpoint_id: int | None, endpoint_id: int | None
) -> float | None:
    """Mean length of the newest responses of a source; None where it gave none."""
    of_source = Sampler.checkpoint_id == checkpoint_id if checkpoint_id else Sampler.endpoint_id == endpoint_id
    newest = (
        select(Sample.length_tokens)
        .join(Sampler, Sampler.id == Sample.sampler_id)
        .where(Sample.project_id == project_id, of_source, Sample.length_tokens.is_not(None))
        .order_by(Sample.id.desc())
        .limit(RECENT_SAMPLES)
        .subquery()
    )
    mean = session.scalar(select(func.avg(newest.c.length_tokens)))
    return None if mean is None else float(mean)


def find_showcase(session: Session, project_id: int, checkpoint_id: int) -> Job | None:
    """The newest job in which a model answered the showcase prompts."""
    return session.scalar(
        select(Job)
        .where(
            Job.project_id == project_id,
            Job.kind == "showcase",
            Job.state == JobState.SUCCEEDED,
            Job.arguments["checkpoint_id"].as_integer() == checkpoint_id,
        )
        .order_by(Job.id.desc())
        .limit(1)
    )


def median_active_ms(session: Session, project_id: int) -> float | None:
    """Middle of the active time of the newest rankings by people."""
    newest = (
        select(Judgement.active_ms)
        .join(Judge, Judge.id == Judgement.judge_id)
        .join(Task, Task.id == Judgement.task_id)
        .where(
            Judgement.project_id == project_id,
            Judgement.status == JudgementStatus.CURRENT,
            Judgement.active_ms.is_not(None),
            Judge.kind == JudgeKind.HUMAN,
            Task.kind == TaskKind.RANK,
            Task.purpose == Purpose.TRAIN,
            Task.derived_from_id.is_(None),
        )
        .order_by(Judgement.id.desc())
        .limit(RECENT_JUDGEMENTS)
        .subquery()
    )
    median = session.scalar(select(func.percentile_cont(0.5).within_group(newest.c.active_ms)))
    return None if median is None else float(median)


def has_waiting(session: Session, kinds: Collection[str]) -> bool:
    """Whether a job of these kinds is queued, in any project."""
    return session.scalars(select(exists().where(Job.kind.in_(kinds), Job.state == JobState.QUEUED))).one()


def map_checkpoints(session: Session, project_id: int, uids: Collection[uuid.UUID]) -> Mapping[uuid.UUID, Checkpoint]:
    """Those of these checkpoints that the project has."""
    rows = session.scalars(select(Checkpoint).where(Checkpoint.project_id == project_id, Checkpoint.uid.in_(uids)))
    return {row.uid: row for row in rows}


def list_pools(session: Session, project_id: int) -> Sequence[PromptPool]:
    """Pools by name."""
    return session.scalars(
        select(PromptPool).where(PromptPool.project_id == project_id).order_by(PromptPool.name)
    ).all()
