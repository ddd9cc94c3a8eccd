"""Gold tasks in SQL: which one a person may get, what they answered, and their appeals."""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ARRAY, Text, cast, exists, func, select
from sqlalchemy.orm import Session

from app.models import (
    Appeal,
    AppealState,
    Judge,
    Judgement,
    JudgementRank,
    JudgementStatus,
    Lease,
    Prompt,
    Purpose,
    ReferencePlace,
    Sample,
    Task,
    TaskOutput,
    TaskState,
    User,
)
from app.queries.qualifications import has_seen
from app.queries.references import current_references


@dataclass(frozen=True)
class GoldAnswer:
    """A person's first answer to a gold task beside the reference that holds now: tiers by sample of both."""

    user_id: int
    task: uuid.UUID
    prompt_id: int
    reference: Mapping[uuid.UUID, int | None]
    given: Mapping[uuid.UUID, int | None]


@dataclass(frozen=True)
class AppealRow:
    """An appeal as the admin's list shows it."""

    uid: uuid.UUID
    state: AppealState
    body: str
    created_at: datetime
    person: str
    messages: Sequence[Mapping[str, str]]


def count_had(session: Session, project_id: int, user_id: int) -> int:
    """Gold tasks this person was ever lent."""
    return session.scalars(
        select(func.count())
        .select_from(Task)
        .join(Lease, (Lease.task_id == Task.id) & (Lease.user_id == user_id))
        .where(Task.project_id == project_id, Task.purpose == Purpose.GOLD)
    ).one()


def draw_task(session: Session, project_id: int, user_id: int, granted: frozenset[str], key: str) -> Task | None:
    """A gold task this person never had, in this or another task, by chance under `key`; its row is locked.

    One that somebody is leasing or submitting is passed over: to wait for it, holding the task just submitted, is to wait in a
    ring.
    """
    had = exists().where(Lease.task_id == Task.id, Lease.user_id == user_id)
    return session.scalar(
        select(Task)
        .where(
            Task.project_id == project_id,
            Task.purpose == Purpose.GOLD,
            Task.state == TaskState.OPEN,
            Task.needs.contained_by(cast(sorted(granted), ARRAY(Text))),
            ~had,
            ~has_seen(user_id),
        )
        .order_by(func.md5(func.concat(key, Task.id)))
        .limit(1)
        .with_for_update(of=Task, key_share=True, skip_locked=True)
    )


def list_answers(session: Session, project_id: int, *, user_id: int | None = None) -> list[GoldAnswer]:
    """First answers to gold tasks, of one person or of all, the newest first. Revisions are left aside: they may follow a
    miss that was shown."""
    current = current_references(project_id).subquery()
    query = (
        select(
            Judgement.id, Judge.user_id, Task.uid, Task.prompt_id, Sample.uid, ReferencePlace.tier, JudgementRank.tier
        )
        .join(Judge, Judge.id == Judgement.judge_id)
        .join(Task, Task.id == Judgement.task_id)
        .join(current, current.c.task_id == Task.id)
        .join(JudgementRank, JudgementRank.judgement_id == Judgement.id)
        .join(
            ReferencePlace,
            (ReferencePlace.reference_id == current.c.reference_id)
            & (ReferencePlace.output_id == JudgementRank.output_id),
        )
        .join(TaskOutput, TaskOutput.id == JudgementRank.output_id)
        .join(Sample, Sample.id == TaskOutput.sample_id)
        .where(
            Task.project_id == project_id,
            Task.purpose == Purpose.GOLD,
            Judgement.revision == 1,
            Judgement.status != JudgementStatus.EXCLUDED,
            Judge.user_id.is_not(None),
        )
        .order_by(Judgement.id.desc(), TaskOutput.position)
    )
    if user_id is not None:
        query = query.where(Judge.user_id == user_id)
    found: dict[int, GoldAnswer] = {}
    for judgement_id, judge, task, prompt_id, sample, reference, given in session.execute(query):
        answer = found.setdefault(judgement_id, GoldAnswer(judge or 0, task, prompt_id, {}, {}))
        found[judgement_id] = GoldAnswer(
            answer.user_id,
            answer.task,
            answer.prompt_id,
            {**answer.reference, sample: reference},
            {**answer.given, sample: given},
        )
    return list(found.values())


def find_first_answer(session: Session, task_id: int, user_id: int) -> Judgement | None:
    """This person's first answer to a task."""
    return session.scalar(
        select(Judgement)
        .join(Judge, Judge.id == Judgement.judge_id)
        .where(Judgement.task_id == task_id, Judge.user_id == user_id, Judgement.revision == 1)
    )


def find_appeal_of(session: Session, task_id: int, user_id: int) -> Appeal | None:
    """This person's appeal about a task."""
    return session.scalar(select(Appeal).where(Appeal.task_id == task_id, Appeal.user_id == user_id))


def map_appeals(session: Session, project_id: int, user_id: int) -> Mapping[uuid.UUID, Appeal]:
    """This person's appeals by task."""
    rows = session.execute(
        select(Task.uid, Appeal)
        .join(Task, Task.id == Appeal.task_id)
        .where(Appeal.project_id == project_id, Appeal.user_id == user_id)
    )
    return {uid: appeal for uid, appeal in rows}


def find_appeal(session: Session, project_id: int, uid: uuid.UUID) -> tuple[Appeal, User, Task] | None:
    """An appeal with who made it and the task it is about; its row is locked."""
    row = session.execute(
        select(Appeal, User, Task)
        .join(User, User.id == Appeal.user_id)
        .join(Task, Task.id == Appeal.task_id)
        .where(Appeal.project_id == project_id, Appeal.uid == uid)
        .with_for_update(of=Appeal)
    ).one_or_none()
    return (row[0], row[1], row[2]) if row else None


def list_appeals(session: Session, project_id: int) -> Sequence[AppealRow]:
    """Every appeal, the open ones first, the newest first among them."""
    rows = session.execute(
        select(Appeal.uid, Appeal.state, Appeal.body, Appeal.created_at, User.name, Prompt.messages)
        .join(User, User.id == Appeal.user_id)
        .join(Task, Task.id == Appeal.task_id)
        .join(Prompt, Prompt.id == Task.prompt_id)
        .where(Appeal.project_id == project_id)
        .order_by(Appeal.state != AppealState.OPEN, Appeal.id.desc())
    )
    return [AppealRow(*row) for row in rows]


def count_open_appeals(session: Session, project_id: int) -> int:
    """Appeals that wait for an admin."""
    return session.scalars(
        select(func.count())
        .select_from(Appeal)
        .where(Appeal.project_id == project_id, Appeal.state == AppealState.OPEN)
    ).one()
