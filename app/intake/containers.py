"""Reads a file row by row in batches, from any place between two rows on; what the rows mean is for `shapes`.

Memory stays flat, whatever the file's length or that of a row in it.
"""

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from app.intake.arrays import read_array
from app.intake.lines import read_cells, read_jsonl, read_plain
from app.intake.parquet import count_parquet, read_parquet
from app.intake.rows import END, LONGEST_ROW_BYTES, START, Batch, Container, Position, RawRow, Steps
from app.intake.sniffing import is_gzip, sniff

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

__all__ = [
    "LONGEST_ROW_BYTES",
    "START",
    "Batch",
    "Container",
    "Position",
    "RawRow",
    "open_rows",
    "size",
    "sniff",
]


def open_rows(
    path: Path,
    container: Container,
    start: Position = START,
    *,
    batch_rows: int,
    batch_bytes: int,
    most_bytes: int | None = None,
) -> Iterator[Batch]:
    """Batches of at most `batch_rows` rows, closed once they hold `batch_bytes`; reading from any `Batch.end` goes on there.

    Going on within a compressed file unpacks it from its beginning. Reading stops, as if nothing were wrong, where more than
    `most_bytes` would have to be unpacked; of Parquet, small parts are read anyway. Raises ValueError for a file that is
    damaged, has no usable header, has a line of which no end is found, or is no JSON array though it should be.
    """
    try:
        if container is Container.PARQUET:
            steps = read_parquet(path, start)
            yield from _gather(steps, start, batch_rows, batch_bytes, _Progress(path.stat().st_size))
        else:
            with _open_stream(path, most_bytes) as (stream, progress):
                steps = _read_stream(stream, container, start)
                yield from _gather(steps, start, batch_rows, batch_bytes, progress)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"the gzip file is damaged ({error}); compress and upload it again") from None


def size(path: Path, container: Container) -> int:
    """What `Position.read` counts up to: rows of Parquet, bytes on the disk of anything else."""
    return count_parquet(path) if container is Container.PARQUET else path.stat().st_size


def _read_stream(stream: BinaryIO, container: Container, start: Position) -> Steps:
    if container is Container.JSON:
        return read_array(stream, start)
    if container in (Container.CSV, Container.TSV):
        return read_cells(stream, container, start)
    stream.seek(start.offset)
    return (read_jsonl if container is Container.JSONL else read_plain)(stream, start)


@dataclass
class _Progress:
    """Turns an offset into what is read of `size`."""

    size: int
    file: BinaryIO | None = None
    """The compressed file, whose own place tells how far it is."""

    def at(self, offset: int) -> int:
        if self.file:
            return self.file.tell()
        return self.size if offset == END else offset


class _Enough(Exception):
    """As much was read as may be."""


class _Bounded(io.RawIOBase):
    """A stream of which `most_bytes` are given, and no more. Raises _Enough."""

    def __init__(self, stream: BinaryIO, most_bytes: int) -> None:
        self._stream, self._most_bytes = stream, most_bytes

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._stream.seek(offset, whence)

    def readinto(self, buffer: "WriteableBuffer") -> int:
        view = memoryview(buffer).cast("B")
        data = self._stream.read(len(view))
        if data and self._stream.tell() > self._most_bytes:
            raise _Enough
        view[: len(data)] = data
        return len(data)


@contextmanager
def _open_stream(path: Path, most_bytes: int | None) -> Iterator[tuple[BinaryIO, _Progress]]:
    with path.open("rb") as file:
        is_packed = is_gzip(path)
        raw: BinaryIO = cast(BinaryIO, gzip.GzipFile(fileobj=file)) if is_packed else file
        if most_bytes is not None:
            raw = cast(BinaryIO, _Bounded(raw, most_bytes))
        progress = _Progress(path.stat().st_size, file if is_packed else None)
        if raw is file:
            yield file, progress
            return
        # GzipFile is a raw stream to the type checker only by its methods; the buffer makes `readline` fast.
        with io.BufferedReader(cast(io.RawIOBase, raw), buffer_size=1 << 16) as stream:
            yield cast(BinaryIO, stream), progress


def _gather(steps: Steps, start: Position, batch_rows: int, batch_bytes: int, progress: _Progress) -> Iterator[Batch]:
    rows: list[RawRow] = []
    count, held, offset, line = start.row, 0, start.offset, start.line
    with suppress(_Enough):
        for row, size_bytes, offset, line in steps:
            rows.append(row)
            held += size_bytes
            if len(rows) >= batch_rows or held >= batch_bytes:
                count += len(rows)
                yield Batch(rows, Position(offset, count, line, progress.at(offset)))
                rows, held = [], 0
    if rows:
        yield Batch(rows, Position(offset, count + len(rows), line, progress.at(offset)))
