"""What happens by itself (house.md §6), one look at a project every few seconds.

`due_runs` is the rules for training, as a pure function of where the project stands. A run that failed or was cancelled counts as
requested: it is not started again until its rule fires anew, or a person retries it. A policy is never promoted here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy.orm import Session

from app.models import Checkpoint, CheckpointKind, CheckpointState, JobState, Project, Run, RunKind
from app.queries import automation as queries
from app.queries import jobs as job_queries
from app.queries import pipeline as pipeline_queries
from app.queries import runs as run_queries
from app.schemas.projects import AutomationSettings
from app.services import checkpoints, counters, rounds, runs, sampling, tasks

FEWEST_NEW_DEMONSTRATIONS = 10
"""SFT is not trained again for fewer, whatever their share: everything below it would be trained again too."""

FAILED_REFILL_WAITS = timedelta(minutes=1)
"""Pause before the queue is filled again after a job that failed."""

EMPTY_REFILL_WAITS = timedelta(minutes=10)
"""Pause after a job that could make no task although some were missing: prompts ran out, or all answers are alike."""


@dataclass(frozen=True)
class Standing:
    """Where a project's training stands."""

    now: datetime
    demonstrations: int
    judgements: int
    waiting_since: datetime | None
    """When the oldest judgement that no reward-model run was requested for was given."""
    last_sft: Run | None
    last_reward: Run | None
    sft: Checkpoint | None
    """The newest SFT model."""
    reward: Checkpoint | None
    """The active reward model."""
    is_reward_of_sft: bool
    """Whether the active reward model was fitted from that SFT model, whose texts it knows: a policy begins with them."""
    has_policy_run: bool
    """Whether a PPO run was ever requested for this pair of SFT and reward model."""
    live: frozenset[RunKind]


@dataclass(frozen=True)
class Due:
    """A run that is to be started, and why."""

    kind: RunKind
    reason: str


def list_projects(session: Session) -> Sequence[int]:
    """The projects to look at."""
    return queries.list_project_ids(session)


def tick(session: Session, project_id: int) -> None:
    """Look at one project: promote its first SFT model, activate a better reward model, start what is due, tidy its queue.

    Two ticks at once do nothing twice: the second one leaves.
    """
    if not queries.try_lock(session, project_id):
        return
    project = run_queries.get_project(session, project_id)
    settings = AutomationSettings.model_validate(project.automation)
    if settings.is_on:
        _promote_first_sft(session, project)
        _activate_newest_reward(session, project)
        for due in due_runs(_standing(session, project_id), settings):
            runs.request_run(session, project, kind=due.kind, reason=due.reason)
        if _must_refill(session, project, settings):
            sampling.request_tasks(session, project)
    for checkpoint in queries.list_unshown(session, project_id):  # after the refill: labellers wait, readers do not
        sampling.request_showcase(session, checkpoint)
    # Last, in the order of locks of a promotion: the registry, tasks, their leases.
    rounds.retire_leftovers(session, project)
    tasks.expire(session)


def due_runs(standing: Standing, settings: AutomationSettings) -> list[Due]:
    """The runs to start now: each stage only when nothing above it is live or due, since it would have to be done again."""
    if RunKind.SFT in standing.live:
        return []
    if reason := _why_sft(standing, settings):
        return [Due(RunKind.SFT, reason)]
    if standing.sft is None or RunKind.REWARD in standing.live:
        return []
    if reason := _why_reward(standing, standing.sft, settings):
        return [Due(RunKind.REWARD, reason)]
    may_climb = settings.train_policy and standing.is_reward_of_sft and not standing.has_policy_run
    if standing.reward is None or RunKind.PPO in standing.live or not may_climb:
        return []
    return [
        Due(
            RunKind.PPO, f"{standing.reward.name} became active; no policy has climbed it from {standing.sft.name} yet."
        )
    ]


def _why_sft(standing: Standing, settings: AutomationSettings) -> str | None:
    count = standing.demonstrations
    if standing.last_sft is None:
        return f"The first SFT model, from {count} demonstrations." if count and standing.sft is None else None
    former = standing.last_sft.demonstration_count
    if count - former < max(FEWEST_NEW_DEMONSTRATIONS, settings.demonstrations_growth * former):
        return None
    return f"Demonstrations grew from {former} to {count}; SFT is trained again, and everything below it follows."


def _why_reward(standing: Standing, sft: Checkpoint, settings: AutomationSettings) -> str | None:
    last = standing.last_reward
    fresh = standing.judgements - (last.judgement_count if last else 0)
    if last is not None and last.init_id != sft.id and standing.judgements:
        return f"{sft.name} is new; the reward model starts from it."
    if fresh >= settings.judgements_per_reward_model:
        return f"{fresh} new judgements (a reward model every {settings.judgements_per_reward_model})."
    limit = timedelta(hours=settings.hours_per_reward_model)
    if fresh > 0 and standing.waiting_since is not None and standing.now - standing.waiting_since >= limit:
        return f"{fresh} new judgements, the first more than {settings.hours_per_reward_model:g} hours old."
    return None


def _standing(session: Session, project_id: int) -> Standing:
    last_reward = run_queries.find_latest_run(session, project_id, RunKind.REWARD)
    judgements = counters.get(session, project_id, counters.JUDGEMENTS)
    fresh = judgements - (last_reward.judgement_count if last_reward else 0)
    sft = checkpoints.latest(session, project_id, CheckpointKind.SFT)
    reward = checkpoints.active_reward(session, project_id)
    return Standing(
        now=queries.get_now(session),
        demonstrations=counters.get(session, project_id, counters.DEMONSTRATIONS),
        judgements=judgements,
        waiting_since=queries.find_waiting_since(session, project_id, fresh) if fresh > 0 else None,
        last_sft=run_queries.find_latest_run(session, project_id, RunKind.SFT),
        last_reward=last_reward,
        sft=sft,
        reward=reward,
        is_reward_of_sft=sft is not None and reward is not None and checkpoints.is_fitted_from(session, reward, sft),
        has_policy_run=sft is not None
        and reward is not None
        and run_queries.find_policy_run(session, project_id, init_id=sft.id, reward_id=reward.id) is not None,
        live=run_queries.list_live_kinds(session, project_id),
    )


def _promote_first_sft(session: Session, project: Project) -> None:
    """Nobody should rank the base model's continuations once there is a model that answers."""
    sft = checkpoints.latest(session, project.id, CheckpointKind.SFT)
    if sft is None or sft.state != CheckpointState.CANDIDATE:
        return
    if checkpoints.open_round(session, project.id).number == 1:
        checkpoints.promote(session, None, project, sft)


def _activate_newest_reward(session: Session, project: Project) -> None:
    """Offer the newest reward model, which takes over unless it is worse; one that was ever retired is a person's choice."""
    newest = checkpoints.latest(session, project.id, CheckpointKind.REWARD)
    if newest is not None and newest.state == CheckpointState.CANDIDATE:
        checkpoints.activate_reward(session, project, newest)


def _must_refill(session: Session, project: Project, settings: AutomationSettings) -> bool:
    """Whether too few tasks are ready, and the last attempt gives no reason to wait."""
    round_ = checkpoints.open_round(session, project.id)
    if pipeline_queries.count_ready_tasks(session, project.id, round_.id) >= settings.ready_tasks:
        return False
    last = queries.find_latest_job(session, project.id, sampling.REFILL)
    if last is None or last.finished_at is None:
        return last is None or last.state not in job_queries.LIVE
    since = queries.get_now(session) - last.finished_at
    if last.state == JobState.FAILED:
        return since > FAILED_REFILL_WAITS
    result = last.result or {}
    could_not = result.get("round") == round_.id and result.get("missing", 0) > 0 and not result.get("made")
    return since > EMPTY_REFILL_WAITS if could_not else True
