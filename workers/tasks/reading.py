"""Batches of an import prepared ahead of the one that is stored: of a long file in a process of its own.

What is prepared and what is stored would else take turns at one core. The other process ends with the pipe between the two.
"""

import gc
import os
import pickle
import subprocess
import sys
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from typing import IO

from app.intake.containers import Batch, Position
from app.intake.preparing import Prepared, Recipe, UnreadableFile, prepare, read_batches

LONG_BYTES = 4 * 1024**2
"""Of what is left of a file: below, a process takes longer to start than it saves."""


def prepare_all(recipe: Recipe, start: Position, left: int, *, rows: int, size: int) -> Generator[Prepared, None, None]:
    """The file from a place on, `left` bytes of it, in batches. Raises UnreadableFile.

    The first batch is prepared here: the other process starts meanwhile, and a short file needs none.
    """
    with closing(read_batches(recipe, start, batch_rows=rows, batch_bytes=size)) as batches:
        first = next(batches, None)
        if first is None:
            return
        if left < LONG_BYTES:
            yield from _ahead(recipe, first, batches)
            return
    with _another_process(recipe, first.end, rows, size) as pipe:
        yield prepare(recipe, first)
        while (message := _receive(pipe)) is not None:
            if isinstance(message, str):
                raise UnreadableFile(message)
            yield message


def _ahead(recipe: Recipe, first: Batch, batches: Iterator[Batch]) -> Iterator[Prepared]:
    """Each batch prepared by a thread while its predecessor is in use."""

    def following() -> Prepared | None:
        batch = next(batches, None)
        return None if batch is None else prepare(recipe, batch)

    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="prepare") as thread:
        prepared: Prepared | None = prepare(recipe, first)
        while prepared is not None:
            coming = thread.submit(following)
            yield prepared
            prepared = coming.result()


@contextmanager
def _another_process(recipe: Recipe, start: Position, rows: int, size: int) -> Iterator[IO[bytes]]:
    """A process that prepares the rest of the file; gives the pipe it writes to.

    By hand, since multiprocessing starts none in the child of a pool, which Celery's workers are.
    """
    command = [sys.executable, "-m", "workers.tasks.reading"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        if process.stdin is None or process.stdout is None:
            raise RuntimeError("a process with pipes came without them")
        try:
            process.stdin.write(pickle.dumps((recipe, start, rows, size)))
            process.stdin.close()
            yield process.stdout
        finally:
            process.kill()


def _receive(pipe: IO[bytes]) -> Prepared | str | None:
    """What the other process writes: a batch, what is wrong with the file, or that it is at its end."""
    try:
        message: Prepared | str | None = pickle.load(pipe)
    except (EOFError, pickle.UnpicklingError):
        raise RuntimeError("the process that read the file ended without a word; see the worker's log") from None
    return message


def main() -> None:
    """Runs in the other process: prepares batches, and writes each to the standard output. That nobody reads it ends it."""
    out, sys.stdout = sys.stdout.buffer, sys.stderr
    recipe, start, rows, size = pickle.load(sys.stdin.buffer)
    gc.disable()  # a batch makes no cycles, and a search for some would look at each of its objects over and over
    try:
        for batch in read_batches(recipe, start, batch_rows=rows, batch_bytes=size):
            _send(out, prepare(recipe, batch))
        _send(out, None)
    except UnreadableFile as error:
        _send(out, str(error))
    except BrokenPipeError:
        os._exit(0)  # what is left to be written has no reader


def _send(out: IO[bytes], message: Prepared | str | None) -> None:
    pickle.dump(message, out, protocol=5)
    out.flush()


if __name__ == "__main__":
    main()
