"""The programs that `preferable up` keeps running beside the two servers: their commands, threads and niceness."""

import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field

from app.settings import Settings


@dataclass(frozen=True)
class Program:
    """One long-running child. Stages stop in order, programs of one stage together."""

    name: str
    command: tuple[str, ...]  # after the Python interpreter
    stage: int
    environment: Mapping[str, str] = field(default_factory=dict)
    niceness: int = 0
    deadline_seconds: float = 10.0
    death_signal: signal.Signals = signal.SIGTERM  # sent by the kernel when the supervisor is killed
    descriptors: tuple[int, ...] = ()
    is_once: bool = False  # done when it ends well


WEB, BEAT, WORKERS = range(3)


def web(descriptor: int) -> Program:
    """The web server, on the supervisor's listening socket."""
    return Program("web", ("-m", "app.serve", str(descriptor)), WEB, descriptors=(descriptor,))


def installation(settings: Settings) -> Program:
    """Fetches torch and what else the workers need, while the pages are served already."""
    scratch = str(settings.home / "run" / "pip")
    return Program("install", ("-m", "app.install"), WORKERS, {"TMPDIR": scratch}, niceness=5, is_once=True)


def clerks() -> tuple[Program, ...]:
    """What needs no torch and so works from the first minute: the worker that imports, and beat."""
    return (
        _worker("cpu", "prefork", threads=1, niceness=5),
        Program("beat", (*_celery("beat"), "--pidfile="), BEAT, deadline_seconds=5.0),
    )


def learners(settings: Settings) -> tuple[Program, ...]:
    """The workers that sample and train. One killed with its supervisor leaves at once; its job is requeued."""
    return (
        _worker("sample", "solo", threads=settings.sample_threads, niceness=2),
        _worker(
            "train", "solo", threads=settings.train_threads, niceness=settings.train_niceness, deadline_seconds=20.0
        ),
    )


def _celery(*arguments: str) -> tuple[str, ...]:
    return ("-m", "celery", "--app", "workers.celery_app:celery", *arguments)


def _worker(queue: str, pool: str, *, threads: int, niceness: int, deadline_seconds: float = 10.0) -> Program:
    name = f"worker-{queue}"
    options = ("--queues", queue, "--pool", pool, "--concurrency", "1", "--hostname", f"{queue}@%h")
    quiet = ("--loglevel", "INFO", "--without-gossip", "--without-mingle", "--without-heartbeat")
    return Program(
        name,
        _celery("worker", *options, *quiet),
        WORKERS,
        {
            "OMP_NUM_THREADS": str(threads),
            "MKL_NUM_THREADS": str(threads),
            "OMP_WAIT_POLICY": "passive",  # idle threads of one process must not burn the cores of another
            "TOKENIZERS_PARALLELISM": "false",
        },
        niceness=niceness,
        deadline_seconds=deadline_seconds,
        death_signal=signal.SIGQUIT,  # Celery's cold shutdown
    )


def command_line(program: Program) -> list[str]:
    """The full command, with this very interpreter."""
    return [sys.executable, *program.command]
