"""A training process as its supervisor sees it: started on a lifeline, read event by event, and never two in one folder.

The pipe to the trainer's standard input is the lifeline: when the supervisor dies, however it dies, the kernel closes it and the
trainer ends itself. Its standard output is a stream of JSON events; its standard error goes to `trainer.log` in the run folder.
"""

import contextlib
import fcntl
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from app.processes import Identity, end, end_stranded, identify

CODE = Path(__file__).resolve().parents[2]
"""Folder from which `-m workers.cli` finds the project, in a checkout and in an installed wheel."""

COMMAND = ("-m", "workers.cli", "train")
"""What is run, by this very interpreter."""

Event = dict[str, Any]
"""One line of the trainer's output; its `type` says which keys follow (see `workers.training.events`)."""

FORMER_EXITS_WITHIN_SECONDS = 15.0
"""Time given to a former trainer to notice that its supervisor is gone, before it is ended."""


class Trainer:
    """One running `preferable train`."""

    def __init__(self, arguments: Sequence[str], folder: Path, *, niceness: int) -> None:
        """Start `train` with `arguments` in the run folder `folder`."""
        self.log_path = folder / "trainer.log"
        self._events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self.has_ended = False
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, *COMMAND, *arguments, "--supervised"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=CODE,
                start_new_session=True,
            )
        os.setpriority(os.PRIO_PROCESS, self.process.pid, max(niceness, os.getpriority(os.PRIO_PROCESS, 0)))
        _note_trainer(folder, self.process.pid)
        threading.Thread(target=self._read, daemon=True).start()

    def read(self, seconds: float) -> list[Event]:
        """The events of the next `seconds`, as soon as there are any; `has_ended` is set when there will be no more."""
        events: list[Event] = []
        with contextlib.suppress(queue.Empty):
            event = self._events.get(timeout=seconds)
            while event is not None:
                events.append(event)
                event = self._events.get_nowait()
            self.has_ended = True
        return events

    def cancel(self) -> None:
        """Ask the trainer to finish its step, save its state and leave."""
        if self.process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.write(b"cancel\n")
                self.process.stdin.flush()

    def close(self) -> int:
        """End the trainer and all it started, at once if it has not left by itself; its exit code, negative for a signal."""
        end(self.process, signal.SIGKILL, deadline_seconds=10.0)
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()
        return self.process.returncode

    def wait(self) -> int:
        """The exit code of a trainer whose output has ended."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=30.0)
        return self.close()

    def last_words(self) -> str:
        """The last line of the log that says something: what a trainer that died without an event left behind."""
        lines = self.log_path.read_text(encoding="utf-8", errors="replace").splitlines()
        return next((line.strip() for line in reversed(lines) if line.strip()), "nothing")

    def _read(self) -> None:
        if self.process.stdout is not None:
            for line in self.process.stdout:
                self._events.put(_parse(line))
        self._events.put(None)


def free_folder(folder: Path, heartbeat: Callable[[], None]) -> None:
    """Wait until no trainer works in `folder`, calling `heartbeat` meanwhile.

    A trainer whose supervisor died leaves by itself; one whose supervisor only sleeps (a paused machine) is ended.
    Raises TimeoutError where it works on another host and does not leave.
    """
    began = time.monotonic()
    while _is_locked(folder):
        heartbeat()
        if time.monotonic() - began > FORMER_EXITS_WITHIN_SECONDS and not _end_former(folder):
            raise TimeoutError(f"a trainer of an earlier attempt still works in {folder}; end it, then retry the run")
        time.sleep(0.5)


def _parse(line: bytes) -> Event:
    """An event; a line that is none (a library printing) becomes a log event."""
    text = line.decode(errors="replace").rstrip()
    with contextlib.suppress(ValueError):
        event = json.loads(text)
        if isinstance(event, dict) and "type" in event:
            return event
    return {"type": "log", "text": text}


def _is_locked(folder: Path) -> bool:
    with (folder / "lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _note_trainer(folder: Path, pid: int) -> None:
    identity = identify(pid)
    if identity is not None:
        note = {"host": socket.gethostname(), "pid": identity.pid, "started": identity.started}
        (folder / "trainer.json").write_text(json.dumps(note) + "\n", encoding="utf-8")


def _end_former(folder: Path) -> bool:
    """End the trainer noted in `folder` if it runs on this host; whether it did."""
    try:
        note = json.loads((folder / "trainer.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    if note["host"] != socket.gethostname():
        return False
    return end_stranded(Identity(note["pid"], note["started"]), signal.SIGTERM, deadline_seconds=15.0)
