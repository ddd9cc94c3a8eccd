"""What runs on this machine, as the supervisor wrote it down: the worker half's installation and its processes."""

import json
from dataclasses import dataclass

from app.install import Progress, read_progress
from app.settings import Settings

WORKERS = frozenset({"worker-sample", "worker-train", "beat"})


@dataclass(frozen=True)
class WorkerHalf:
    """Whether anything can be sampled or trained yet. Elsewhere than under `preferable up` nothing is known: all None."""

    installation: Progress | None
    running: frozenset[str] | None
    is_switched_off: bool = False
    """Started with --no-workers."""

    @property
    def is_installing(self) -> bool:
        """Whether packages are still missing."""
        return self.installation is not None and self.installation.state != "done"

    @property
    def missing(self) -> list[str]:
        """Worker processes that should run and do not, where that is known."""
        return [] if self.running is None else sorted(WORKERS - self.running)


def read_worker_half(settings: Settings) -> WorkerHalf:
    """The state of the worker half now, from `<home>/run/install.json` and `status.json`."""
    try:
        status = json.loads((settings.home / "run" / "status.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return WorkerHalf(installation=None, running=None)
    processes = status.get("processes", {})
    if status.get("state") == "running" and processes.keys().isdisjoint(WORKERS | {"install"}):
        return WorkerHalf(installation=None, running=None, is_switched_off=True)
    running = frozenset(name for name, entry in processes.items() if entry.get("state") == "running")
    return WorkerHalf(installation=read_progress(settings.home), running=running)
