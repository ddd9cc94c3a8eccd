"""Tasks that ask for no ranking, opened for tests the way the services open them, and answers to them."""

import itertools
import uuid

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.models import Prompt, Purpose, Sample, SampleOrigin, Task, TaskKind
from app.queries import evaluations as queries
from app.services import tasks
from tests.app import registry
from tests.app.queue import Queue

_numbers = itertools.count(1)

PATHS = {TaskKind.COMPARE: "compare", TaskKind.RATE: "rate", TaskKind.LABEL_PROMPT: "label"}


def open_task(session: Session, queue: Queue, kind: TaskKind, *, wanted: int = 1, text: str = "Name a bird.") -> Task:
    """A task of that kind on a prompt of its own."""
    prompt = registry.make_prompt(session, queue.project, text)
    if kind == TaskKind.COMPARE:
        samples = [tasks.NewSample(text, queue.sampler.id, next(_numbers), 3, "stop") for text in ("A wren.", "A cod.")]
        return tasks.create_rank_task(
            session,
            queue.project,
            prompt_id=prompt.id,
            round_id=None,
            samples=samples,
            kind=kind,
            purpose=Purpose.EVALUATE,
            judgements_wanted=wanted,
        )
    sample_id = answer(session, queue, prompt, "A *wren*.").id if kind == TaskKind.RATE else None
    purpose = Purpose.EVALUATE if kind == TaskKind.RATE else Purpose.REVIEW
    queries.insert_tasks(session, queue.project.id, kind, purpose, [(prompt, sample_id)], wanted, uuid.uuid4())
    return session.scalars(select(Task).where(Task.prompt_id == prompt.id)).one()


def answer(session: Session, queue: Queue, prompt: Prompt, text: str) -> Sample:
    """What the project's model answered to a prompt."""
    sample = Sample(
        project_id=queue.project.id,
        prompt_id=prompt.id,
        origin=SampleOrigin.MODEL,
        sampler_id=queue.sampler.id,
        text=text,
        html=text,
    )
    session.add(sample)
    session.flush()
    return sample
