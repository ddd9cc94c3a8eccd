"""Jobs: who holds one, what an older attempt may no longer do, and how lost work and lost messages come back."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import redis
from sqlalchemy import func, select, text, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app import jobs as outbox
from app.db import transaction
from app.errors import Conflict, StaleAttempt
from app.models import Job, JobState, Project
from app.services import jobs
from app.settings import Settings, get_settings
from tests.app import registry


@pytest.fixture
def project(settings: Settings, tmp_path: Path) -> Project:
    with transaction() as session:
        return registry.make_project(session, tmp_path)[0]


@pytest.fixture
def job(project: Project) -> Job:
    with transaction() as session:
        return outbox.enqueue(session, project_id=project.id, kind="sample_tasks", dedupe_key="sample_tasks")


@pytest.fixture
def opened(settings: Settings) -> Iterator[Session]:
    with transaction() as session:
        yield session


def claimed(job: Job) -> jobs.Claim:
    with transaction() as session:
        claim = jobs.claim(session, job.id)
    assert claim is not None
    return claim


def state_of(job: Job) -> JobState:
    with transaction() as session:
        return session.scalars(select(Job.state).where(Job.id == job.id)).one()


def silence(job: Job, seconds: float) -> None:
    """Let the last heartbeat, message and creation be this old."""
    with transaction() as session:
        then = func.now() - func.make_interval(0, 0, 0, 0, 0, 0, seconds)
        session.execute(update(Job).where(Job.id == job.id).values(heartbeat_at=then, sent_at=then, created_at=then))


def cancel(job: Job) -> JobState:
    with transaction() as session:
        return jobs.request_cancel(session, session.get_one(Job, job.id))


def wait_for_lock(session: Session) -> None:
    """Until another transaction waits for what this one holds."""
    waiting = text(
        "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND pg_backend_pid() = ANY(pg_blocking_pids(pid)))"
    )
    deadline = time.monotonic() + 10
    while not session.scalar(waiting):
        assert time.monotonic() < deadline, "nobody waits"
        time.sleep(0.02)


def messages(queue: str) -> int:
    """Messages that wait in a queue of the broker."""
    with redis.Redis.from_url(get_settings().redis_url) as client:
        return int(client.llen(queue))  # type: ignore[arg-type]


class TestEnqueue:
    def test_sends_only_what_was_committed(self, project: Project) -> None:
        with pytest.raises(RuntimeError), transaction() as session:
            outbox.enqueue(session, project_id=project.id, kind="train")
            raise RuntimeError
        assert messages("train") == 0
        with transaction() as session:
            outbox.enqueue(session, project_id=project.id, kind="train")
            assert messages("train") == 0
        assert messages("train") == 1

    def test_keeps_the_job_when_the_broker_is_away(self, project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1/0")
        get_settings.cache_clear()
        with transaction() as session:
            job = outbox.enqueue(session, project_id=project.id, kind="train")
        assert state_of(job) == JobState.QUEUED

    def test_refuses_a_second_live_job_of_the_same_key(self, job: Job) -> None:
        with pytest.raises(IntegrityError), transaction() as session:
            outbox.enqueue(session, project_id=job.project_id, kind="sample_tasks", dedupe_key="sample_tasks")


class TestClaim:
    def test_is_given_once_however_many_ask(self, job: Job) -> None:
        def ask(_: int) -> bool:
            with transaction() as session:
                return jobs.claim(session, job.id) is not None

        with ThreadPoolExecutor(8) as pool:
            assert sum(pool.map(ask, range(16))) == 1

    def test_raises_the_attempt_each_time(self, job: Job) -> None:
        first = claimed(job)
        with transaction() as session:
            jobs.hand_back(session, first)
        assert (first.attempt, claimed(job).attempt) == (1, 2)

    def test_is_none_for_a_job_that_was_never_committed(self, opened: Session) -> None:
        assert jobs.claim(opened, 10**9) is None


class TestFence:
    @pytest.fixture
    def old(self, job: Job) -> jobs.Claim:
        """The claim of a worker that was given up for dead, while another has the job."""
        claim = claimed(job)
        silence(job, 120)
        with transaction() as session:
            assert jobs.requeue_dead(session) == [job.id]
        claimed(job)
        return claim

    def test_refuses_every_write_of_an_older_attempt(self, job: Job, old: jobs.Claim, opened: Session) -> None:
        for write in (
            lambda: jobs.heartbeat(opened, old, progress=5),
            lambda: jobs.succeed(opened, old),
            lambda: jobs.fail(opened, old, "late"),
            lambda: jobs.mark_cancelled(opened, old),
            lambda: jobs.hand_back(opened, old),
        ):
            with pytest.raises(StaleAttempt):
                write()
        assert state_of(job) == JobState.RUNNING

    def test_refuses_writes_to_a_job_that_is_over(self, job: Job, opened: Session) -> None:
        claim = claimed(job)
        jobs.succeed(opened, claim, {"made": 3})
        with pytest.raises(StaleAttempt):
            jobs.fail(opened, claim, "after all")
        assert opened.get_one(Job, job.id, populate_existing=True).result == {"made": 3}


class TestCancel:
    def test_ends_a_queued_job_at_once(self, job: Job, opened: Session) -> None:
        assert jobs.request_cancel(opened, opened.get_one(Job, job.id)) == JobState.CANCELLED
        assert jobs.claim(opened, job.id) is None

    def test_reaches_the_worker_by_its_heartbeat(self, job: Job, opened: Session) -> None:
        claim = claimed(job)
        assert jobs.heartbeat(opened, claim) == JobState.RUNNING
        jobs.request_cancel(opened, opened.get_one(Job, job.id))
        assert jobs.heartbeat(opened, claim) == JobState.CANCELLING
        jobs.mark_cancelled(opened, claim)
        with pytest.raises(Conflict, match="over already"):
            jobs.request_cancel(opened, opened.get_one(Job, job.id))

    def test_never_leaves_a_job_stopping_that_nobody_holds(self, job: Job) -> None:
        """Its worker hands it back at that moment: it would be neither claimed nor found dead."""
        claim = claimed(job)
        with ThreadPoolExecutor() as pool:
            with transaction() as worker:
                jobs.hand_back(worker, claim)
                asked = pool.submit(cancel, job)
                wait_for_lock(worker)
            assert asked.result() == JobState.CANCELLED


class TestReopen:
    def test_queues_a_failed_job_once_more(self, job: Job) -> None:
        claim = claimed(job)
        with transaction() as session:
            jobs.fail(session, claim, "no luck")
        with transaction() as session:
            jobs.reopen(session, session.get_one(Job, job.id))
        assert claimed(job).attempt == 2

    def test_refuses_a_job_that_is_live_or_has_a_live_twin(self, job: Job, opened: Session) -> None:
        with pytest.raises(Conflict, match="under way"):
            jobs.reopen(opened, opened.get_one(Job, job.id))


class TestRequeueDead:
    def test_leaves_a_worker_alone_that_is_heard_of(self, job: Job, opened: Session) -> None:
        claimed(job)
        assert jobs.requeue_dead(opened) == []

    def test_ends_what_was_being_cancelled(self, job: Job) -> None:
        claimed(job)
        with transaction() as session:
            jobs.request_cancel(session, session.get_one(Job, job.id))
        silence(job, 61)
        with transaction() as session:
            jobs.requeue_dead(session)
        assert state_of(job) == JobState.CANCELLED

    def test_gives_up_on_a_job_that_kills_its_workers(self, job: Job) -> None:
        for _ in range(jobs.MAX_ATTEMPTS):
            claimed(job)
            silence(job, 61)
            with transaction() as session:
                jobs.requeue_dead(session)
        assert state_of(job) == JobState.FAILED

    def test_keeps_a_job_that_was_only_handed_back_often(self, job: Job) -> None:
        for _ in range(jobs.MAX_ATTEMPTS):
            claim = claimed(job)
            with transaction() as session:
                jobs.hand_back(session, claim)
        claimed(job)
        silence(job, 61)
        with transaction() as session:
            jobs.requeue_dead(session)
        assert state_of(job) == JobState.QUEUED


class TestResendQueued:
    def test_brings_back_what_a_wiped_broker_forgot(self, job: Job) -> None:
        with redis.Redis.from_url(get_settings().redis_url) as client:
            client.flushall()
        silence(job, 16)
        with transaction() as session:
            assert jobs.resend_queued(session) == [job.id]
        assert messages("sample") == 1

    def test_is_patient_with_a_job_that_has_waited_long(self, job: Job) -> None:
        silence(job, 3600)
        with transaction() as session:
            assert jobs.resend_queued(session) == [job.id]
            assert jobs.resend_queued(session) == []
        with transaction() as session:
            session.execute(update(Job).values(sent_at=func.now() - func.make_interval(0, 0, 0, 0, 0, 0, 60)))
        with transaction() as session:
            assert jobs.resend_queued(session) == []


class TestForgetFinished:
    def test_deletes_old_routine_jobs_but_the_latest(self, project: Project) -> None:
        kinds = ("sample_tasks", "sample_tasks", "sample_tasks", "train", "showcase")
        with transaction() as session:
            made = [outbox.enqueue(session, project_id=project.id, kind=kind).id for kind in (*kinds, "sample_tasks")]
        now = func.now()
        with transaction() as session:
            over = update(Job).values(state=JobState.SUCCEEDED, finished_at=now - func.make_interval(0, 0, 0, 8))
            session.execute(over)
            session.execute(
                update(Job).where(Job.id == made[1]).values(finished_at=now - func.make_interval(0, 0, 0, 6))
            )
            session.execute(update(Job).where(Job.id == made[2]).values(state=JobState.QUEUED, finished_at=None))
        with transaction() as session:
            assert jobs.forget_finished(session) == 1
            assert session.scalars(select(Job.id).order_by(Job.id)).all() == made[1:]

    def test_keeps_the_latest_try_of_each_endpoint(self, project: Project) -> None:
        with transaction() as session:
            for endpoint in (1, 2, 1):
                key = f"endpoint/{endpoint}"
                made = outbox.enqueue(session, project_id=project.id, kind="test_endpoint", dedupe_key=key)
                made.state = JobState.SUCCEEDED
                session.flush()
            session.execute(update(Job).values(finished_at=func.now() - func.make_interval(0, 0, 0, 8)))
        with transaction() as session:
            assert jobs.forget_finished(session) == 1
            left = session.scalars(select(Job.dedupe_key).order_by(Job.id)).all()
        assert left == ["endpoint/2", "endpoint/1"]
