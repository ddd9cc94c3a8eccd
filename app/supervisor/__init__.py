"""`preferable up`: every process of the house on one machine, started in order, kept running, stopped in order.

Postgres -> Valkey -> migrations -> starter -> web -> (torch, if it is missing) -> workers and beat. Stopping goes backwards from
the web. A signal at any moment ends all of it; a `kill -9` too, because every child dies with us (see `app.processes`).
"""

import http.client
import importlib
import logging
import os
import signal
import socket
import time
from collections.abc import Callable
from types import FrameType

import structlog

from app import db, embedded, install, security
from app.errors import StartupError
from app.services import accounts, bootstrap
from app.settings import Settings, adopt, get_settings
from app.supervisor import programs
from app.supervisor.children import Children
from app.supervisor.startup import check_own_servers, listen, prepare_home

_HEALTH_SECONDS = 60.0
_LOOK_SECONDS = 0.2


class _StopRequested(BaseException):
    """SIGINT or SIGTERM arrived; not an error, so that no `except Exception` on the way swallows it."""


def up(*, say: Callable[[str], None], has_workers: bool = True, follows_parent: bool = False) -> None:
    """Run everything until SIGINT or SIGTERM. `say` prints a line; the last one is the owner's sign-in link.

    `follows_parent` stops when the process that started this one is gone: a killed `make run` leaves nothing behind.
    Raises StartupError, with nothing left running, where something stands in the way.
    """
    _raise_on_signals()
    home = get_settings().home.resolve()
    try:
        prepare_home(home)
        with embedded.hold_lock(home):
            parent = os.getppid() if follows_parent else None
            _run(adopt(PREFERABLE_HOME=str(home)), has_workers=has_workers, parent=parent, say=say)
    except _StopRequested:
        say("Stopped.")


def sign_in_url(base_url: str) -> str:
    """A new one-time sign-in link for the owner of the database in the settings."""
    with db.transaction() as session:
        return base_url + accounts.create_login_link(session, accounts.ensure_owner(session))


def running_url(settings: Settings) -> str:
    """Address of the pages: where the running supervisor serves them, or where a start would."""
    note = settings.home / "run" / "url"
    return note.read_text().strip() if note.exists() else settings.url


def _run(settings: Settings, *, has_workers: bool, parent: int | None, say: Callable[[str], None]) -> None:
    home = settings.home
    embedded.check_version(home)
    security.check_production(settings)
    security.secret_key(settings)
    children = Children(home)
    _log_to(settings)
    children.end_stranded()
    with listen(settings) as listening:
        settings = adopt(PORT=str(listening.getsockname()[1]))
        try:
            _start(settings, children, listening, say)
            if has_workers:
                _start_workers(settings, children, say)
            children.mark_running(settings.url)
            embedded.write_atomically(home / "run" / "url", settings.url, mode=0o644)
            say("Sign in with this link, which works once (`preferable login` prints another):")
            say(sign_in_url(settings.url))
            db.get_engine().dispose()
            _tend(settings, children, parent)
        finally:
            _ignore_signals()
            (home / "run" / "url").unlink(missing_ok=True)
            children.stop()


def _start(settings: Settings, children: Children, listening: socket.socket, say: Callable[[str], None]) -> None:
    """Servers, migrations, the starter project, the web."""
    check_own_servers(settings)
    say(f"Data in {settings.home}")
    if not settings.database_url:
        children.add_server(embedded.start_postgres(settings.home))
        settings = adopt(DATABASE_URL=embedded.postgres_url(settings.home))
    if not settings.redis_url:
        children.add_server(embedded.start_valkey(settings.home))
        settings = adopt(REDIS_URL=embedded.redis_url(settings.home))
    say("Database and broker are up")
    db.migrate(settings.database_url)
    with db.transaction() as session:
        bootstrap.ensure(session)
    children.start(programs.web(listening.fileno()))
    _wait_for_health(settings, children, listening.getsockname()[:2])
    say("Pages are served")


def _start_workers(settings: Settings, children: Children, say: Callable[[str], None]) -> None:
    children.start(*programs.clerks())
    if install.is_complete():
        install.note_complete(settings.home)
        children.start(*programs.learners(settings))
        say("Workers are starting")
    else:
        children.start(programs.installation(settings))
        say("torch is being installed for the workers; the pipeline page shows its progress")


def _wait_for_health(settings: Settings, children: Children, address: tuple[str, int]) -> None:
    """Return when `/healthz` answers 200; raise if the web process dies or stays silent."""
    host, port = address
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  compared with, not bound to
    give_up = time.monotonic() + _HEALTH_SECONDS
    while time.monotonic() < give_up:
        children.check_alive("web")
        connection = http.client.HTTPConnection(host, port, timeout=_HEALTH_SECONDS)
        try:
            connection.request("GET", "/healthz", headers={"Host": f"{settings.host}:{port}"})
            if connection.getresponse().status == http.HTTPStatus.OK:
                return
        except OSError:
            pass
        finally:
            connection.close()
        time.sleep(0.05)
    raise StartupError(
        f"The pages did not come up within {_HEALTH_SECONDS:.0f} s; see {settings.home / 'log' / 'web.log'}."
    )


def _tend(settings: Settings, children: Children, parent: int | None) -> None:
    """Keep everything running; returns when `parent` is gone."""
    has_started_workers = False
    while parent in (None, os.getppid()):
        for server in children.dead_servers():
            start = {"postgres": embedded.start_postgres, "valkey": embedded.start_valkey}[server.name]
            again = start(settings.home)
            children.add_server(again)
            if again.url != server.url:
                raise StartupError(f"{server.name} died and its port was taken meanwhile: start again.")
        children.tend()
        if children.is_done("install") and not has_started_workers:
            importlib.invalidate_caches()
            children.start(*programs.learners(settings))
            has_started_workers = True
        time.sleep(_LOOK_SECONDS)


def _log_to(settings: Settings) -> None:
    """Our own notes go to a file: the terminal ends with the sign-in link."""
    handler = logging.FileHandler(settings.home / "log" / "supervisor.log")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    structlog.configure(
        processors=[structlog.processors.KeyValueRenderer(key_order=["event"])],
        logger_factory=structlog.stdlib.LoggerFactory(),
    )


def _raise_on_signals() -> None:
    def stop(number: int, frame: FrameType | None) -> None:
        _ignore_signals()  # a second Ctrl-C must not interrupt the orderly stop
        raise _StopRequested

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)


def _ignore_signals() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
