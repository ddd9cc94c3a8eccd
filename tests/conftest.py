"""Fixtures every test may use: real servers, a rolled-back session, or a database of the test's own where it must commit.

Cheapest first: `session` (rolled back) < `database_url` (a clone of the migrated template, ~30 ms) < `client` (the app over
such a clone) < `starter_client` (with the owner and the starter project in it).
"""

import os
import shutil
import socket
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn
from fastapi.testclient import TestClient
from playwright.sync_api import Browser, Page, expect
from sqlalchemy import Engine, create_engine
from sqlalchemy.orm import Session

from app import db
from app.settings import Settings, get_settings
from tests.chromium import start_browser
from tests.servers import Servers, start_servers

_OURS = ("DATABASE_URL", "REDIS_URL", "HOST", "PORT", "TORCH")


def pytest_configure(config: pytest.Config) -> None:
    """Give the whole run one temporary folder, so that one removal leaves nothing, and a clean environment."""
    folder = tempfile.mkdtemp(prefix="preferable-tests-")
    tempfile.tempdir = os.environ["TMPDIR"] = folder
    config.option.basetemp = Path(folder, "pytest")
    config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))
    for name in [name for name in os.environ if name in _OURS or name.startswith("PREFERABLE_")]:
        del os.environ[name]
    os.environ["PREFERABLE_HOME"] = str(Path(folder, "home"))


@pytest.fixture(scope="session")
def servers() -> Iterator[Servers]:
    """Postgres and Valkey of this run."""
    with start_servers() as running:
        yield running


@pytest.fixture(scope="session")
def engine(servers: Servers) -> Iterator[Engine]:
    """Pool on a migrated database shared by the tests that roll back. Never commit through it."""
    with servers.database() as url:
        pool = create_engine(db.normalise_url(url))
        yield pool
        pool.dispose()


@pytest.fixture
def session(engine: Engine) -> Iterator[Session]:
    """A session whose work vanishes at the end, even what the code under test commits."""
    with engine.connect() as connection:
        transaction = connection.begin()
        with Session(connection, expire_on_commit=False, join_transaction_mode="create_savepoint") as opened:
            yield opened
        transaction.rollback()


@pytest.fixture
def database_url(servers: Servers) -> Iterator[str]:
    """A migrated, empty database of this test's own, where commits are real."""
    with servers.database() as url:
        yield url


@pytest.fixture
def starter_database_url(servers: Servers) -> Iterator[str]:
    """A database of this test's own that holds the owner and the starter project."""
    with servers.database(has_starter=True) as url:
        yield url


@pytest.fixture
def redis_url(servers: Servers) -> str:
    """The emptied broker."""
    servers.flush()
    return servers.redis_url


@pytest.fixture
def settings(database_url: str, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """What `get_settings()` gives during this test: its own folder and database, the real broker."""
    yield from _use_settings(database_url, redis_url, tmp_path, monkeypatch)


@pytest.fixture
def starter_settings(
    servers: Servers, starter_database_url: str, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Settings]:
    """As `settings`, over a database with the starter project, its files in a store of this test's own."""
    shutil.copytree(servers.home / "store", tmp_path / "home" / "store")
    yield from _use_settings(starter_database_url, redis_url, tmp_path, monkeypatch)


def _use_settings(database: str, broker: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    monkeypatch.setenv("DATABASE_URL", database)
    monkeypatch.setenv("REDIS_URL", broker)
    monkeypatch.setenv("PREFERABLE_HOME", str(folder / "home"))
    (folder / "home").mkdir(exist_ok=True)
    _forget_settings()
    yield get_settings()
    _forget_settings()


def _forget_settings() -> None:
    if db.get_engine.cache_info().currsize:
        db.get_engine().dispose()
    db.get_engine.cache_clear()
    get_settings.cache_clear()


@pytest.fixture
def client(settings: Settings) -> Iterator[TestClient]:
    """The app over a migrated, empty database; redirects are not followed, so that tests see them."""
    yield from _client()


@pytest.fixture
def starter_client(starter_settings: Settings) -> Iterator[TestClient]:
    """The app over a database with the owner and the starter project."""
    yield from _client()


def _client() -> Iterator[TestClient]:
    from app.main import create_app

    with TestClient(create_app(), follow_redirects=False) as opened:
        yield opened


@pytest.fixture
def live_url(starter_settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Address of the app over a database with the starter project, served on a real port for a browser."""
    yield from _serve(monkeypatch)


def _serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    from app.main import create_app

    with socket.create_server(("127.0.0.1", 0)) as listening:
        monkeypatch.setenv("PORT", str(listening.getsockname()[1]))
        get_settings.cache_clear()
        server = uvicorn.Server(uvicorn.Config(create_app(), log_level="warning"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        yield get_settings().url
        server.should_exit = True
        thread.join(10)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """One headless Chromium for the run; what a page is expected to show may take its time on a busy machine."""
    expect.set_options(timeout=20_000)
    with start_browser() as started:
        yield started


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page with cookies of its own; the test fails if a script on it threw."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, locale="en-GB", timezone_id="UTC")
    context.set_default_timeout(30_000)
    opened = context.new_page()
    errors: list[str] = []
    opened.on("pageerror", lambda error: errors.append(str(error)))
    yield opened
    context.close()
    assert not errors, errors
