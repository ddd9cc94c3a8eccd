"""Projects, models and tasks for the tests of the registry, made the way the services make them."""

import itertools
import json
from pathlib import Path

from sqlalchemy.orm import Session

from app import storage
from app.models import (
    BaseCheckpoint,
    Checkpoint,
    CheckpointKind,
    Cohort,
    Endpoint,
    Evaluation,
    EvaluationState,
    Lease,
    ParentRole,
    Phase,
    Project,
    Prompt,
    PromptPool,
    Role,
    Sampler,
    SamplingPlan,
    Split,
    Task,
    TaskKind,
    User,
)
from app.permissions import Access
from app.schemas.plans import PlanSettings
from app.schemas.projects import AutomationSettings, SamplingSettings
from app.services import checkpoints
from app.settings import get_settings

_numbers = itertools.count(1)


def put_model(folder: Path, *, weights: bytes = b"weights", is_reward: bool = False) -> str:
    """Write a folder that looks like a model, put it into the store, and return its identity."""
    write_model(folder, weights=weights, is_reward=is_reward)
    return storage.put_checkpoint(get_settings(), folder)


def write_model(folder: Path, *, weights: bytes = b"weights", is_reward: bool = False) -> Path:
    """A folder with the files of a model in Hugging Face layout; its weights are bytes without meaning."""
    folder.mkdir(parents=True, exist_ok=True)
    family = "GPT2ForSequenceClassification" if is_reward else "GPT2LMHeadModel"
    config = {"architectures": [family], "model_type": "gpt2"} | ({"reward_mean": 0.5} if is_reward else {})
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").write_bytes(weights)
    return folder


def make_project(session: Session, folder: Path) -> tuple[Project, Checkpoint]:
    """A project in round 1, its base model active."""
    number = next(_numbers)
    sha256 = put_model(folder / f"base-{number}", weights=f"base {number}".encode())
    base = BaseCheckpoint(name="tiny", source="test", sha256=sha256)
    session.add(base)
    session.flush()
    project = Project(
        slug=f"project-{number}",
        name=f"Project {number}",
        base_checkpoint_id=base.id,
        sampling=SamplingSettings().model_dump(),
        automation=AutomationSettings().model_dump(),
    )
    session.add(project)
    session.flush()
    checkpoint = checkpoints.register(session, project, kind=CheckpointKind.BASE, sha256=sha256, parents={}, metrics={})
    checkpoints.open_first_round(session, project, checkpoint)
    return project, checkpoint


def make_checkpoint(
    session: Session,
    project: Project,
    folder: Path,
    kind: CheckpointKind,
    *,
    init: Checkpoint | None = None,
    reward: Checkpoint | None = None,
    metrics: dict[str, object] | None = None,
) -> Checkpoint:
    """A registered candidate with files of its own."""
    number = next(_numbers)
    is_reward = kind == CheckpointKind.REWARD
    sha256 = put_model(folder / f"{kind}-{number}", weights=f"{kind} {number}".encode(), is_reward=is_reward)
    parents = {ParentRole.INIT: init, ParentRole.REWARD: reward}
    return checkpoints.register(
        session,
        project,
        kind=kind,
        sha256=sha256,
        parents={role: parent for role, parent in parents.items() if parent is not None},
        metrics=metrics or {},
    )


def make_user(session: Session, *, name: str = "Ada") -> User:
    """A person who is nobody in particular."""
    user = User(email=f"{name.lower()}-{next(_numbers)}@example.org", name=name)
    session.add(user)
    session.flush()
    return user


def access_of(user: User, project: Project, *roles: Role) -> Access:
    """What the edge gives a service for this person."""
    return Access(user=user, project=project, roles=frozenset(roles), cohort=Cohort.TRAINING)


def make_prompt(session: Session, project: Project, text: str = "Name a bird.", split: Split = Split.TRAIN) -> Prompt:
    """A prompt of one turn, in a pool of its own."""
    number = next(_numbers)
    pool = PromptPool(project_id=project.id, name=f"pool {number}")
    session.add(pool)
    session.flush()
    prompt = Prompt(
        project_id=project.id,
        pool_id=pool.id,
        messages=[{"role": "user", "content": text}],
        source=f"source {number}",
        split=split,
        fingerprint=f"{number}".encode(),
    )
    session.add(prompt)
    session.flush()
    return prompt


def make_rank_task(session: Session, project: Project, prompt: Prompt) -> Task:
    """An open rank task of the open round."""
    round_ = checkpoints.open_round(session, project.id)
    task = Task(project_id=project.id, kind=TaskKind.RANK, prompt_id=prompt.id, round_id=round_.id)
    session.add(task)
    session.flush()
    return task


def make_evaluation(session: Session, project: Project, sampler: Sampler) -> Evaluation:
    """An evaluation of a sampler against itself, without prompts."""
    evaluation = Evaluation(
        project_id=project.id,
        left_id=sampler.id,
        right_id=sampler.id,
        phase=Phase.TRAIN,
        state=EvaluationState.OPEN,
    )
    session.add(evaluation)
    session.flush()
    return evaluation


def make_plan(session: Session, project: Project, source: Checkpoint | Endpoint, **settings: object) -> SamplingPlan:
    """A draft of two tasks, two responses each by that source."""
    kind = "endpoint" if isinstance(source, Endpoint) else "checkpoint"
    values = {"parts": [{"kind": kind, "source": source.uid, "responses": 2}], "tasks": 2} | settings
    plan = SamplingPlan(
        project_id=project.id,
        name="A plan",
        settings=PlanSettings.model_validate(values).model_dump(mode="json"),
        counts={},
    )
    session.add(plan)
    session.flush()
    return plan


def make_endpoint(session: Session, project: Project, name: str = "Big") -> Endpoint:
    """A model outside that nobody is to call."""
    endpoint = Endpoint(project_id=project.id, name=name, url="https://models.example.org/v1", model="big-1")
    session.add(endpoint)
    session.flush()
    return endpoint


def hold(session: Session, task: Task, user: User, *, until: object) -> Lease:
    """A lease of the task, held until then."""
    lease = Lease(
        project_id=task.project_id,
        task_id=task.id,
        slot=1,
        user_id=user.id,
        expires_at=until,
        shown_order=[0],
        order_seed=1,
    )
    session.add(lease)
    session.flush()
    return lease
