"""Judgements in SQL: who judged, what was said, and whether it was said before."""

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, FromClause, bindparam, func, select, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql import JSONB
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


@dataclass(frozen=True, kw_only=True)
class NewJudgement:
    """The columns of a judgement to be stored; its judge is that of the person, made when they first judge."""

    project_id: int
    task_id: int
    user_id: int
    lease_id: int | None
    revision: int
    idempotency_key: uuid.UUID
    guideline_id: int | None
    label_schema_id: int | None
    confidence: int | None
    answers: Json
    note: str | None = None
    active_ms: int | None = None
    idle_ms: int | None = None
    effort: Json = field(default_factory=dict)
    status: JudgementStatus = JudgementStatus.CURRENT
    excluded_by_id: int | None = None
    excluded_why: str | None = None
    excluded_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class NewRank:
    """The columns of one output's place."""

    output_id: int
    tier: int | None
    raw_column: int | None
    reason: str | None = None
    quality: int | None = None
    answers: Json = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class NewPair:
    """The columns of one direct comparison."""

    left_id: int
    right_id: int
    p_left: float
    strength: int | None


def _columns_of(new: type[NewJudgement | NewRank | NewPair], table: FromClause) -> list[ColumnElement[Any]]:
    return [table.columns[name] for name in new.__dataclass_fields__ if name != "user_id"]


def _names(columns: Iterable[ColumnElement[Any]]) -> str:
    return ", ".join(str(column.key) for column in columns)


def _record(columns: Iterable[ColumnElement[Any]]) -> str:
    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]  # SQLAlchemy has no types for it
    return ", ".join(f"{column.key} {column.type.compile(dialect)}" for column in columns)


_STORED = _columns_of(NewJudgement, Judgement.__table__)
_RANK = _columns_of(NewRank, JudgementRank.__table__)
_PAIR = _columns_of(NewPair, JudgementPair.__table__)

# A first judgement at the same moment, of another task, makes the judge row too: the later one waits and is given it.
_INSERT = select(Judgement).from_statement(
    text(f"""
WITH found AS (
  SELECT id FROM judges WHERE project_id = :project_id AND kind = 'human' AND user_id = :user_id
), made AS (
  INSERT INTO judges (project_id, kind, user_id) SELECT :project_id, 'human', :user_id WHERE NOT EXISTS (SELECT FROM found)
  ON CONFLICT (project_id, kind, user_id, checkpoint_id, version) DO UPDATE SET kind = excluded.kind
  RETURNING id
), stored AS (
  INSERT INTO judgements ({_names(_STORED)}, judge_id)
  SELECT {", ".join(f":{column.key}" for column in _STORED)}, id FROM (TABLE found UNION ALL TABLE made) AS judge
  ON CONFLICT (idempotency_key) DO NOTHING
  RETURNING *
), ranked AS (
  INSERT INTO judgement_ranks (project_id, judgement_id, {_names(_RANK)})
  SELECT stored.project_id, stored.id, rank.* FROM stored, jsonb_to_recordset(:ranks) AS rank ({_record(_RANK)})
), paired AS (
  INSERT INTO judgement_pairs (project_id, judgement_id, {_names(_PAIR)})
  SELECT stored.project_id, stored.id, pair.* FROM stored, jsonb_to_recordset(:pairs) AS pair ({_record(_PAIR)})
)
SELECT {_names(Judgement.__table__.columns)} FROM stored
""")
    .bindparams(
        *(bindparam(column.key, type_=column.type) for column in _STORED),
        bindparam("user_id", type_=BigInteger),
        bindparam("ranks", type_=JSONB),
        bindparam("pairs", type_=JSONB),
    )
    .columns(*Judgement.__table__.columns)
)


def insert_judgement(
    session: Session, new: NewJudgement, ranks: Sequence[NewRank], pairs: Sequence[NewPair] = ()
) -> Judgement | None:
    """Store a judgement with its ranks and direct comparisons; None, and nothing is stored, where its key is taken."""
    values = vars(new) | {"ranks": [vars(rank) for rank in ranks], "pairs": [vars(pair) for pair in pairs]}
    return session.scalars(_INSERT, values).one_or_none()


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
