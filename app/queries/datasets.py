"""SQL of snapshots: the rows that go into each file, streamed in the order of their ids."""

import uuid
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy import func, insert, select
from sqlalchemy.orm import Session

from app.models import (
    ORDERING,
    Cohort,
    Demonstration,
    Guideline,
    Judge,
    JudgeKind,
    Judgement,
    JudgementPair,
    JudgementRank,
    JudgementStatus,
    LabelSchema,
    Membership,
    Prompt,
    PromptPool,
    PromptStatus,
    Purpose,
    Round,
    Sample,
    Sampler,
    Snapshot,
    SnapshotDemonstration,
    SnapshotJudgement,
    SnapshotKind,
    Split,
    Task,
    TaskOutput,
    User,
)

_BATCH_ROWS = 500


@dataclass(frozen=True)
class JudgementRow:
    """A judgement with what it is about and who made it."""

    judgement: Judgement
    prompt: Prompt
    purpose: Purpose
    judge_kind: JudgeKind
    author: str
    """The judge's identity: a person's uid, else the judge's own."""
    round_number: int | None
    guideline_version: int | None
    schema_version: int | None


@dataclass(frozen=True)
class OutputRow:
    """One ranked output of a judgement: the output's place in its task, the text, and the sampler's uid."""

    position: int
    rank: JudgementRank
    sample: Sample
    sampler: str | None


@dataclass(frozen=True)
class PairRow:
    """A direct comparison, by the uids of the two samples."""

    left: str
    right: str
    pair: JudgementPair


def list_demonstrations(
    session: Session,
    project_id: int,
    *,
    purposes: Collection[Purpose],
    cohorts: Collection[Cohort],
    default_cohort: Cohort,
) -> Iterator[tuple[Demonstration, Prompt, str | None]]:
    """Current demonstrations of people in these cohorts for tasks of these purposes, with prompt and author's uid.

    Imported ones count as for training.
    """
    rows = session.execute(
        select(Demonstration, Prompt, User.uid)
        .join(Prompt, Prompt.id == Demonstration.prompt_id)
        .outerjoin(Task, Task.id == Demonstration.task_id)
        .outerjoin(User, User.id == Demonstration.author_id)
        .outerjoin(Membership, (Membership.project_id == project_id) & (Membership.user_id == User.id))
        .where(
            Demonstration.project_id == project_id,
            Demonstration.status == JudgementStatus.CURRENT,
            func.coalesce(Task.purpose, Purpose.TRAIN).in_(purposes),
            ~Prompt.is_private,
            func.coalesce(Membership.cohort, default_cohort).in_(cohorts),
        )
        .order_by(Demonstration.id)
        .execution_options(yield_per=_BATCH_ROWS)
    )
    for demonstration, prompt, author in rows:
        yield demonstration, prompt, str(author) if author else None


def list_judgements(
    session: Session,
    project_id: int,
    *,
    purposes: Collection[Purpose],
    cohorts: Collection[Cohort],
    judge_kinds: Collection[JudgeKind],
    default_cohort: Cohort,
) -> Iterator[Sequence[JudgementRow]]:
    """Current judgements of these purposes, cohorts and kinds of judge, in batches."""
    rows = session.execute(
        select(
            Judgement,
            Prompt,
            Task.purpose,
            Judge.kind,
            func.coalesce(User.uid, Judge.uid),
            Round.number,
            Guideline.version,
            LabelSchema.version,
        )
        .join(Task, Task.id == Judgement.task_id)
        .join(Prompt, Prompt.id == Task.prompt_id)
        .join(Judge, Judge.id == Judgement.judge_id)
        .outerjoin(User, User.id == Judge.user_id)
        .outerjoin(Membership, (Membership.project_id == project_id) & (Membership.user_id == User.id))
        .outerjoin(Round, Round.id == Task.round_id)
        .outerjoin(Guideline, Guideline.id == Judgement.guideline_id)
        .outerjoin(LabelSchema, LabelSchema.id == Judgement.label_schema_id)
        .where(
            Judgement.project_id == project_id,
            Judgement.status == JudgementStatus.CURRENT,
            Task.purpose.in_(purposes),
            Task.kind.in_(ORDERING),
            Judge.kind.in_(judge_kinds),
            ~Prompt.is_private,
            func.coalesce(Membership.cohort, default_cohort).in_(cohorts),
        )
        .order_by(Judgement.id)
        .execution_options(yield_per=_BATCH_ROWS)
    )
    for batch in rows.partitions(_BATCH_ROWS):
        yield [JudgementRow(*row[:4], str(row[4]), *row[5:]) for row in batch]


def list_outputs(session: Session, judgement_ids: Collection[int]) -> dict[int, list[OutputRow]]:
    """The ranked outputs of each judgement, by the output's place in its task."""
    outputs: dict[int, list[OutputRow]] = {id_: [] for id_ in judgement_ids}
    rows = session.execute(
        select(TaskOutput.position, JudgementRank, Sample, Sampler.uid)
        .join(TaskOutput, TaskOutput.id == JudgementRank.output_id)
        .join(Sample, Sample.id == TaskOutput.sample_id)
        .outerjoin(Sampler, Sampler.id == Sample.sampler_id)
        .where(JudgementRank.judgement_id.in_(judgement_ids))
        .order_by(JudgementRank.judgement_id, TaskOutput.position)
    )
    for position, rank, sample, sampler in rows:
        outputs[rank.judgement_id].append(OutputRow(position, rank, sample, str(sampler) if sampler else None))
    return outputs


def list_pairs(session: Session, judgement_ids: Collection[int]) -> dict[int, list[PairRow]]:
    """The direct comparisons of each judgement; most have none."""
    pairs: dict[int, list[PairRow]] = {id_: [] for id_ in judgement_ids}
    uids = select(TaskOutput.id, Sample.uid).join(Sample, Sample.id == TaskOutput.sample_id)
    left, right = uids.subquery(), uids.subquery()
    rows = session.execute(
        select(left.c.uid, right.c.uid, JudgementPair)
        .join(left, left.c.id == JudgementPair.left_id)
        .join(right, right.c.id == JudgementPair.right_id)
        .where(JudgementPair.judgement_id.in_(judgement_ids))
        .order_by(JudgementPair.id)
    )
    for left_uid, right_uid, pair in rows:
        pairs[pair.judgement_id].append(PairRow(str(left_uid), str(right_uid), pair))
    return pairs


def list_prompts(session: Session, project_id: int, splits: Collection[Split]) -> Iterator[Prompt]:
    """Active prompts of active pools."""
    yield from session.scalars(
        select(Prompt)
        .join(PromptPool, PromptPool.id == Prompt.pool_id)
        .where(
            Prompt.project_id == project_id,
            Prompt.status == PromptStatus.ACTIVE,
            Prompt.split.in_(splits),
            PromptPool.is_active,
        )
        .order_by(Prompt.id)
        .execution_options(yield_per=_BATCH_ROWS)
    )


def find_same(session: Session, project_id: int, kind: SnapshotKind, sha256: str) -> Snapshot | None:
    """A snapshot of this kind with this very content."""
    return session.scalar(
        select(Snapshot)
        .where(Snapshot.project_id == project_id, Snapshot.kind == kind, Snapshot.sha256 == sha256)
        .order_by(Snapshot.id)
        .limit(1)
    )


def find_by_uid(session: Session, project_id: int, uid: uuid.UUID) -> Snapshot | None:
    """The snapshot with this uid."""
    return session.scalar(select(Snapshot).where(Snapshot.project_id == project_id, Snapshot.uid == uid))


def insert_snapshot(session: Session, snapshot: Snapshot) -> None:
    """Add a snapshot whose files are in the store."""
    session.add(snapshot)
    session.flush()


def insert_members(
    session: Session, project_id: int, snapshot_id: int, *, judgements: Iterable[int], demonstrations: Iterable[int]
) -> None:
    """Note what went into a snapshot."""
    scope = {"project_id": project_id, "snapshot_id": snapshot_id}
    if rows := [{**scope, "judgement_id": id_} for id_ in judgements]:
        session.execute(insert(SnapshotJudgement), rows)
    if rows := [{**scope, "demonstration_id": id_} for id_ in demonstrations]:
        session.execute(insert(SnapshotDemonstration), rows)
