"""Training runs: who may start which stage when, what a run reports while it trains, and how its model enters the registry."""

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field

from sqlalchemy.orm import Session

from app import jobs as outbox
from app import storage
from app.errors import Conflict
from app.models import (
    Checkpoint,
    CheckpointKind,
    JobState,
    Json,
    ParentRole,
    Project,
    Run,
    RunKind,
    RunLog,
    Snapshot,
    SnapshotKind,
    User,
)
from app.permissions import Access, Permission
from app.queries import checkpoints as checkpoint_queries
from app.queries import jobs as job_queries
from app.queries import runs as queries
from app.schemas.projects import SamplingSettings
from app.services import audit, checkpoints, counters, jobs
from app.services.jobs import Claim
from app.settings import get_settings

MAKES = {
    RunKind.SFT: CheckpointKind.SFT,
    RunKind.REWARD: CheckpointKind.REWARD,
    RunKind.PPO: CheckpointKind.POLICY,
}
"""What a run of each kind makes."""

LEARNS_FROM = {
    RunKind.SFT: SnapshotKind.DEMONSTRATIONS,
    RunKind.REWARD: SnapshotKind.RANKINGS,
    RunKind.PPO: SnapshotKind.PROMPTS,
}
"""The snapshot a run of each kind takes."""

TITLES = {RunKind.SFT: "SFT", RunKind.REWARD: "reward model", RunKind.PPO: "PPO"}


@dataclass(frozen=True)
class Inputs:
    """What a run is made from. `snapshot` is None until its worker has taken it; PPO climbs `reward`, a new one is measured
    beside it."""

    run: Run
    project: Project
    init: Checkpoint
    reward: Checkpoint | None
    snapshot: Snapshot | None


@dataclass
class Report:
    """What a trainer has said since its supervisor last saved it."""

    metrics: dict[int, Mapping[str, float | None]] = field(default_factory=dict)
    logs: list[str] = field(default_factory=list)
    step: int | None = None
    total: int | None = None
    eta_seconds: float | None = None

    def __bool__(self) -> bool:
        return bool(self.metrics or self.logs or self.step is not None)


def request_run(
    session: Session, project: Project, *, kind: RunKind, reason: str, requested_by: User | None = None
) -> Run:
    """Queue a run of one stage on all data so far; `reason` is shown to people.

    SFT starts from the base, the reward model and PPO from the newest SFT model, PPO climbs the active reward model.
    Raises Conflict where one of this kind is under way, or what it needs does not exist yet.
    """
    checkpoint_queries.lock_registry(session, project.id)
    if job_queries.find_live(session, project.id, _key(kind)) is not None:
        raise Conflict(f"A {TITLES[kind]} run is under way; wait for it, or cancel it first.")
    init, reward = _starting_models(session, project, kind)
    job = outbox.enqueue(
        session,
        project_id=project.id,
        kind="train",
        arguments={"overrides": _overrides(project, kind)},
        dedupe_key=_key(kind),
        requested_by_id=requested_by.id if requested_by else None,
    )
    run = Run(
        project_id=project.id,
        job_id=job.id,
        kind=kind,
        number=queries.get_next_number(session, project.id, kind),
        init_id=init.id,
        reward_id=reward.id if reward else None,
        config=project.training_config,
        judgement_count=counters.get(session, project.id, counters.JUDGEMENTS),
        demonstration_count=counters.get(session, project.id, counters.DEMONSTRATIONS),
        reason=reason,
    )
    session.add(run)
    session.flush()
    _record(session, requested_by, project, "start run", run)
    return run


def request_cancel(session: Session, access: Access, run: Run) -> JobState:
    """Stop a run: at once if it waits, else after its current step. Raises Conflict where it is over."""
    access.demand(Permission.TRAIN)
    state = jobs.request_cancel(session, run.job)
    _record(session, access.user, access.project, "cancel run", run)
    return state


def retry(session: Session, access: Access, run: Run) -> None:
    """Queue a failed or cancelled run once more. Raises Conflict.

    It goes on, with the settings it was started with, from the state it saved; where it saved none, it begins anew with the
    project's present settings, which may be what was wrong.
    """
    access.demand(Permission.TRAIN)
    checkpoint_queries.lock_registry(session, access.project.id)
    jobs.reopen(session, run.job)
    if not storage.has_progress(get_settings(), run.uid):
        run.config = access.project.training_config
        run.job.arguments = {"overrides": _overrides(access.project, run.kind)}
    _record(session, access.user, access.project, "retry run", run)


def load_inputs(session: Session, claim: Claim) -> Inputs:
    """All that the worker of a `train` job needs to know."""
    project_id = claim.project_id
    run = queries.get_run_of_job(session, project_id, claim.job_id)
    return Inputs(
        run=run,
        project=queries.get_project(session, project_id),
        init=queries.get_checkpoint(session, project_id, run.init_id),
        reward=queries.get_checkpoint(session, project_id, run.reward_id) if run.reward_id else None,
        snapshot=queries.get_snapshot(session, project_id, run.snapshot_id) if run.snapshot_id else None,
    )


def save_report(session: Session, claim: Claim, run_id: int, report: Report) -> JobState:
    """Save what the trainer said, under the fence, and say whether it should go on. Raises StaleAttempt.

    Numbers that are not finite are stored as null, which a curve shows as a gap.
    """
    state = jobs.heartbeat(session, claim, progress=report.step, total=report.total)
    if report.metrics:
        finite = {step: _finite(values) for step, values in report.metrics.items()}
        queries.upsert_metrics(session, claim.project_id, run_id, claim.attempt, finite)
    session.add_all(
        RunLog(project_id=claim.project_id, run_id=run_id, attempt=claim.attempt, text=text) for text in report.logs
    )
    if report.eta_seconds is not None:
        queries.get_run(session, claim.project_id, run_id).eta_seconds = report.eta_seconds
    return state


def attach_snapshot(session: Session, claim: Claim, run_id: int, snapshot_id: int) -> None:
    """Note which snapshot the run learns from; every later attempt keeps it. Raises StaleAttempt."""
    jobs.heartbeat(session, claim)
    queries.get_run(session, claim.project_id, run_id).snapshot_id = snapshot_id


def finish(session: Session, claim: Claim, *, sha256: str, metrics: Mapping[str, object]) -> Checkpoint:
    """Enter the model the run made, whose files lie in the store, as a candidate; the run has succeeded.

    Raises StaleAttempt, and BadInput where the files are not those of `sha256`.
    """
    checkpoints.verify_files(sha256)  # no transaction is open yet: the session begins one with its first statement
    jobs.heartbeat(session, claim)
    inputs = load_inputs(session, claim)
    run, parents = inputs.run, {ParentRole.INIT: inputs.init}
    if run.kind == RunKind.PPO and inputs.reward is not None:
        parents |= {ParentRole.REFERENCE: inputs.init, ParentRole.REWARD: inputs.reward}
    made = checkpoints.register(
        session, inputs.project, kind=MAKES[run.kind], sha256=sha256, parents=parents, metrics=metrics
    )
    run.result_id, run.metrics, run.eta_seconds = made.id, made.metrics, None
    jobs.succeed(session, claim, {"checkpoint": str(made.uid)})
    return made


def _starting_models(session: Session, project: Project, kind: RunKind) -> tuple[Checkpoint, Checkpoint | None]:
    """The checkpoint a run begins with, and the active reward model: PPO climbs it, a new one is measured beside it.

    Raises Conflict saying what is missing.
    """
    if kind == RunKind.SFT:
        if not counters.get(session, project.id, counters.DEMONSTRATIONS):
            raise Conflict(
                "There are no demonstrations yet; write or import some, then SFT has something to learn from."
            )
        return queries.get_base(session, project.id), None
    init = checkpoints.latest(session, project.id, CheckpointKind.SFT)
    if init is None:
        raise Conflict(f"A {TITLES[kind]} run starts from an SFT model, and there is none yet; run SFT first.")
    if kind == RunKind.REWARD:
        if not counters.get(session, project.id, counters.JUDGEMENTS):
            raise Conflict("There are no judgements to learn from yet; rank some outputs first.")
        return init, checkpoints.active_reward(session, project.id)
    reward = checkpoints.active_reward(session, project.id)
    if reward is None:
        raise Conflict("PPO climbs the active reward model, and there is none yet; train a reward model first.")
    return init, reward


def _overrides(project: Project, kind: RunKind) -> dict[str, float | int]:
    """Settings a run takes from the project: PPO learns at the length and temperature people see, unless its table differs."""
    if kind != RunKind.PPO:
        return {}
    decoding = SamplingSettings.model_validate(project.sampling)
    chosen = tomllib.loads(project.training_config).get("ppo", {})
    taken = {"temperature": decoding.temperature, "max_new_tokens": decoding.max_new_tokens}
    return {name: value for name, value in taken.items() if name not in chosen}


def _key(kind: RunKind) -> str:
    return f"train/{kind}"


def _finite(values: Mapping[str, float | None]) -> Json:
    return {name: value if value is not None and math.isfinite(value) else None for name, value in values.items()}


def _record(session: Session, actor: User | None, project: Project, action: str, run: Run) -> None:
    audit.record(
        session,
        actor=actor,
        project=project,
        action=action,
        subject_kind="run",
        subject_uid=run.uid,
        kind=run.kind,
        number=run.number,
        reason=run.reason,
    )
