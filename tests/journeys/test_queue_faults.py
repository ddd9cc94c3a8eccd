"""Show 6: whatever is killed, doubled or sent out of order, a submit that was answered is stored exactly once."""

import itertools
import random
import re
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import func, select, update

from app import db, embedded
from app.models import Draft, Judge, Judgement, JudgementStatus, Lease, LeaseState, Role, Task, User
from app.settings import Settings, get_settings
from app.web.csrf import FIELD
from app.web.deps import SESSION_COOKIE
from tests.app.queue import Queue, make_queue
from tests.app.visitor import Visitor, make_visitor
from tests.journeys.killed import Mortals, Sent, mortals
from tests.journeys.queue_truth import find_lies

slow = pytest.mark.slow


def make_world(folder: Path, *, tasks: int, wanted: int = 1) -> Queue:
    with db.transaction() as session:
        queue = make_queue(session, folder)
        for _ in range(tasks):
            queue.task(session, wanted=wanted)
        return queue


def assert_true() -> None:
    with db.transaction() as session:
        assert find_lies(session) == []


def ranking(page: str) -> dict[str, str]:
    """The ranking form of a page, filled in: best first as shown."""
    outputs = re.findall(r'data-output="([^"]+)"', page)
    assert outputs, page[:500]
    return {
        "idempotency_key": str(uuid.uuid4()),
        **{f"tier-{uid}": str(tier) for tier, uid in enumerate(outputs, start=1)},
    }


def stored() -> dict[tuple[uuid.UUID, int], int]:
    """How many current judgements each (task, person) has."""
    with db.transaction() as session:
        rows = session.execute(
            select(Task.uid, Judge.user_id, func.count())
            .select_from(Judgement)
            .join(Task, Task.id == Judgement.task_id)
            .join(Judge, Judge.id == Judgement.judge_id)
            .where(Judgement.status == JudgementStatus.CURRENT)
            .group_by(Task.uid, Judge.user_id)
        )
        return {(task, person): count for task, person, count in rows}


@pytest.fixture(scope="module")
def web() -> Iterator[Mortals]:
    with mortals() as made:
        yield made


class TestKilled:
    """The web process, by SIGKILL, before every statement of a request; then the labeller presses the button again."""

    @pytest.mark.parametrize("act", ["next", "draft", "submit", "skip", "release", "revise"])
    def test_a_request_that_was_cut_off_is_safe_to_repeat(
        self, client: TestClient, web: Mortals, tmp_path: Path, act: str
    ) -> None:
        queue = make_world(tmp_path, tasks=80)
        ada = make_visitor(client, queue.project, Role.LABELLER)
        deaths = 0
        for statement in itertools.count(1):
            path, fields = self.prepare(ada, queue, act)
            form = {FIELD: ada.csrf_token, **fields}
            status = web.send(Sent(path, form, f"{SESSION_COOKIE}={ada.token}"), die_before=statement)
            assert_true()
            if status is None:
                deaths += 1
                status = ada.post(path, **fields).status_code
                assert_true()
            self.check(ada, act, path, status)
            if deaths < statement:
                break
        assert deaths > 5, "it was killed before anything happened only"

    def prepare(self, ada: Visitor, queue: Queue, act: str) -> tuple[str, dict[str, str]]:
        """Bring the person to where the act is possible; its address and fields."""
        home = f"/p/{queue.project.slug}"
        if act == "next":
            with db.transaction() as session:
                session.execute(update(Lease).where(Lease.state == LeaseState.HELD).values(state=LeaseState.RELEASED))
            return f"{home}/rank/next", {}
        task = ada.post(f"{home}/rank/next").headers["location"]
        fields = ranking(ada.get(task).text)
        if act == "revise":
            assert ada.post(f"{task}/submit", **fields).status_code == 303
            fields |= {"of_revision": "1", "idempotency_key": str(uuid.uuid4()), "note": "again"}
        return f"{task}/{act}", fields | ({"reason": "unclear"} if act == "skip" else {})

    def check(self, ada: Visitor, act: str, path: str, status: int) -> None:
        assert status == (200 if act == "draft" else 303)
        task = path.rsplit("/tasks/", maxsplit=1)[-1].split("/", maxsplit=1)[0]
        with db.transaction() as session:
            states = {
                str(uid): state
                for uid, state in session.execute(select(Task.uid, Lease.state).join(Lease, Lease.task_id == Task.id))
            }
            held = [state for state in states.values() if state == LeaseState.HELD]
            drafts = session.scalar(select(func.count()).select_from(Draft))
        assert len(held) <= 1
        if act in ("submit", "revise"):
            assert stored()[uuid.UUID(task), ada.user.id] == 1
        expected = {
            "draft": "held",
            "submit": "submitted",
            "revise": "submitted",
            "skip": "skipped",
            "release": "released",
        }
        if act == "next":
            assert len(held) == 1
        else:
            assert states[task] == expected[act]
        assert act != "draft" or drafts


@dataclass
class Client:
    """A labeller's browser over a socket."""

    http: httpx.Client
    person: User
    token: str
    slug: str
    answered: set[tuple[uuid.UUID, int]] = field(default_factory=set)
    """Tasks whose submit was answered well."""
    statuses: set[int] = field(default_factory=set)

    def post(self, path: str, **fields: str) -> httpx.Response:
        answer = self.http.post(path, data={FIELD: self.token, **fields})
        self.statuses.add(answer.status_code)
        if path.endswith("/submit") and answer.status_code == 303:
            self.answered.add((uuid.UUID(path.split("/")[-2]), self.person.id))
        return answer

    def take(self) -> str | None:
        """The address of the next task; None where there is none."""
        path = self.post(f"/p/{self.slug}/rank/next").headers["location"]
        return path if "/tasks/" in path else None


@contextmanager
def serving() -> Iterator[str]:
    """A web process of its own; its address."""
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listening:
        descriptor, port = listening.fileno(), listening.getsockname()[1]
        web = subprocess.Popen([sys.executable, "-m", "app.serve", str(descriptor)], pass_fds=[descriptor])
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            web.kill()
            web.wait()


@contextmanager
def clients(url: str, queue: Queue, count: int) -> Iterator[list[Client]]:
    """Labellers of the project."""
    made = []
    for _ in range(count):
        visitor = make_visitor(None, queue.project, Role.LABELLER)  # type: ignore[arg-type]  # only signed in by it
        http = httpx.Client(base_url=url, cookies={SESSION_COOKIE: visitor.token}, timeout=60)
        made.append(Client(http, visitor.user, visitor.csrf_token, queue.project.slug))
    yield made
    for client in made:
        client.http.close()


class Disorder:
    """What clients, proxies and impatient people do to requests. Each act ends with the task answered or passed on."""

    def __init__(self, client: Client, pair: ThreadPoolExecutor, seed: int) -> None:
        self.client = client
        self.pair = pair
        self.chance = random.Random(seed)

    def work(self, rounds: int) -> None:
        for _ in range(rounds):
            task = self.client.take()
            if task is None:
                return
            fields = ranking(self.client.http.get(task).text)
            act = self.chance.choice(
                (self.twice, self.two_answers, self.late_draft, self.skipped, self.unskipped, self.expired)
            )
            act(task, fields)

    def at_once(self, *acts: Callable[[], httpx.Response]) -> list[int]:
        return sorted(answer.status_code for answer in self.pair.map(lambda act: act(), acts))

    def twice(self, task: str, fields: dict[str, str]) -> None:
        def submit() -> httpx.Response:
            return self.client.post(f"{task}/submit", **fields)

        assert self.at_once(submit, submit, submit) == [303, 303, 303]
        assert submit().status_code == 303, "and once more, later"

    def two_answers(self, task: str, fields: dict[str, str]) -> None:
        other = fields | {"idempotency_key": str(uuid.uuid4())}
        answers = self.at_once(
            lambda: self.client.post(f"{task}/submit", **fields), lambda: self.client.post(f"{task}/submit", **other)
        )
        assert answers == [303, 409]

    def late_draft(self, task: str, fields: dict[str, str]) -> None:
        self.at_once(
            lambda: self.client.post(f"{task}/draft", **fields), lambda: self.client.post(f"{task}/submit", **fields)
        )
        assert self.client.post(f"{task}/draft", **fields).json() == {"saved_at": None}

    def skipped(self, task: str, fields: dict[str, str]) -> None:
        assert self.client.post(f"{task}/submit", **fields).status_code == 303
        assert self.client.post(f"{task}/skip", reason="unclear").status_code == 409

    def unskipped(self, task: str, fields: dict[str, str]) -> None:
        self.at_once(
            lambda: self.client.post(f"{task}/skip", reason="unclear"),
            lambda: self.client.post(f"{task}/submit", **fields),
        )
        assert self.client.post(f"{task}/submit", **fields).status_code == 303

    def expired(self, task: str, fields: dict[str, str]) -> None:
        """The time is over, and somebody else may have taken the task, before the answer comes."""
        with db.transaction() as session:
            of_task = select(Task.id).where(Task.uid == uuid.UUID(task.rpartition("/")[2])).scalar_subquery()
            mine = (Lease.task_id == of_task, Lease.user_id == self.client.person.id, Lease.state == LeaseState.HELD)
            session.execute(update(Lease).where(*mine).values(expires_at=func.now()))
        time.sleep(0.05)
        assert self.client.post(f"{task}/submit", **fields).status_code == 303


@pytest.mark.parametrize(("people", "rounds"), [(10, 3), pytest.param(200, 5, marks=slow)])
def test_requests_doubled_and_out_of_order_leave_the_queue_true(
    settings: object, tmp_path: Path, people: int, rounds: int
) -> None:
    queue = make_world(tmp_path, tasks=people * rounds // 2, wanted=3)
    pools = ThreadPoolExecutor(people), ThreadPoolExecutor(3 * people)
    with serving() as url, clients(url, queue, people) as workers, pools[0] as pool, pools[1] as pair:
        works = [pool.submit(Disorder(worker, pair, seed).work, rounds) for seed, worker in enumerate(workers)]
        for work in works:
            work.result()
    assert_true()
    answered = set[tuple[uuid.UUID, int]]().union(*(worker.answered for worker in workers))
    assert stored() == dict.fromkeys(answered, 1)
    assert len(answered) >= people
    assert set[int]().union(*(worker.statuses for worker in workers)) <= {200, 303, 409}


class OwnPostgres:
    """A Postgres of one test's own, durable as in production, that can be stopped or crashed and comes back."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.running = embedded.start_postgres(home)

    def restart(self, how: signal.Signals) -> None:
        """End it in that way, let half a second pass, start it again. From the main thread: it ends with its starter's."""
        self.running.process.send_signal(how)
        self.running.process.wait(30)
        time.sleep(0.5)
        self.running = embedded.start_postgres(self.home)


@pytest.fixture
def own_postgres(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[OwnPostgres]:
    made = OwnPostgres(tmp_path / "own")
    db.migrate(made.running.url)
    monkeypatch.setenv("DATABASE_URL", made.running.url)
    db.get_engine.cache_clear()
    get_settings.cache_clear()
    yield made
    db.get_engine().dispose()
    made.running.stop()


def insist(act: Callable[[], httpx.Response]) -> httpx.Response:
    """Do it until the page no longer says that the database does not answer."""
    give_up = time.monotonic() + 60
    while (answer := act()).status_code == 503:
        assert "Try again in a moment" in answer.text
        assert time.monotonic() < give_up
        time.sleep(0.05)
    assert answer.status_code in (200, 303), answer.text
    return answer


def work_through(client: Client, rounds: int) -> None:
    """Answer so many tasks, whatever happens to the database."""
    for _ in range(rounds):
        task = insist(lambda: client.post(f"/p/{client.slug}/rank/next")).headers["location"]
        fields = ranking(insist(lambda at=task: client.http.get(at)).text)
        insist(lambda at=task, said=fields: client.post(f"{at}/submit", **said))


def test_postgres_stopped_and_crashed_loses_and_doubles_no_answer(own_postgres: OwnPostgres, tmp_path: Path) -> None:
    people, rounds = 4, 8
    queue = make_world(tmp_path, tasks=people * (rounds + 1))  # each submit leases one more
    with serving() as url, clients(url, queue, people) as workers, ThreadPoolExecutor(people) as pool:
        works = [pool.submit(work_through, worker, rounds) for worker in workers]
        for how, answers in (
            (signal.SIGINT, 6),
            (signal.SIGQUIT, 16),
        ):  # "fast", then "immediate": a crash, and recovery
            while sum(len(worker.answered) for worker in workers) < answers and not all(work.done() for work in works):
                time.sleep(0.01)
            own_postgres.restart(how)
        for work in works:
            work.result()
    db.get_engine().dispose()
    assert_true()
    answered = set[tuple[uuid.UUID, int]]().union(*(worker.answered for worker in workers))
    assert stored() == dict.fromkeys(answered, 1)
    assert len(answered) == people * rounds
    assert 503 in set[int]().union(*(worker.statuses for worker in workers)), "nobody noticed"
