"""Starts a run as a Slurm job, through submitit: one launcher on each node, all of them meeting at the first.

What runs on a node is the command as it would be typed there, so that a job is no other run. Slurm's warning, before the time is
over or the nodes are taken away, stops the run with its state saved and queues the job again; the same command then continues
it. What Slurm and submitit write lies in the run's folder, under `slurm`.

Tried with submitit's executor for one machine, and with scripts in the place of Slurm's commands: there was no cluster.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from workers.training.events import CANCELLED
from workers.training.launch import SAVES_WITHIN_SECONDS

MINUTES = 240
"""Of a job, unless `time` says otherwise; it is then queued again and goes on."""
TIMES = 100
"""How often a job that ran out of time is queued again; one whose nodes were taken away is so however often."""
WARNED_SECONDS = SAVES_WITHIN_SECONDS + 60
"""How long before the end of its time a job is warned: it saves, and asks for another turn."""
LAST_WORD_SECONDS = 600
"""For how long a node that was told to stop, and has, keeps the job from ending: Slurm says by then whether it goes on."""
PORTS = range(20_000, 30_000)
"""Where nodes meet: the port goes by the number of the job, since two jobs may share a node."""


@dataclass
class Command:
    """`preferable train` with `arguments`, the stage and what follows it, on a node of a job; called and pickled by submitit."""

    arguments: Sequence[str]
    processes: int
    hosts: int
    threads: int
    """Of each process."""
    _child: "subprocess.Popen[bytes] | None" = field(default=None, init=False, repr=False)

    def __call__(self) -> None:
        """Run to the end. RuntimeError where it ended badly, so that Slurm counts the job as failed."""
        import submitit

        warning = signal.Signals[f"SIG{submitit.JobEnvironment.USR_SIG}"]

        def ignore_the_warning() -> None:
            signal.signal(warning, signal.SIG_IGN)  # Slurm sends it to all processes of a node

        words = [sys.executable, "-m", "workers.cli", *self.words(submitit.JobEnvironment())]
        os.environ["OMP_NUM_THREADS"] = str(self.threads)  # environment: OpenMP reads it in the processes
        self._child = subprocess.Popen(words, preexec_fn=ignore_the_warning)  # noqa: PLW1509 no threads yet
        while (code := self._child.poll()) is None:
            time.sleep(0.5)  # not `wait`, whose lock `checkpoint` would find taken
        if code == CANCELLED:
            time.sleep(LAST_WORD_SECONDS)
        if code:
            raise RuntimeError(f"the run ended with code {code}")

    def words(self, job: Any) -> list[str]:
        """What is typed on a node of a job, given by submitit's JobEnvironment."""
        counts = ["--processes", str(self.processes), "--hosts", str(self.hosts)]
        port = PORTS[int(job.raw_job_id) % len(PORTS)]
        meet_at = ["--meet-at", f"{job.hostnames[0]}:{port}"] if self.hosts > 1 else []
        return ["train", *counts, *meet_at, *self.arguments]

    def checkpoint(self) -> Any:
        """Stop the run on all nodes, its state saved, for submitit to queue the same call again."""
        import submitit

        if self._child is not None:
            self._child.terminate()
            end = time.monotonic() + SAVES_WITHIN_SECONDS
            while self._child.poll() is None and time.monotonic() < end:
                time.sleep(0.1)
        return submitit.helpers.DelayedSubmission(replace(self))


def parse(words: Sequence[str]) -> dict[str, Any]:
    """Settings of Slurm from words NAME=VALUE; one without a value names the partition."""
    pairs = (word.split("=", 1) if "=" in word else ("partition", word) for word in words)
    values = {name: {"true": True}.get(value, int(value) if value.isdigit() else value) for name, value in pairs}
    if not isinstance(values.get("time", MINUTES), int):
        raise ValueError(f"--slurm time={values['time']}: expected minutes, a whole number")
    return values


def settings(chosen: Mapping[str, Any], processes: int, hosts: int, name: str) -> dict[str, Any]:
    """What a job asks of Slurm, in submitit's words for sbatch; `nodes` and tasks are not to be chosen."""
    found = {"job_name": name, "time": MINUTES, "cpus_per_task": processes, "signal_delay_s": WARNED_SECONDS, **chosen}
    found |= {"nodes": hosts, "ntasks_per_node": 1}
    # srun takes it from sbatch no more (Slurm 22.05).
    return found | {"srun_args": [f"--cpus-per-task={found['cpus_per_task']}"]}


def submit(
    arguments: Sequence[str], processes: int, hosts: int, words: Sequence[str], folder: Path, *, wait: bool
) -> int:
    """Queue `preferable train` with `arguments` as a job that `words` describe, logs in `folder`; the exit code.

    Waits for the end of the run; told to stop, it cancels the job. Raises ValueError where submitit or Slurm is missing, and
    for settings that are none.
    """
    try:
        import submitit
    except ModuleNotFoundError:
        raise ValueError("--slurm needs submitit: pip install 'preferable[slurm]'") from None
    asked = settings(parse(words), processes, hosts, f"preferable-{arguments[0]}")
    try:
        executor = submitit.SlurmExecutor(folder, max_num_timeout=TIMES)
    except RuntimeError:
        raise ValueError("there is no srun here: --slurm is for a host of a Slurm cluster") from None
    executor.update_parameters(**asked)
    job = executor.submit(Command(arguments, processes, hosts, max(1, asked["cpus_per_task"] // processes)))
    sys.stderr.write(f"job {job.job_id}; its logs are in {folder}\n")
    return follow(job) if wait else 0


def follow(job: Any) -> int:
    """The exit code of a job of submitit's, once it has ended; 130 where this process was told to stop, the job cancelled."""
    from submitit.core.utils import FailedJobError, UncompletedJobError

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        job.results()
        return 0
    except KeyboardInterrupt:
        job.cancel()
        return CANCELLED
    except (FailedJobError, UncompletedJobError):
        said = [line for line in (job.task(0).stderr() or "").splitlines() if line.startswith("error: ")]
        sys.stderr.write("".join(f"{line}\n" for line in said[-1:]))
        sys.stderr.write(f"error: job {job.job_id} has failed; its logs are {job.paths.folder}/{job.job_id}_*\n")
        return 1
