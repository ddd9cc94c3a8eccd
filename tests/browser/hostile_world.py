"""The starter project with hostile text wherever a person, a model or a file can put one, written past every check."""

import uuid
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from app import db
from app.markup import render_markdown
from app.models import (
    AuditEntry,
    BaseCheckpoint,
    Checkpoint,
    Cohort,
    Draft,
    Guideline,
    Invitation,
    Job,
    JobState,
    Judgement,
    LabelSchema,
    Membership,
    Phase,
    Project,
    Prompt,
    PromptPool,
    Role,
    Run,
    RunKind,
    RunLog,
    RunMetric,
    Sample,
    SampleOrigin,
    Task,
    TaskKind,
    User,
)
from app.permissions import Access
from app.queries import sampling as sampling_queries
from app.schemas.demonstrations import Writing
from app.schemas.projects import SamplingSettings
from app.services import accounts, checkpoints, demonstrations, guidelines, judgements, people, runs, samplers, tasks
from tests.app import registry
from tests.app.hostile import LINES, NAME, PAYLOADS
from tests.app.queue import rank
from tests.browser import hostile_intake, hostile_tasks

OUTPUTS = tuple("\n\n".join(PAYLOADS[start::9]) for start in range(9))
"""All payloads as nine responses."""

CONVERSATION = [{"role": role, "content": payload} for payload in PAYLOADS for role in ("user", "assistant")] + [
    {"role": "user", "content": NAME}
]
"""Each payload by itself, once as a person typed it and once as a model's Markdown."""


@dataclass(frozen=True)
class HostileWorld:
    """Who looks at it, and the pages that show it."""

    token: str
    rank: str
    demonstrate: str
    paths: tuple[str, ...]
    shortened: tuple[str, ...]
    """Those with the beginning alone, or a part."""


def plant() -> HostileWorld:
    """Fill the project and open its pages for the owner of the installation. Commits."""
    with db.transaction() as session:
        project = session.scalars(select(Project).where(Project.slug == "starter")).one()
        owner = session.scalars(select(User).where(User.is_owner)).one()
        access = Access(owner, project, frozenset(Role), Cohort.TRAINING)
        name_all(session, project, owner)
        waiting, answered, skipped = (rank_task(session, project) for _ in range(3))
        judge(session, access, answered)
        tasks.skip(session, access, skipped.uid, reason=tasks.WhySkipped.OTHER)
        written, stored = (demonstration_task(session, project, owner) for _ in range(2))
        demonstrations.submit(session, access, stored.uid, Writing(NAME), idempotency_key=uuid.uuid4())
        for task in (waiting, written):
            content = {"note": NAME, "text": NAME, "answers": {"words": NAME}}
            session.add(
                Draft(project_id=project.id, task_id=task.id, user_id=owner.id, content=content, updated_at=now())
            )
        run = training(session, project, owner)
        model = show_model(session, project)
        invitation = invite(session, project, owner)
        home = "/p/starter"
        of_intake, begun = hostile_intake.plant(session, access)
        return HostileWorld(
            token=accounts.sign_in(session, owner),
            rank=f"{home}/tasks/{waiting.uid}",
            demonstrate=f"{home}/demonstrate/{written.uid}",
            paths=(
                "/projects",
                "/account",
                invitation,
                f"{home}/",
                f"{home}/tasks/{answered.uid}",
                f"{home}/tasks/{answered.uid}/revise",
                f"{home}/tasks/{skipped.uid}",
                f"{home}/guidelines",
                f"{home}/people",
                f"{home}/prompts",
                f"{home}/settings",
                f"{home}/audit",
                f"{home}/pipeline",
                f"{home}/runs",
                f"{home}/runs/{run.uid}",
                f"{home}/demonstrate/{stored.uid}",
                f"{home}/demonstrate/{stored.uid}/revise",
                *hostile_tasks.plant(session, access),
                *of_intake,
            ),
            shortened=(
                *begun,
                f"{home}/history",
                f"{home}/checkpoints/{model.uid}",
                f"{home}/qualification",
                f"{home}/school",
            ),
        )


def now() -> datetime:
    return datetime.now(UTC)


def name_all(session: Session, project: Project, owner: User) -> None:
    """Give the person, the project, its base and its pools their names, and the project its guidelines and questions."""
    owner.name = project.name = NAME
    owner.preferences = {"theme": NAME, "keys": {"next": NAME, "help": '"><script>canary()</script>', "are_on": NAME}}
    session.scalars(select(BaseCheckpoint)).one().name = NAME
    session.scalars(select(PromptPool)).one().name = NAME
    member = registry.make_user(session, name="Eve")
    member.name = NAME
    session.add(Membership(project_id=project.id, user_id=member.id, roles=[Role.LABELLER]))
    project.label_schema_version = 2
    session.add(LabelSchema(project_id=project.id, version=2, fields=questions()))
    body = "\n\n".join(PAYLOADS)
    guideline = Guideline(
        project_id=project.id,
        version=2,
        phase=Phase.TRAIN,
        body=body,
        html="".join(render_markdown(payload, keeps_breaks=False) for payload in PAYLOADS),
        published_at=now(),
        author_id=owner.id,
    )
    session.add(guideline)
    session.flush()
    guidelines.acknowledge(session, Access(owner, project, frozenset(Role), Cohort.TRAINING), guideline)
    session.add(
        AuditEntry(
            project_id=project.id,
            actor_id=owner.id,
            action=NAME,
            subject_kind="project",
            details={NAME: NAME, "roles": [NAME, NAME], "file": NAME},
        )
    )


def questions() -> list[dict[str, object]]:
    """A field of every type about everything; together they ask in every hostile line."""
    kinds = [(scope, kind) for scope in ("prompt", "output", "task") for kind in ("flag", "scale", "choice", "text")]
    fields = []
    for number, (scope, kind) in enumerate(kinds):
        words = " ".join(LINES[number :: len(kinds)])
        choices = {"scale": [1, 2, 3], "choice": [words, LINES[number]]}.get(kind, [])
        key = f"{scope}_{kind}"
        fields.append({"key": key, "label": words, "scope": scope, "type": kind, "choices": choices, "help": words})
    return fields


def prompt_of(session: Session, project: Project) -> Prompt:
    """A prompt whose every turn is hostile."""
    prompt = registry.make_prompt(session, project)
    prompt.messages, prompt.source, prompt.problem = CONVERSATION, NAME, NAME
    return prompt


def rank_task(session: Session, project: Project) -> Task:
    """The first task of the queue: nine hostile responses to a hostile conversation, held by the owner."""
    base = checkpoints.active_policy(session, project.id)
    sampler = samplers.ensure_sampler(session, project, base, SamplingSettings())
    sampler.prefix = NAME
    task = tasks.create_rank_task(
        session,
        project,
        prompt_id=prompt_of(session, project).id,
        round_id=checkpoints.open_round(session, project.id).id,
        samples=[tasks.NewSample(text, sampler.id, seed, 3, "length") for seed, text in enumerate(OUTPUTS)],
    )
    hold(session, task, session.scalars(select(User).where(User.is_owner)).one())
    return task


def hold(session: Session, task: Task, person: User) -> None:
    lease = registry.hold(session, task, person, until=datetime(2100, 1, 1, tzinfo=UTC))
    lease.shown_order = list(range(9)) if task.kind == TaskKind.RANK else []


def judge(session: Session, access: Access, task: Task) -> None:
    """An answer whose every word is hostile."""
    work = tasks.find_work(session, access, task.uid)
    stored = judgements.submit_ranking(session, access, task.uid, rank(work, [1, 1, 2, 3, 4, 5, 6, None, None]))
    judgement = session.get_one(Judgement, stored.id)
    judgement.note = NAME
    judgement.answers = {"prompt_text": NAME, "task_text": NAME, "prompt_choice": NAME, NAME: NAME}


def demonstration_task(session: Session, project: Project, owner: User) -> Task:
    task = Task(project_id=project.id, kind=TaskKind.DEMONSTRATE, prompt_id=prompt_of(session, project).id)
    session.add(task)
    session.flush()
    hold(session, task, owner)
    return task


def training(session: Session, project: Project, owner: User) -> Run:
    """A failed run and one that goes on, both hostile in all they say."""
    made = []
    for state in (JobState.FAILED, JobState.RUNNING):
        run = runs.request_run(session, project, kind=RunKind.SFT, reason=NAME, requested_by=owner)
        job = session.get_one(Job, run.job_id)
        job.state, job.error, job.started_at = state, NAME, now()
        job.finished_at = now() if state == JobState.FAILED else None
        run.config, run.metrics = NAME, {NAME: 0.5}
        session.add(RunLog(project_id=project.id, run_id=run.id, attempt=0, text=NAME))
        session.add_all(
            RunMetric(project_id=project.id, run_id=run.id, step=step, attempt=0, values={NAME: 0.5, "loss": step})
            for step in (1, 2, 3)
        )
        session.flush()
        made.append(run)
    return made[-1]


def show_model(session: Session, project: Project) -> Checkpoint:
    """The base model with hostile metrics, and hostile answers to the prompts every model answers."""
    base = checkpoints.active_policy(session, project.id)
    base.metrics = {NAME: 0.5}
    sampler = samplers.ensure_sampler(session, project, base, SamplingSettings())
    for text, prompt in zip(
        OUTPUTS, sampling_queries.list_showcase_prompts(session, project.id, limit=6), strict=False
    ):
        prompt.messages = CONVERSATION[:40]
        session.add(
            Sample(
                project_id=project.id,
                prompt_id=prompt.id,
                origin=SampleOrigin.MODEL,
                sampler_id=sampler.id,
                text=text,
                html=render_markdown(text),
            )
        )
    return base


def invite(session: Session, project: Project, owner: User) -> str:
    """An open invitation for a hostile address; its path."""
    access = Access(owner, project, frozenset(Role), Cohort.TRAINING)
    invitation, path = people.invite(session, access, email="", roles=["labeller"], cohort=Cohort.TRAINING)
    session.get_one(Invitation, invitation.id).email = NAME
    return path
