"""Gold tasks among the work: when they come, what they measure, and what a miss leads to."""

from pathlib import Path

import pytest
from sqlalchemy import create_engine, select
from sqlalchemy.orm import Session

from app import db
from app.errors import BadInput, Conflict, Forbidden, NotFound
from app.models import AppealState, AuditEntry, Purpose, Task, TaskKind, TaskState
from app.permissions import Access
from app.queries import datasets as dataset_queries
from app.queries import tasks as task_queries
from app.schemas.projects import SchoolSettings
from app.services import accounts, appeals, counters, datasets, gold, judgements, qualifications, references, tasks
from tests.app import school
from tests.app.queue import Queue, lease, make_queue, rank, take, work_of


@pytest.fixture
def queue(session: Session, tmp_path: Path) -> Queue:
    return make_queue(session, tmp_path)


def set_gold(queue: Queue, rate: float, *, shows: bool = True) -> None:
    queue.project.school = SchoolSettings(gold_rate=rate, shows_gold_misses=shows).model_dump() | {"gold_rate": rate}


def always(monkeypatch: pytest.MonkeyPatch, *, is_due: bool = True) -> None:
    monkeypatch.setattr(gold, "draw", lambda key: 0.0 if is_due else 0.99)


def miss(session: Session, queue: Queue, monkeypatch: pytest.MonkeyPatch) -> tuple[Access, Task]:
    """A labeller who ranked a gold task the wrong way round."""
    task = school.referenced(session, queue)
    queue.task(session)
    set_gold(queue, 0.5)
    always(monkeypatch)
    ada = queue.person(session)
    answer(session, ada, lease(session, ada), [3, 2, 1])
    return ada, task


def answer(session: Session, access: Access, leased: object, tiers: list[int]) -> Task:
    work = work_of(session, access, leased)  # type: ignore[arg-type]
    ranking = rank(work, [tiers[output.position] for output in work.outputs])
    judgements.submit_ranking(session, access, work.task.uid, ranking)
    return work.task


class TestLeaseTask:
    def test_the_draw_is_even_and_stays_until_one_goes_on(self, session: Session, queue: Queue) -> None:
        school.referenced(session, queue)
        for _ in range(2):
            queue.task(session)
        set_gold(queue, 0.5)
        people = [queue.person(session) for _ in range(40)]
        purposes = []
        for person in people:
            first = lease(session, person)
            purposes.append(session.get_one(Task, first.task_id).purpose)
            tasks.release(session, person, session.get_one(Task, first.task_id).uid)
        assert 8 <= purposes.count(Purpose.GOLD) <= 32  # 20 are expected; further off than this once in 10,000 keys
        assert set(purposes) == {Purpose.GOLD, Purpose.TRAIN}

    def test_none_comes_unless_asked_for(self, session: Session, queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
        school.referenced(session, queue)
        queue.task(session)
        always(monkeypatch)
        assert session.get_one(Task, lease(session, queue.person(session)).task_id).purpose == Purpose.TRAIN

    def test_comes_once_to_everybody_and_never_alone(
        self, session: Session, queue: Queue, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        task = school.referenced(session, queue)
        work = queue.task(session)
        set_gold(queue, 0.5)
        always(monkeypatch)
        for _ in range(2):
            person = queue.person(session)
            assert answer(session, person, lease(session, person), [1, 2, 3]).id == task.id
        assert task.state == TaskState.OPEN
        assert answer(session, person, lease(session, person), [1, 2, 3]).id == work.id
        assert tasks.lease_next(session, queue.person(session), TaskKind.RANK) is None

    def test_is_not_for_those_who_saw_its_responses_before(
        self, session: Session, queue: Queue, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ada, teacher = queue.person(session), school.teacher(session, queue)
        of = queue.task(session)
        answer(session, ada, lease(session, ada), [1, 2, 3])
        references.create_of_task(session, teacher, of.uid, Purpose.GOLD, school.form_of(session, of, ["1", "2", "3"]))
        queue.task(session)
        set_gold(queue, 0.5)
        always(monkeypatch)
        assert session.get_one(Task, lease(session, ada).task_id).purpose == Purpose.TRAIN

    def test_comes_back_when_it_was_left(self, session: Session, queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
        task = school.referenced(session, queue)
        queue.task(session)
        set_gold(queue, 0.5)
        always(monkeypatch)
        ada = queue.person(session)
        tasks.release(session, ada, take(session, ada).task.uid)
        always(monkeypatch, is_due=False)
        answer(session, ada, lease(session, ada), [1, 2, 3])
        assert tasks.find_nothing(session, ada, TaskKind.RANK) is None
        assert lease(session, ada).task_id == task.id

    def test_one_that_somebody_submits_is_not_waited_for(
        self, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Two people who submit a gold task each, or one of a test, would wait for each other's."""
        engine = create_engine(db.normalise_url(database_url), connect_args={"options": "-c lock_timeout=1s"})
        always(monkeypatch)
        with db.transaction(engine) as session:
            queue = make_queue(session, tmp_path)
            submitted = [school.referenced(session, queue, purpose) for purpose in (Purpose.GOLD, Purpose.QUALIFY)]
            work = queue.task(session)
            set_gold(queue, 0.5)
            queue.project.school = queue.project.school | {"test_tasks": 1}
            ada = queue.person(session)
        with db.transaction(engine) as another, db.transaction(engine) as session:
            for task in submitted:
                task_queries.lock_task(another, task.id)
            assert lease(session, ada).task_id == work.id
            tested = qualifications.go_on(session, ada)
            assert tested is not None
            assert tested.task_id == submitted[1].id
        engine.dispose()

    def test_never_reaches_training(self, session: Session, queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
        before = counters.get(session, queue.project.id, counters.JUDGEMENTS)
        miss(session, queue, monkeypatch)
        filters = datasets.TRAINING
        batches = dataset_queries.list_judgements(
            session,
            queue.project.id,
            purposes=filters.purposes,
            cohorts=filters.cohorts,
            judge_kinds=filters.judges,
            default_cohort=accounts.DEFAULT_COHORT,
        )
        rows = [row for batch in batches for row in batch]
        assert [row.purpose for row in rows] == [Purpose.TRAIN]  # the one that the gold task was made of
        assert counters.get(session, queue.project.id, counters.JUDGEMENTS) == before + 1


class TestMeasure:
    def test_is_of_first_answers_with_an_interval(
        self, session: Session, queue: Queue, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ada, task = miss(session, queue, monkeypatch)
        teacher = school.teacher(session, queue)
        found = appeals.measure(session, teacher)[ada.user.id]
        assert (found.estimate.value, found.answers, found.misses) == (0.0, 1, 1)
        work = tasks.find_work(session, ada, task.uid)
        right = rank(work, [output.position + 1 for output in work.outputs])
        judgements.revise(session, ada, task.uid, right, of_revision=1)
        assert appeals.measure(session, teacher)[ada.user.id] == found
        assert set(appeals.measure(session, teacher)) == {ada.user.id}


class TestAppeal:
    def test_upheld_measures_everybody_anew(
        self, session: Session, queue: Queue, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ada, task = miss(session, queue, monkeypatch)
        teacher = school.teacher(session, queue)
        assert len(appeals.find_miss(session, ada, task.uid).compared.unlike) == 3
        made = appeals.appeal(session, ada, task.uid, "The third is the only one that answers.")
        with pytest.raises(Conflict, match="already"):
            appeals.appeal(session, ada, task.uid, "Again.")
        with pytest.raises(BadInput, match="is the one that holds"):
            same = school.form_of(session, task, ["1", "2", "3"], explanation="As it was.")
            appeals.uphold(session, teacher, made.uid, same, of_version=1, reply="You are right.")
        form = school.form_of(session, task, ["3", "2", "1"])
        appeals.uphold(session, teacher, made.uid, form, of_version=1, reply="You are right.")
        assert appeals.measure(session, teacher)[ada.user.id].estimate.value == 1.0
        found = appeals.find_miss(session, ada, task.uid)
        assert found.appeal is not None
        assert (found.appeal.state, found.appeal.reply) == (AppealState.UPHELD, "You are right.")
        with pytest.raises(Conflict, match="decided already"):
            appeals.decline(session, teacher, made.uid, "No.")
        actions = session.scalars(select(AuditEntry.action).where(AuditEntry.actor_id == teacher.user.id))
        assert sorted(actions) == ["revise reference", "uphold appeal"]

    def test_declined_says_why(self, session: Session, queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
        ada, task = miss(session, queue, monkeypatch)
        teacher = school.teacher(session, queue)
        made = appeals.appeal(session, ada, task.uid, "I see it otherwise.")
        for reply in ("", "a" * 5_001):
            with pytest.raises(BadInput, match="between 1 and 5,000"):
                appeals.decline(session, teacher, made.uid, reply)
        with pytest.raises(Forbidden):
            appeals.decline(session, ada, made.uid, "I decide.")
        appeals.decline(session, teacher, made.uid, "The second invents a fact.")
        assert (made.state, made.reply) == (AppealState.DECLINED, "The second invents a fact.")
        assert appeals.measure(session, teacher)[ada.user.id].misses == 1

    def test_nobody_can_ask_which_tasks_are_gold(
        self, session: Session, queue: Queue, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ada, task = miss(session, queue, monkeypatch)
        work = answer(session, ada, lease(session, ada), [1, 2, 3])
        queue.task(session)
        bob = queue.person(session)
        met = answer(session, bob, lease(session, bob), [1, 2, 3])
        assert met.id == task.id
        for person, uid in ((ada, work.uid), (bob, task.uid), (queue.person(session), task.uid)):
            with pytest.raises(NotFound):
                appeals.find_miss(session, person, uid)
        set_gold(queue, 0.5, shows=False)
        with pytest.raises(NotFound):
            appeals.find_miss(session, ada, task.uid)
