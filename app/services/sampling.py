"""The queue's supply: which prompts the active model answers next, and how what it drew becomes rank tasks."""

import math
import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from app import jobs as outbox
from app.errors import Conflict
from app.markup import render_markdown
from app.models import Checkpoint, Job, JobState, Project, Prompt, Sample, SampleOrigin, Sampler, Split
from app.queries import checkpoints as checkpoint_queries
from app.queries import jobs as job_queries
from app.queries import pipeline as pipeline_queries
from app.queries import prompts as prompt_queries
from app.queries import runs as run_queries
from app.queries import sampling as queries
from app.schemas.projects import AutomationSettings, SamplingSettings
from app.services import checkpoints, jobs, samplers, tasks
from app.services.jobs import Claim
from app.services.tasks import NewSample

SURPLUS = 1.25
"""The queue is filled this far beyond what must be ready, so that not every submit starts a job."""

SHOWCASE_PROMPTS = 6
"""Held-out prompts that every new model answers once, to be read side by side."""

REFILL = "sample_tasks"


@dataclass(frozen=True)
class Order:
    """Who answers, how, and for which round."""

    project: Project
    checkpoint: Checkpoint
    decoding: SamplingSettings
    sampler: Sampler
    round_id: int
    target: int
    """Rank tasks that should wait for labellers."""


@dataclass(frozen=True)
class Drawn:
    """A prompt with different responses, as many as a task shows."""

    prompt_id: int
    samples: tuple[NewSample, ...]


def request_tasks(session: Session, project: Project) -> Job:
    """Have the queue filled; a request that waits already is enough. The job finds out itself what is missing."""
    live = job_queries.find_live(session, project.id, REFILL)
    return live or outbox.enqueue(session, project_id=project.id, kind=REFILL, dedupe_key=REFILL)


def request_showcase(session: Session, checkpoint: Checkpoint) -> Job:
    """Have a model answer the showcase prompts; a request that waits already is enough."""
    key = f"showcase/{checkpoint.id}"
    live = job_queries.find_live(session, checkpoint.project_id, key)
    arguments = {"checkpoint_id": checkpoint.id}
    return live or outbox.enqueue(
        session, project_id=checkpoint.project_id, kind="showcase", arguments=arguments, dedupe_key=key
    )


def load_order(session: Session, claim: Claim) -> Order:
    """What is to be drawn for the round that is open now."""
    project = run_queries.get_project(session, claim.project_id)
    decoding = SamplingSettings.model_validate(project.sampling)
    ready = AutomationSettings.model_validate(project.automation).ready_tasks
    checkpoint = checkpoints.active_policy(session, project.id)
    return Order(
        project=project,
        checkpoint=checkpoint,
        decoding=decoding,
        sampler=samplers.ensure_sampler(session, project, checkpoint, decoding),
        round_id=checkpoints.open_round(session, project.id).id,
        target=math.ceil(ready * SURPLUS),
    )


def load_showcase(session: Session, claim: Claim) -> tuple[Order, Sequence[Prompt]]:
    """The showcase prompts, and the model of the job's arguments to answer them."""
    project = run_queries.get_project(session, claim.project_id)
    decoding = SamplingSettings.model_validate(project.sampling)
    checkpoint = run_queries.get_checkpoint(session, project.id, claim.arguments["checkpoint_id"])
    order = Order(
        project=project,
        checkpoint=checkpoint,
        decoding=decoding,
        sampler=samplers.ensure_sampler(session, project, checkpoint, decoding),
        round_id=checkpoints.open_round(session, project.id).id,
        target=0,
    )
    return order, queries.list_showcase_prompts(session, project.id, limit=SHOWCASE_PROMPTS)


def count_missing(session: Session, order: Order) -> int:
    """Tasks still to be made; 0 once another model answers the prompts."""
    if checkpoints.open_round(session, order.project.id).id != order.round_id:
        return 0
    return max(0, order.target - pipeline_queries.count_ready_tasks(session, order.project.id, order.round_id))


def choose_prompts(session: Session, order: Order, count: int, *, excluded: Collection[int]) -> list[Prompt]:
    """Prompts to answer next, `valid_share` of them held out; fewer than `count` where there are not as many.

    The fraction of a prompt that the share asks for is drawn, so that batches of any size keep it on average.
    """
    held_out = math.floor(count * order.decoding.valid_share + random.random())
    valid = queries.list_next_prompts(session, order.project.id, Split.VALID, limit=count, excluded=excluded)
    train = queries.list_next_prompts(session, order.project.id, Split.TRAIN, limit=count, excluded=excluded)
    held_out = max(min(held_out, len(valid)), count - len(train) if order.decoding.valid_share > 0 else 0)
    return [*valid[:held_out], *train[: count - held_out]]


def store_tasks(session: Session, claim: Claim, order: Order, drawn: Sequence[Drawn]) -> int:
    """Open a rank task for each prompt drawn, under the fence; how many.

    What was drawn for a round that is over, or for a prompt that was taken out meanwhile, is dropped.
    """
    checkpoint_queries.lock_registry(session, order.project.id)  # a promotion waits, or has happened
    jobs.heartbeat(session, claim)
    if checkpoints.open_round(session, order.project.id).id != order.round_id:
        return 0
    active = prompt_queries.lock_active(session, [one.prompt_id for one in drawn])
    kept = [one for one in drawn if one.prompt_id in active]
    for one in kept:
        tasks.create_rank_task(
            session,
            order.project,
            prompt_id=one.prompt_id,
            round_id=order.round_id,
            samples=one.samples,
            judgements_wanted=order.decoding.judgements_wanted,
        )
    return len(kept)


def finish_tasks(
    session: Session, claim: Claim, order: Order, *, made: int, missing: int, passed_over: Collection[int]
) -> None:
    """The job has succeeded. `passed_over` are the prompts that this worker knows to be answered too monotonously.

    A worker that has just started knows of none yet, so what the job before this one knew of the same kind of draw still stands.
    """
    draw = {"round": order.round_id, "sampler": order.sampler.id, "outputs": order.project.outputs_per_task}
    before = _newest_result(session, order.project)
    known = before.get("passed_over", 0) if all(before.get(name) == value for name, value in draw.items()) else 0
    jobs.succeed(session, claim, draw | {"made": made, "missing": missing, "passed_over": max(known, len(passed_over))})


def count_passed_over(session: Session, project: Project, round_id: int) -> int:
    """Prompts that gave fewer different answers than a task shows, as the newest filling of the queue knows."""
    newest = _newest_result(session, project)
    is_of_now = (newest.get("round"), newest.get("outputs")) == (round_id, project.outputs_per_task)
    return int(newest.get("passed_over", 0)) if is_of_now else 0


def _newest_result(session: Session, project: Project) -> dict[str, Any]:
    job = job_queries.find_newest(session, project.id, REFILL, JobState.SUCCEEDED)
    return (job.result if job is not None else None) or {}


def store_showcase(session: Session, claim: Claim, order: Order, drawn: Sequence[Drawn], seconds: float) -> None:
    """Keep a model's showcase answers, under the fence; the job has succeeded. Its result tells how fast the model draws here."""
    tokens = sum(sample.length_tokens or 0 for one in drawn for sample in one.samples)
    jobs.succeed(session, claim, {"made": len(drawn), "tokens": tokens, "seconds": round(seconds, 3)})
    session.add_all(
        Sample(
            project_id=order.project.id,
            prompt_id=one.prompt_id,
            origin=SampleOrigin.MODEL,
            sampler_id=sample.sampler_id,
            seed=sample.seed,
            text=sample.text,
            html=render_markdown(sample.text),
            length_tokens=sample.length_tokens,
            finish_reason=sample.finish_reason,
        )
        for one in drawn
        for sample in one.samples
    )


def find_length_problem(order: Order, *, tokens: int, context: int) -> str | None:
    """Why the model has no room for a prompt of so many tokens; None where it has."""
    if tokens + order.decoding.max_new_tokens <= context:
        return None
    return (
        f"It has {tokens} tokens; with {order.decoding.max_new_tokens} for the answer that exceeds the model's context of "
        f"{context}. Shorten it, or lower the longest response in the project's settings."
    )


def set_aside(session: Session, order: Order, prompt: Prompt, problem: str) -> None:
    """Mark a prompt that the model cannot read, so that people see why it is never answered."""
    queries.set_problem(session, order.project.id, prompt.id, problem)


def reconsider_prompts(session: Session, project: Project) -> None:
    """Forget why prompts were set aside: the project's sampling settings have changed."""
    queries.clear_problems(session, project.id)


def check_room(decoding: SamplingSettings, context: int) -> None:
    """Raise Conflict where the longest response alone fills the model's context, so that no prompt fits before it."""
    if decoding.max_new_tokens >= context:
        raise Conflict(
            f"The project's longest response of {decoding.max_new_tokens} tokens leaves no room for a prompt in the model's "
            f"context of {context} tokens. Lower it in the project's settings."
        )
