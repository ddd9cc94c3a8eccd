"""The queue: who is lent what, in which order, for how long; and that nobody is lent what another holds."""

import hashlib
import threading
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import create_engine, func, select, update
from sqlalchemy.orm import Session

from app import db
from app.errors import BadInput, Conflict, Forbidden, NotFound
from app.models import Lease, LeaseState, Membership, Purpose, Role, Sample, Task, TaskKind, TaskOutput, TaskState, User
from app.permissions import Access
from app.schemas.judgements import RankingForm, WhySkipped
from app.services import counters, judgements, tasks
from tests.app import registry
from tests.app.queue import Queue, lease, make_queue, rank, take


@pytest.fixture
def queue(session: Session, tmp_path: Path) -> Queue:
    return make_queue(session, tmp_path)


def join(session: Session, access: Access, *, skills: Sequence[str] = (), daily_cap: int | None = None) -> Membership:
    """Make a person a member, with these skills and this cap."""
    member = Membership(
        project_id=access.project.id,
        user_id=access.user.id,
        roles=[Role.LABELLER],
        skills=list(skills),
        daily_cap=daily_cap,
    )
    session.add(member)
    session.flush()
    return member


def expire(session: Session, *leases: Lease) -> None:
    """Let the time of these leases be over."""
    for lent in leases:
        lent.expires_at = datetime.now(UTC) - timedelta(seconds=1)
    session.flush()


class TestCreateRankTask:
    def test_stores_the_samples_rendered_once_and_in_order(self, session: Session, queue: Queue) -> None:
        task = queue.task(session, ["**bold**", "<script>alert(1)</script>"], wanted=3, priority=7)
        rows = session.execute(
            select(TaskOutput.position, Sample)
            .join(Sample, Sample.id == TaskOutput.sample_id)
            .where(TaskOutput.task_id == task.id)
            .order_by(TaskOutput.position)
        ).all()
        assert [(position, sample.text) for position, sample in rows] == [
            (0, "**bold**"),
            (1, "<script>alert(1)</script>"),
        ]
        assert rows[0].Sample.html.strip() == "<p><strong>bold</strong></p>"
        assert "<script" not in rows[1].Sample.html
        assert (task.state, task.judgements_wanted, task.priority) == (TaskState.OPEN, 3, 7)

    @pytest.mark.parametrize("texts", [["same", "other", " same\n"], ["alone"], [str(n) for n in range(10)]])
    def test_refuses_identical_texts_and_wrong_numbers(self, session: Session, queue: Queue, texts: list[str]) -> None:
        with pytest.raises(BadInput, match=r"identical|2 to 9"):
            queue.task(session, texts)
        assert session.scalar(select(func.count()).select_from(Task)) == 0


class TestLeaseNext:
    def test_goes_by_priority_then_age_and_stores_a_shuffled_order(self, session: Session, queue: Queue) -> None:
        old, urgent = queue.task(session), queue.task(session, priority=5)
        ada, bob = queue.person(session), queue.person(session, "Bob")
        first, second = lease(session, ada), lease(session, bob)
        assert (first.task_id, second.task_id) == (urgent.id, old.id)
        assert (first.slot, first.state, first.is_surplus) == (1, LeaseState.HELD, False)
        by_seed = sorted(range(3), key=lambda p: hashlib.md5(f"{first.order_seed}:{p}".encode()).hexdigest())
        assert first.shown_order == by_seed
        assert timedelta(minutes=40) < first.expires_at - datetime.now(UTC) < timedelta(minutes=46)

    def test_shuffles_evenly(self, session: Session, queue: Queue) -> None:
        queue.task(session, ["a", "b"], wanted=100)
        orders = Counter(
            tuple(lease(session, queue.person(session, f"P{number}")).shown_order) for number in range(100)
        )
        assert min(orders[0, 1], orders[1, 0]) > 25

    def test_gives_the_held_task_back_with_new_time(self, session: Session, queue: Queue) -> None:
        queue.task(session), queue.task(session)
        ada = queue.person(session)
        first = lease(session, ada)
        expire(session, first)
        again = lease(session, ada)
        assert again.id == first.id
        assert again.expires_at > datetime.now(UTC)

    def test_takes_over_an_expired_lease_and_its_slot(self, session: Session, queue: Queue) -> None:
        queue.task(session)
        ada, bob = queue.person(session), queue.person(session, "Bob")
        left = lease(session, ada)
        assert tasks.lease_next(session, bob, TaskKind.RANK) is None
        expire(session, left)
        taken = lease(session, bob)
        session.refresh(left)
        assert (taken.task_id, taken.slot, left.state) == (left.task_id, left.slot, LeaseState.EXPIRED)
        assert tasks.lease_next(session, ada, TaskKind.RANK) is None

    def test_comes_back_to_what_a_person_let_expire_before_anything_new(self, session: Session, queue: Queue) -> None:
        queue.task(session), queue.task(session, priority=9)
        ada = queue.person(session)
        left = lease(session, ada)
        order = left.shown_order
        expire(session, left)
        assert tasks.expire(session) == 1
        again = lease(session, ada)
        assert (again.id, again.state, again.shown_order) == (left.id, LeaseState.HELD, order)

    def test_offers_what_a_person_gave_back_only_when_nothing_else_is_left(
        self, session: Session, queue: Queue
    ) -> None:
        given_back, other = queue.task(session, priority=1), queue.task(session)
        ada = queue.person(session)
        assert lease(session, ada).task_id == given_back.id
        tasks.release(session, ada, given_back.uid)
        assert lease(session, ada).task_id == other.id
        tasks.skip(session, ada, other.uid, reason=WhySkipped.UNCLEAR)
        assert lease(session, ada).task_id == given_back.id

    def test_never_offers_again_what_was_skipped_or_answered(self, session: Session, queue: Queue) -> None:
        skipped = queue.task(session, wanted=3)
        answered = queue.task(session, wanted=3)
        ada = queue.person(session)
        lease(session, ada)
        tasks.skip(session, ada, skipped.uid, reason=WhySkipped.KNOWLEDGE)
        work = take(session, ada)
        assert work.task.id == answered.id
        judgements.submit_ranking(session, ada, answered.uid, rank(work))
        assert tasks.lease_next(session, ada, TaskKind.RANK) is None

    def test_gives_several_judgements_of_a_task_to_different_people(self, session: Session, queue: Queue) -> None:
        task = queue.task(session, wanted=2)
        people = [queue.person(session, name) for name in ("Ada", "Bob", "Cyd")]
        slots = [lease(session, person).slot for person in people[:2]]
        assert slots == [1, 2]
        assert tasks.lease_next(session, people[2], TaskKind.RANK) is None
        for person in people[:2]:
            work = take(session, person)
            judgements.submit_ranking(session, person, task.uid, rank(work))
        session.refresh(task)
        assert task.state == TaskState.DONE

    def test_keeps_a_persons_own_text_from_them(self, session: Session, queue: Queue) -> None:
        task = queue.task(session)
        ada = queue.person(session)
        output = session.scalars(select(TaskOutput).where(TaskOutput.task_id == task.id)).first()
        assert output is not None
        session.execute(update(Sample).where(Sample.id == output.sample_id).values(author_id=ada.user.id))
        assert tasks.lease_next(session, ada, TaskKind.RANK) is None
        assert tasks.lease_next(session, queue.person(session, "Bob"), TaskKind.RANK) is not None

    def test_lets_held_leases_of_a_retired_task_finish(self, session: Session, queue: Queue) -> None:
        task = queue.task(session)
        ada = queue.person(session)
        held = lease(session, ada)
        task.state = TaskState.RETIRED
        session.flush()
        assert lease(session, ada).id == held.id
        assert tasks.lease_next(session, queue.person(session, "Bob"), TaskKind.RANK) is None

    def test_knows_no_other_projects_tasks(self, session: Session, queue: Queue, tmp_path: Path) -> None:
        other = make_queue(session, tmp_path)
        other.task(session)
        assert tasks.lease_next(session, queue.person(session), TaskKind.RANK) is None

    def test_refuses_a_paused_person(self, session: Session, queue: Queue) -> None:
        queue.task(session)
        ada = queue.person(session)
        session.add(Membership(project_id=queue.project.id, user_id=ada.user.id, roles=[Role.LABELLER], is_paused=True))
        session.flush()
        with pytest.raises(Forbidden, match="paused"):
            tasks.lease_next(session, ada, TaskKind.RANK)

    def test_lends_only_to_whoever_brings_all_it_needs(self, session: Session, queue: Queue) -> None:
        task = queue.task(session, needs=("skill:math", "content:violence"))
        ada = queue.person(session)
        member = join(session, ada, skills=["skill:math", "skill:french"])
        assert tasks.lease_next(session, ada, TaskKind.RANK) is None
        member.opted_in = ["content:violence"]
        session.flush()
        assert lease(session, ada).task_id == task.id

    def test_gives_work_out_unless_other_purposes_are_asked_for(self, session: Session, queue: Queue) -> None:
        queue.task(session, purpose=Purpose.GOLD, priority=9)
        test = queue.task(session, purpose=Purpose.QUALIFY)
        work = queue.task(session, purpose=Purpose.EVALUATE)
        assert lease(session, queue.person(session)).task_id == work.id
        bob = queue.person(session, "Bob")
        assert tasks.lease_next(session, bob, TaskKind.RANK) is None
        asked = frozenset({Purpose.QUALIFY})
        assert tasks.find_nothing(session, bob, TaskKind.RANK, purposes=asked) is None
        leased = tasks.lease_next(session, bob, TaskKind.RANK, purposes=asked)
        assert leased is not None
        assert leased.task_id == test.id

    def test_stops_at_the_daily_cap_of_a_member(self, session: Session, queue: Queue) -> None:
        ada = queue.person(session)
        join(session, ada, daily_cap=2)
        for _ in range(4):
            queue.task(session)
        for _ in range(2):
            answered = take(session, ada)
            judgements.submit_ranking(session, ada, answered.task.uid, rank(answered))
        assert tasks.lease_next(session, ada, TaskKind.RANK) is None
        nothing = tasks.find_nothing(session, ada, TaskKind.RANK)
        assert nothing is not None
        assert nothing.next_free_at is not None
        assert nothing.why == tasks.WhyNothing.DAILY_CAP
        assert abs(nothing.next_free_at - datetime.now(UTC) - timedelta(days=1)) < timedelta(minutes=1)
        first = session.scalars(select(Lease).where(Lease.user_id == ada.user.id).order_by(Lease.id)).first()
        assert first is not None
        first.ended_at = datetime.now(UTC) - timedelta(hours=25)
        session.flush()
        assert tasks.find_nothing(session, ada, TaskKind.RANK) is None
        lease(session, ada)


class TestFindNothing:
    def test_says_why_and_until_when(self, session: Session, queue: Queue) -> None:
        ada, bob = queue.person(session), queue.person(session, "Bob")
        assert tasks.find_nothing(session, ada, TaskKind.RANK) == tasks.Nothing(tasks.WhyNothing.NONE_OPEN)
        task = queue.task(session)
        assert tasks.find_nothing(session, ada, TaskKind.RANK) is None
        held = lease(session, bob)
        assert tasks.find_nothing(session, ada, TaskKind.RANK) == tasks.Nothing(
            tasks.WhyNothing.ALL_HELD, 1, held.expires_at
        )
        assert tasks.find_nothing(session, bob, TaskKind.RANK) is None
        tasks.skip(session, bob, task.uid, reason=WhySkipped.OTHER)
        assert tasks.find_nothing(session, bob, TaskKind.RANK) == tasks.Nothing(tasks.WhyNothing.ALL_YOURS)
        assert tasks.find_nothing(session, ada, TaskKind.RANK) is None

    def test_names_what_the_tasks_left_need(self, session: Session, queue: Queue) -> None:
        ada, bob = queue.person(session), queue.person(session, "Bob")
        join(session, ada, skills=["skill:math"])
        queue.task(session, needs=("skill:math", "skill:french"))
        queue.task(session, needs=("content:violence",))
        queue.task(session, needs=("skill:law",), purpose=Purpose.GOLD)
        nothing = tasks.find_nothing(session, ada, TaskKind.RANK)
        assert nothing == tasks.Nothing(tasks.WhyNothing.NEEDS, lacking=("content:violence", "skill:french"))
        assert (nothing.lacking_skills, nothing.lacking_content) == (["french"], ["violence"])
        queue.task(session)
        lease(session, bob)
        nothing = tasks.find_nothing(session, ada, TaskKind.RANK)
        assert nothing is not None
        assert (nothing.why, nothing.held) == (tasks.WhyNothing.ALL_HELD, 1)
        assert nothing.lacking_skills == ["french"]

    def test_counts_tasks_and_not_who_holds_them_nor_those_with_a_text_of_one_s_own(
        self, session: Session, queue: Queue
    ) -> None:
        ada, bob, eve = queue.person(session), queue.person(session, "Bob"), queue.person(session, "Eve")
        shared, own = queue.task(session, wanted=2), queue.task(session)
        sample_id = session.scalars(select(TaskOutput.sample_id).where(TaskOutput.task_id == own.id)).first()
        session.get_one(Sample, sample_id).author_id = ada.user.id
        assert [lease(session, person).task_id for person in (bob, eve)] == [shared.id, shared.id]
        lease(session, queue.person(session))
        nothing = tasks.find_nothing(session, ada, TaskKind.RANK)
        assert nothing is not None
        assert (nothing.why, nothing.held) == (tasks.WhyNothing.ALL_HELD, 1)

    def test_leases_nothing(self, session: Session, queue: Queue) -> None:
        queue.task(session)
        tasks.find_nothing(session, queue.person(session), TaskKind.RANK)
        assert session.scalar(select(func.count()).select_from(Lease)) == 0


class TestFindWork:
    def test_shows_the_outputs_in_the_stored_order(self, session: Session, queue: Queue) -> None:
        queue.task(session, [f"text {n}" for n in range(9)])
        work = take(session, queue.person(session))
        assert [output.position for output in work.outputs] == work.lease.shown_order
        assert list(work.letters.values()) == list("ABCDEFGHI")

    def test_hides_a_task_lent_to_another(self, session: Session, queue: Queue) -> None:
        task = queue.task(session)
        lease(session, queue.person(session))
        bob = queue.person(session, "Bob")
        for act in (
            lambda: tasks.find_work(session, bob, task.uid),
            lambda: tasks.skip(session, bob, task.uid, reason=WhySkipped.OTHER),
            lambda: tasks.release(session, bob, task.uid),
            lambda: tasks.save_draft(session, bob, task.uid, {}),
        ):
            with pytest.raises(NotFound):
                act()


class TestSkip:
    def test_frees_the_slot_keeps_the_draft_and_counts_once(self, session: Session, queue: Queue) -> None:
        task = queue.task(session)
        ada = queue.person(session)
        take(session, ada)
        tasks.save_draft(session, ada, task.uid, {"note": "half"})
        for _ in range(2):
            skipped = tasks.skip(session, ada, task.uid, reason=WhySkipped.SENSITIVE)
        assert (skipped.state, skipped.skip_reason) == (LeaseState.SKIPPED, "sensitive")
        assert counters.get(session, queue.project.id, counters.SKIPS) == 1
        assert tasks.find_work(session, ada, task.uid).draft == {"note": "half"}
        assert lease(session, queue.person(session, "Bob")).task_id == task.id

    def test_refuses_what_was_answered(self, session: Session, queue: Queue) -> None:
        task = queue.task(session)
        ada = queue.person(session)
        judgements.submit_ranking(session, ada, task.uid, rank(take(session, ada)))
        with pytest.raises(Conflict, match="stored already"):
            tasks.skip(session, ada, task.uid, reason=WhySkipped.OTHER)
        with pytest.raises(Conflict, match="stored already"):
            tasks.release(session, ada, task.uid)


class TestDrafts:
    def test_are_replaced_renew_the_lease_and_go_with_the_answer(self, session: Session, queue: Queue) -> None:
        task = queue.task(session)
        ada = queue.person(session)
        work = take(session, ada)
        expire(session, work.lease)
        form = RankingForm.from_fields([(f"tier-{work.outputs[0].sample}", "2"), ("note", "why")])
        samples = [output.sample for output in work.outputs]
        tasks.save_draft(session, ada, task.uid, {"old": True})
        assert tasks.save_draft(session, ada, task.uid, form.to_json(samples)) is not None
        assert work.lease.expires_at > datetime.now(UTC)
        stored = tasks.find_work(session, ada, task.uid).draft
        assert stored is not None
        assert RankingForm.from_json(stored) == form
        judgements.submit_ranking(session, ada, task.uid, rank(work))
        assert tasks.save_draft(session, ada, task.uid, {"late": True}) is None
        assert tasks.find_work(session, ada, task.uid).draft is None


class TestExpire:
    def test_tidies_only_what_is_over(self, session: Session, queue: Queue) -> None:
        queue.task(session), queue.task(session)
        over, live = lease(session, queue.person(session)), lease(session, queue.person(session, "Bob"))
        expire(session, over)
        assert tasks.expire(session) == 1
        assert tasks.expire(session) == 0
        session.refresh(over), session.refresh(live)
        assert (over.state, live.state) == (LeaseState.EXPIRED, LeaseState.HELD)


def run_together(count: int, act: object) -> None:
    """Call `act(number)` in so many threads that start at the same moment; raises what any of them raised."""
    barrier, failures = threading.Barrier(count), []

    def run(number: int) -> None:
        try:
            barrier.wait(timeout=60)
            act(number)  # type: ignore[operator]
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


class TestManyAtOnce:
    """Twenty people over real connections and real commits."""

    @pytest.mark.parametrize("wanted", [1, 3])
    def test_no_double_lease_and_none_lost(self, database_url: str, tmp_path: Path, wanted: int) -> None:
        engine = create_engine(db.normalise_url(database_url), pool_size=20)
        with db.transaction(engine) as session:
            queue = make_queue(session, tmp_path)
            for _ in range(30):
                queue.task(session, wanted=wanted)
            people = [queue.person(session, f"P{number}") for number in range(20)]

        def work(number: int) -> None:
            access: Access = people[number]
            while True:
                with db.transaction(engine) as session:
                    leased = tasks.lease_next(session, access, TaskKind.RANK)
                    if leased is None:
                        return
                    uid = session.get_one(Task, leased.task_id).uid
                with db.transaction(engine) as session:
                    taken = tasks.find_work(session, access, uid)
                    judgements.submit_ranking(session, access, uid, rank(taken))

        run_together(20, work)
        with Session(engine) as session:
            per_task = Counter(session.scalars(select(Lease.task_id).where(Lease.state == LeaseState.SUBMITTED)))
            assert set(per_task.values()) == {wanted}
            assert len(per_task) == 30
            assert session.scalar(select(func.count()).select_from(Lease).where(Lease.is_surplus)) == 0
            assert set(session.scalars(select(Task.state))) == {TaskState.DONE}
            assert counters.get(session, queue.project.id, counters.JUDGEMENTS) == 30 * wanted
        engine.dispose()

    def test_a_double_click_holds_one_task(self, database_url: str, tmp_path: Path) -> None:
        engine = create_engine(db.normalise_url(database_url), pool_size=8)
        with db.transaction(engine) as session:
            queue = make_queue(session, tmp_path)
            for _ in range(8):
                queue.task(session)
            ada = queue.person(session)

        def click(number: int) -> None:
            with db.transaction(engine) as session:
                lease(session, ada)

        run_together(8, click)
        with Session(engine) as session:
            assert session.scalar(select(func.count()).select_from(Lease)) == 1
            assert session.scalar(select(func.count()).select_from(User)) == 1
        engine.dispose()

    def test_what_was_answered_while_it_was_picked_is_not_lent_again(self, database_url: str, tmp_path: Path) -> None:
        engine = create_engine(db.normalise_url(database_url))
        with db.transaction(engine) as session:
            queue = make_queue(session, tmp_path)
            queue.task(session, wanted=2)
            ada = queue.person(session)
            left = lease(session, ada)
            tasks.release(session, ada, session.get_one(Task, left.task_id).uid)

        def lease_again() -> Lease | None:
            with db.transaction(engine) as session:
                return tasks.lease_next(session, ada, TaskKind.RANK)

        with ThreadPoolExecutor(1) as pool:
            with db.transaction(engine) as session:  # as a submit that holds the lease, and let go of the task just now
                session.execute(update(Lease).values(state=LeaseState.SUBMITTED))
                again = pool.submit(lease_again)
                with pytest.raises(TimeoutError):
                    again.result(timeout=0.5)
            assert again.result(timeout=10) is None
        with Session(engine) as session:
            assert session.scalars(select(Lease.state)).all() == [LeaseState.SUBMITTED]
        engine.dispose()

    def test_one_of_many_takes_over_an_expired_lease(self, database_url: str, tmp_path: Path) -> None:
        engine = create_engine(db.normalise_url(database_url), pool_size=8)
        with db.transaction(engine) as session:
            queue = make_queue(session, tmp_path)
            queue.task(session)
            registry.make_user(session)
            expire(session, lease(session, queue.person(session)))
            people = [queue.person(session, f"P{number}") for number in range(8)]
        given: list[Lease] = []

        def ask(number: int) -> None:
            with db.transaction(engine) as session:
                leased = tasks.lease_next(session, people[number], TaskKind.RANK)
                given.extend([leased] if leased else [])

        run_together(8, ask)
        assert len(given) == 1
        engine.dispose()
