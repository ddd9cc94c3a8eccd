"""Seconds from typing `make run` in a fresh clone to a task that can be ranked, to all workers, and to the first SFT model.

    python -m benchmarks.cold_start [--json FILE|-]

Clones the last commit into an empty folder, with an empty pip cache and little of the environment (PATH, PIP_*, SSL_*), and
uses the pages as a newcomer would. Then stops it and starts again, which must install nothing. What is waited for is waited for
in order; a worker counts as started when its process runs, though it may still be importing torch.
"""

import argparse
import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from app.services.stack import read_worker_half
from app.settings import Settings
from benchmarks import report
from workers.simulate.browser import Browser
from workers.simulate.labellers import Labeller
from workers.simulate.owner import Owner
from workers.simulate.rounds import PROJECT

ROOT = Path(__file__).resolve().parent.parent
LONGEST_SECONDS = 900.0
LOOK_SECONDS, STOP_SECONDS = 0.25, 60.0
Found = TypeVar("Found")
LINK = re.compile(r"https?://\S+/enter/[\w-]+")


class Start:
    """One `make run`, with the seconds since it was typed."""

    def __init__(self, clone: Path, log: Path) -> None:
        environment = {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "SSL_"))}
        environment |= {
            "PATH": os.environ["PATH"],
            "HOME": str(clone.parent),
            "PIP_CACHE_DIR": str(clone.parent / "pip"),
            "PORT": "0",
        }
        self.log, self.begun = log, time.monotonic()
        with log.open("wb") as stream:
            self.process = subprocess.Popen(
                ["make", "run"], cwd=clone, env=environment, stdout=stream, stderr=stream, start_new_session=True
            )

    def wait(self, what: str, look: Callable[[], Found]) -> tuple[Found, float]:
        """What `look` finds, as soon as it finds something, and the seconds until then."""
        while not (found := look()):
            if self.process.poll() is not None or time.monotonic() - self.begun > LONGEST_SECONDS:
                sys.exit(f"no {what}; `make run` said: {self.log.read_text(errors='replace')[-2000:]}")
            time.sleep(LOOK_SECONDS)
        return found, self.seconds()

    def seconds(self) -> float:
        """Seconds since it was typed."""
        return round(time.monotonic() - self.begun, 1)

    def wait_for_link(self) -> tuple[str, float]:
        """The owner's sign-in link."""
        link, seconds = self.wait("sign-in link", lambda: LINK.search(self.log.read_text(errors="replace")))
        assert link is not None  # it was waited for
        return link.group(), seconds

    def stop(self) -> float:
        """End it as a person would, by Ctrl-C, which reaches make and all it started; returns the seconds that took."""
        begun = time.monotonic()
        os.killpg(self.process.pid, signal.SIGINT)
        try:
            self.process.wait(timeout=STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            tail = self.log.read_text(errors="replace")[-2000:]
            sys.exit(f"it did not stop within {STOP_SECONDS:.0f} s and was killed; it said: {tail}")
        return round(time.monotonic() - begun, 1)


@contextmanager
def started(clone: Path, log: Path) -> Iterator[Start]:
    """A `make run` that has ended when the block does."""
    start = Start(clone, log)
    try:
        yield start
    finally:
        if start.process.poll() is None:
            start.stop()


def are_workers_started(settings: Settings) -> bool:
    """Whether all worker processes run."""
    half = read_worker_half(settings)
    return half.running is not None and not half.missing


def measure(folder: Path) -> dict[str, object]:
    """Both starts, in an empty folder."""
    clone = folder / "preferable"
    subprocess.run(["git", "clone", "--quiet", ROOT, clone], check=True)
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=clone, check=True, capture_output=True, text=True)
    settings = Settings(home=clone / "var")
    load = round(os.getloadavg()[0], 2)
    with started(clone, folder / "cold.log") as start:
        link, to_link = start.wait_for_link()
        with Browser(link.rpartition("/enter/")[0]) as browser:
            owner = Owner(browser, PROJECT)
            owner.enter(link)
            labeller = Labeller(browser, PROJECT, "", "", 0, 0.0)
            labeller.read_guidelines()
            _, to_task = start.wait("ranking task", labeller.next_task)
            _, to_workers = start.wait("workers", lambda: are_workers_started(settings))
            owner.wait("SFT model", lambda: owner.active("SFT"), seconds=LONGEST_SECONDS)  # sees a failed run
            to_sft = start.seconds()
        stopped = start.stop()
    with started(clone, folder / "warm.log") as start:
        _, again = start.wait_for_link()
        _, workers_again = start.wait("workers", lambda: are_workers_started(settings))
    return {
        "command": report.command(),
        "commit": commit.stdout.strip(),
        "machine": f"{os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}",
        "load_before": load,
        "cold_seconds": {
            "sign-in link": to_link,
            "first ranking task": to_task,
            "worker processes started": to_workers,
            "first SFT model active": to_sft,
        },
        "stop_seconds": stopped,
        "second_start_seconds": {"sign-in link": again, "worker processes started": workers_again},
    }


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", metavar="FILE", help=report.JSON)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        report.publish(measure(Path(folder)), options.json)


if __name__ == "__main__":
    main()
