"""Judgements in SQL: who judged, what was said, and whether it was said before."""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session, aliased

from app.models import (
    LESSONS,
    ORDERING,
    Json,
    Judge,
    JudgeKind,
    Judgement,
    JudgementPair,
    JudgementRank,
    JudgementStatus,
    LabelSchema,
    Prompt,
    Purpose,
    Round,
    Sample,
    Task,
    TaskKind,
    TaskOutput,
)


@dataclass(frozen=True)
class PlaceRow:
    """The stored place of one output."""

    sample: uuid.UUID
    position: int
    tier: int | None
    raw_column: int | None
    reason: str | None
    quality: int | None
    answers: Json


@dataclass(frozen=True)
class PairRow:
    """A stored direct comparison, by the uids of the samples."""

    left: uuid.UUID
    right: uuid.UUID
    p_left: float
    strength: int | None


def get_human_judge(session: Session, project_id: int, user_id: int) -> Judge:
    """The judge row of a person, made when they first judge."""
    found = select(Judge).where(Judge.project_id == project_id, Judge.kind == JudgeKind.HUMAN, Judge.user_id == user_id)
    if judge := session.scalar(found):
        return judge
    row = insert(Judge).values(project_id=project_id, kind=JudgeKind.HUMAN, user_id=user_id)
    session.execute(row.on_conflict_do_nothing())
    return session.scalars(found).one()


def find_by_key(session: Session, key: uuid.UUID) -> Judgement | None:
    """The judgement that was stored under an idempotency key."""
    return session.scalar(select(Judgement).where(Judgement.idempotency_key == key))


def find_current(session: Session, task_id: int, user_id: int) -> Judgement | None:
    """What this person's answer to the task is now."""
    return session.scalar(
        select(Judgement)
        .join(Judge, Judge.id == Judgement.judge_id)
        .where(
            Judgement.task_id == task_id,
            Judgement.status == JudgementStatus.CURRENT,
            Judge.user_id == user_id,
            Judge.kind == JudgeKind.HUMAN,
        )
    )


def find_newest(session: Session, task_id: int, user_id: int) -> Judgement | None:
    """The newest version of this person's answer to the task, excluded or not."""
    return session.scalar(
        select(Judgement)
        .join(Judge, Judge.id == Judgement.judge_id)
        .where(
            Judgement.task_id == task_id,
            Judgement.status != JudgementStatus.SUPERSEDED,
            Judge.user_id == user_id,
            Judge.kind == JudgeKind.HUMAN,
        )
    )


def list_current_of_task(session: Session, task_id: int) -> Sequence[tuple[Judgement, int | None]]:
    """What a task's answers are now, each with the person who gave it; None for a machine."""
    rows = session.execute(
        select(Judgement, Judge.user_id)
        .join(Judge, Judge.id == Judgement.judge_id)
        .where(Judgement.task_id == task_id, Judgement.status == JudgementStatus.CURRENT)
        .order_by(Judgement.id)
    )
    return [(judgement, user_id) for judgement, user_id in rows]


def insert_judgement(
    session: Session, judgement: Judgement, ranks: Sequence[JudgementRank], pairs: Sequence[JudgementPair] = ()
) -> None:
    """Add a judgement with its ranks and direct comparisons."""
    session.add(judgement)
    session.flush()
    for rank in ranks:
        rank.judgement_id = judgement.id
    for pair in pairs:
        pair.judgement_id = judgement.id
    session.add_all([*ranks, *pairs])
    session.flush()


def find_pair(session: Session, judgement_id: int) -> PairRow | None:
    """The direct comparison that answers a compare task; None for any other judgement."""
    left, right = aliased(TaskOutput), aliased(TaskOutput)
    left_sample, right_sample = aliased(Sample), aliased(Sample)
    row = session.execute(
        select(left_sample.uid, right_sample.uid, JudgementPair.p_left, JudgementPair.strength)
        .join(left, left.id == JudgementPair.left_id)
        .join(right, right.id == JudgementPair.right_id)
        .join(left_sample, left_sample.id == left.sample_id)
        .join(right_sample, right_sample.id == right.sample_id)
        .join(Task, Task.id == left.task_id)
        .where(JudgementPair.judgement_id == judgement_id, Task.kind == TaskKind.COMPARE)
    ).one_or_none()
    return PairRow(*row) if row else None


def list_places(session: Session, judgement_id: int) -> Sequence[PlaceRow]:
    """The places of a judgement by position of the output."""
    rows = session.execute(
        select(
            Sample.uid,
            TaskOutput.position,
            JudgementRank.tier,
            JudgementRank.raw_column,
            JudgementRank.reason,
            JudgementRank.quality,
            JudgementRank.answers,
        )
        .join(TaskOutput, TaskOutput.id == JudgementRank.output_id)
        .join(Sample, Sample.id == TaskOutput.sample_id)
        .where(JudgementRank.judgement_id == judgement_id)
        .order_by(TaskOutput.position)
    )
    return [PlaceRow(*row) for row in rows]


@dataclass(frozen=True)
class GradedRow:
    """A pair of a ranking that was graded, by the uids of the samples."""

    better: uuid.UUID
    worse: uuid.UUID
    strength: int


def list_graded(session: Session, judgement_id: int) -> Sequence[GradedRow]:
    """The graded pairs of a ranking."""
    uids = select(TaskOutput.id, Sample.uid).join(Sample, Sample.id == TaskOutput.sample_id)
    better, worse = uids.subquery(), uids.subquery()
    rows = session.execute(
        select(better.c.uid, worse.c.uid, JudgementPair.strength)
        .join(better, better.c.id == JudgementPair.left_id)
        .join(worse, worse.c.id == JudgementPair.right_id)
        .where(JudgementPair.judgement_id == judgement_id, JudgementPair.strength.is_not(None))
        .order_by(JudgementPair.id)
    )
    return [GradedRow(*row) for row in rows]


@dataclass(frozen=True)
class RecentRow:
    """An answer as its author's history lists it."""

    task: uuid.UUID
    kind: TaskKind
    messages: Sequence[Mapping[str, str]]
    created_at: datetime
    revision: int
    status: JudgementStatus


def list_recent(session: Session, project_id: int, user_id: int, limit: int) -> Sequence[RecentRow]:
    """The last judgements of a person, the newest first, of each task the newest version; lessons aside."""
    rows = session.execute(
        select(Task.uid, Task.kind, Prompt.messages, Judgement.created_at, Judgement.revision, Judgement.status)
        .join(Task, Task.id == Judgement.task_id)
        .join(Prompt, Prompt.id == Task.prompt_id)
        .join(Judge, Judge.id == Judgement.judge_id)
        .where(
            *_by_person(project_id, user_id),
            Judgement.status != JudgementStatus.SUPERSEDED,
            Task.purpose.not_in(LESSONS),
        )
        .order_by(Judgement.id.desc())
        .limit(limit)
    )
    return [RecentRow(*row) for row in rows]


def _by_person(project_id: int, user_id: int) -> tuple[ColumnElement[bool], ...]:
    """That a judgement, joined with its judge, is this person's in the project."""
    return (
        Judge.project_id == project_id,
        Judge.kind == JudgeKind.HUMAN,
        Judge.user_id == user_id,
        Judgement.project_id == project_id,
    )


def count_training(session: Session, project_id: int, user_id: int) -> Mapping[int | None, tuple[int, int]]:
    """A person's current judgements that are for training and the pairs in them that are not tied, by number of the round."""
    first, second = aliased(JudgementRank), aliased(JudgementRank)
    pairs = (
        select(func.count())
        .select_from(first)
        .join(second, second.judgement_id == first.judgement_id)
        .where(first.judgement_id == Judgement.id, first.id < second.id, first.tier != second.tier)
        .correlate(Judgement)
        .scalar_subquery()
    )
    rows = session.execute(
        select(Round.number, func.count(), func.sum(pairs))
        .select_from(Judgement)
        .join(Judge, Judge.id == Judgement.judge_id)
        .join(Task, Task.id == Judgement.task_id)
        .outerjoin(Round, Round.id == Task.round_id)
        .where(
            Judgement.project_id == project_id,
            Judgement.status == JudgementStatus.CURRENT,
            Judge.kind == JudgeKind.HUMAN,
            Judge.user_id == user_id,
            Task.purpose == Purpose.TRAIN,
            Task.kind.in_(ORDERING),
        )
        .group_by(Round.number)
    )
    return {number: (count, int(comparisons)) for number, count, comparisons in rows}


def find_label_schema(session: Session, project_id: int, version: int) -> LabelSchema | None:
    """The label schema of that version."""
    return session.scalar(
        select(LabelSchema).where(LabelSchema.project_id == project_id, LabelSchema.version == version)
    )


def get_label_schema(session: Session, schema_id: int) -> LabelSchema:
    """The label schema with this id."""
    return session.get_one(LabelSchema, schema_id)


def supersede(session: Session, judgement: Judgement) -> None:
    """Make room for a revision: there is one current judgement per task and judge."""
    judgement.status = JudgementStatus.SUPERSEDED
    session.flush()
