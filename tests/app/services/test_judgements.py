"""Submitting a ranking: exactly what was said, once, counted with it, and never refused for coming late."""

import threading
import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import create_engine, delete, func, select
from sqlalchemy.orm import Session

from app import db
from app.errors import Conflict, NotFound
from app.models import (
    Cohort,
    Judge,
    JudgeKind,
    Judgement,
    JudgementRank,
    JudgementStatus,
    LabelSchema,
    Lease,
    LeaseState,
    Phase,
    Purpose,
    Task,
    TaskState,
)
from app.queries import judgements as queries
from app.schemas import labels
from app.schemas.judgements import Place, Ranking, WhySkipped, WhyUnrankable
from app.services import counters, demonstrations, guidelines, judgements, tasks
from tests.app import registry
from tests.app.queue import Queue, lease, make_queue, rank, take, work_of


@pytest.fixture
def queue(session: Session, tmp_path: Path) -> Queue:
    return make_queue(session, tmp_path)


def places_of(session: Session, judgement: Judgement) -> dict[uuid.UUID, tuple[int | None, int | None, str | None]]:
    """Tier, raw column and reason by sample, as stored."""
    rows = queries.list_places(session, judgement.id)
    return {row.sample: (row.tier, row.raw_column, row.reason) for row in rows}


class TestSubmitRanking:
    def test_is_by_the_guidelines_its_author_has_read(self, session: Session, queue: Queue) -> None:
        first = guidelines.publish(session, queue.project, body="Be kind.", phase=Phase.TRAIN, author=None)
        task, ada = queue.task(session), queue.person(session)
        guidelines.acknowledge(session, ada, first)
        work = take(session, ada)
        guidelines.publish(session, queue.project, body="Be brief.", phase=Phase.TRAIN, author=None)
        assert judgements.submit_ranking(session, ada, task.uid, rank(work)).guideline_id == first.id

    def test_stores_what_was_said_of_each_sample(self, session: Session, queue: Queue) -> None:
        fields = [field.as_json() for field in labels.PAPERS]
        schema = LabelSchema(project_id=queue.project.id, version=1, fields=fields)
        session.add(schema)
        guideline = guidelines.publish(session, queue.project, body="Be kind.", phase=Phase.TRAIN, author=None)
        task = queue.task(session, ["a", "b", "c", "d", "e"])
        ada = queue.person(session)
        work = take(session, ada)
        ranking = replace(rank(work, [5, 2, None, 2, 4], quality=6, note="hard"), active_ms=1200, idle_ms=30)

        judgement = judgements.submit_ranking(session, ada, task.uid, ranking)

        shown = [output.sample for output in work.outputs]
        assert places_of(session, judgement) == {
            shown[0]: (3, 5, None),
            shown[1]: (1, 2, None),
            shown[2]: (None, None, "broken"),
            shown[3]: (1, 2, None),
            shown[4]: (2, 4, None),
        }
        assert set(session.scalars(select(JudgementRank.quality))) == {6}
        assert (judgement.guideline_id, judgement.label_schema_id) == (guideline.id, schema.id)
        assert (judgement.revision, judgement.status) == (1, JudgementStatus.CURRENT)
        assert (judgement.note, judgement.active_ms, judgement.idle_ms) == ("hard", 1200, 30)
        judge = session.get_one(Judge, judgement.judge_id)
        assert (judge.kind, judge.user_id) == (JudgeKind.HUMAN, ada.user.id)
        session.refresh(work.lease), session.refresh(task)
        assert (work.lease.state, work.lease.is_surplus) == (LeaseState.SUBMITTED, False)
        assert task.state == TaskState.DONE

    def test_counts_judgements_and_untied_pairs(self, session: Session, queue: Queue) -> None:
        number = queue.round.number
        for _ in range(2):
            task = queue.task(session, ["a", "b", "c", "d"])
            person = queue.person(session)
            judgements.submit_ranking(session, person, task.uid, rank(take(session, person), [1, 1, 2, None]))
        project_id = queue.project.id
        assert counters.get(session, project_id, counters.JUDGEMENTS) == 2
        assert counters.get(session, project_id, counters.judgements_of_round(number)) == 2
        assert counters.get(session, project_id, counters.COMPARISONS) == 4

    def test_counts_only_what_trains(self, session: Session, queue: Queue) -> None:
        held_out = queue.person(session, cohort=Cohort.HELD_OUT)
        task = queue.task(session)
        judgements.submit_ranking(session, held_out, task.uid, rank(take(session, held_out)))
        tester = queue.person(session)
        review = queue.task(session, purpose=Purpose.REVIEW)
        judgements.submit_ranking(session, tester, review.uid, rank(take(session, tester)))
        assert counters.get(session, queue.project.id, counters.JUDGEMENTS) == 0
        assert counters.get(session, queue.project.id, counters.HELD_OUT_JUDGEMENTS) == 1

    def test_the_same_key_again_gives_the_same_answer(self, session: Session, queue: Queue) -> None:
        task = queue.task(session)
        ada = queue.person(session)
        ranking = rank(take(session, ada))
        first = judgements.submit_ranking(session, ada, task.uid, ranking)
        again = judgements.submit_ranking(session, ada, task.uid, ranking)
        assert again.id == first.id
        assert counters.get(session, queue.project.id, counters.JUDGEMENTS) == 1

    def test_another_key_after_the_answer_is_a_conflict(self, session: Session, queue: Queue) -> None:
        task = queue.task(session)
        ada = queue.person(session)
        work = take(session, ada)
        judgements.submit_ranking(session, ada, task.uid, rank(work))
        with pytest.raises(Conflict, match="another tab"):
            judgements.submit_ranking(session, ada, task.uid, rank(work, [3, 2, 1]))
        assert session.scalar(select(func.count()).select_from(Judgement)) == 1

    def test_a_key_of_another_task_is_a_conflict(self, session: Session, queue: Queue) -> None:
        first, second = queue.task(session), queue.task(session)
        ada = queue.person(session)
        ranking = rank(take(session, ada))
        judgements.submit_ranking(session, ada, first.uid, ranking)
        with pytest.raises(Conflict, match="another task"):
            judgements.submit_ranking(session, ada, second.uid, rank(take(session, ada), key=ranking.idempotency_key))

    def test_a_task_of_another_person_is_not_found(self, session: Session, queue: Queue) -> None:
        """T22: the uid of a task is no right to it."""
        task = queue.task(session)
        ranking = rank(take(session, queue.person(session)))
        with pytest.raises(NotFound):
            judgements.submit_ranking(session, queue.person(session, "Bob"), task.uid, ranking)
        assert session.scalar(select(func.count()).select_from(Judgement)) == 0

    def test_a_task_that_asks_for_a_demonstration_is_not_found(self, session: Session, queue: Queue) -> None:
        """An empty ranking would fit a task without outputs, close it and count."""
        registry.make_prompt(session, queue.project)
        ada = queue.person(session)
        leased = demonstrations.lease_next(session, ada)
        assert leased is not None
        work = work_of(session, ada, leased)
        with pytest.raises(NotFound):
            judgements.submit_ranking(session, ada, work.task.uid, Ranking(uuid.uuid4(), places=()))
        assert counters.get(session, queue.project.id, counters.JUDGEMENTS) == 0


class TestLate:
    def expire(self, session: Session, *leases: Lease) -> None:
        for lent in leases:
            lent.expires_at = datetime.now(UTC) - timedelta(minutes=1)
        session.flush()

    def test_keeps_its_slot_while_nobody_took_it(self, session: Session, queue: Queue) -> None:
        for is_tidied in (False, True):
            task = queue.task(session)
            ada = queue.person(session)
            work = take(session, ada)
            self.expire(session, work.lease)
            assert tasks.expire(session) == 1 if is_tidied else True
            judgements.submit_ranking(session, ada, task.uid, rank(work))
            session.refresh(task), session.refresh(work.lease)
            assert (work.lease.state, work.lease.is_surplus, task.state) == (
                LeaseState.SUBMITTED,
                False,
                TaskState.DONE,
            )

    def test_is_surplus_where_the_slot_is_held(self, session: Session, queue: Queue) -> None:
        task = queue.task(session)
        ada, bob = queue.person(session), queue.person(session, "Bob")
        late = take(session, ada)
        self.expire(session, late.lease)
        taken = take(session, bob)
        judgements.submit_ranking(session, ada, task.uid, rank(late))
        session.refresh(task), session.refresh(late.lease)
        assert (late.lease.is_surplus, task.state) == (True, TaskState.OPEN)
        judgements.submit_ranking(session, bob, task.uid, rank(taken))
        session.refresh(task)
        assert task.state == TaskState.DONE
        assert session.scalar(select(func.count()).select_from(Judgement)) == 2

    def test_takes_another_free_slot_before_it_is_surplus(self, session: Session, queue: Queue) -> None:
        task = queue.task(session, wanted=2)
        ada, bob = queue.person(session), queue.person(session, "Bob")
        late = take(session, ada)
        self.expire(session, late.lease)
        assert lease(session, bob).slot == 1
        judgements.submit_ranking(session, ada, task.uid, rank(late))
        session.refresh(late.lease)
        assert (late.lease.slot, late.lease.is_surplus) == (2, False)

    def test_takes_the_slot_back_from_one_who_let_it_expire_too(self, session: Session, queue: Queue) -> None:
        task = queue.task(session)
        ada, bob = queue.person(session), queue.person(session, "Bob")
        first = take(session, ada)
        self.expire(session, first.lease)
        second = take(session, bob)
        self.expire(session, second.lease)
        judgements.submit_ranking(session, ada, task.uid, rank(first))
        judgements.submit_ranking(session, bob, task.uid, rank(second))
        session.refresh(first.lease), session.refresh(second.lease)
        assert (first.lease.is_surplus, second.lease.is_surplus) == (False, True)

    def test_is_stored_after_the_task_retired(self, session: Session, queue: Queue) -> None:
        task = queue.task(session)
        ada = queue.person(session)
        work = take(session, ada)
        task.state = TaskState.RETIRED
        session.flush()
        judgements.submit_ranking(session, ada, task.uid, rank(work))
        session.refresh(task)
        assert task.state == TaskState.RETIRED
        assert counters.get(session, queue.project.id, counters.JUDGEMENTS) == 1

    def test_undoes_a_skip(self, session: Session, queue: Queue) -> None:
        task = queue.task(session)
        ada = queue.person(session)
        work = take(session, ada)
        tasks.skip(session, ada, task.uid, reason=WhySkipped.OTHER)
        judgements.submit_ranking(session, ada, task.uid, rank(work))
        session.refresh(work.lease)
        assert (work.lease.state, work.lease.skip_reason) == (LeaseState.SUBMITTED, None)
        assert counters.get(session, queue.project.id, counters.SKIPS) == 0


class TestBadRankings:
    """Each names what came and how to mend it, at the field, and stores nothing."""

    @pytest.mark.parametrize(
        ("name", "field", "message"),
        [
            ("missing", "tier", "has no place yet"),
            ("doubled", "tier", "placed 2 times"),
            ("unknown", "tier", "There is no output"),
            ("tier 0", "tier", "has tier 0; choose 1 .best. to 3"),
            ("tier 4", "tier", "has tier 4; choose 1 .best. to 3"),
            ("quality 0", "quality", "has quality 0; choose 1 to 7"),
            ("quality 8", "quality", "has quality 8; choose 1 to 7"),
            ("no reason", "reason", "Say why output . cannot be ranked"),
        ],
    )
    def test_stores_nothing(self, session: Session, queue: Queue, name: str, field: str, message: str) -> None:
        task = queue.task(session)
        ada = queue.person(session)
        ranking = rank(take(session, ada))
        first, *others = ranking.places
        places = {
            "missing": others,
            "doubled": [first, first, *others],
            "unknown": [replace(first, sample=uuid.uuid4()), first, *others],
            "tier 0": [replace(first, tier=0), *others],
            "tier 4": [replace(first, tier=4), *others],
            "quality 0": [replace(first, quality=0), *others],
            "quality 8": [replace(first, quality=8), *others],
            "no reason": [replace(first, tier=None), *others],
        }[name]
        with pytest.raises(judgements.InvalidRanking, match=message) as caught:
            judgements.submit_ranking(session, ada, task.uid, replace(ranking, places=tuple(places)))
        sample = places[0].sample if name == "unknown" else first.sample
        assert caught.value.problems.keys() == {f"{field}-{sample}"}
        assert caught.value.field == f"{field}-{sample}"
        assert session.scalar(select(func.count()).select_from(Judgement)) == 0
        assert session.scalar(select(func.count()).select_from(JudgementRank)) == 0
        assert counters.get(session, queue.project.id, counters.JUDGEMENTS) == 0
        assert session.scalars(select(Lease.state)).one() == LeaseState.HELD

    def test_names_every_output_without_a_place(self, session: Session, queue: Queue) -> None:
        task = queue.task(session)
        ada = queue.person(session)
        take(session, ada)
        with pytest.raises(judgements.InvalidRanking) as caught:
            judgements.submit_ranking(session, ada, task.uid, Ranking(uuid.uuid4(), ()))
        assert [text.split()[1] for text in caught.value.problems.values()] == ["A", "B", "C"]


class TestDenseTiers:
    def test_closes_gaps_and_leaves_out_the_unrankable(self) -> None:
        samples = [uuid.uuid4() for _ in range(5)]
        columns = [4, 1, None, 4, 9]
        places = [
            Place(sample, column, None if column else WhyUnrankable.OTHER)
            for sample, column in zip(samples, columns, strict=True)
        ]
        assert list(judgements.dense_tiers(places).values()) == [2, 1, None, 2, 3]

    def test_counts_pairs_that_differ(self) -> None:
        assert judgements.count_comparisons([1, 2, 3, 4]) == 6
        assert judgements.count_comparisons([1, 1, 2, None]) == 2
        assert judgements.count_comparisons([1, 1]) == 0


class TestRevise:
    def test_keeps_the_version_before_and_counts_the_change(self, session: Session, queue: Queue) -> None:
        task = queue.task(session)
        ada = queue.person(session)
        work = take(session, ada)
        first = judgements.submit_ranking(session, ada, task.uid, rank(work, [1, 2, 3]))
        ranking = rank(work, [1, 1, None])
        second, again = (judgements.revise(session, ada, task.uid, ranking, of_revision=1) for _ in range(2))
        session.refresh(first)
        assert again.id == second.id
        assert (first.status, first.revision) == (JudgementStatus.SUPERSEDED, 1)
        assert (second.status, second.revision) == (JudgementStatus.CURRENT, 2)
        assert len(places_of(session, first)) == len(places_of(session, second)) == 3
        assert counters.get(session, queue.project.id, counters.JUDGEMENTS) == 1
        assert counters.get(session, queue.project.id, counters.COMPARISONS) == 0

    def test_refuses_what_was_revised_meanwhile(self, session: Session, queue: Queue) -> None:
        task = queue.task(session)
        ada = queue.person(session)
        work = take(session, ada)
        with pytest.raises(NotFound, match="no answer of yours"):
            judgements.revise(session, ada, task.uid, rank(work), of_revision=1)
        judgements.submit_ranking(session, ada, task.uid, rank(work))
        judgements.revise(session, ada, task.uid, rank(work, [3, 2, 1]), of_revision=1)
        with pytest.raises(Conflict, match="version 2 is the newest"):
            judgements.revise(session, ada, task.uid, rank(work, [1, 1, 1]), of_revision=1)
        with pytest.raises(judgements.InvalidRanking):
            judgements.revise(session, ada, task.uid, rank(work, [9, 1, 1]), of_revision=2)
        assert session.scalar(select(func.count()).select_from(Judgement)) == 2


class TestManyAtOnce:
    def test_a_double_click_is_stored_once(self, database_url: str, tmp_path: Path) -> None:
        engine = create_engine(db.normalise_url(database_url), pool_size=8)
        with db.transaction(engine) as session:
            queue = make_queue(session, tmp_path)
            task = queue.task(session, wanted=5)
            ada = queue.person(session)
            ranking = rank(take(session, ada))
        ids, failures, barrier = [], [], threading.Barrier(8)

        def submit() -> None:
            try:
                barrier.wait(timeout=60)
                with db.transaction(engine) as session:
                    ids.append(judgements.submit_ranking(session, ada, task.uid, ranking).id)
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=submit) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failures
        assert len(ids) == 8
        assert len(set(ids)) == 1
        with Session(engine) as session:
            assert session.scalar(select(func.count()).select_from(Judgement)) == 1
            assert session.scalar(select(func.count()).select_from(JudgementRank)) == 3
            assert counters.get(session, queue.project.id, counters.JUDGEMENTS) == 1
        engine.dispose()

    def test_late_and_taken_over_at_once_lose_nothing(self, database_url: str, tmp_path: Path) -> None:
        engine = create_engine(db.normalise_url(database_url), pool_size=8)
        with db.transaction(engine) as session:
            queue = make_queue(session, tmp_path)
            task = queue.task(session)
            people = [queue.person(session, f"P{number}") for number in range(8)]
            rankings = []
            for person in people:
                work = take(session, person)
                rankings.append(rank(work))
                work.lease.expires_at = datetime.now(UTC) - timedelta(minutes=1)
                session.flush()
        failures, barrier = [], threading.Barrier(8)

        def submit(number: int) -> None:
            try:
                barrier.wait(timeout=60)
                with db.transaction(engine) as session:
                    judgements.submit_ranking(session, people[number], task.uid, rankings[number])
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=submit, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failures
        with Session(engine) as session:
            assert session.scalar(select(func.count()).select_from(Judgement)) == 8
            assert session.scalar(select(func.count()).select_from(Lease).where(~Lease.is_surplus)) == 1
            assert session.scalars(select(Task.state)).one() == TaskState.DONE
        engine.dispose()


class TestAnswers:
    """What is asked besides the ranking, by the label schema of the page."""

    def ask(self, session: Session, queue: Queue, *fields: dict[str, object], version: int = 1) -> LabelSchema:
        session.execute(delete(LabelSchema).where(LabelSchema.project_id == queue.project.id))
        base = {"label": "Asked", "choices": []}
        schema = LabelSchema(project_id=queue.project.id, version=version, fields=[base | field for field in fields])
        session.add(schema)
        queue.project.label_schema_version = version
        session.flush()
        return schema

    def said(self, work: tasks.Work, about_first: dict[str, str], **others: str) -> Ranking:
        plain = rank(work)
        first, *rest = plain.places
        return replace(plain, places=(replace(first, answers=about_first), *rest), answers=others)

    def test_are_stored_with_what_they_are_about(self, session: Session, queue: Queue) -> None:
        self.ask(
            session,
            queue,
            {"key": "closed", "scope": "prompt", "type": "flag"},
            {"key": "invents", "scope": "output", "type": "flag", "shown_if": "closed"},
            {"key": "confidence", "scope": "task", "type": "scale", "choices": [1, 2, 3]},
            {"key": "all_bad", "scope": "task", "type": "flag"},
        )
        queue.task(session)
        ada = queue.person(session)
        work = take(session, ada)
        ranking = self.said(work, {"invents": "yes"}, closed="yes", confidence="2", all_bad="yes")
        judgement = judgements.submit_ranking(session, ada, work.task.uid, ranking)
        assert (judgement.confidence, judgement.answers) == (2, {"closed": True, "all_bad": True})
        answers = {row.sample: row.answers for row in queries.list_places(session, judgement.id)}
        first, *rest = work.outputs
        assert answers == {first.sample: {"invents": True}} | {output.sample: {} for output in rest}

    def test_that_do_not_fit_are_named_and_nothing_is_stored(self, session: Session, queue: Queue) -> None:
        self.ask(session, queue, {"key": "tone", "scope": "output", "type": "choice", "choices": ["dry", "warm"]})
        queue.task(session)
        ada = queue.person(session)
        work = take(session, ada)
        with pytest.raises(judgements.InvalidRanking) as refused:
            judgements.submit_ranking(session, ada, work.task.uid, self.said(work, {"tone": "loud"}, mood="good"))
        first = work.outputs[0].sample
        assert refused.value.problems == {
            f"ask-tone-{first}": "Output A: Asked: 'loud' came; choose one of dry, warm.",
            "ask-mood": "There is no field 'mood' about this. Reload the page and answer what it asks.",
        }
        assert session.scalars(select(func.count()).select_from(Judgement)).one() == 0

    def test_go_by_the_schema_that_the_page_showed(self, session: Session, queue: Queue) -> None:
        shown = self.ask(session, queue, {"key": "old", "scope": "task", "type": "flag"})
        queue.task(session)
        ada = queue.person(session)
        work = take(session, ada)
        session.add(LabelSchema(project_id=queue.project.id, version=2, fields=[]))
        queue.project.label_schema_version = 2
        session.flush()
        ranking = replace(self.said(work, {}, old="yes"), schema=1)
        judgement = judgements.submit_ranking(session, ada, work.task.uid, ranking)
        assert (judgement.label_schema_id, judgement.answers) == (shown.id, {"old": True})

    def test_by_a_schema_that_never_was_are_refused(self, session: Session, queue: Queue) -> None:
        queue.task(session)
        ada = queue.person(session)
        work = take(session, ada)
        with pytest.raises(judgements.InvalidRanking, match="no version 9 of the questions"):
            judgements.submit_ranking(session, ada, work.task.uid, replace(rank(work), schema=9))

    def test_a_quality_outside_the_schema_is_refused(self, session: Session, queue: Queue) -> None:
        self.ask(session, queue, {"key": "quality", "scope": "output", "type": "scale", "choices": [1, 2, 3]})
        queue.task(session)
        ada = queue.person(session)
        work = take(session, ada)
        with pytest.raises(judgements.InvalidRanking, match="choose one of 1, 2, 3"):
            judgements.submit_ranking(session, ada, work.task.uid, rank(work, quality=7))
