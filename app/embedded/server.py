"""What the two embedded servers share: their folder, their password and port, waiting for them, stopping them."""

import contextlib
import importlib.util
import os
import secrets
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from app.errors import StartupError
from app.processes import end

LOOPBACK = "127.0.0.1"
START_SECONDS = 60.0
STOP_SECONDS = 20.0


@dataclass(frozen=True)
class Server:
    """A running server: its URL (password inside), its process, and the signal that stops it."""

    name: str
    url: str
    process: subprocess.Popen[bytes]
    stop_signal: signal.Signals

    def stop(self) -> bool:
        """Stop it with its data safely on disk. False if it had to be killed."""
        return end(self.process, self.stop_signal, deadline_seconds=STOP_SECONDS)


def package_folder(name: str) -> Path:
    """Folder of an installed package, found without running its code."""
    found = importlib.util.find_spec(name)
    if found is None or not found.submodule_search_locations:
        raise StartupError(
            f"The package {name} is not installed here: install preferable again, or use your own servers."
        )
    return Path(found.submodule_search_locations[0]).resolve()


def prepare_folder(folder: Path) -> Path:
    """Create `folder` with its data folder, password and port. Keeps what is there; a port taken meanwhile is changed."""
    data = folder / "data"
    data.mkdir(parents=True, exist_ok=True)
    if not (folder / "password").exists():
        write_atomically(folder / "password", secrets.token_urlsafe(32))
    port = folder / "port"
    write_atomically(port, str(free_port(int(port.read_text()) if port.exists() else 0)))
    return data


def read_credentials(folder: Path) -> tuple[str, int]:
    """Password and port of a prepared folder."""
    return (folder / "password").read_text().strip(), int((folder / "port").read_text())


def log_path(home: Path, name: str) -> Path:
    """Where the process `name` writes; the folder exists afterwards."""
    (home / "log").mkdir(exist_ok=True)
    return home / "log" / f"{name}.log"


def last_line(home: Path, name: str) -> str:
    """The last thing a process said, for an error message."""
    lines = log_path(home, name).read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"


def environment(home: Path) -> dict[str, str]:
    """What the servers see of our environment: nothing but the folder, which tells whose they are."""
    return {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC", "PREFERABLE_HOME": str(home)}


def wait_until_ready(server: Server, home: Path, answers: Callable[[], bool]) -> None:
    """Return when the server answers; raise if it dies or stays silent, leaving no process behind."""
    give_up = time.monotonic() + START_SECONDS
    while not answers():
        if server.process.poll() is not None:
            raise StartupError(f"{server.name} stopped while starting: {last_line(home, server.name)}")
        if time.monotonic() > give_up:
            server.stop()
            raise StartupError(
                f"{server.name} was silent for {START_SECONDS:.0f} s; see {log_path(home, server.name)}."
            )
        time.sleep(0.03)


def free_port(preferred: int = 0) -> int:
    """A TCP port nobody listens on at this moment: `preferred` if it is one of them."""
    for port in (preferred, 0):
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((LOOPBACK, port))
            return int(probe.getsockname()[1])
    raise StartupError(f"No TCP port is free on {LOOPBACK}.")


def write_atomically(path: Path, text: str, *, mode: int = 0o600) -> None:
    """Write `text` so that a reader sees the old or the new file, never half of it."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    draft.replace(path)
