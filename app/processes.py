"""Child processes that die with their parent, are known by pid and start time, and end within a deadline."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

_SHIM = Path(__file__).with_name("shim.py")
_CLOCK_SLACK_SECONDS = 2.0  # start times derive from the boot time, which moves when the clock is set


@dataclass(frozen=True)
class Account:
    """The unprivileged user a server runs as when we are root, and the few capabilities it keeps."""

    uid: int
    gid: int
    capabilities: tuple[int, ...] = ()


@dataclass(frozen=True)
class Identity:
    """A process that cannot be taken for another one: pids are reused, a pid with its start time is not."""

    pid: int
    started: float  # seconds since the epoch

    def is_alive(self) -> bool:
        """True while this very process runs; a zombie does not."""
        found = identify(self.pid)
        return found is not None and abs(found.started - self.started) < _CLOCK_SLACK_SECONDS


def identify(pid: int) -> Identity | None:
    """The identity of the process that has `pid` now, None if none has."""
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else Identity(pid, process.create_time())
    except psutil.NoSuchProcess:
        return None


def spawn(
    command: Sequence[str],
    *,
    log: Path,
    environment: Mapping[str, str],
    folder: Path,
    death_signal: signal.Signals = signal.SIGTERM,
    niceness: int = 0,
    account: Account | None = None,
    given: bytes = b"",
    descriptors: Sequence[int] = (),
    can_die_with_parent: bool = sys.platform == "linux",
) -> subprocess.Popen[bytes]:
    """Start `command` (absolute path first) in a session of its own: `given` is its input, `log` gets its output.

    Call it from the main thread: the kernel sends `death_signal` when the thread that started the process ends.
    `can_die_with_parent` False puts a polling watcher in the kernel's place.
    """
    spec = {
        "parent": os.getpid(),
        "death_signal": int(death_signal),
        "niceness": niceness,
        "account": asdict(account) if account else None,
        "watch": not can_die_with_parent,
    }
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(_SHIM), json.dumps(spec), *command],
            stdin=subprocess.PIPE if given else subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=dict(environment),
            cwd=folder,
            start_new_session=True,
            pass_fds=descriptors,
        )
    if process.stdin:
        with contextlib.suppress(BrokenPipeError), process.stdin:
            process.stdin.write(given)
    return process


def send(pid: int, number: signal.Signals) -> None:
    """Signal one process; nothing happens if it is gone."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def session_members(leader: int) -> list[int]:
    """Pids of the living processes in the session that `leader` opened, itself included."""
    members = []
    for process in psutil.process_iter():
        with contextlib.suppress(ProcessLookupError, psutil.NoSuchProcess, PermissionError):
            if os.getsid(process.pid) == leader and process.status() != psutil.STATUS_ZOMBIE:
                members.append(process.pid)
    return members


def end(process: subprocess.Popen[bytes], number: signal.Signals, *, deadline_seconds: float) -> bool:
    """Ask `process` to stop, wait, then kill what is left of its session. True if it stopped by itself in time."""
    if process.poll() is None:
        send(process.pid, number)
    return _wait_or_kill(process, time.monotonic() + deadline_seconds)


def end_all(processes: Sequence[tuple[subprocess.Popen[bytes], float]]) -> None:
    """SIGTERM every process at once, wait for each up to its own deadline in seconds, then kill what is left."""
    begun = time.monotonic()
    for process, _ in processes:
        if process.poll() is None:
            send(process.pid, signal.SIGTERM)
    for process, deadline_seconds in processes:
        _wait_or_kill(process, begun + deadline_seconds)


def _wait_or_kill(process: subprocess.Popen[bytes], give_up: float) -> bool:
    try:
        process.wait(max(0.0, give_up - time.monotonic()))
        in_time = True
    except subprocess.TimeoutExpired:
        in_time = False
    for pid in session_members(process.pid):
        send(pid, signal.SIGKILL)
    process.wait()
    return in_time


def end_stranded(identity: Identity, number: signal.Signals, *, deadline_seconds: float) -> bool:
    """End a process of an earlier run of ours, and its session, by identity. False if all of it was gone already.

    When the leader is gone its pid may be a stranger's. If it is nobody's, what is left of the session is ours: the kernel
    gives out no pid that is still the number of a session.
    """
    if not identity.is_alive() and identify(identity.pid) is not None:
        return False
    members = [found for pid in session_members(identity.pid) if (found := identify(pid)) is not None]
    members = [member for member in members if member.started >= identity.started - _CLOCK_SLACK_SECONDS]
    if not members:
        return False
    for pid in [identity.pid] if identity.is_alive() else [member.pid for member in members]:
        send(pid, number)
    give_up = time.monotonic() + deadline_seconds
    while any(member.is_alive() for member in members):
        if time.monotonic() > give_up:
            for member in members:
                if member.is_alive():
                    send(member.pid, signal.SIGKILL)
            give_up += deadline_seconds
        time.sleep(0.05)
    return True
