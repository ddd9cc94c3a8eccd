"""Real Postgres and Valkey for the tests: started once, a migrated template cloned per test, nothing left behind."""

import itertools
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import pytest
import redis
from psycopg import sql
from sqlalchemy import create_engine

from app import db, embedded
from app.settings import get_settings

_numbers = itertools.count(1)

_ROOM_BYTES = 4 * 2**30
"""Free memory under which the databases stay on disk; they need a tenth of it."""


@dataclass
class Servers:
    """The running pair. Templates are made when first asked for."""

    home: Path
    postgres_url: str
    redis_url: str
    _templates: set[str] = field(default_factory=set)

    def url_of(self, database: str) -> str:
        """URL of a database by name."""
        return f"{self.postgres_url.rpartition('/')[0]}/{database}"

    def execute(self, statement: sql.Composed) -> None:
        """Run one statement outside of any transaction, on the cluster's own database."""
        with psycopg.connect(self.url_of("postgres"), autocommit=True) as connection:
            connection.execute(statement)

    def template(self, *, has_starter: bool) -> str:
        """Name of the migrated database to clone: with the owner and the starter project, or with empty tables."""
        name = "template_starter" if has_starter else "template_empty"
        if name not in self._templates:
            self.execute(sql.SQL("DROP DATABASE IF EXISTS {}").format(sql.Identifier(name)))  # half made
            if has_starter:
                self.clone(self.template(has_starter=False), into=name)
                _bootstrap(self.url_of(name), self.home)
            else:
                self.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
                db.migrate(self.url_of(name))
            self._templates.add(name)
        return name

    def clone(self, template: str, *, into: str) -> None:
        """Copy a database nobody is connected to."""
        self.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(into), sql.Identifier(template)))

    @contextmanager
    def database(self, *, has_starter: bool = False) -> Iterator[str]:
        """URL of a database of one's own, dropped at the end whoever is still connected."""
        name = f"test_{next(_numbers)}"
        self.clone(self.template(has_starter=has_starter), into=name)
        try:
            yield self.url_of(name)
        finally:
            self.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))

    def flush(self) -> None:
        """Empty the broker."""
        with redis.Redis.from_url(self.redis_url) as client:
            client.flushall()


@contextmanager
def start_servers() -> Iterator[Servers]:
    """Start both servers on a temporary folder and stop them at the end."""
    with tempfile.TemporaryDirectory(prefix="preferable-servers-", dir=_memory()) as folder:
        home = Path(folder)
        postgres = embedded.start_postgres(home, is_durable=False)
        try:
            valkey = embedded.start_valkey(home)
            try:
                yield Servers(home, postgres.url, valkey.url)
            finally:
                valkey.stop()
        finally:
            postgres.stop()


def _memory() -> Path | None:
    """A folder in memory with room for the databases, where there is one: a clone is 800 files, slow to make on many disks."""
    folder = Path("/dev/shm")
    is_usable = folder.is_dir() and os.access(folder, os.W_OK) and shutil.disk_usage(folder).free > _ROOM_BYTES
    return folder if is_usable else None


def _bootstrap(url: str, home: Path) -> None:
    """Put the owner and the starter project into a database, and its files into the store of `home`."""
    from app.services import bootstrap  # only the tests that need the starter pay for it

    engine = create_engine(db.normalise_url(url))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFERABLE_HOME", str(home))
        get_settings.cache_clear()
        with db.transaction(engine) as session:
            bootstrap.ensure(session)
    get_settings.cache_clear()
    engine.dispose()
