"""Looks at what must hold for everything to run, and says how to mend what does not: `preferable doctor`."""

import importlib.metadata
import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import redis
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from app import db, embedded, install
from app.processes import Identity
from app.queries import health
from app.settings import Settings

_LEAST_FREE_BYTES = 2 * 10**9


@dataclass(frozen=True)
class Finding:
    """One thing looked at. `is_fatal` says that nothing works without it."""

    name: str
    is_good: bool
    message: str
    is_fatal: bool = True


def examine(settings: Settings) -> Iterator[Finding]:
    """Findings one by one, changing nothing."""
    home = settings.home.resolve()
    version = sys.version.split()[0]
    yield Finding("python", sys.version_info >= (3, 11), f"{version}; 3.11 or newer is needed")
    yield _disk(home)
    supervisor = _supervisor(home)
    yield supervisor
    yield from _database(settings, home, runs_here=supervisor.is_good)
    yield _broker(settings, home, runs_here=supervisor.is_good)
    yield _worker_half(home)


def _disk(home: Path) -> Finding:
    there = next(folder for folder in (home, *home.parents) if folder.exists())
    free = shutil.disk_usage(there).free
    return Finding("disk", free >= _LEAST_FREE_BYTES, f"{free / 1e9:.1f} GB are free at {there}; 2 GB are needed")


def _supervisor(home: Path) -> Finding:
    status = home / "run" / "status.json"
    if not status.exists():
        return Finding("processes", False, f"`preferable up` does not run on {home}", is_fatal=False)
    processes = json.loads(status.read_text())["processes"]
    dead = [
        name
        for name, entry in processes.items()
        if entry["state"] != "done" and not (entry["pid"] and Identity(entry["pid"], entry["started"]).is_alive())
    ]
    if dead:
        return Finding("processes", False, f"not running: {', '.join(dead)}; see the files in {home / 'log'}")
    return Finding("processes", True, f"running: {', '.join(processes)}")


def _database(settings: Settings, home: Path, *, runs_here: bool) -> Iterator[Finding]:
    if not settings.database_url and not runs_here:
        yield Finding("database", True, "the embedded one; it starts with `preferable up`", is_fatal=False)
        return
    url = settings.database_url or embedded.postgres_url(home)
    try:
        with psycopg.connect(url.replace("+psycopg", "", 1), connect_timeout=5) as connection:
            version = connection.info.server_version // 10000
    except psycopg.Error as error:
        yield Finding("database", False, " ".join(str(error).split()))
        return
    yield Finding("database", version >= 14, f"Postgres {version}; 14 or newer is needed")
    newest = ScriptDirectory.from_config(db.migration_config(url)).get_current_head()
    engine = create_engine(db.normalise_url(url))
    with Session(engine) as session:
        present = health.find_revision(session)
    engine.dispose()
    yield Finding(
        "migrations", present == newest, f"at {present} of {newest}; `preferable migrate` brings it to the newest"
    )


def _broker(settings: Settings, home: Path, *, runs_here: bool) -> Finding:
    if not settings.redis_url and not runs_here:
        return Finding("broker", True, "the embedded one; it starts with `preferable up`", is_fatal=False)
    url = settings.redis_url or embedded.redis_url(home)
    try:
        with redis.Redis.from_url(url, socket_connect_timeout=5, retry=None) as client:
            client.ping()
    except (redis.RedisError, ValueError) as error:
        return Finding("broker", False, str(error))
    return Finding("broker", True, "answers")


def _worker_half(home: Path) -> Finding:
    if install.is_complete():
        versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("torch", "transformers"))
        return Finding("learning", True, versions)
    progress = install.read_progress(home)
    message = f"torch is not installed yet ({progress.state}: {progress.message or 'it begins with `preferable up`'})"
    return Finding("learning", False, message, is_fatal=progress.state == "failed")
