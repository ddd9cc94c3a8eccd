"""Agreement as judgements arrive: at every moment what comparing all current judgements anew would give."""

import random
from pathlib import Path

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.models import Agreement, Judgement, JudgementRank, JudgementStatus, QuestionKind, Role
from app.permissions import Access
from app.services import agreements, counters, judgements, questions, tasks
from app.statistics import PairCounts, count_pairs
from tests.app import registry
from tests.app.queue import Queue, make_queue, rank, take


@pytest.fixture
def queue(session: Session, tmp_path: Path) -> Queue:
    return make_queue(session, tmp_path)


def stored(session: Session) -> dict[tuple[int, int], PairCounts]:
    rows = session.scalars(select(Agreement)).all()
    return {
        (row.first_id, row.second_id): PairCounts(row.pairs, row.alike, row.one_tied, row.both_tied) for row in rows
    }


def from_scratch(session: Session) -> dict[tuple[int, int], PairCounts]:
    """Every two current judgements of a task, compared output by output."""
    current = session.scalars(
        select(Judgement).where(Judgement.status == JudgementStatus.CURRENT).order_by(Judgement.id)
    ).all()
    tiers = {
        judgement.id: dict(
            session.execute(
                select(JudgementRank.output_id, JudgementRank.tier).where(JudgementRank.judgement_id == judgement.id)
            ).all()
        )
        for judgement in current
    }
    found = {}
    for first in current:
        for second in current:
            if first.task_id == second.task_id and first.id < second.id:
                outputs = list(tiers[first.id])
                counts = count_pairs(
                    [tiers[first.id][key] for key in outputs], [tiers[second.id][key] for key in outputs]
                )
                if counts.pairs:
                    found[first.id, second.id] = counts
    return found


def draw_tiers(draw: random.Random) -> list[int | None]:
    return [draw.choice([1, 2, 3, 4, None]) for _ in range(4)]


@pytest.mark.parametrize("seed", range(4))
def test_holds_under_submits_revisions_exclusions_and_late_answers(session: Session, queue: Queue, seed: int) -> None:
    draw = random.Random(seed)
    admin = registry.access_of(registry.make_user(session, name="Grace"), queue.project, Role.ADMIN)
    people = [queue.person(session) for _ in range(5)]
    for _ in range(3):
        queue.task(session, ("a", "b", "c", "d"), wanted=2)
    works = []
    for person in people:
        for _ in range(3):
            work = take(session, person)
            tasks.release(
                session, person, work.task.uid
            )  # so that every answer comes late, and three of five as surplus
            works.append((person, work))
    for _ in range(2):
        draw.shuffle(works)
        for person, work in works:
            act(session, draw, person, work)
            assert stored(session) == from_scratch(session)
    assert stored(session)
    person, work = works[0]
    report = questions.ask(session, person, work.task.uid, kind=QuestionKind.BROKEN, text="Empty.", key=work.task.uid)
    questions.retire_task(session, admin, report.uid, excludes_answers=True)
    assert stored(session) == from_scratch(session)
    assert all(row.task_id != work.task.id for row in session.scalars(select(Agreement)))
    assert counters.get(session, queue.project.id, counters.JUDGEMENTS) == count_current(session)


def count_current(session: Session) -> int:
    return len(session.scalars(select(Judgement.id).where(Judgement.status == JudgementStatus.CURRENT)).all())


def act(session: Session, draw: random.Random, person: Access, work: tasks.Work) -> None:
    """Answer the task, or say it otherwise."""
    former = judgements.find_stored(session, work)
    if former is None:
        judgements.submit_ranking(session, person, work.task.uid, rank(work, draw_tiers(draw)))
    elif draw.random() < 0.7:
        ranking = rank(work, draw_tiers(draw))
        judgements.revise(session, person, work.task.uid, ranking, of_revision=former.revision)


class TestWithOthers:
    def test_says_how_many_tasks_are_missing_and_then_the_share(
        self, session: Session, queue: Queue, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(agreements, "LEAST_TASKS", 2)
        ada, bob = queue.person(session), queue.person(session)
        for tiers in ((1, 2, 3), (1, 1, 2)):
            queue.task(session, wanted=2)
            for person, said in ((ada, (1, 2, 3)), (bob, tiers)):
                work = take(session, person)
                order = [said[output.position] for output in work.outputs]
                judgements.submit_ranking(session, person, work.task.uid, rank(work, order))
            found = agreements.with_others(session, ada)
            if found.tasks < 2:
                assert (found.missing, found.strict, found.half) == (1, None, None)
        # prompts: 3 of 3 alike, then 2 of 3 with one tied by bob alone
        assert found.strict is not None
        assert found.half is not None
        assert found.strict.value == pytest.approx((1 + 2 / 3) / 2)
        assert found.half.value == pytest.approx((1 + 2.5 / 3) / 2)
        assert agreements.with_others(session, bob) == found
        assert agreements.with_others(session, queue.person(session)).tasks == 0
