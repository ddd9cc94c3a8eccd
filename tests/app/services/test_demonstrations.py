"""Demonstrations: who is asked for which prompt, and that what they write is stored once."""

import uuid
from pathlib import Path

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.errors import BadInput, Conflict, NotFound
from app.models import Cohort, Demonstration, DemonstrationOrigin, LeaseState, Split, Task, TaskKind, TaskState
from app.services import counters, demonstrations, tasks
from tests.app import registry
from tests.app.queue import Queue, lease, make_queue, work_of


@pytest.fixture
def queue(session: Session, tmp_path: Path) -> Queue:
    return make_queue(session, tmp_path)


def take(session: Session, access: object) -> tasks.Work:
    leased = demonstrations.lease_next(session, access)  # type: ignore[arg-type]
    assert leased is not None
    return work_of(session, access, leased)  # type: ignore[arg-type]


class TestLeaseNext:
    def test_opens_tasks_on_training_prompts_only(self, session: Session, queue: Queue) -> None:
        train = registry.make_prompt(session, queue.project)
        registry.make_prompt(session, queue.project, split=Split.VALID)
        registry.make_prompt(session, queue.project, split=Split.TEST)
        ada = queue.person(session)
        work = take(session, ada)
        assert (work.prompt.id, work.outputs, work.task.kind) == (train.id, [], TaskKind.DEMONSTRATE)
        assert demonstrations.lease_next(session, queue.person(session, "Bob")) is None

    def test_asks_for_the_least_demonstrated_first(self, session: Session, queue: Queue) -> None:
        shown, fresh = (registry.make_prompt(session, queue.project) for _ in range(2))
        imported = [demonstrations.NewDemonstration(shown.id, "A wren.")]
        assert demonstrations.add_many(session, queue.project, imported) == 1
        first = session.scalars(
            select(Task.prompt_id).where(Task.id == take(session, queue.person(session)).task.id)
        ).one()
        tasks_by_age = session.scalars(select(Task.prompt_id).order_by(Task.id)).all()
        assert tasks_by_age == [fresh.id, shown.id]
        assert first == fresh.id

    def test_never_asks_a_person_twice_for_one_prompt(self, session: Session, queue: Queue) -> None:
        registry.make_prompt(session, queue.project)
        ada, bob = queue.person(session), queue.person(session, "Bob")
        work = take(session, ada)
        demonstrations.submit(session, ada, work.task.uid, text="A wren.", idempotency_key=uuid.uuid4())
        assert demonstrations.lease_next(session, ada) is None
        again = take(session, bob)
        assert (again.prompt.id, again.task.id != work.task.id) == (work.prompt.id, True)


class TestSubmit:
    def test_stores_the_text_once_and_closes_the_task(self, session: Session, queue: Queue) -> None:
        registry.make_prompt(session, queue.project)
        ada = queue.person(session)
        work = take(session, ada)
        key = uuid.uuid4()
        first, again = (
            demonstrations.submit(session, ada, work.task.uid, text=" A wren.\r\nOr two. ", idempotency_key=key)
            for _ in range(2)
        )
        assert first.id == again.id
        assert (first.text, first.author_id, first.origin) == (
            "A wren.\nOr two.",
            ada.user.id,
            DemonstrationOrigin.WRITTEN,
        )
        session.refresh(work.lease), session.refresh(work.task)
        assert (work.lease.state, work.task.state) == (LeaseState.SUBMITTED, TaskState.DONE)
        assert counters.get(session, queue.project.id, counters.DEMONSTRATIONS) == 1
        with pytest.raises(Conflict, match="another tab"):
            demonstrations.submit(session, ada, work.task.uid, text="Other.", idempotency_key=uuid.uuid4())

    def test_counts_only_what_trains(self, session: Session, queue: Queue) -> None:
        registry.make_prompt(session, queue.project)
        held_out = queue.person(session, cohort=Cohort.HELD_OUT)
        work = take(session, held_out)
        demonstrations.submit(session, held_out, work.task.uid, text="A wren.", idempotency_key=uuid.uuid4())
        assert counters.get(session, queue.project.id, counters.DEMONSTRATIONS) == 0

    @pytest.mark.parametrize(
        ("text", "message"), [("", "empty"), (" \n", "empty"), ("x" * 20_001, "20,001 characters"), ("a\x00", "NUL")]
    )
    def test_refuses_empty_and_overlong_texts(self, session: Session, queue: Queue, text: str, message: str) -> None:
        registry.make_prompt(session, queue.project)
        ada = queue.person(session)
        work = take(session, ada)
        with pytest.raises(BadInput, match=message):
            demonstrations.submit(session, ada, work.task.uid, text=text, idempotency_key=uuid.uuid4())
        assert session.scalar(select(func.count()).select_from(Demonstration)) == 0
        session.refresh(work.lease)
        assert work.lease.state == LeaseState.HELD

    def test_a_task_of_another_person_is_not_found(self, session: Session, queue: Queue) -> None:
        registry.make_prompt(session, queue.project)
        work = take(session, queue.person(session))
        with pytest.raises(NotFound):
            demonstrations.submit(
                session, queue.person(session, "Bob"), work.task.uid, text="x", idempotency_key=uuid.uuid4()
            )

    def test_a_task_that_asks_for_a_ranking_is_not_found(self, session: Session, queue: Queue) -> None:
        """Its prompt may be held out, and nobody would rank its outputs any more."""
        task = queue.task(session)
        ada = queue.person(session)
        ranked = lease(session, ada)
        with pytest.raises(NotFound):
            demonstrations.submit(session, ada, task.uid, text="x", idempotency_key=uuid.uuid4())
        session.refresh(ranked)
        assert ranked.state == LeaseState.HELD


class TestAddMany:
    def test_stores_thousands_and_counts_them(self, session: Session, queue: Queue) -> None:
        prompt = registry.make_prompt(session, queue.project)
        rows = (demonstrations.NewDemonstration(prompt.id, f"text {number}") for number in range(2500))
        assert demonstrations.add_many(session, queue.project, rows) == 2500
        assert session.scalar(select(func.count()).select_from(Demonstration)) == 2500
        assert counters.get(session, queue.project.id, counters.DEMONSTRATIONS) == 2500
