"""A training run seen from outside: its folder and lock, its events, its resumable state, and the way to stop it.

The folder holds `checkpoint/` (the final model), `state/` (resumable; removed at success), `events.jsonl`, `metrics.json`
(written last: its presence means success) and `lock`. Under supervision every event is also a line of JSON on standard output,
and standard input is the lifeline: the line `cancel` asks to stop after the current step or, in a loop of long steps, within it;
end of file means that the supervisor is gone and ends the process at once.

A run in several processes has one `Run` on each. Rank 0 alone locks, speaks and listens; all of them save and load, and stop at
the same step whichever of them was asked to. There the state's sharded tensors lie in a folder beside `state.pt`, a file a rank.
"""

import fcntl
import hashlib
import json
import os
import secrets
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, TextIO

import torch

from workers.training import parallel

ORPHANED = 75
"""Exit code of a trainer whose supervisor died (EX_TEMPFAIL of sysexits.h)."""
CANCELLED = 130
"""Exit code of a trainer that was asked to stop and saved its state."""

POINTS = 500
"""Points of a run's curves."""

State = dict[str, Any]
"""What a loop needs to go on bit for bit: tensors, numbers, strings and containers of them."""


class CancelledError(Exception):
    """The run was asked to stop; its state is saved and the same command continues it."""


class RunFolderError(ValueError):
    """The run folder is in use, or belongs to a run of other settings."""


class Run:
    """One training run in its folder. Use as a context manager; the loops call `start`, then `step` after every step."""

    def __init__(
        self,
        folder: Path,
        settings: Mapping[str, Any],
        *,
        supervised: bool = False,
        state_seconds: float = 60.0,
        state_steps: int = 0,
    ) -> None:
        """`settings` are all inputs that decide the result: a state of other settings is refused.

        The state is saved every `state_seconds`, and every `state_steps` steps where that is not 0.
        """
        self.folder, self.supervised = folder, supervised and parallel.rank() == 0
        self.state_seconds, self.state_steps = state_seconds, state_steps
        self.fingerprint = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()
        self._cancel = threading.Event()
        self._began = self._saved = time.monotonic()
        self._save_seconds = 0.0
        self._first_step = 0
        self._total, self._left = 0, 0.0
        self._window: list[Mapping[str, float]] = []
        self._lock: TextIO | None = None
        self._events: TextIO | None = None

    def __enter__(self) -> "Run":
        """Lock the folder, open the log of events, begin to listen for the order to stop."""
        if parallel.rank() == 0:
            self._open()
        if self.supervised:
            threading.Thread(target=self._listen, daemon=True).start()
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, self._on_signal)
        return self

    def _open(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = (self.folder / "lock").open("a")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.close()
            raise RunFolderError(
                f"another trainer works in {self.folder}; wait for it or choose another --out"
            ) from None
        self._events = (self.folder / "events.jsonl").open("a", encoding="utf-8")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Log the error that ends the run, if any, and let the folder go."""
        if error is not None and parallel.is_consequence(error):
            self.log(f"another process of this run is gone, or cannot be reached: {describe(error)}")
        elif error is not None and not isinstance(error, CancelledError):
            self.emit("error", message=describe(error))
        for stream in (self._events, self._lock):
            if stream is not None:
                stream.close()

    @property
    def was_entered(self) -> bool:
        """Whether the folder could be locked: errors from then on are told as events of the run."""
        return self._events is not None

    def emit(self, kind: str, **fields: Any) -> None:
        """Append one event to the log and, under supervision, to standard output."""
        if parallel.rank():
            return
        line = json.dumps({"type": kind, **fields}, default=str)
        if self._events is None:
            raise RuntimeError("the run is not open; enter it with `with` first")
        self._events.write(line + "\n")
        self._events.flush()
        if self.supervised:
            sys.stdout.write(line + "\n")
            sys.stdout.flush()
        elif kind in ("log", "metrics"):
            sys.stderr.write((fields["text"] if kind == "log" else self._in_words(fields)) + "\n")

    def start(self, config: Mapping[str, Any], counts: Mapping[str, int]) -> None:
        """Announce the settings in force and how much data of each kind there is."""
        self.emit("start", config=dict(config), counts=dict(counts))

    def log(self, text: str) -> None:
        """Say something a person should read, such as how many examples were left out and why."""
        self.emit("log", text=text)

    def step(self, step: int, total: int, values: Mapping[str, float], state: Callable[[], State]) -> None:
        """Report that `step` of `total` is done; save the state when it is due; stop here if that was asked.

        A run shows about `POINTS` points: past that many steps, each is the mean of a window of steps.
        Raises CancelledError after saving the state.
        """
        pause = max(self.state_seconds, 20 * self._save_seconds)  # a large state costs at most a twentieth of the time
        due = time.monotonic() - self._saved > pause or (self.state_steps > 0 and step % self.state_steps == 0)
        cancelled, due = parallel.anywhere(self._cancel.is_set(), due)
        self._window.append(values)
        if step % max(1, total // POINTS) == 0 or step == total or cancelled:
            self._show(step, total)
        if cancelled or (due and step < total):
            self.save_state(step, state())
        if cancelled:
            raise CancelledError(f"stopped after step {step} of {total}; the same command continues from there")

    def look(self, step: int, total: int, state: Callable[[], State]) -> None:
        """Stop within a step where that was asked, `step` being the last one done; all ranks look together.

        For loops of long steps, between the parts of one; `state` knows how far it came. Raises CancelledError after saving it.
        """
        if not parallel.anywhere(self._cancel.is_set())[0]:
            return
        if self._window:
            self._show(step, total)
        self.save_state(step, state())
        raise CancelledError(f"stopped within step {step + 1} of {total}; the same command continues from there")

    def save_state(self, step: int, state: State) -> None:
        """Replace the resumable state by `state`: written aside, then renamed, so that a crash leaves one whole state."""
        began, folder = time.monotonic(), self.folder / "state"
        folder.mkdir(exist_ok=True)
        saved = {"fingerprint": self.fingerprint, "step": step, "torch_rng": torch.get_rng_state(), "loop": state}
        saved["cuda_rng"] = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
        if parallel.size() > 1:
            shards = folder / f"shards-{parallel.agree(secrets.token_hex(4))}"
            saved |= {"shards": shards.name, "loop": parallel.save_shards(state, shards)}
            saved |= {f"ranks_{name}": parallel.gather(saved[name]) for name in ("torch_rng", "cuda_rng")}
        if parallel.rank() == 0:
            scratch = folder / "state.pt.new"
            with scratch.open("wb") as stream:
                torch.save(saved, stream)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(scratch, folder / "state.pt")
            for former in folder.glob("shards-*"):
                if former.name != saved.get("shards"):
                    shutil.rmtree(former)
        self._save_seconds, self._saved = parallel.agree(time.monotonic() - began), time.monotonic()
        self.emit("state", step=step)

    def load_state(self, device: str = "cpu") -> tuple[int, State] | None:
        """The step and state to continue from, torch's random state put back; None for a fresh run.

        Several processes may hand their state to more or fewer, or to one (dropout then draws otherwise); one process to itself
        only, since which tensors are to be sharded is not in its state. Raises RunFolderError where it does to several, and where
        the state belongs to other settings.
        """
        path = self.folder / "state" / "state.pt"
        if not parallel.agree(path.exists()):
            return None
        saved = torch.load(path, weights_only=True, map_location=device if parallel.size() > 1 else None)
        if saved["fingerprint"] != self.fingerprint:
            raise RunFolderError(
                f"{self.folder} holds the state of a run with other settings or data; choose another --out or remove it"
            )
        loop = saved["loop"]
        if "shards" in saved:
            loop = parallel.load_shards(loop, path.parent / saved["shards"], device)
        elif parallel.size() > 1:
            raise RunFolderError(f"{self.folder} holds the state of a run in one process; continue it in one")
        rngs = saved.get("ranks_torch_rng", [saved["torch_rng"]])
        cuda_rngs = saved.get("ranks_cuda_rng", [saved.get("cuda_rng", [])])
        if (rank := parallel.rank()) < len(rngs):  # a rank that was not there keeps the seed it has
            torch.set_rng_state(rngs[rank].cpu())
            for number, rng in enumerate(cuda_rngs[rank][: torch.cuda.device_count()]):
                torch.cuda.set_rng_state(rng.cpu(), number)
        self._first_step, self._began = saved["step"], time.monotonic()
        self.log(f"continuing from step {saved['step']}")
        return saved["step"], loop

    def finish(self, metrics: Mapping[str, Any], checkpoint: Path, sha256: str) -> dict[str, Any]:
        """Write metrics.json, drop the state, announce the result and return it."""
        result = {"metrics": dict(metrics), "checkpoint": str(checkpoint), "sha256": sha256}
        if parallel.rank():
            return result
        scratch = self.folder / ".metrics.json.new"
        scratch.write_text(json.dumps({**result, "fingerprint": self.fingerprint}, indent=1) + "\n", encoding="utf-8")
        os.replace(scratch, self.folder / "metrics.json")
        shutil.rmtree(self.folder / "state", ignore_errors=True)
        self.emit("result", **result)
        return result

    def finished(self) -> dict[str, Any] | None:
        """The result of this very run, announced again, where it has finished before: its supervisor may have died just after."""
        path = self.folder / "metrics.json"
        found = parallel.agree(path.read_text(encoding="utf-8") if path.exists() else None)
        if found is None:
            return None
        result: dict[str, Any] = json.loads(found)
        if result.pop("fingerprint", None) != self.fingerprint:
            raise RunFolderError(
                f"{self.folder} holds a finished run with other settings or data; choose another --out"
            )
        self.emit("result", **result)
        return result

    def cancel(self) -> None:
        """Ask the loop to stop."""
        self._cancel.set()

    def _show(self, step: int, total: int) -> None:
        """Emit the time left and the mean of the steps since the last point."""
        per_step = (time.monotonic() - self._began) / max(1, step - self._first_step)
        self._total, self._left = total, per_step * (total - step)
        self.emit("progress", step=step, total=total, eta_seconds=round(self._left, 1))
        self.emit("metrics", step=step, values=_mean(self._window))
        self._window = []

    def _in_words(self, fields: Mapping[str, Any]) -> str:
        """The metrics of a step on a line, with the time left."""
        minutes, seconds = divmod(round(self._left), 60)
        left = f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"
        values = ", ".join(f"{name} {value:.4g}" for name, value in fields["values"].items())
        return f"step {fields['step']} of {self._total}, {left} left: {values}"

    def _listen(self) -> None:
        pending = b""
        # os.read, not sys.stdin: its lock, held by a daemon thread, would abort the interpreter's exit.
        while chunk := os.read(0, 4096):
            *lines, pending = (pending + chunk).split(b"\n")
            if b"cancel" in (line.strip() for line in lines):
                self.cancel()
        os._exit(ORPHANED)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.cancel()


def is_run_folder(folder: Path) -> bool:
    """Whether a training run keeps its files there."""
    return (folder / "events.jsonl").exists()


def describe(error: BaseException) -> str:
    """An error as one readable sentence: ours as they are, others with their type before them."""
    text = " ".join(str(error).split())
    return (
        text
        if isinstance(error, ValueError | RuntimeError | FileNotFoundError) and text
        else f"{type(error).__name__}: {text}"
    )


def _mean(window: list[Mapping[str, float]]) -> dict[str, float]:
    keys = dict.fromkeys(key for values in window for key in values)
    columns = {key: [values[key] for values in window if key in values] for key in keys}
    return {key: sum(column) / len(column) for key, column in columns.items()}
