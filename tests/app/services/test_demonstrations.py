"""Demonstrations: who is asked for which prompt, and that what they write is stored once."""

import uuid
from pathlib import Path

import pytest
from sqlalchemy import func, select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.errors import BadInput, Conflict, NotFound
from app.models import (
    CheckpointKind,
    Cohort,
    Demonstration,
    DemonstrationOrigin,
    JudgementStatus,
    LeaseState,
    Sample,
    SampleOrigin,
    Split,
    Task,
    TaskKind,
    TaskState,
)
from app.schemas.demonstrations import Writing
from app.schemas.projects import SamplingSettings
from app.services import checkpoints, counters, demonstrations, history, samplers, tasks
from app.services.samplers import Recipe
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
        demonstrations.submit(session, ada, work.task.uid, Writing("A wren."), idempotency_key=uuid.uuid4())
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
            demonstrations.submit(session, ada, work.task.uid, Writing(" A wren.\r\nOr two. "), idempotency_key=key)
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
            demonstrations.submit(session, ada, work.task.uid, Writing("Other."), idempotency_key=uuid.uuid4())

    def test_counts_only_what_trains(self, session: Session, queue: Queue) -> None:
        registry.make_prompt(session, queue.project)
        held_out = queue.person(session, cohort=Cohort.HELD_OUT)
        work = take(session, held_out)
        demonstrations.submit(session, held_out, work.task.uid, Writing("A wren."), idempotency_key=uuid.uuid4())
        assert counters.get(session, queue.project.id, counters.DEMONSTRATIONS) == 0

    @pytest.mark.parametrize(
        ("text", "message"), [("", "empty"), (" \n", "empty"), ("x" * 20_001, "20,001 characters"), ("a\x00", "NUL")]
    )
    def test_refuses_empty_and_overlong_texts(self, session: Session, queue: Queue, text: str, message: str) -> None:
        registry.make_prompt(session, queue.project)
        ada = queue.person(session)
        work = take(session, ada)
        with pytest.raises(BadInput, match=message):
            demonstrations.submit(session, ada, work.task.uid, Writing(text), idempotency_key=uuid.uuid4())
        assert session.scalar(select(func.count()).select_from(Demonstration)) == 0
        session.refresh(work.lease)
        assert work.lease.state == LeaseState.HELD

    def test_a_task_of_another_person_is_not_found(self, session: Session, queue: Queue) -> None:
        registry.make_prompt(session, queue.project)
        work = take(session, queue.person(session))
        with pytest.raises(NotFound):
            demonstrations.submit(
                session, queue.person(session, "Bob"), work.task.uid, Writing("x"), idempotency_key=uuid.uuid4()
            )

    def test_a_task_that_asks_for_a_ranking_is_not_found(self, session: Session, queue: Queue) -> None:
        """Its prompt may be held out, and nobody would rank its outputs any more."""
        task = queue.task(session)
        ada = queue.person(session)
        ranked = lease(session, ada)
        with pytest.raises(NotFound):
            demonstrations.submit(session, ada, task.uid, Writing("x"), idempotency_key=uuid.uuid4())
        session.refresh(ranked)
        assert ranked.state == LeaseState.HELD


def sample_of(session: Session, queue: Queue, prompt_id: int, text: str, *, sampler_id: int | None = None) -> Sample:
    """What a model answered to a prompt."""
    sample = Sample(
        project_id=queue.project.id,
        prompt_id=prompt_id,
        origin=SampleOrigin.MODEL,
        sampler_id=sampler_id or queue.sampler.id,
        text=text,
        html=text,
    )
    session.add(sample)
    session.flush()
    return sample


class TestFindStart:
    def test_prefers_the_active_model_and_never_gives_what_a_person_wrote(
        self, session: Session, queue: Queue, tmp_path: Path
    ) -> None:
        prompt, other = (registry.make_prompt(session, queue.project) for _ in range(2))
        assert demonstrations.find_start(session, queue.project, prompt.id) is None
        own = sample_of(session, queue, prompt.id, "of the active model")
        candidate = registry.make_checkpoint(session, queue.project, tmp_path, CheckpointKind.SFT)
        sampler = samplers.ensure_sampler(session, queue.project, candidate, SamplingSettings())
        newer = sample_of(session, queue, prompt.id, "of a candidate", sampler_id=sampler.id)
        edited = sample_of(session, queue, prompt.id, "edited")
        edited.origin = SampleOrigin.EDITED
        only = sample_of(session, queue, other.id, "of a candidate too", sampler_id=sampler.id)
        assert demonstrations.find_start(session, queue.project, prompt.id) is own
        assert demonstrations.find_start(session, queue.project, other.id) is only
        assert newer.id > own.id

    def test_gives_no_text_that_a_model_would_not_give_by_itself(
        self, session: Session, queue: Queue, tmp_path: Path
    ) -> None:
        """The best of several, what a text before the prompt made of it, and a model outside: a person would teach those."""
        prompt = registry.make_prompt(session, queue.project)
        policy = checkpoints.active_policy(session, queue.project.id)
        reward = registry.make_checkpoint(session, queue.project, tmp_path, CheckpointKind.REWARD, init=policy)
        endpoint = registry.make_endpoint(session, queue.project)
        for recipe in (
            Recipe(policy, 1.0, 1.0, 20, best_of=4, reward=reward),
            Recipe(policy, 1.0, 1.0, 20, prefix="Say: "),
            Recipe(endpoint, 1.0, 1.0, 20),
        ):
            sampler = samplers.ensure(session, queue.project, recipe)
            sample_of(session, queue, prompt.id, "x", sampler_id=sampler.id)
        assert demonstrations.find_start(session, queue.project, prompt.id) is None


class TestParent:
    def test_is_kept_with_the_text_that_began_as_it(self, session: Session, queue: Queue) -> None:
        prompt = registry.make_prompt(session, queue.project)
        sample = sample_of(session, queue, prompt.id, "A bird is a wren.")
        ada = queue.person(session)
        work = take(session, ada)
        writing = Writing("A wren is a bird.", sample.uid, active_ms=1200, idle_ms=30)
        stored = demonstrations.submit(session, ada, work.task.uid, writing, idempotency_key=uuid.uuid4())
        assert (stored.origin, stored.parent_id) == (DemonstrationOrigin.EDITED, sample.id)
        assert (stored.active_ms, stored.idle_ms) == (1200, 30)

    def test_of_another_prompt_is_refused(self, session: Session, queue: Queue) -> None:
        registry.make_prompt(session, queue.project)
        ada = queue.person(session)
        work = take(session, ada)
        other = sample_of(session, queue, registry.make_prompt(session, queue.project).id, "A cod.")
        with pytest.raises(BadInput, match="not one to this prompt"):
            demonstrations.submit(
                session, ada, work.task.uid, Writing("A wren.", other.uid), idempotency_key=uuid.uuid4()
            )


class TestUsualLength:
    def test_is_the_middle_half_of_what_stands_and_nothing_is_said_of_few(self, session: Session, queue: Queue) -> None:
        prompt = registry.make_prompt(session, queue.project)
        texts = [demonstrations.NewDemonstration(prompt.id, "word " * number) for number in (10, 20, 30, 40)]
        demonstrations.add_many(session, queue.project, texts)
        assert demonstrations.find_usual_length(session, queue.project) is None
        demonstrations.add_many(session, queue.project, [demonstrations.NewDemonstration(prompt.id, "a\n\nb  c " * 20)])
        usual = demonstrations.find_usual_length(session, queue.project)
        assert usual is not None
        assert (usual.low, usual.high, usual.count) == (20, 40, 5)  # of 10, 20, 30, 40, 60


class TestRevise:
    def test_takes_the_place_of_the_version_before(self, session: Session, queue: Queue) -> None:
        registry.make_prompt(session, queue.project)
        ada = queue.person(session)
        uid = take(session, ada).task.uid
        first = demonstrations.submit(session, ada, uid, Writing("A wren."), idempotency_key=uuid.uuid4())
        key = uuid.uuid4()
        second, again = (
            demonstrations.revise(session, ada, uid, Writing("An owl."), idempotency_key=key, of_revision=1)
            for _ in range(2)
        )
        assert second.id == again.id
        assert (first.text, first.status) == ("A wren.", JudgementStatus.SUPERSEDED)
        assert (second.text, second.status, second.revision) == ("An owl.", JudgementStatus.CURRENT, 2)
        assert counters.get(session, queue.project.id, counters.DEMONSTRATIONS) == 1
        assert [(row.task, row.revision) for row in history.list_recent(session, ada)] == [(uid, 2)]
        with pytest.raises(Conflict, match="version 2 is the newest"):
            demonstrations.revise(session, ada, uid, Writing("A cod."), idempotency_key=uuid.uuid4(), of_revision=1)

    def test_is_for_what_was_submitted_by_that_person(self, session: Session, queue: Queue) -> None:
        registry.make_prompt(session, queue.project)
        ada = queue.person(session)
        uid = take(session, ada).task.uid
        for person in (ada, queue.person(session, "Bob")):
            with pytest.raises(NotFound):
                demonstrations.revise(session, person, uid, Writing("x"), idempotency_key=uuid.uuid4(), of_revision=1)

    def test_of_what_an_admin_took_out_is_refused(self, session: Session, queue: Queue) -> None:
        registry.make_prompt(session, queue.project)
        ada = queue.person(session)
        uid = take(session, ada).task.uid
        first = demonstrations.submit(session, ada, uid, Writing("A wren."), idempotency_key=uuid.uuid4())
        first.status = JudgementStatus.EXCLUDED
        with pytest.raises(Conflict, match="out of training"):
            demonstrations.revise(session, ada, uid, Writing("x"), idempotency_key=uuid.uuid4(), of_revision=1)


class TestAddMany:
    def test_stores_thousands_and_counts_them(self, session: Session, queue: Queue) -> None:
        prompt = registry.make_prompt(session, queue.project)
        rows = (demonstrations.NewDemonstration(prompt.id, f"text {number}") for number in range(2500))
        assert demonstrations.add_many(session, queue.project, rows) == 2500
        assert session.scalar(select(func.count()).select_from(Demonstration)) == 2500
        assert counters.get(session, queue.project.id, counters.DEMONSTRATIONS) == 2500


def test_what_the_database_refuses_for_another_reason_is_not_called_a_reused_page(
    session: Session, queue: Queue
) -> None:
    registry.make_prompt(session, queue.project)
    ada = queue.person(session)
    work = take(session, ada)
    session.execute(text("ALTER TABLE demonstrations ADD CONSTRAINT unlike CHECK (text <> 'Mine.')"))
    with pytest.raises(IntegrityError):
        demonstrations.submit(session, ada, work.task.uid, Writing("Mine."), idempotency_key=uuid.uuid4())
