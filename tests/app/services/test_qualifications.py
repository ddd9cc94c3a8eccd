"""The way into the work: practice, the test, its score, and what an admin decides."""

import threading
import uuid
from collections.abc import Sequence
from pathlib import Path

import pytest
from sqlalchemy import create_engine, select
from sqlalchemy.orm import Session

from app import db, statistics
from app.errors import Conflict, Forbidden, NotFound
from app.models import (
    AuditEntry,
    Judgement,
    Membership,
    Purpose,
    Qualification,
    QualificationState,
    Role,
    Task,
    TaskKind,
    TaskState,
)
from app.permissions import Access
from app.queries import judgements as judgement_queries
from app.queries import qualifications as qualification_queries
from app.queries import references as reference_queries
from app.queries import tasks as task_queries
from app.schemas.judgements import WhySkipped
from app.schemas.projects import SchoolSettings
from app.services import history, judgements, qualifications, references, tasks
from tests.app import school
from tests.app.queue import Queue, make_queue, rank, work_of


@pytest.fixture
def queue(session: Session, tmp_path: Path) -> Queue:
    """A project whose test has two tasks, of which there are three."""
    made = make_queue(session, tmp_path)
    for number in range(3):
        school.referenced(session, made, Purpose.QUALIFY, texts=(f"{number} a", f"{number} b", f"{number} c"))
    set_school(made, test_tasks=2)
    return made


def set_school(queue: Queue, **values: object) -> None:
    queue.project.school = {**SchoolSettings().model_dump(), **values}


def answer(session: Session, access: Access, leased: object, tiers: Sequence[int | None]) -> Task:
    """Rank the outputs of a lease with these tiers by position."""
    work = work_of(session, access, leased)  # type: ignore[arg-type]
    by_position = [tiers[output.position] for output in work.outputs]
    judgements.submit_ranking(session, access, work.task.uid, rank(work, by_position))
    return work.task


def take_test(session: Session, access: Access, *answers: Sequence[int | None]) -> list[Task]:
    return [answer(session, access, qualifications.go_on(session, access), tiers) for tiers in answers]


class TestPractise:
    def test_shows_each_task_once_and_then_as_often_as_wanted(self, session: Session, queue: Queue) -> None:
        wanted = [school.referenced(session, queue, Purpose.PRACTICE) for _ in range(2)]
        ada = queue.person(session)
        for task in wanted:
            assert answer(session, ada, qualifications.practise(session, ada), [1, 2, 3]).id == task.id
        assert qualifications.practise(session, ada) is None
        again = qualifications.practise(session, ada, wanted[0].uid)
        assert answer(session, ada, again, [3, 2, 1]).id == wanted[0].id
        judgement = judgement_queries.find_current(session, wanted[0].id, ada.user.id)
        assert judgement is not None
        assert judgement.revision == 2

    def test_a_task_in_hand_keeps_its_order(self, session: Session, queue: Queue) -> None:
        school.referenced(session, queue, Purpose.PRACTICE)
        ada = queue.person(session)
        first = qualifications.practise(session, ada)
        assert first is not None
        seed = first.order_seed
        again = qualifications.practise(session, ada)
        assert again is not None
        assert again.order_seed == seed

    def test_is_compared_pair_by_pair(self, session: Session, queue: Queue) -> None:
        task = school.referenced(session, queue, Purpose.PRACTICE, ["1", "2", "2"])
        ada = queue.person(session)
        answer(session, ada, qualifications.practise(session, ada), [1, 1, 2])
        compared = qualifications.find_practised(session, ada, task.uid)
        assert len(compared.pairs) == 3
        texts = {output.sample: output.text for output in compared.work.outputs}
        assert {frozenset((texts[pair.first], texts[pair.second])) for pair in compared.unlike} == {
            frozenset(("first", "second")),
            frozenset(("second", "third")),
        }

    def test_knows_no_other_tasks(self, session: Session, queue: Queue) -> None:
        ada = queue.person(session)
        for purpose in (Purpose.GOLD, Purpose.QUALIFY):
            with pytest.raises(NotFound):
                qualifications.practise(session, ada, school.referenced(session, queue, purpose).uid)
        with pytest.raises(NotFound):
            qualifications.find_practised(session, ada, queue.task(session).uid)

    def test_leaves_out_what_a_person_may_not_see(self, session: Session, queue: Queue) -> None:
        school.referenced(session, queue, Purpose.PRACTICE).needs = ["content:violence"]
        assert qualifications.practise(session, queue.person(session)) is None

    def test_is_neither_work_nor_history(self, session: Session, queue: Queue) -> None:
        set_school(queue)
        school.referenced(session, queue, Purpose.PRACTICE)
        ada = queue.person(session)
        leased = qualifications.practise(session, ada)
        assert tasks.find_held(session, ada, TaskKind.RANK) is None
        assert tasks.lease_next(session, ada, TaskKind.RANK) is None
        task = work_of(session, ada, leased).task  # type: ignore[arg-type]
        for leave in (
            lambda: tasks.skip(session, ada, task.uid, reason=WhySkipped.UNCLEAR),
            lambda: tasks.release(session, ada, task.uid),
        ):
            with pytest.raises(Conflict, match="not passed on"):
                leave()
        answer(session, ada, leased, [1, 2, 3])
        assert not history.list_recent(session, ada)
        work = tasks.find_work(session, ada, task.uid)
        with pytest.raises(Conflict, match="stands as it is"):
            judgements.revise(session, ada, task.uid, rank(work), of_revision=1)


class TestTest:
    def test_says_nothing_until_it_is_over_and_then_opens_the_work(self, session: Session, queue: Queue) -> None:
        queue.task(session)
        set_school(queue, requires_qualification=True, test_tasks=2)
        ada = queue.person(session)
        nothing = tasks.find_nothing(session, ada, TaskKind.RANK)
        assert nothing is not None
        assert nothing.why == tasks.WhyNothing.NOT_QUALIFIED
        with pytest.raises(Forbidden, match="qualification test"):
            tasks.lease_next(session, ada, TaskKind.RANK)
        take_test(session, ada, [1, 2, 3])
        attempt = qualifications.find_standing(session, ada).open_attempt
        assert attempt is not None
        assert attempt.score is None
        with pytest.raises(NotFound):
            qualifications.find_result(session, ada, attempt.uid)
        take_test(session, ada, [1, 2, 3])
        found, compared = qualifications.find_result(session, ada, attempt.uid)
        assert (found.state, found.score) == (QualificationState.PASSED, 1.0)
        assert [item.unlike for item in compared] == [[], []]
        assert tasks.find_nothing(session, ada, TaskKind.RANK) is None
        assert tasks.lease_next(session, ada, TaskKind.RANK) is not None
        with pytest.raises(NotFound):
            qualifications.find_result(session, queue.person(session), attempt.uid)

    @pytest.mark.parametrize(("mark", "state"), [(5 / 6, QualificationState.PASSED), (0.84, QualificationState.FAILED)])
    def test_the_score_is_the_share_of_pairs(
        self, session: Session, queue: Queue, mark: float, state: QualificationState
    ) -> None:
        set_school(queue, test_tasks=2, pass_mark=mark)
        ada = queue.person(session)
        take_test(session, ada, [1, 2, 3], [1, 3, 2])  # three of three pairs, and two of three
        attempt = qualifications.find_standing(session, ada).attempts[0]
        assert attempt.score == pytest.approx(5 / 6)
        assert attempt.state == state

    def test_a_second_attempt_has_tasks_not_had_first(self, session: Session, queue: Queue) -> None:
        ada = queue.person(session)
        first = take_test(session, ada, [3, 2, 1], [3, 2, 1])
        second = take_test(session, ada, [3, 2, 1], [3, 2, 1])
        assert len({task.id for task in (*first, *second)}) == 3
        with pytest.raises(Conflict, match="used all attempts"):
            qualifications.go_on(session, ada)
        attempts = qualifications.find_standing(session, ada).attempts
        for attempt in attempts:  # each keeps its own answers, also to the task that was had twice
            assert len(qualifications.find_result(session, ada, attempt.uid)[1]) == 2

    def test_waits_for_practice_and_for_tasks(self, session: Session, queue: Queue) -> None:
        ada = queue.person(session)
        set_school(queue, test_tasks=4)
        with pytest.raises(Conflict, match="not ready"):
            qualifications.go_on(session, ada)
        school.referenced(session, queue, Purpose.PRACTICE)
        with pytest.raises(Conflict, match="practice tasks first"):
            qualifications.go_on(session, ada)

    def test_leaves_out_what_practice_explained(self, session: Session, queue: Queue) -> None:
        of = task_queries.find_task(session, queue.project.id, queue_tests(session, queue)[0])
        assert of is not None
        practice = Task(
            project_id=queue.project.id, kind=of.kind, purpose=Purpose.PRACTICE, prompt_id=of.prompt_id, needs=[]
        )
        practice.judgements_wanted = of.judgements_wanted
        task_queries.insert_task(session, practice, reference_queries.list_samples(session, of.id)[:2])
        assert qualification_queries.count_unexplained(session, queue.project.id) == 2
        ada, bob = queue.person(session), queue.person(session)
        qualifications.practise(session, ada)
        practice.state = TaskState.RETIRED
        set_school(queue, test_tasks=3)
        with pytest.raises(Conflict, match="not ready"):
            qualifications.go_on(session, ada)
        assert qualifications.go_on(session, bob) is not None
        assert qualification_queries.count_unexplained(session, queue.project.id) == 3

    def test_a_reference_changed_later_changes_no_result(self, session: Session, queue: Queue) -> None:
        ada = queue.person(session)
        done = take_test(session, ada, [1, 2, 3], [1, 2, 3])
        form = school.form_of(session, done[0], ["3", "2", "1"])
        references.revise(session, school.teacher(session, queue), done[0].uid, form, of_version=1)
        attempt = qualifications.find_standing(session, ada).attempts[0]
        assert all(not item.unlike for item in qualifications.find_result(session, ada, attempt.uid)[1])


def queue_tests(session: Session, queue: Queue) -> Sequence[uuid.UUID]:
    return session.scalars(
        select(Task.uid).where(Task.project_id == queue.project.id, Task.purpose == Purpose.QUALIFY)
    ).all()


class TestByHand:
    def member(self, session: Session, queue: Queue) -> Access:
        ada = queue.person(session)
        session.add(Membership(project_id=queue.project.id, user_id=ada.user.id, roles=[Role.LABELLER.value]))
        session.flush()
        return ada

    def test_an_admin_passes_and_resets(self, session: Session, queue: Queue) -> None:
        set_school(queue, requires_qualification=True, test_tasks=2)
        ada, teacher = self.member(session, queue), school.teacher(session, queue)
        take_test(session, ada, [3, 2, 1])
        for _ in range(2):
            qualifications.pass_by_hand(session, teacher, ada.user.uid)
        assert tasks.is_qualified(session, ada)
        row = qualifications.list_people(session, teacher)[0]
        assert [(attempt.state, attempt.attempt) for attempt in row.attempts] == [(QualificationState.PASSED, 2)]
        for _ in range(2):
            qualifications.reset(session, teacher, ada.user.uid)
        assert not tasks.is_qualified(session, ada)
        assert qualifications.find_standing(session, ada).attempts_left == 2
        assert take_test(session, ada, [1, 2, 3], [1, 2, 3])
        assert tasks.is_qualified(session, ada)
        actions = session.scalars(select(AuditEntry.action).where(AuditEntry.actor_id == teacher.user.id))
        assert sorted(actions) == ["pass labeller", "reset qualification"]

    def test_a_reset_is_not_undone_by_an_answer_at_the_same_moment(self, database_url: str, tmp_path: Path) -> None:
        engine = create_engine(db.normalise_url(database_url))
        with db.transaction(engine) as session:
            queue = make_queue(session, tmp_path)
            school.referenced(session, queue, Purpose.QUALIFY)
            set_school(queue, test_tasks=1)
            ada, tea = self.member(session, queue), school.teacher(session, queue)
            leased = qualifications.go_on(session, ada)

        def submit() -> None:
            with db.transaction(engine) as session:
                answer(session, ada, leased, [1, 2, 3])

        last = threading.Thread(target=submit)
        with db.transaction(engine) as session:
            qualifications.reset(session, tea, ada.user.uid)
            session.flush()
            last.start()
            last.join(timeout=1)
            assert last.is_alive()
        last.join()
        with db.transaction(engine) as session:
            assert session.scalars(select(Qualification.state)).all() == [QualificationState.VOID]
            assert session.scalars(select(Judgement.task_id)).all().count(leased.task_id) == 1  # type: ignore[union-attr]
        engine.dispose()

    def test_is_for_admins_and_of_members(self, session: Session, queue: Queue) -> None:
        ada, bob = self.member(session, queue), queue.person(session)
        with pytest.raises(Forbidden):
            qualifications.pass_by_hand(session, ada, ada.user.uid)
        with pytest.raises(NotFound):
            qualifications.reset(session, school.teacher(session, queue), bob.user.uid)


class TestMeasure:
    def test_is_the_agreement_of_the_definitions(self, session: Session, queue: Queue) -> None:
        """With every output ranked by both, it is `statistics.agreement` with ties as strict."""
        task = school.referenced(session, queue, tiers=["1", "2", "2"])
        reference = reference_queries.find_reference(session, task.id)
        assert reference is not None
        tiers = {place.sample: place.tier for place in reference_queries.list_places(session, reference.id)}
        for given in ([1, 2, 2], [1, 1, 2], [2, 1, 1], [3, 2, 1]):
            pairs = references.compare(tiers, dict(zip(tiers, given, strict=True)))
            expected = statistics.agreement([("p", list(tiers.values()), given)], "strict")
            assert references.measure([("p", pairs)]) == expected

    def test_what_only_the_person_passed_on_counts_against_them(self, session: Session, queue: Queue) -> None:
        outputs = task_queries.list_outputs(session, queue.task(session).id)
        samples = [output.sample for output in outputs]
        pairs = references.compare(dict(zip(samples, [1, 2, 3], strict=True)), dict.fromkeys(samples, None))
        assert references.measure([("p", pairs)]).value == 0
        pairs = references.compare(dict(zip(samples, [1, None, 2], strict=True)), dict.fromkeys(samples, 1))
        assert len(pairs) == 1
