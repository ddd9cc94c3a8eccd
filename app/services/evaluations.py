"""Evaluations: which of two models people prefer on the same prompts, asked blindly.

Both answer every prompt once, as the project samples now. Who compares sees neither name nor side: the order is one of chance
for each person, and what is stored speaks of outputs.
"""

import uuid
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy.orm import Session

from app import jobs as outbox
from app.errors import BadInput, Conflict, NotFound
from app.models import (
    Checkpoint,
    CheckpointKind,
    Evaluation,
    EvaluationState,
    Job,
    JobState,
    Phase,
    Project,
    Prompt,
    Purpose,
    Split,
    TaskKind,
    TaskState,
)
from app.permissions import Access, Permission
from app.queries import checkpoints as checkpoint_queries
from app.queries import evaluations as queries
from app.queries import jobs as job_queries
from app.queries import prompts as prompt_queries
from app.queries import runs as run_queries
from app.schemas.projects import SamplingSettings
from app.services import audit, jobs, notices, samplers, tasks
from app.services.jobs import Claim
from app.services.sampling import Order
from app.services.tasks import NewSample

if TYPE_CHECKING:
    from app.statistics import Estimate

MOST_PROMPTS = 1000
"""Prompts of one evaluation."""


_CLOSED_NOTICE = "A comparison you had begun is ended. What you did is kept. Leave it, or submit it all the same."


@dataclass(frozen=True)
class Report:
    """How an evaluation stands. `win_rate` is that of the left model; None before the first answer."""

    evaluation: Evaluation
    left: str
    right: str
    job: Job | None
    tasks: int
    judgements: int
    win_rate: "Estimate | None"

    @property
    def may_be_retried(self) -> bool:
        """Whether its answers are not drawn and nothing draws them."""
        is_waiting = self.evaluation.state == EvaluationState.SAMPLING
        return is_waiting and self.job is not None and self.job.state in (JobState.FAILED, JobState.CANCELLED)


def list_models(session: Session, project: Project) -> list[Checkpoint]:
    """Checkpoints that answer prompts, the newest first."""
    found = checkpoint_queries.list_checkpoints(session, project.id)
    return sorted((one for one in found if one.kind != CheckpointKind.REWARD), key=lambda one: one.id, reverse=True)


def find_model(session: Session, project: Project, uid: str, field: str) -> Checkpoint:
    """One of them by its uid as a form sends it. Raises BadInput naming the form's field."""
    for checkpoint in list_models(session, project):
        if str(checkpoint.uid) == uid:
            return checkpoint
    raise BadInput("Choose one of the project's models.", field=field)


def begin(
    session: Session,
    access: Access,
    *,
    left: str,
    right: str,
    split: Split,
    prompts: int,
    judgements_wanted: int,
    key: uuid.UUID,
) -> Evaluation:
    """Freeze prompts and have both models answer them; the tasks open once they have. Raises BadInput.

    The same again under the same key is the evaluation begun before.
    """
    access.demand(Permission.EVALUATE)
    project = access.project
    uid = _request(session, project, key, left, right, split, prompts, judgements_wanted)
    if begun := queries.find(session, project.id, uid):
        return begun
    models = [find_model(session, project, uid, side) for uid, side in ((left, "left"), (right, "right"))]
    if models[0].id == models[1].id:
        raise BadInput("Choose two different models.", field="right")
    check_numbers(prompts, judgements_wanted)
    chosen = queries.list_prompts(session, project.id, split, limit=prompts)
    if not chosen:
        raise BadInput(
            f"The split {split} has no prompt that may be answered. Import some, or choose another.", field="split"
        )
    decoding = SamplingSettings.model_validate(project.sampling)
    sides = [samplers.ensure_sampler(session, project, model, decoding) for model in models]
    evaluation = Evaluation(
        project_id=project.id,
        uid=uid,
        left_id=sides[0].id,
        right_id=sides[1].id,
        cohort=None,
        phase=Phase.TRAIN,
        state=EvaluationState.SAMPLING,
    )
    queries.insert(session, evaluation, [prompt.id for prompt in chosen])
    outbox.enqueue(
        session,
        project_id=project.id,
        kind="compare",
        arguments={"evaluation_id": evaluation.id, "judgements_wanted": judgements_wanted},
        dedupe_key=queries.job_key(evaluation.id),
        requested_by_id=access.user.id,
    )
    details = {"left": models[0].name, "right": models[1].name, "split": split.value, "prompts": len(chosen)}
    _record(session, access, "begin evaluation", evaluation, **details)
    return evaluation


def close(session: Session, access: Access, uid: uuid.UUID) -> None:
    """Ask for no more of an evaluation: what draws its answers stops, its open tasks retire. Raises NotFound.

    Who has begun one of them is told, and may still submit it.
    """
    evaluation = _find(session, access, uid)
    if evaluation.state == EvaluationState.CLOSED:
        return
    job = queries.find_job(session, evaluation)
    if job and job.state in job_queries.LIVE:
        jobs.request_cancel(session, job)
    evaluation.state = EvaluationState.CLOSED
    retired = queries.lock_open_tasks(session, evaluation)
    for task in retired:
        task.state = TaskState.RETIRED
        notices.tell_at_work(session, task, _CLOSED_NOTICE)
    _record(session, access, "close evaluation", evaluation, retired_tasks=len(retired))


def retry(session: Session, access: Access, uid: uuid.UUID) -> None:
    """Have the models of an evaluation answer once more, where drawing failed. Raises NotFound, Conflict."""
    evaluation = _find(session, access, uid)
    job = queries.find_job(session, evaluation)
    if evaluation.state != EvaluationState.SAMPLING or job is None:
        raise Conflict("The answers of this evaluation are drawn already, or it was closed.")
    jobs.reopen(session, job)
    _record(session, access, "retry evaluation", evaluation)


def _find(session: Session, access: Access, uid: uuid.UUID) -> Evaluation:
    access.demand(Permission.EVALUATE)
    evaluation = queries.find(session, access.project.id, uid)
    if evaluation is None:
        raise NotFound("There is no such evaluation in this project.")
    return evaluation


def _request(session: Session, project: Project, key: uuid.UUID, *asked: object) -> uuid.UUID:
    """What a request is known by when its form is sent again; others of the project wait until it is through."""
    queries.lock_asking(session, project.id)
    return uuid.uuid5(key, " ".join(map(str, (project.id, *asked))))


def check_numbers(prompts: int, judgements_wanted: int) -> None:
    """Raise BadInput for numbers of prompts or judgements that cannot be asked."""
    if not 1 <= prompts <= MOST_PROMPTS:
        raise BadInput(f"{prompts} prompts were asked for; choose 1 to {MOST_PROMPTS:,}.", field="prompts")
    if not 1 <= judgements_wanted <= 100:
        raise BadInput(f"{judgements_wanted} judgements were asked for; choose 1 to 100.", field="judgements_wanted")


def load(session: Session, claim: Claim) -> tuple[list[Order], Sequence[Prompt]]:
    """What the job is to draw: the orders of the left and the right model, and the frozen prompts."""
    project = run_queries.get_project(session, claim.project_id)
    evaluation = queries.get(session, project.id, claim.arguments["evaluation_id"])
    orders = []
    for sampler in queries.list_samplers(session, evaluation):
        if sampler.checkpoint_id is None:
            raise BadInput("Only models of the project's registry can be compared.")
        orders.append(
            Order(
                project=project,
                checkpoint=run_queries.get_checkpoint(session, project.id, sampler.checkpoint_id),
                decoding=SamplingSettings.model_validate({**project.sampling, **sampler.decoding}),
                sampler=sampler,
                round_id=0,
                target=0,
            )
        )
    return orders, queries.list_frozen(session, evaluation)


def store(
    session: Session, claim: Claim, prompts: Sequence[Prompt], answers: Sequence[Mapping[int, NewSample]]
) -> None:
    """Open a task for each prompt that both answered differently, under the fence; the job has succeeded.

    Where the evaluation was closed meanwhile, nothing opens. A prompt that was taken out meanwhile counts as not answered.
    """
    project = run_queries.get_project(session, claim.project_id)
    evaluation = queries.get(session, project.id, claim.arguments["evaluation_id"])
    if evaluation.state == EvaluationState.CLOSED:
        jobs.mark_cancelled(session, claim)
        return
    left, right = answers
    identical = unanswered = 0
    active = prompt_queries.lock_active(session, [prompt.id for prompt in prompts])
    for prompt in prompts:
        if prompt.id not in active or prompt.id not in left or prompt.id not in right:
            unanswered += 1
        elif tasks.same_text(left[prompt.id].text) == tasks.same_text(right[prompt.id].text):
            identical += 1
        else:
            tasks.create_rank_task(
                session,
                project,
                prompt_id=prompt.id,
                round_id=None,
                samples=(left[prompt.id], right[prompt.id]),
                kind=TaskKind.COMPARE,
                evaluation_id=evaluation.id,
                purpose=Purpose.EVALUATE,
                judgements_wanted=claim.arguments["judgements_wanted"],
            )
    evaluation.state = EvaluationState.OPEN
    evaluation.result = {"identical": identical, "unanswered": unanswered}
    jobs.succeed(session, claim, evaluation.result)


def list_reports(session: Session, project: Project) -> list[Report]:
    """Every evaluation with its win rate so far, the newest first."""
    return [_report(session, project, *row) for row in queries.list_all(session, project.id)]


def _report(
    session: Session, project: Project, evaluation: Evaluation, left: str, right: str, job: Job | None
) -> Report:
    from app import statistics  # it loads numpy, which the pages do without

    outcomes: dict[str, list[float]] = defaultdict(list)
    for prompt, p_left in queries.list_outcomes(session, project.id, evaluation.id):
        outcomes[prompt].append(p_left)
    judgements = sum(map(len, outcomes.values()))
    identical = (evaluation.result or {}).get("identical", 0)
    asked = queries.count_tasks(session, evaluation.id)
    return Report(
        evaluation=evaluation,
        left=left,
        right=right,
        job=job,
        tasks=asked,
        judgements=judgements,
        win_rate=statistics.judged_win_rate(outcomes, alike=identical, asked=asked) if judgements else None,
    )


def ask_ratings(
    session: Session,
    access: Access,
    *,
    model: str,
    split: Split,
    prompts: int,
    judgements_wanted: int,
    key: uuid.UUID,
) -> int:
    """Open tasks to rate answers a model has given already, one to a prompt; how many. Raises BadInput.

    The same again under the same key opens none.
    """
    access.demand(Permission.EVALUATE)
    project = access.project
    checkpoint = find_model(session, project, model, "model")
    check_numbers(prompts, judgements_wanted)
    request = _request(session, project, key, TaskKind.RATE, model, split, prompts, judgements_wanted)
    if asked := queries.count_asked(session, project.id, request, most=MOST_PROMPTS):
        return asked
    chosen = queries.list_unrated(session, project.id, checkpoint.id, split, limit=prompts)
    if not chosen:
        raise BadInput(
            f"{checkpoint.name} has no answer to a prompt of {split} that nobody was asked to rate. Answers come with the "
            "queue of rankings, with a new model, and with comparisons.",
            field="model",
        )
    queries.insert_tasks(session, project.id, TaskKind.RATE, Purpose.EVALUATE, chosen, judgements_wanted, request)
    _record_asked(session, access, "ask for ratings", len(chosen), split, model=checkpoint.name)
    return len(chosen)


def ask_labels(
    session: Session, access: Access, *, split: Split, prompts: int, judgements_wanted: int, key: uuid.UUID
) -> int:
    """Open tasks to label prompts, those without a category first; how many. Raises BadInput.

    The same again under the same key opens none.
    """
    access.demand(Permission.EVALUATE)
    project = access.project
    check_numbers(prompts, judgements_wanted)
    request = _request(session, project, key, TaskKind.LABEL_PROMPT, split, prompts, judgements_wanted)
    if asked := queries.count_asked(session, project.id, request, most=MOST_PROMPTS):
        return asked
    chosen = queries.list_unlabelled(session, project.id, split, limit=prompts)
    if not chosen:
        raise BadInput(f"The split {split} has no prompt that nobody was asked to label.", field="split")
    queries.insert_tasks(session, project.id, TaskKind.LABEL_PROMPT, Purpose.REVIEW, chosen, judgements_wanted, request)
    _record_asked(session, access, "ask for labels", len(chosen), split)
    return len(chosen)


def _record_asked(
    session: Session, access: Access, action: str, count: int, split: Split, model: str | None = None
) -> None:
    audit.record(
        session,
        actor=access.user,
        project=access.project,
        action=action,
        subject_kind="tasks",
        tasks=count,
        split=split.value,
        model=model,
    )


def _record(session: Session, access: Access, action: str, evaluation: Evaluation, **details: str | int) -> None:
    audit.record(
        session,
        actor=access.user,
        project=access.project,
        action=action,
        subject_kind="evaluation",
        subject_uid=evaluation.uid,
        **details,
    )
