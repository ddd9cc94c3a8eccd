"""The whole stack as a child process: `preferable up` on a free port, its sign-in link, its end."""

import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from app.processes import end, spawn
from app.settings import Settings, child_environment

START_SECONDS = 180.0
STOP_SECONDS = 60.0
_LINK = re.compile(r"https?://\S+/enter/[\w-]+")


class StackError(RuntimeError):
    """The stack did not start; the message carries the end of its log."""


@contextmanager
def running(settings: Settings, log: Path) -> Iterator[str]:
    """Start `preferable up` in the data folder of `settings` and yield the owner's sign-in link; stop everything at the end.

    Its output goes to `log`. Raises StackError where it ends, or prints no link, within START_SECONDS.
    """
    settings.home.mkdir(parents=True, exist_ok=True)
    begun_at = log.stat().st_size if log.exists() else 0
    process = spawn(
        [sys.executable, "-m", "workers.cli", "up", "--port", "0"],
        log=log,
        environment=child_environment(PREFERABLE_HOME=str(settings.home.resolve())),
        folder=Path.cwd(),
    )
    try:
        yield _wait_for_link(process, log, begun_at)
    finally:
        end(process, signal.SIGTERM, deadline_seconds=STOP_SECONDS)


def _wait_for_link(process: subprocess.Popen[bytes], log: Path, begun_at: int) -> str:
    give_up = time.monotonic() + START_SECONDS
    while time.monotonic() < give_up:
        said = log.read_bytes()[begun_at:].decode(errors="replace")
        if links := _LINK.findall(said):
            return str(links[-1])
        if process.poll() is not None:
            raise StackError(f"`preferable up` ended with code {process.returncode}: {said[-1500:].strip()}")
        time.sleep(0.2)
    raise StackError(f"`preferable up` gave no sign-in link within {START_SECONDS:.0f} s; its log is {log}")
