"""Agreement between judgements in SQL."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import delete, insert, or_, select, union_all
from sqlalchemy.orm import Session, aliased

from app.models import Agreement, Judge, JudgeKind, Judgement, JudgementRank, JudgementStatus, Task


@dataclass(frozen=True)
class TiersRow:
    """A current judgement of a task: its judge, and the tier of each output it placed, None for not rankable."""

    judgement_id: int
    judge_id: int
    tiers: Mapping[int, int | None]


def list_tiers(session: Session, task_id: int) -> Sequence[TiersRow]:
    """The current rankings of a task, the oldest first."""
    rows = session.execute(
        select(Judgement.id, Judgement.judge_id, JudgementRank.output_id, JudgementRank.tier)
        .join(JudgementRank, JudgementRank.judgement_id == Judgement.id)
        .where(Judgement.task_id == task_id, Judgement.status == JudgementStatus.CURRENT)
        .order_by(Judgement.id)
    ).all()
    tiers: dict[tuple[int, int], dict[int, int | None]] = {}
    for judgement_id, judge_id, output_id, tier in rows:
        tiers.setdefault((judgement_id, judge_id), {})[output_id] = tier
    return [TiersRow(*key, of_outputs) for key, of_outputs in tiers.items()]


def insert_agreements(session: Session, rows: Sequence[Mapping[str, int]]) -> None:
    """Add agreements; each row holds the columns by name."""
    session.execute(insert(Agreement), rows)


def delete_of_judgement(session: Session, judgement_id: int) -> None:
    """Forget how a judgement agreed with others."""
    either = or_(Agreement.first_id == judgement_id, Agreement.second_id == judgement_id)
    session.execute(delete(Agreement).where(either))


@dataclass(frozen=True)
class SharedRow:
    """How a person's judgement and another person's of the same task agree."""

    task_id: int
    prompt_id: int
    pairs: int
    alike: int
    one_tied: int
    both_tied: int


def list_shared(session: Session, project_id: int, user_id: int, *, limit: int) -> Sequence[SharedRow]:
    """The newest agreements between this person and others, machines aside."""
    own, other = aliased(Judge), aliased(Judge)
    sides = [
        select(
            Agreement.id,
            Agreement.task_id,
            Agreement.pairs,
            Agreement.alike,
            Agreement.one_tied,
            Agreement.both_tied,
        )
        .join(own, own.id == mine)
        .join(other, other.id == theirs)
        .where(
            Agreement.project_id == project_id,
            own.project_id == project_id,
            own.kind == JudgeKind.HUMAN,
            own.user_id == user_id,
            other.kind == JudgeKind.HUMAN,
        )
        .order_by(Agreement.id.desc())
        .limit(limit)
        for mine, theirs in (
            (Agreement.first_judge_id, Agreement.second_judge_id),
            (Agreement.second_judge_id, Agreement.first_judge_id),
        )
    ]
    shared = union_all(*(side.subquery().select() for side in sides)).subquery()
    rows = session.execute(
        select(
            shared.c.task_id,
            Task.prompt_id,
            shared.c.pairs,
            shared.c.alike,
            shared.c.one_tied,
            shared.c.both_tied,
        )
        .join(Task, Task.id == shared.c.task_id)
        .order_by(shared.c.id.desc())
        .limit(limit)
    )
    return [SharedRow(*row) for row in rows]
