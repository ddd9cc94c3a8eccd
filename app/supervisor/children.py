"""Keeps children running: starts them, restarts what dies after a growing pause, stops them by stage, says so in a file."""

import contextlib
import json
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import structlog

from app.embedded import Server, write_atomically
from app.errors import StartupError
from app.processes import Identity, end_all, end_stranded, identify, spawn
from app.settings import child_environment
from app.supervisor.programs import Program, command_line

log = structlog.get_logger()

_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.5, 60.0
_SETTLED_SECONDS = 30.0  # a child that lived this long starts again with the first pause


@dataclass
class _Child:
    """A program and its present process; `due` is when to start it again, on the monotonic clock."""

    program: Program
    process: subprocess.Popen[bytes] | None = None
    begun: float = 0.0
    due: float = 0.0
    failures: int = 0
    restarts: int = 0
    last_exit: int | None = None
    is_done: bool = False


class Children:
    """The children of one supervisor, recorded in `home/run/status.json` so that a later start can end what a kill left."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._children: dict[str, _Child] = {}
        self._servers: dict[str, Server] = {}
        self._url = ""
        self._state = "starting"

    def mark_running(self, url: str) -> None:
        """Record that people can come, and where."""
        self._state, self._url = "running", url
        self.write_status()

    def add_server(self, server: Server) -> None:
        """Record an embedded server, started by its own launcher; replaces one of the same name."""
        self._servers[server.name] = server
        self.write_status()

    def start(self, *programs: Program) -> None:
        """Start programs now and keep them running."""
        for program in programs:
            self._children[program.name] = child = _Child(program)
            self._spawn(child)
        self.write_status()

    def is_done(self, name: str) -> bool:
        """True once a program that is to run once has ended well."""
        return name in self._children and self._children[name].is_done

    def check_alive(self, name: str) -> None:
        """Raise StartupError if a program died."""
        child = self._children[name]
        if child.process is not None and (code := child.process.poll()) is not None:
            raise StartupError(f"{name} stopped with code {code} while starting: {_last_line(self._log(name))}")

    def dead_servers(self) -> list[Server]:
        """Embedded servers that are gone and must be started again before anything else."""
        return [server for server in self._servers.values() if server.process.poll() is not None]

    def tend(self) -> None:
        """Look at every child once: note who died, start whose pause is over."""
        changed = False
        for child in self._children.values():
            if child.process is not None and (code := child.process.poll()) is not None:
                self._note_end(child, code)
                changed = True
            elif child.process is None and not child.is_done and time.monotonic() >= child.due:
                child.restarts += 1
                self._spawn(child)
                changed = True
        if changed:
            self.write_status()

    def stop(self) -> None:
        """End every child, stage by stage, then the servers: Valkey, and Postgres last."""
        self._state = "stopping"
        self.write_status()
        for stage in sorted({child.program.stage for child in self._children.values()}):
            ending = [child for child in self._children.values() if child.program.stage == stage and child.process]
            end_all([(child.process, child.program.deadline_seconds) for child in ending if child.process])
        for server in reversed(self._servers.values()):
            server.stop()
        self._status_path.unlink(missing_ok=True)

    def end_stranded(self) -> list[str]:
        """End what an earlier supervisor of this home left running; returns the names of those found."""
        found = []
        with contextlib.suppress(FileNotFoundError, json.JSONDecodeError):
            for name, entry in json.loads(self._status_path.read_text())["processes"].items():
                if entry["pid"] is None:
                    continue
                number = signal.SIGINT if name == "postgres" else signal.SIGTERM
                if end_stranded(Identity(entry["pid"], entry["started"]), number, deadline_seconds=5.0):
                    found.append(name)
        return found

    def write_status(self) -> None:
        """Write who runs to `home/run/status.json`; the doctor, the pipeline page and the next start read it."""
        processes: dict[str, object] = {}
        for name, server in self._servers.items():
            processes[name] = _entry(server.process, self._log(name))
        for name, child in self._children.items():
            state = "done" if child.is_done else "running" if child.process else "waiting"
            processes[name] = _entry(child.process, self._log(name)) | {
                "state": state,
                "restarts": child.restarts,
                "last_exit": child.last_exit,
            }
        status = {"state": self._state, "url": self._url, "processes": processes}
        write_atomically(self._status_path, json.dumps(status, indent=1), mode=0o644)

    @property
    def _status_path(self) -> Path:
        return self._home / "run" / "status.json"

    def _log(self, name: str) -> Path:
        return self._home / "log" / f"{name}.log"

    def _spawn(self, child: _Child) -> None:
        child.begun = time.monotonic()
        child.process = spawn(
            command_line(child.program),
            log=self._log(child.program.name),
            environment=child_environment(**child.program.environment),
            folder=self._home,
            death_signal=child.program.death_signal,
            niceness=child.program.niceness,
            descriptors=child.program.descriptors,
        )

    def _note_end(self, child: _Child, code: int) -> None:
        if child.process is not None:
            end_all([(child.process, 0.0)])  # what is left of its session
        child.process, child.last_exit = None, code
        if child.program.is_once and code == 0:
            child.is_done = True
            return
        has_settled = time.monotonic() - child.begun > _SETTLED_SECONDS
        child.failures = 1 if has_settled else child.failures + 1
        pause = min(_FIRST_PAUSE_SECONDS * 2 ** (child.failures - 1), _LONGEST_PAUSE_SECONDS)
        child.due = time.monotonic() + pause
        log.warning("a process ended and starts again", name=child.program.name, code=code, pause_seconds=pause)


def _entry(process: subprocess.Popen[bytes] | None, path: Path) -> dict[str, object]:
    identity = identify(process.pid) if process else None
    return {
        "state": "running" if identity else "stopped",
        "pid": identity.pid if identity else None,
        "started": identity.started if identity else None,
        "log": str(path),
    }


def _last_line(path: Path) -> str:
    lines = path.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"
