"""Reads a file row by row in batches, from any place between two rows on; what the rows mean is for `shapes`.

Memory stays flat, but for a JSON array, which is loaded whole and may therefore have `LARGEST_ARRAY_BYTES` at most.
"""

import gzip
import io
import json
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from app.intake.lines import check_value, read_cells, read_jsonl, read_plain
from app.intake.parquet import count_parquet, read_parquet
from app.intake.rows import LONGEST_ROW_BYTES, START, Batch, Container, Position, RawRow, Steps
from app.intake.sniffing import BOM, is_gzip, sniff

__all__ = [
    "LARGEST_ARRAY_BYTES",
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

LARGEST_ARRAY_BYTES = 64 * 1024 * 1024
"""Of a JSON array, decompressed."""


def open_rows(
    path: Path, container: Container, start: Position = START, *, batch_rows: int, batch_bytes: int
) -> Iterator[Batch]:
    """Batches of at most `batch_rows` rows, closed once they hold `batch_bytes`; reading from any `Batch.end` goes on there.

    Going on within a compressed file unpacks it from its beginning. Raises ValueError for a file that is damaged, has no
    usable header or, as a JSON array, is too large.
    """
    try:
        if container is Container.PARQUET:
            yield from _gather(read_parquet(path, start), start, batch_rows, batch_bytes, _Progress())
        else:
            yield from _read_stream(path, container, start, batch_rows, batch_bytes)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"the gzip file is damaged ({error}); compress and upload it again") from None


def size(path: Path, container: Container) -> int:
    """What `Position.read` counts up to: rows of Parquet, bytes on the disk of anything else."""
    return count_parquet(path) if container is Container.PARQUET else path.stat().st_size


def _read_stream(
    path: Path, container: Container, start: Position, batch_rows: int, batch_bytes: int
) -> Iterator[Batch]:
    with _open_stream(path) as (stream, progress):
        if container is Container.JSON:
            steps, progress.scale = _read_array(stream, start, path.stat().st_size)
        elif container in (Container.CSV, Container.TSV):
            steps = read_cells(stream, container, start)
        else:
            stream.seek(start.offset)
            steps = (read_jsonl if container is Container.JSONL else read_plain)(stream, start)
        yield from _gather(steps, start, batch_rows, batch_bytes, progress)


@dataclass
class _Progress:
    """Turns an offset into what is read of `size`."""

    file: BinaryIO | None = None
    """The compressed file, whose own place tells how far it is."""
    scale: float = 1.0

    def at(self, offset: int) -> int:
        return self.file.tell() if self.file else int(offset * self.scale)


@contextmanager
def _open_stream(path: Path) -> Iterator[tuple[BinaryIO, _Progress]]:
    with path.open("rb") as file:
        if not is_gzip(path):
            yield file, _Progress()
            return
        unpacked = gzip.GzipFile(fileobj=file)
        # GzipFile is a raw stream to the type checker only by its methods; the buffer makes `readline` fast.
        with io.BufferedReader(cast("io.RawIOBase", unpacked), buffer_size=1 << 16) as stream:
            yield cast(BinaryIO, stream), _Progress(file=file)


def _gather(steps: Steps, start: Position, batch_rows: int, batch_bytes: int, progress: _Progress) -> Iterator[Batch]:
    rows: list[RawRow] = []
    count, held, offset, line = start.row, 0, start.offset, start.line
    for row, size_bytes, offset, line in steps:
        rows.append(row)
        held += size_bytes
        if len(rows) >= batch_rows or held >= batch_bytes:
            count += len(rows)
            yield Batch(rows, Position(offset, count, line, progress.at(offset)))
            rows, held = [], 0
    if rows:
        yield Batch(rows, Position(offset, count + len(rows), line, progress.at(offset)))


def _read_array(stream: BinaryIO, start: Position, file_bytes: int) -> tuple[Steps, float]:
    """The rows of a JSON array and the bytes of the file that fall to each."""
    data = stream.read(LARGEST_ARRAY_BYTES + 1)
    if len(data) > LARGEST_ARRAY_BYTES:
        raise ValueError(
            f"a JSON array of more than {LARGEST_ARRAY_BYTES // 2**20} MB; save it as JSON lines, one object a line (.jsonl)"
        )
    values = _parse_array(data)
    row_bytes = len(data) // max(len(values), 1)
    steps = ((check_value(values[at], at + 1), row_bytes, at + 1, at + 2) for at in range(start.offset, len(values)))
    return steps, file_bytes / max(len(values), 1)


def _parse_array(data: bytes) -> list[object]:
    try:
        values = json.loads(data.removeprefix(BOM).decode())
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {error.start + 1} of the file is not UTF-8; save it as UTF-8") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON at line {error.lineno}, column {error.colno}: {error.msg}") from None
    except RecursionError:
        raise ValueError("its lists and objects are nested too deep; expected an array of flat objects") from None
    except ValueError:
        raise ValueError("a number in it has too many digits; write it as text, in quotation marks") from None
    if not isinstance(values, list):
        raise ValueError("this is one JSON value; expected an array of objects, [{…}, …], or one object a line")
    return values
