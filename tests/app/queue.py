"""A project with rank tasks in its queue, and people to do them, made through the services."""

import itertools
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sqlalchemy.orm import Session

from app.models import Cohort, Lease, Project, Purpose, Role, Round, Sampler, Task, TaskKind
from app.permissions import Access
from app.schemas.judgements import Place, Ranking, WhyUnrankable
from app.schemas.projects import SamplingSettings
from app.services import checkpoints, samplers, tasks
from tests.app import registry

_numbers = itertools.count(1)


@dataclass(frozen=True)
class Queue:
    """A project in its first round, with a sampler whose texts are ranked."""

    project: Project
    round: Round
    sampler: Sampler

    def person(self, session: Session, name: str = "Ada", *, cohort: Cohort = Cohort.TRAINING) -> Access:
        """A new labeller."""
        access = registry.access_of(registry.make_user(session, name=name), self.project, Role.LABELLER)
        return replace(access, cohort=cohort)

    def task(
        self,
        session: Session,
        texts: Sequence[str] = ("first", "second", "third"),
        *,
        purpose: Purpose = Purpose.TRAIN,
        wanted: int = 1,
        priority: int = 0,
        needs: Sequence[str] = (),
    ) -> Task:
        """An open rank task over these texts."""
        prompt = registry.make_prompt(session, self.project)
        prompt.needs = list(needs)
        samples = [tasks.NewSample(text, self.sampler.id, next(_numbers), 3, "stop") for text in texts]
        return tasks.create_rank_task(
            session,
            self.project,
            prompt_id=prompt.id,
            round_id=self.round.id,
            samples=samples,
            purpose=purpose,
            judgements_wanted=wanted,
            priority=priority,
        )


def make_queue(session: Session, folder: Path) -> Queue:
    """A project without tasks."""
    project, base = registry.make_project(session, folder)
    sampler = samplers.ensure_sampler(session, project, base, SamplingSettings())
    return Queue(project, checkpoints.open_round(session, project.id), sampler)


def lease(session: Session, access: Access, kind: TaskKind = TaskKind.RANK) -> Lease:
    """The next task of a person; fails where there is none."""
    leased = tasks.lease_next(session, access, kind)
    assert leased is not None
    return leased


def take(session: Session, access: Access) -> tasks.Work:
    """The next rank task of a person, with its outputs as shown to them."""
    return work_of(session, access, lease(session, access))


def work_of(session: Session, access: Access, leased: Lease) -> tasks.Work:
    """What a lease is about."""
    return tasks.find_work(session, access, session.get_one(Task, leased.task_id).uid)


def rank(
    work: tasks.Work,
    tiers: Sequence[int | None] | None = None,
    *,
    quality: int | None = None,
    key: uuid.UUID | None = None,
    note: str | None = None,
) -> Ranking:
    """A ranking of the outputs in the order shown: 1, 2, 3 unless said otherwise, None for not rankable."""
    tiers = tiers if tiers is not None else range(1, len(work.outputs) + 1)
    places = tuple(
        Place(output.sample, tier, None if tier is not None else WhyUnrankable.BROKEN, quality)
        for output, tier in zip(work.outputs, tiers, strict=True)
    )
    return Ranking(key or uuid.uuid4(), places, note)
