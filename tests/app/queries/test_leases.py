"""Marks in the queue: they spare a person what they had, hide nothing, and lend nothing twice."""

import random
import threading
from collections import Counter
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import create_engine, func, select, update
from sqlalchemy.orm import Session

from app import db
from app.models import Lease, LeaseState, QueueMark, Task, TaskKind, TaskState
from app.permissions import Access
from app.queries import leases
from app.schemas.judgements import WhySkipped
from app.services import judgements, tasks
from tests.app.queue import Queue, lease, make_queue, rank, take


@pytest.fixture
def queue(session: Session, tmp_path: Path) -> Queue:
    return make_queue(session, tmp_path)


def age(session: Session, *aged: Task) -> None:
    """Let tasks have their places for hours, in this order."""
    for number, task in enumerate(aged):
        queued_at = func.now() - timedelta(hours=5) + timedelta(seconds=number)
        session.execute(update(Task).where(Task.id == task.id).values(queued_at=queued_at))


def have_many(session: Session, queue: Queue, ada: Access, **kinds: int) -> list[Task]:
    """Tasks that want one more judgement than Ada's, so many that her way to the next is made shorter."""
    had = [queue.task(session, wanted=2, **kinds) for _ in range(leases._MANY + 2)]
    age(session, *had)
    for _ in had:
        tasks.skip(session, ada, take(session, ada).task.uid, reason=WhySkipped.OTHER)
    return had


def marks(session: Session) -> int:
    return session.scalars(select(func.count()).select_from(QueueMark)).one()


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mark is made from a handful of tasks on."""
    monkeypatch.setattr(leases, "_MANY", 4)


class TestMarks:
    def test_spare_a_person_what_they_had_and_show_what_comes(self, session: Session, queue: Queue) -> None:
        ada = queue.person(session)
        had = have_many(session, queue, ada)
        following = queue.task(session)
        age(session, *had, following)
        assert lease(session, ada).task_id == following.id
        passed = session.scalars(select(QueueMark.passed)).one()
        spared = set(session.scalars(select(Task.id).where(Task.queued_at <= passed)))
        assert len(spared) >= leases._MANY
        assert spared <= {task.id for task in had}
        tasks.skip(session, ada, following.uid, reason=WhySkipped.OTHER)
        assert tasks.lease_next(session, ada, TaskKind.RANK) is None
        fresh = queue.task(session)
        assert tasks.find_nothing(session, ada, TaskKind.RANK) is None
        assert lease(session, ada).task_id == fresh.id

    def test_never_reach_the_last_minutes(self, session: Session, queue: Queue) -> None:
        ada = queue.person(session)
        have_many(session, queue, ada)
        queue.task(session)
        lease(session, ada)
        passed, now = session.execute(select(QueueMark.passed, func.now())).one()
        assert passed <= now - timedelta(minutes=10)

    def test_hide_nothing_of_a_higher_or_lower_priority(self, session: Session, queue: Queue) -> None:
        ada = queue.person(session)
        had = have_many(session, queue, ada, priority=3)
        low, high = queue.task(session, priority=1), queue.task(session, priority=5)
        age(session, low, high, *had)
        leased = [lease(session, ada).task_id]
        tasks.skip(session, ada, high.uid, reason=WhySkipped.OTHER)
        leased.append(lease(session, ada).task_id)
        assert leased == [high.id, low.id]
        assert marks(session) == 1

    @pytest.mark.parametrize(
        "change", [{"state": TaskState.OPEN}, {"priority": 1}, {"needs": []}], ids=["re-opened", "urgent", "for all"]
    )
    def test_a_task_that_becomes_available_lies_beyond(
        self, session: Session, queue: Queue, change: dict[str, object]
    ) -> None:
        ada = queue.person(session)
        task = queue.task(session, needs=["skill:math"] if "needs" in change else (), wanted=2)
        if "state" in change:
            task.state = TaskState.DONE
        elif "priority" in change:
            task.priority = -1
        session.flush()
        had, following = have_many(session, queue, ada), queue.task(session)
        age(session, task, *had, following)
        assert lease(session, ada).task_id == following.id
        session.execute(update(Task).where(Task.id == task.id).values(**change))
        session.refresh(task)
        assert task.queued_at > session.scalars(select(QueueMark.passed).where(QueueMark.priority == 0)).one()
        tasks.skip(session, ada, following.uid, reason=WhySkipped.OTHER)
        assert lease(session, ada).task_id == task.id
        assert marks(session) > 0, "it was found beyond the mark"

    def test_wait_for_a_task_that_others_hold(self, session: Session, queue: Queue) -> None:
        ada, bob = queue.person(session), queue.person(session, "Bob")
        held = queue.task(session)
        lease(session, bob)
        had = have_many(session, queue, ada)
        following = queue.task(session)
        age(session, held, *had, following)
        lease(session, ada)
        tasks.release(session, bob, held.uid)
        tasks.skip(session, ada, following.uid, reason=WhySkipped.OTHER)
        assert lease(session, ada).task_id == held.id

    def test_what_came_in_too_late_is_found_before_nothing_is_said(self, session: Session, queue: Queue) -> None:
        ada = queue.person(session)
        had = have_many(session, queue, ada)
        following = queue.task(session)
        age(session, *had, following)
        lease(session, ada)
        tasks.skip(session, ada, following.uid, reason=WhySkipped.OTHER)
        late = queue.task(session)
        age(session, late)
        assert tasks.find_nothing(session, ada, TaskKind.RANK) is None
        assert lease(session, ada).task_id == late.id
        assert marks(session) == 0, "marks that hid a task are made anew"

    def test_begin_anew_for_a_person_who_brings_more(self, session: Session, queue: Queue) -> None:
        ada = queue.person(session)
        beyond = [queue.task(session, needs=["skill:math"]) for _ in range(6)]
        following = queue.task(session)
        age(session, *beyond, following)
        lease(session, ada)
        assert marks(session) == 1
        tasks.skip(session, ada, following.uid, reason=WhySkipped.OTHER)
        able = leases.Seeker(queue.project.id, ada.user.id, TaskKind.RANK, tasks.WORK, frozenset({"skill:math"}))
        lease_id = leases.lease_new(session, able, length=timedelta(minutes=1), seed=1)
        assert lease_id is not None
        assert session.get_one(Lease, lease_id).task_id == beyond[0].id


class TestManyAtOnce:
    """People over real connections and real commits, marks as eager as they can be, while tasks come and go."""

    def test_every_task_is_answered_as_often_as_wanted_and_by_different_people(
        self, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(leases, "_MANY", 1)
        monkeypatch.setattr(leases, "_MARGIN", timedelta(0))
        engine = create_engine(db.normalise_url(database_url), pool_size=12, max_overflow=4)
        with db.transaction(engine) as session:
            queue = make_queue(session, tmp_path)
            people = [queue.person(session, f"P{number}") for number in range(8)]
            for _ in range(12):
                queue.task(session, wanted=3, priority=random.randrange(2))
        is_over = threading.Event()
        failures: list[BaseException] = []

        def open_tasks() -> None:
            """More tasks, some committed later than others that were queued after them, and priorities that change."""
            for number in range(20):
                with db.transaction(engine) as session:
                    task = queue.task(session, wanted=3)
                    is_over.wait(0.03 * (number % 3))
                with db.transaction(engine) as session:
                    session.execute(update(Task).where(Task.id == task.id).values(priority=number % 3))
            is_over.set()

        def work(access: Access) -> None:
            was_last = False
            while not was_last:
                was_last = is_over.is_set()
                with db.transaction(engine) as session:
                    leased = tasks.lease_next(session, access, TaskKind.RANK)
                while leased is not None:
                    with db.transaction(engine) as session:
                        taken = tasks.get_work(session, leased)
                        judgements.submit_ranking(session, access, taken.task.uid, rank(taken))
                        leased = tasks.lease_next(session, access, TaskKind.RANK)

        def watched(act: object, *given: object) -> None:
            try:
                act(*given)  # type: ignore[operator]
            except BaseException as error:
                failures.append(error)
                is_over.set()

        threads = [threading.Thread(target=watched, args=(open_tasks,))]
        threads += [threading.Thread(target=watched, args=(work, access)) for access in people]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for access in people:  # what was passed over by a last look, because somebody was at it
            work(access)
        assert not failures, failures[0]
        with Session(engine) as session:
            answers = Counter(session.scalars(select(Lease.task_id).where(Lease.state == LeaseState.SUBMITTED)))
            assert (len(answers), set(answers.values())) == (32, {3})
            assert not session.scalars(select(Lease).where(Lease.is_surplus)).all()
            assert set(session.scalars(select(Task.state))) == {TaskState.DONE}
            assert marks(session) > 0
        engine.dispose()


def test_a_draft_that_is_being_saved_keeps_nobody_from_its_task(database_url: str, tmp_path: Path) -> None:
    engine = create_engine(db.normalise_url(database_url))
    with db.transaction(engine) as session:
        queue = make_queue(session, tmp_path)
        task, ada, bob = queue.task(session, wanted=2), queue.person(session), queue.person(session, "Bob")
        lease(session, ada)
    with db.transaction(engine) as saving:
        assert tasks.save_draft(saving, ada, task.uid, {"note": "half"}) is not None
        with db.transaction(engine) as session:
            assert lease(session, bob).task_id == task.id
    engine.dispose()
