"""A person's own work in numbers."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy.orm import Session

from app.models import Membership, Purpose, Role, TaskKind
from app.schemas.judgements import WhySkipped
from app.services import judgements, progress, qualifications, tasks
from tests.app import kinds, school
from tests.app.queue import Queue, lease, make_queue, rank, take, work_of


@pytest.fixture
def queue(session: Session, tmp_path: Path) -> Queue:
    return make_queue(session, tmp_path)


def test_is_empty_for_somebody_new(session: Session, queue: Queue) -> None:
    found = progress.find_progress(session, queue.person(session))
    assert (found.tasks, found.skips, found.today, found.total, found.judgements) == (0, 0, 0, 0, 0)
    assert (found.median_active_seconds, found.ties_share, found.with_others.missing) == (None, None, 20)
    assert [day.height for day in found.days] == [0] * progress.DAYS


def test_counts_one_s_own_and_nobody_else_s(session: Session, queue: Queue) -> None:
    ada, bob = queue.person(session), queue.person(session)
    now = datetime.now(UTC)
    for number, tiers in enumerate([(1, 1, 2), (1, 2, 3), (None, 1, 1)]):
        queue.task(session, wanted=2)
        for person in (ada, bob):
            work = take(session, person)
            ranking = rank(work, tiers if person is ada else (1, 1, 1))
            judgement = judgements.submit_ranking(session, person, work.task.uid, ranking)
            judgement.active_ms = 1000 * (number + 1) if person is ada else 1
            if number == 0:
                work.lease.ended_at = now - timedelta(days=3)
    queue.task(session)
    tasks.skip(session, ada, take(session, ada).task.uid, reason=WhySkipped.OTHER)
    session.flush()
    found = progress.find_progress(session, ada, now=now)
    assert (found.tasks, found.skips, found.today, found.total, found.judgements) == (3, 1, 2, 3, 3)
    assert found.median_active_seconds == 2.0
    assert found.ties_share == pytest.approx(2 / 7)  # 1 of 3 pairs, 0 of 3, 1 of 1
    assert [(day.count, day.height) for day in found.days if day.count] == [(1, 50), (2, 100)]
    assert found.days[-1].day == now.date()


def test_leaves_lessons_and_the_time_of_other_kinds_aside(session: Session, queue: Queue) -> None:
    ada = queue.person(session)
    cap = Membership(project_id=queue.project.id, user_id=ada.user.id, roles=[Role.LABELLER], daily_cap=1)
    session.add(cap)
    school.referenced(session, queue, Purpose.PRACTICE)
    lesson = qualifications.practise(session, ada)
    assert lesson is not None
    kinds.open_task(session, queue, TaskKind.COMPARE)
    assert progress.count_open(session, ada, TaskKind.RANK) == 0
    assert progress.count_open(session, ada, TaskKind.COMPARE) == 1
    work = work_of(session, ada, lesson)
    judgements.submit_ranking(session, ada, work.task.uid, rank(work))
    assert judgements.count_today(session, ada) == 0
    assert tasks.find_cap_end(session, cap) is None
    work = work_of(session, ada, lease(session, ada, TaskKind.COMPARE))
    judgements.submit_ranking(session, ada, work.task.uid, rank(work), kind=TaskKind.COMPARE)
    assert tasks.find_cap_end(session, cap) is not None
    found = progress.find_progress(session, ada)
    assert (found.tasks, found.today, found.judgements) == (1, 1, 0)


def test_old_work_is_outside_of_the_strip(session: Session, queue: Queue) -> None:
    queue.task(session)
    ada, now = queue.person(session), datetime.now(UTC)
    work = take(session, ada)
    judgements.submit_ranking(session, ada, work.task.uid, rank(work))
    later = progress.find_progress(session, ada, now=now + timedelta(days=progress.DAYS))
    assert (later.tasks, later.total) == (1, 0)
