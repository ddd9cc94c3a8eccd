"""What must hold before anything starts: a folder of ours to write to, servers that let us in, a free port."""

import errno
import os
import socket
from pathlib import Path

import psycopg
import redis

from app.errors import StartupError
from app.settings import Settings


def prepare_home(home: Path) -> None:
    """Create the data folder with `run` and `log`; raise StartupError where that is not ours to do."""
    try:
        for folder in (home, home / "run", home / "log"):
            folder.mkdir(parents=True, exist_ok=True)
        probe = home / "run" / f".probe-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise StartupError(
            f"Cannot write to the data folder {home} ({error.strerror}): "
            "give this user the right to, or choose another PREFERABLE_HOME."
        ) from None


def check_own_servers(settings: Settings) -> None:
    """Raise StartupError if a server of the user's own, named by DATABASE_URL or REDIS_URL, does not let us in."""
    if settings.database_url:
        try:
            psycopg.connect(settings.database_url.replace("+psycopg", "", 1), connect_timeout=5).close()
        except psycopg.Error as error:
            reason = " ".join(str(error).split())
            raise StartupError(f"The database of DATABASE_URL does not let us in: {reason}") from None
    if settings.redis_url:
        try:
            with redis.Redis.from_url(settings.redis_url, socket_connect_timeout=5, retry=None) as client:
                client.ping()
        except (redis.RedisError, ValueError) as error:
            raise StartupError(f"The broker of REDIS_URL does not let us in: {error}") from None


def listen(settings: Settings) -> socket.socket:
    """The listening socket of the web server; raises StartupError if the address cannot be had."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host, settings.port), family=family, backlog=256)
    except (OSError, OverflowError) as error:
        reason = "is taken" if getattr(error, "errno", None) == errno.EADDRINUSE else f"cannot be used ({error})"
        raise StartupError(
            f"Port {settings.port} on {settings.host} {reason}: choose another, as in `PORT={settings.port % 65535 + 1}`."
        ) from None
