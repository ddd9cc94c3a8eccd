"""The first start: the owner, the starter project with tasks that can be ranked at once, and a base model of one's own.

Every part looks first whether it is there, so that any start may call it. Files enter the store before rows speak of them.
"""

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from sqlalchemy.orm import Session

from app import storage
from app.models import Category, CheckpointKind, Phase, Project, Split, User
from app.queries import projects as queries
from app.schemas.projects import AutomationSettings, SamplingSettings
from app.schemas.prompts import PromptIn
from app.services import accounts, bases, checkpoints, demonstrations, guidelines, projects, prompts, samplers, tasks
from app.settings import Settings, get_settings
from app.starter import Starter, StarterSample, load_starter

STARTER_SLUG = "starter"
OUTPUTS_PER_TASK = 4

STARTER_AUTOMATION = AutomationSettings(ready_tasks=30, judgements_per_reward_model=40)
"""One person sees a reward model learn from their first sitting; a team raises the number on the settings page."""


@dataclass(frozen=True)
class Bootstrapped:
    """What is there now. `base_project` is None where no base model was asked for, or while a hub name is not fetched yet."""

    owner: User
    starter: Project
    base_project: Project | None = None
    is_base_pending: bool = False


def ensure(session: Session, settings: Settings | None = None) -> Bootstrapped:
    """Make what a first start needs, as far as it is missing. The slow work on files comes before the first query.

    Raises BadInput, with the sentence to print, for a `PREFERABLE_BASE_MODEL` that cannot serve. A hub name is left
    to `ensure_base`, which downloads.
    """
    settings = settings or get_settings()
    starter = load_starter()
    sha256 = storage.put_checkpoint(settings, starter.base_folder)
    is_pending = bool(settings.base_model) and bases.is_hub_name(settings.base_model)
    own_sha256 = bases.put_base(settings) if settings.base_model and not is_pending else None

    owner = accounts.ensure_owner(session)
    project = queries.find_project(session, STARTER_SLUG) or _make_starter(session, owner, starter, sha256)
    own = _ensure_base_project(session, settings, owner, own_sha256) if own_sha256 else None
    return Bootstrapped(owner=owner, starter=project, base_project=own, is_base_pending=is_pending)


def ensure_base(session: Session, settings: Settings | None = None) -> Project | None:
    """The project on `PREFERABLE_BASE_MODEL`, made where it is missing; None where none is set.

    For the worker half, which can download from the hub. Raises BadInput as `ensure` does.
    """
    settings = settings or get_settings()
    if not settings.base_model:
        return None
    sha256 = bases.put_base(settings)
    return _ensure_base_project(session, settings, accounts.ensure_owner(session), sha256)


def _make_starter(session: Session, owner: User, starter: Starter, sha256: str) -> Project:
    config = starter.config_path.read_text(encoding="utf-8")
    sampling = SamplingSettings.model_validate(tomllib.loads(config).get("sample", {}))
    project = projects.create_project(
        session,
        slug=STARTER_SLUG,
        name="Starter",
        base=projects.register_base(session, name="Starter base", source="starter", sha256=sha256),
        sampling=sampling,
        automation=STARTER_AUTOMATION,
        outputs_per_task=OUTPUTS_PER_TASK,
        training_config=config,
        actor=owner,
    )
    guidelines.publish(session, project, body=starter.guidelines, phase=Phase.TRAIN, author=None)
    rows = [
        PromptIn(
            messages=prompt.messages,
            category=Category(prompt.category),
            source=prompt.source,
            split=Split(prompt.split),
            key=prompt.key,
            parent_key=prompt.parent,
            licence="MIT",
            consent="invented",
        )
        for prompt in starter.prompts
    ]
    ids = prompts.import_prompts(session, project, pool="Starter world", rows=rows).ids
    demonstrations.add_many(
        session,
        project,
        (
            demonstrations.NewDemonstration(prompt_id=ids[row.prompt_key], text=row.response)
            for row in starter.demonstrations
        ),
    )
    _open_tasks(session, project, ids, starter.samples, sampling)
    return project


def _open_tasks(
    session: Session,
    project: Project,
    ids: Mapping[str, int],
    samples: Iterable[StarterSample],
    sampling: SamplingSettings,
) -> None:
    """Rank tasks over the samples that ship with the project: drawn by the base, so that ranking can begin at once."""
    base = checkpoints.latest(session, project.id, CheckpointKind.BASE)
    if base is None:
        raise RuntimeError("create_project registers the base before it returns")
    sampler = samplers.ensure_sampler(session, project, base, sampling)
    opened = checkpoints.open_round(session, project.id)
    for key, group in groupby(samples, key=lambda sample: sample.prompt_key):
        different = {sample.text.strip(): sample for sample in group}
        if len(different) < OUTPUTS_PER_TASK:
            continue
        tasks.create_rank_task(
            session,
            project,
            prompt_id=ids[key],
            round_id=opened.id,
            samples=[
                tasks.NewSample(
                    text=sample.text,
                    sampler_id=sampler.id,
                    seed=sample.seed,
                    length_tokens=sample.token_count,
                    finish_reason=sample.finish_reason,
                )
                for sample in list(different.values())[:OUTPUTS_PER_TASK]
            ],
        )


def _ensure_base_project(session: Session, settings: Settings, owner: User, sha256: str) -> Project:
    name = Path(settings.base_model).name or settings.base_model
    base = projects.register_base(session, name=name, source=settings.base_model, sha256=sha256)
    found = queries.find_project_of_base(session, base.id)
    if found is not None:
        return found
    context = bases.read_context(settings, sha256)
    longest = min(SamplingSettings().max_new_tokens, context // 2) if context else SamplingSettings().max_new_tokens
    return projects.create_project(
        session,
        slug=_free_slug(session, name),
        name=name,
        base=base,
        sampling=SamplingSettings(max_new_tokens=longest),
        automation=AutomationSettings(),
        outputs_per_task=OUTPUTS_PER_TASK,
        training_config="",
        actor=owner,
    )


def _free_slug(session: Session, name: str) -> str:
    stem = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:50] or "base"
    slug, number = stem, 1
    while queries.find_project(session, slug) is not None:
        number += 1
        slug = f"{stem}-{number}"
    return slug
