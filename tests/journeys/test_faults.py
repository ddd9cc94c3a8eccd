"""Show 5: whatever is killed, and a broker that forgets everything, costs no judgement, doubles none, and the work goes on."""

import contextlib
import itertools
import math
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import httpx
import psutil
import pytest
import redis
from sqlalchemy import func, select, update

from app import storage
from app.db import transaction
from app.models import (
    Checkpoint,
    Job,
    JobState,
    Judge,
    Judgement,
    JudgementRank,
    Project,
    Run,
    RunKind,
    RunLog,
    Sample,
    Task,
    TaskOutput,
    TaskState,
)
from app.schemas.projects import AutomationSettings
from app.services import accounts, counters, jobs, runs, sampling
from app.settings import Settings, get_settings
from tests.workers.tasks import tiny
from workers.simulate.browser import Browser
from workers.simulate.page import Page
from workers.tasks.beat import beat_tick
from workers.tasks.sample import sample_tasks

LONG_RUN = "[sft]\nepochs = 800\nbatch_size = 8\nlr = 1e-4\n"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_base(tmp_path_factory.mktemp("tiny") / "base")


@pytest.fixture
def project(settings: Settings, base: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project whose automation is off, so that only what the test asks for happens."""
    monkeypatch.setenv("PREFERABLE_TRAIN_STATE_SECONDS", "0.3")
    monkeypatch.setenv("PREFERABLE_TRAIN_THREADS", "1")
    monkeypatch.setenv("PREFERABLE_TRAIN_NICENESS", "0")
    with transaction() as session:
        return tiny.make_project(session, base, automation=AutomationSettings(is_on=False, ready_tasks=160))


def let_time_pass() -> None:
    """Make every heartbeat and message of live jobs two minutes old, as if nobody had been heard of since."""
    then = func.now() - func.make_interval(0, 0, 0, 0, 0, 2)
    with transaction() as session:
        live = update(Job).where(Job.finished_at.is_(None))
        session.execute(live.values(heartbeat_at=then, sent_at=then, created_at=then))


def trainers_in(folder: Path) -> list[psutil.Process]:
    """Training processes of a run, whoever started them."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if str(folder) in process.cmdline() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


class TestTraining:
    def test_a_run_survives_its_trainer_and_its_supervisor(self, project: Project, tmp_path: Path) -> None:
        with transaction() as session:
            session.get_one(Project, project.id).training_config = LONG_RUN
            run = runs.request_run(session, session.get_one(Project, project.id), kind=RunKind.SFT, reason="a test")
        folder = storage.run_folder(get_settings(), run.uid).resolve()
        with tiny.start_worker("train", tmp_path) as first:
            trainer = self.wait_for_trainer(folder)
            self.wait_for_state(folder)
            trainer.kill()
            another = self.wait_for_trainer(folder, other_than=trainer.pid)
            self.wait_for_log(run, "continuing from step", 1)

            first.process.kill()
            another.wait(timeout=10)
        assert trainers_in(folder) == [], "a trainer whose supervisor died leaves by itself"

        beat_tick()
        assert self.job(run).state == JobState.RUNNING, "a silence of seconds is no death"
        let_time_pass()
        beat_tick()
        assert self.job(run).state == JobState.QUEUED
        with tiny.start_worker("train", tmp_path):
            self.wait_for_log(run, "continuing from step", 2)
            assert len(trainers_in(folder)) == 1
            job = tiny.wait_for_end(run.job_id, seconds=120)
        assert (job.state, job.error, job.attempt) == (JobState.SUCCEEDED, None, 2)
        with transaction() as session:
            assert session.scalar(select(func.count()).select_from(Checkpoint)) == 2, "the base, and one SFT model"
            logs = session.scalars(select(RunLog.text).where(RunLog.run_id == run.id)).all()
        resumed_at = [int(text.rsplit(" ", 1)[1]) for text in logs if text.startswith("continuing from step")]
        assert 0 < resumed_at[0] < resumed_at[1], "each went on from a later state"
        assert any("killed (SIGKILL)" in text for text in logs)

    def wait_for_trainer(self, folder: Path, *, other_than: int = 0) -> psutil.Process:
        return tiny.wait_until(
            lambda _: next((process for process in trainers_in(folder) if process.pid != other_than), None)
        )

    def wait_for_state(self, folder: Path) -> None:
        tiny.wait_until(lambda _: (folder / "state" / "state.pt").is_file())

    def wait_for_log(self, run: Run, beginning: str, times: int) -> None:
        count = select(func.count()).where(RunLog.run_id == run.id, RunLog.text.startswith(beginning))
        tiny.wait_until(lambda session: (session.scalar(count) or 0) >= times)

    def job(self, run: Run) -> Job:
        with transaction() as session:
            return session.get_one(Job, run.job_id)


class TestSampling:
    def test_the_queue_is_filled_though_the_worker_was_killed_and_the_broker_wiped(
        self, project: Project, tmp_path: Path
    ) -> None:
        with transaction() as session:
            job = sampling.request_tasks(session, project)
        with tiny.start_worker("sample", tmp_path) as worker:
            tiny.wait_until(lambda session: session.scalar(select(Task.id).limit(1)))
            worker.process.kill()
        with redis.Redis.from_url(get_settings().redis_url) as broker:
            broker.flushall()
        with transaction() as session:
            assert 0 < (session.scalar(select(func.count()).select_from(Task)) or 0) < 160, "killed in the middle"

        with tiny.start_worker("sample", tmp_path):
            let_time_pass()
            beat_tick()
            assert tiny.wait_for_end(job.id).state == JobState.SUCCEEDED
            with redis.Redis.from_url(get_settings().redis_url) as broker:
                broker.flushall()
                with transaction() as session:
                    showcase = sampling.request_showcase(session, session.scalars(select(Checkpoint)).one())
                broker.flushall()
            let_time_pass()
            beat_tick()
            assert tiny.wait_for_end(showcase.id).state == JobState.SUCCEEDED
        self.check_tasks(math.ceil(160 * sampling.SURPLUS))

    def check_tasks(self, wanted: int) -> None:
        """As many tasks as wanted, none of them half-made, none with an answer twice."""
        with transaction() as session:
            rows = session.execute(
                select(Task.id, func.count(), func.count(Sample.text.distinct()))
                .join(TaskOutput, TaskOutput.task_id == Task.id)
                .join(Sample, Sample.id == TaskOutput.sample_id)
                .where(Task.state == TaskState.OPEN)
                .group_by(Task.id)
            ).all()
        assert len(rows) == wanted
        assert {(outputs, different) for _, outputs, different in rows} == {(3, 3)}

    def test_a_worker_given_up_for_dead_stores_nothing_when_it_wakes(
        self, project: Project, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with transaction() as session:
            job = sampling.request_tasks(session, project)
        store = sampling.store_tasks

        def store_late(*arguments: object) -> int:
            let_time_pass()
            with transaction() as session:
                jobs.requeue_dead(session)
                assert jobs.claim(session, job.id) is not None
            return store(*arguments)  # type: ignore[arg-type]

        monkeypatch.setattr(sampling, "store_tasks", store_late)
        sample_tasks(job.id)
        with transaction() as session:
            assert session.scalar(select(func.count()).select_from(Task)) == 0
            assert session.get_one(Job, job.id).state == JobState.RUNNING


class Web:
    """The web server in a process that can be killed; its socket stays open, as the supervisor keeps it."""

    def __init__(self, listening: socket.socket) -> None:
        self.listening = listening
        self.kills = 0
        self.process = self.start()

    def start(self) -> subprocess.Popen[bytes]:
        descriptor = self.listening.fileno()
        return subprocess.Popen([sys.executable, "-m", "app.serve", str(descriptor)], pass_fds=[descriptor])

    def kill(self) -> None:
        """Kill it as the kernel would, and start another."""
        self.process.kill()
        self.process.wait()
        self.kills += 1
        self.process = self.start()


@pytest.fixture
def web(project: Project, monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        monkeypatch.setenv("PORT", str(listening.getsockname()[1]))
        get_settings.cache_clear()
        web = Web(listening)
        yield web
        web.process.kill()
        web.process.wait()


class TestWeb:
    PEOPLE = 4
    RANKINGS = 8
    KILLED_AFTER = (3, 12, 21)
    """Acknowledged rankings after which the server is killed."""

    def test_no_judgement_is_lost_or_doubled_when_the_web_process_is_killed_during_submits(
        self, project: Project, web: Web
    ) -> None:
        with transaction() as session:
            job = sampling.request_tasks(session, project)
        sample_tasks(job.id)
        with transaction() as session:
            people = [tiny.labeller(session, project, f"Ada{number}") for number in range(self.PEOPLE)]
            links = [accounts.create_login_link(session, person.user) for person in people]
        acknowledgements = itertools.count(1)
        with ThreadPoolExecutor(self.PEOPLE + 1) as pool:
            browsers = list(pool.map(self.enter, links))
            working = [pool.submit(self.work, browser, acknowledgements, web) for browser in browsers]
            acknowledged = [person.result() for person in working]
        assert web.kills == len(self.KILLED_AFTER)
        with transaction() as session:
            rows = session.execute(select(Judgement.task_id, Judge.user_id).join(Judge, Judge.id == Judgement.judge_id))
            stored = Counter(tuple(row) for row in rows)
            ranks = session.scalar(select(func.count()).select_from(JudgementRank))
            counted = counters.get(session, project.id, counters.JUDGEMENTS)
        assert acknowledged == [self.RANKINGS] * self.PEOPLE
        assert set(stored.values()) == {1}
        assert len(stored) == counted == self.PEOPLE * self.RANKINGS
        assert ranks == 3 * len(stored)

    def enter(self, link: str) -> Browser:
        """A browser whose person has signed in."""
        browser = Browser(get_settings().url)
        page = browser.open(link)
        browser.submit(page.form(link.removeprefix(browser.url)), page)
        return browser

    def work(self, browser: Browser, acknowledgements: Iterator[int], web: Web) -> int:
        """Rank, pressing the button again whenever the connection broke; how many rankings were acknowledged."""
        with browser:
            page = self.insist(partial(browser.open, "/p/tiny/rank"))
            for _ in range(self.RANKINGS):
                if form := page.find_form("/rank/next"):
                    page = self.insist(partial(browser.submit, form, page))
                outputs = [element.attributes["data-output"] for element in page.root.all(data_output=None)]
                tiers = {f"tier-{output}": str(place) for place, output in enumerate(outputs, start=1)}
                page = self.insist(partial(browser.submit, page.form("/submit"), page, **tiers))
                if next(acknowledgements) in self.KILLED_AFTER:  # the others are in the middle of theirs
                    web.kill()
        return self.RANKINGS

    def insist(self, act: Callable[[], Page]) -> Page:
        """Do it until the server answers."""
        give_up = time.monotonic() + 60
        while True:
            try:
                return act()
            except httpx.TransportError:
                assert time.monotonic() < give_up
                time.sleep(0.05)
