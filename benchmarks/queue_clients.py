"""What labels over HTTP, ours and Label Studio alike: one kept connection a session, bytes in and bytes out, no browser."""

import asyncio
import http.client
import json
import re
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from app.web.csrf import HEADER
from app.web.deps import SESSION_COOKIE
from benchmarks.queue_world import Person

_TIER = re.compile(rb'name="tier-([0-9a-f-]{36})"')
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
SWAP = {"HX-Request": "true"}


@dataclass(frozen=True)
class Answer:
    """A response and the milliseconds from the request's first byte to its own last."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    ms: float


class Connection:
    """A kept connection to a server on loopback."""

    def __init__(self, port: int, headers: Mapping[str, str]) -> None:
        self._http = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        self._headers = dict(headers)

    def send(self, method: str, path: str, body: bytes = b"", **headers: str) -> Answer:
        """One request. Ends the program where the server is at fault."""
        began = time.perf_counter()
        self._http.request(
            method, path, body, {**self._headers, **{k.replace("_", "-"): v for k, v in headers.items()}}
        )
        response = self._http.getresponse()
        text = response.read()
        answer = Answer(
            response.status,
            {k.lower(): v for k, v in response.getheaders()},
            text,
            1000 * (time.perf_counter() - began),
        )
        if answer.status >= 400:
            raise SystemExit(f"{method} {path} was answered {answer.status}: {text[:500]!r}")
        return answer


def headers_of(person: Person) -> dict[str, str]:
    """How a person's browser says who they are."""
    return {"Cookie": f"{SESSION_COOKIE}={person.token}", HEADER: person.csrf_token, **FORM, **SWAP}


def ranking(page: bytes) -> bytes:
    """The form of a task's page, its outputs in the order shown, as it is sent."""
    samples = dict.fromkeys(_TIER.findall(page))
    tiers = {f"tier-{sample.decode()}": str(tier) for tier, sample in enumerate(samples, start=1)}
    return urlencode({**tiers, "idempotency_key": str(uuid.uuid4()), "note": ""}).encode()


class Ours:
    """A labeller of ours."""

    def __init__(self, port: int, slug: str, person: Person) -> None:
        self._connection = Connection(port, headers_of(person))
        self._queue = f"/p/{slug}/rank"

    def next(self) -> Answer:
        """Lease the next task; the answer is its page."""
        return self._shown(self._connection.send("POST", f"{self._queue}/next"))

    def submit(self, shown: Answer) -> Answer:
        """Rank the task on a page; the answer is the page of the next."""
        path = shown.headers["hx-push-url"]
        return self._shown(self._connection.send("POST", f"{path}/submit", ranking(shown.body)))

    def give_back(self, shown: Answer) -> None:
        """Let go of the task, so that the next one is another."""
        self._connection.send("POST", f"{shown.headers['hx-push-url']}/release")

    @staticmethod
    def _shown(answer: Answer) -> Answer:
        if "hx-push-url" not in answer.headers:
            raise SystemExit(f"no task came, but {answer.status} to {answer.headers.get('location')}")
        return answer


class LabelStudio:
    """A labeller of Label Studio, by the addresses its page asks."""

    def __init__(self, port: int, token: str) -> None:
        self.connection = Connection(port, {"Authorization": f"Token {token}", "Content-Type": "application/json"})
        self.project = 0

    def post(self, path: str, content: Any) -> Any:
        """Send JSON, read JSON."""
        return json.loads(self.connection.send("POST", path, json.dumps(content).encode()).body)

    def next(self) -> Answer:
        """The next task, with its data."""
        return self.connection.send("GET", f"/api/projects/{self.project}/next")

    def submit(self, shown: Answer) -> Answer:
        """Rank a task."""
        task = json.loads(shown.body)
        order = [item["id"] for item in task["data"]["items"]]
        result = [{"from_name": "rank", "to_name": "items", "type": "ranker", "value": {"ranker": {"rank": order}}}]
        content = {"result": result, "lead_time": 1.0, "project": self.project}
        return self.connection.send("POST", f"/api/tasks/{task['id']}/annotations/", json.dumps(content).encode())


@dataclass
class Load:
    """What an open loop saw."""

    latencies_ms: list[float] = field(default_factory=list)
    """From the moment a submit was due to the last byte of the next task's page."""
    errors: list[str] = field(default_factory=list)
    seconds: float = 0.0
    generator_cpu_seconds: float = 0.0


async def open_loop(port: int, slug: str, people: list[Person], *, rate: float, seconds: float) -> Load:
    """Submits at a fixed rate whatever the server does, each by the person whose turn it is; everybody holds a task before."""
    load = Load()
    sessions = [await _Session.begin(port, slug, person) for person in people]
    began_cpu, began = time.process_time(), time.perf_counter()
    running = []
    for number in range(int(rate * seconds)):
        due = began + number / rate
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        running.append(asyncio.create_task(sessions[number % len(sessions)].submit(due, load)))
    await asyncio.gather(*running)
    load.seconds = time.perf_counter() - began
    load.generator_cpu_seconds = time.process_time() - began_cpu
    return load


class _Session:
    """One person's connection in the open loop; requests of one person wait for each other."""

    def __init__(self, port: int, person: Person) -> None:
        self._port = port
        self._fixed = "".join(f"{name}: {value}\r\n" for name, value in headers_of(person).items())
        self._lock = asyncio.Lock()
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._path = ""
        self._body = b""

    @classmethod
    async def begin(cls, port: int, slug: str, person: Person) -> "_Session":
        session = cls(port, person)
        session._keep(*await session._post(f"/p/{slug}/rank/next", b""))
        return session

    async def submit(self, due: float, load: Load) -> None:
        async with self._lock:
            try:
                self._keep(*await self._post(f"{self._path}/submit", self._body))
            except (OSError, ValueError, asyncio.IncompleteReadError) as error:
                load.errors.append(f"{type(error).__name__}: {error}")
                return
        load.latencies_ms.append(1000 * (time.perf_counter() - due))

    def _keep(self, head: dict[str, str], page: bytes) -> None:
        self._path, self._body = head["hx-push-url"], ranking(page)

    async def _post(self, path: str, body: bytes) -> tuple[dict[str, str], bytes]:
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port, limit=2**20)
        reader, writer = self._streams
        head = (
            f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{self._port}\r\n{self._fixed}Content-Length: {len(body)}\r\n\r\n"
        )
        writer.write(head.encode() + body)
        lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:] if line)}
        text = await reader.readexactly(int(headers["content-length"]))
        if not lines[0].startswith("HTTP/1.1 200") or "hx-push-url" not in headers:
            raise ValueError(f"{lines[0]} for {path}")
        return headers, text
