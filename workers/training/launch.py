"""Starts a run in several processes with torchrun: on this host, or on several that meet at an address.

Every process runs the very command that was given here, and learns from torchrun which of them it is (`parallel.group`).
"""

import json
import logging
import os
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

SAVES_WITHIN_SECONDS = 60
"""Time for the others to end their step and save when a run is told to stop; those of a process that failed just leave.

What takes longer is killed, and the run goes on from the state it saved before.
"""


def launch(arguments: Sequence[str], processes: int, hosts: int, meet_at: str | None) -> int:
    """Run `preferable` with `arguments` in `processes` processes on each of `hosts`; the exit code, 130 where it was cancelled.

    Where a process fails, torchrun ends the others, and what failed first is told here. Where it was killed, this process ends
    by the same signal: whoever started it sees the end of one process, and may start it again from its saved state.
    """
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    from workers.training.events import CANCELLED, ORPHANED

    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # what it would say is said below
    threads = max(1, (os.cpu_count() or 1) // processes)
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))  # environment: OpenMP reads it in the processes
    with tempfile.TemporaryDirectory(prefix="preferable-ranks-") as folder:
        config = LaunchConfig(
            min_nodes=hosts,
            max_nodes=hosts,
            nproc_per_node=processes,
            run_id="preferable",
            rdzv_backend="c10d",
            rdzv_endpoint=meet_at or "localhost:0",
            local_addr=None if meet_at else "localhost",
            max_restarts=0,  # a run is continued by its own state
            logs_specs=DefaultLogsSpecs(log_dir=folder),
            shutdown_timeout=SAVES_WITHIN_SECONDS,
        )
        try:
            elastic_launch(config, sys.executable)("-m", "workers.cli", *arguments)
            return 0
        except SignalException:
            return CANCELLED
        except ChildFailedError as error:
            rank, failure = _first(error.failures)
    if failure.exitcode not in (CANCELLED, ORPHANED):
        _tell(f"process {rank} of {processes * hosts} {_words(failure)}", rank, failure, "--supervised" in arguments)
    if _sentence(failure):
        return 1
    if failure.exitcode < 0:
        if failure.exitcode != -signal.SIGKILL:  # which has no handler to put back
            signal.signal(-failure.exitcode, signal.SIG_DFL)
        os.kill(os.getpid(), -failure.exitcode)
    return int(failure.exitcode)


def _first(failures: Mapping[int, Any]) -> tuple[int, Any]:
    """Rank and failure that the others follow from: one that left a sentence or was killed, not one that lost its peer."""

    def place(item: tuple[int, Any]) -> tuple[bool, int]:
        failure = item[1]
        # SIGTERM is how torchrun ends the others.
        was_killed = failure.exitcode < 0 and failure.exitcode != -signal.SIGTERM
        return not (was_killed or _sentence(failure)), failure.timestamp

    return min(failures.items(), key=place)


def _sentence(failure: Any) -> str:
    """What the process recorded with `parallel.record`, empty where it did not come to it."""
    recorded = failure.error_file_data.get("message")
    return str(recorded["message"]).removeprefix("RuntimeError: ") if isinstance(recorded, dict) else ""


def _words(failure: Any) -> str:
    if sentence := _sentence(failure):
        return f"failed: {sentence}"
    if failure.exitcode < 0:
        return f"was killed ({failure.signal_name()})"
    return f"left with code {failure.exitcode} and no word; see above"


def _tell(text: str, rank: int, failure: Any, supervised: bool) -> None:
    if rank == 0 and _sentence(failure):
        return  # it has told it itself
    if supervised:
        was_killed = failure.exitcode < 0 and not _sentence(failure)
        event = {"type": "log", "text": text} if was_killed else {"type": "error", "message": text}
        sys.stdout.write(json.dumps(event) + "\n")
        sys.stdout.flush()
    else:
        sys.stderr.write(f"error: {text}\n")
