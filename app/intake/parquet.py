"""Rows of a Parquet file, some hundred at a time. pyarrow comes with the worker half and is imported when first used."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from app.intake.rows import LONGEST_ROW_BYTES, Position, RawRow, Steps

if TYPE_CHECKING:
    from pyarrow import RecordBatch
    from pyarrow.parquet import ParquetFile

_ROWS = 256
_BLOCK_BYTES = 8 * 1024 * 1024
"""Rows are turned into objects about this many bytes at a time."""


def read_parquet(path: Path, start: Position) -> Steps:
    """Rows from `start` on; whole groups of rows before it are not read.

    Raises ValueError where pyarrow is missing or the file is damaged.
    """
    index = start.offset
    try:
        for part in _read_parts(_open(path), start.offset):
            size = part.nbytes // max(part.num_rows, 1)
            for row in _read_objects(part, index):
                index += 1
                yield row, size, index, index + 1
    except OSError as error:
        raise ValueError(f"the Parquet file is damaged at row {index + 1} ({error}); save it again") from None


def count_parquet(path: Path) -> int:
    """Rows of the file. Raises ValueError as `read_parquet` does."""
    return int(_open(path).metadata.num_rows)


def _open(path: Path) -> "ParquetFile":
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise ValueError(
            "Parquet needs the worker half, which is still being installed; wait for it, or save the file as JSON lines"
        ) from None
    try:
        return ParquetFile(path, buffer_size=_BLOCK_BYTES, pre_buffer=False)
    except (ArrowException, OSError) as error:
        raise ValueError(f"the Parquet file is damaged ({error}); save it again") from None


def _read_parts(file: "ParquetFile", skip: int) -> Iterator["RecordBatch"]:
    """Small batches of rows, without the first `skip` rows."""
    groups = file.metadata.num_row_groups
    first = 0
    while first < groups and skip >= file.metadata.row_group(first).num_rows:
        skip -= file.metadata.row_group(first).num_rows
        first += 1
    if first == groups:
        return
    for batch in file.iter_batches(batch_size=_ROWS, row_groups=list(range(first, groups)), use_threads=False):
        step = max(1, batch.num_rows * _BLOCK_BYTES // max(batch.nbytes, _BLOCK_BYTES))
        for at in range(0, batch.num_rows, step):
            part = batch.slice(at, min(step, batch.num_rows - at))
            gone = min(skip, part.num_rows)
            skip -= gone
            if gone < part.num_rows:
                yield part.slice(gone)


def _read_objects(part: "RecordBatch", index: int) -> list[RawRow]:
    """The rows of a batch, the first being row `index` of the file; one that is not UTF-8 spoils no other."""
    try:
        values = part.to_pylist()
    except UnicodeDecodeError as error:
        if part.num_rows == 1:
            return [RawRow(index + 1, None, f"a text is not UTF-8 ({error.reason}); save it as UTF-8")]
        return [row for at in range(part.num_rows) for row in _read_objects(part.slice(at, 1), index + at)]
    return [_check(value, index + number) for number, value in enumerate(values, start=1)]


def _check(value: dict[str, object], number: int) -> RawRow:
    if any(isinstance(cell, str | bytes) and len(cell) > LONGEST_ROW_BYTES for cell in value.values()):
        return RawRow(number, None, f"longer than {LONGEST_ROW_BYTES // 2**20} MB; a row must be shorter")
    return RawRow(number, value)
