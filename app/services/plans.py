"""Sampling plans in people's hands: drafted, looked at with their cost, started, stopped, taken back.

What a worker does with one is in `plan_work`; what one will cost in `plan_estimates`.
"""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy.orm import Session

from app import jobs as outbox
from app.errors import BadInput, Conflict, NotFound
from app.models import (
    Checkpoint,
    CheckpointKind,
    Endpoint,
    JobState,
    Project,
    PromptPool,
    SamplingPlan,
    Stream,
    TaskState,
)
from app.permissions import Access, Permission
from app.queries import checkpoints as checkpoint_queries
from app.queries import endpoints as endpoint_queries
from app.queries import plans as queries
from app.queries.jobs import LIVE
from app.queries.plans import Wanted
from app.schemas.plans import Order, Part, PlanCounts, PlanSettings
from app.schemas.projects import SamplingSettings
from app.services import audit, jobs, notices, plan_estimates
from app.services.plan_work import JOB

LONGEST_NAME = 80

_WITHDRAWN_NOTICE = "A task you had begun was withdrawn. What you did is kept. Leave it, or submit it all the same."


@dataclass(frozen=True)
class Choices:
    """What a plan can be made of."""

    models: Sequence[Checkpoint]
    rewards: Sequence[Checkpoint]
    endpoints: Sequence[Endpoint]
    pools: Sequence[PromptPool]


@dataclass(frozen=True)
class Line:
    """One line of a plan's report: a stream with its tasks."""

    stream: Stream
    wanted: int
    made: int
    open: int
    done: int
    retired: int


@dataclass(frozen=True)
class Report:
    """A plan as it stands."""

    plan: SamplingPlan
    settings: PlanSettings
    counts: PlanCounts
    names: Mapping[uuid.UUID, str]
    """Of models and endpoints, by uid; of what was removed too."""

    @property
    def state(self) -> str:
        """Of its job; `draft` before there is one."""
        return self.plan.job.state.value if self.plan.job else "draft"

    @property
    def is_live(self) -> bool:
        """Whether a worker has it or will."""
        return self.plan.job is not None and self.plan.job.state in LIVE

    @property
    def share(self) -> float:
        """Of the tasks wanted, those made."""
        return min(1.0, self.counts.tasks / self.settings.tasks)

    @property
    def seconds_left(self) -> float | None:
        """Until the last task, if it goes on as so far; None before the first and where nobody works on it."""
        if not self.counts.tasks or self.state != "running":
            return None
        return self.counts.seconds / self.counts.tasks * (self.settings.tasks - self.counts.tasks)


def list_choices(session: Session, project: Project) -> Choices:
    """Models, endpoints and pools, the newest models first."""
    found = sorted(checkpoint_queries.list_checkpoints(session, project.id), key=lambda one: one.id, reverse=True)
    return Choices(
        models=[one for one in found if one.kind != CheckpointKind.REWARD],
        rewards=[one for one in found if one.kind == CheckpointKind.REWARD],
        endpoints=endpoint_queries.list_endpoints(session, project.id),
        pools=queries.list_pools(session, project.id),
    )


def save_draft(
    session: Session,
    access: Access,
    name: str,
    settings: PlanSettings,
    *,
    replaces: uuid.UUID | None = None,
    key: uuid.UUID | None = None,
) -> SamplingPlan:
    """Keep a plan to be looked at with its cost; nothing is drawn. With `replaces`, over a draft there is.

    The same again under the same key is the plan drafted before. Raises BadInput naming the form's field where it is made of
    something that the project does not have, NotFound, Conflict.
    """
    access.demand(Permission.TRAIN)
    name = " ".join(name.split())
    if not 1 <= len(name) <= LONGEST_NAME or not name.isprintable():
        raise BadInput(
            f"Give the plan a name of 1 to {LONGEST_NAME} characters, so that people know it again.", field="name"
        )
    _check(session, access.project, settings)
    told = settings.model_dump(mode="json")
    if replaces is not None:
        plan = _find(session, access, replaces, lock=True)
        if plan.job_id is not None:
            raise Conflict("This plan was started already; its settings stand. Order it again with others.")
        plan.name, plan.settings = name, told
        _record(session, access, "change plan", plan)
        return plan
    uid = uuid.uuid5(key or uuid.uuid4(), f"{access.project.id} {name} {told}")
    queries.lock_drafting(session, access.project.id)
    if drafted := queries.find(session, access.project.id, uid):
        return drafted
    plan = SamplingPlan(
        project_id=access.project.id,
        uid=uid,
        name=name,
        settings=told,
        counts={},
        created_by_id=access.user.id,
    )
    queries.insert_plan(session, plan)
    _record(session, access, "create plan", plan)
    return plan


def _check(session: Session, project: Project, settings: PlanSettings) -> None:
    choices = list_choices(session, project)
    models = {one.uid for one in choices.models}
    rewards = {one.uid for one in choices.rewards}
    outside = {one.uid for one in choices.endpoints}
    for at, part in enumerate(settings.parts):
        if part.source not in (models if part.kind == "checkpoint" else outside):
            raise BadInput("Choose one of the project's models or endpoints.", field=f"parts-{at}-source")
        if part.reward is not None and part.reward not in rewards:
            raise BadInput("Choose one of the project's reward models.", field=f"parts-{at}-reward")
    if settings.order == Order.DISAGREEMENT:
        for field, judge in (("first_judge", settings.first_judge), ("second_judge", settings.second_judge)):
            if judge not in rewards:
                raise BadInput("Choose one of the project's reward models.", field=field)
    if not set(settings.pools) <= {pool.uid for pool in choices.pools}:
        raise BadInput("Choose among the project's pools.", field="pools")
    wanted = Wanted(project.id, settings.pools, settings.categories)
    splits = {lane.split for lane in settings.lanes()}
    if not any(queries.count_matching(session, wanted, split, never_ranked=False) for split in splits):
        raise BadInput(
            "No prompt matches: none of these pools and categories may be answered. Switch a pool on, or choose others.",
            field="pools",
        )


def start(session: Session, access: Access, uid: uuid.UUID, *, seen: str | None = None) -> SamplingPlan:
    """Have a worker draw. A second click finds it started.

    `seen` is the fingerprint of the settings whose cost was shown. Raises Conflict where the plan was changed since, NotFound,
    BadInput where a model or endpoint is gone.
    """
    plan = _find(session, access, uid, lock=True)
    if plan.job_id is not None:
        return plan
    settings = PlanSettings.model_validate(plan.settings)
    if seen is not None and seen != settings.fingerprint:
        raise Conflict("The plan was changed since its cost was shown to you. Look at the new figures, then start it.")
    _check(session, access.project, settings)
    cost = plan_estimates.estimate(session, access.project, settings, map_sources(session, access.project))
    plan.counts = PlanCounts(most_money=cost.most_money).to_json()
    job = outbox.enqueue(
        session,
        project_id=access.project.id,
        kind=JOB,
        arguments={"plan_id": plan.id},
        dedupe_key=queries.job_key(plan.id),
        requested_by_id=access.user.id,
    )
    plan.job_id = job.id
    _record(session, access, "start plan", plan)
    return plan


def cancel(session: Session, access: Access, uid: uuid.UUID) -> None:
    """Stop drawing; the tasks made stay. One that is being stopped or is over stays so. Raises NotFound, Conflict for a draft."""
    plan = _find(session, access, uid)
    if plan.job is None:
        raise Conflict("This plan was not started; there is nothing to stop.")
    if plan.job.state not in (JobState.QUEUED, JobState.RUNNING):
        return
    jobs.request_cancel(session, plan.job)
    _record(session, access, "cancel plan", plan)


def retry(session: Session, access: Access, uid: uuid.UUID) -> None:
    """Go on from where it ended; no task is made twice. One that goes on already is left. Raises NotFound, Conflict."""
    plan = _find(session, access, uid)
    if plan.job is None:
        raise Conflict("This plan was not started yet. Start it.")
    if plan.job.state in (JobState.QUEUED, JobState.RUNNING):
        return
    jobs.reopen(session, plan.job)
    _record(session, access, "retry plan", plan)


def discard(session: Session, access: Access, uid: uuid.UUID) -> None:
    """Throw a draft away. Raises NotFound, Conflict where it was started."""
    plan = _find(session, access, uid, lock=True)
    if plan.job_id is not None:
        raise Conflict("This plan was started; it stays on record. Stop it, or withdraw its open tasks.")
    _record(session, access, "discard plan", plan)
    queries.delete_plan(session, plan)


def withdraw(session: Session, access: Access, uid: uuid.UUID) -> int:
    """Retire a plan's open tasks; who has begun one is told, and may still submit it. How many. Raises NotFound, Conflict."""
    plan = _find(session, access, uid)
    if plan.job is None or plan.job.state in LIVE:
        raise Conflict("Its tasks are still being made, or were never. Stop the plan first.")
    retired = queries.lock_open_tasks(session, plan)
    for task in retired:
        task.state = TaskState.RETIRED
        notices.tell_at_work(session, task, _WITHDRAWN_NOTICE)
    if retired:
        _record(session, access, "withdraw plan", plan, retired_tasks=len(retired))
    return len(retired)


def find(session: Session, access: Access, uid: uuid.UUID) -> SamplingPlan:
    """A plan of this project, to be read. Raises NotFound."""
    access.demand(Permission.READ_PIPELINE)
    plan = queries.find(session, access.project.id, uid)
    if plan is None:
        raise NotFound("There is no such sampling plan in this project.")
    return plan


def map_sources(session: Session, project: Project) -> dict[uuid.UUID, Checkpoint | Endpoint]:
    """Models and endpoints by uid, those that were removed too."""
    found: list[Checkpoint | Endpoint] = [
        *checkpoint_queries.list_checkpoints(session, project.id),
        *endpoint_queries.list_endpoints(session, project.id, with_removed=True),
    ]
    return {one.uid: one for one in found}


def report(plan: SamplingPlan, sources: Mapping[uuid.UUID, Checkpoint | Endpoint]) -> Report:
    """How a plan stands."""
    return Report(
        plan=plan,
        settings=PlanSettings.model_validate(plan.settings),
        counts=PlanCounts.from_json(plan.counts),
        names={uid: source.name for uid, source in sources.items()},
    )


def list_lines(session: Session, report: Report) -> list[Line]:
    """What was made of each stream, and how far people are with it."""
    counted = queries.count_tasks(session, report.plan.id)
    wanted: dict[Stream, int] = {}
    for lane, count in report.settings.lanes().items():
        wanted[lane.stream] = wanted.get(lane.stream, 0) + count
    return [
        Line(
            stream=stream,
            wanted=wanted[stream],
            made=report.counts.of_stream(stream),
            open=counted.get((stream, TaskState.OPEN), 0),
            done=counted.get((stream, TaskState.DONE), 0),
            retired=counted.get((stream, TaskState.RETIRED), 0),
        )
        for stream in Stream
        if stream in wanted
    ]


def suggest(session: Session, project: Project) -> PlanSettings:
    """What the form begins with: the active model as the project samples, with the project's share of held-out prompts."""
    sampling = SamplingSettings.model_validate(project.sampling)
    active = checkpoint_queries.find_active_policy(session, project.id)
    part = Part(
        kind="checkpoint",
        source=active.uid if active else uuid.UUID(int=0),
        responses=project.outputs_per_task,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        max_new_tokens=sampling.max_new_tokens,
    )
    return PlanSettings(
        parts=(part,),
        judgements_wanted=sampling.judgements_wanted,
        valid_share=sampling.valid_share,
    )


def _find(session: Session, access: Access, uid: uuid.UUID, *, lock: bool = False) -> SamplingPlan:
    access.demand(Permission.TRAIN)
    plan = queries.find(session, access.project.id, uid, lock=lock)
    if plan is None:
        raise NotFound("There is no such sampling plan in this project.")
    return plan


def _record(session: Session, access: Access, action: str, plan: SamplingPlan, **details: int) -> None:
    settings = PlanSettings.model_validate(plan.settings)
    audit.record(
        session,
        actor=access.user,
        project=access.project,
        action=action,
        subject_kind="plan",
        subject_uid=plan.uid,
        plan=plan.name,
        tasks=settings.tasks,
        outputs=settings.outputs,
        order=settings.order.value,
        **details,
    )
