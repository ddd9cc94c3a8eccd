"""Rows of a Parquet file, a few at a time. pyarrow comes with the worker half and is imported when first used.

A file of some hundred bytes may stand for gigabytes: a text that is in a column's dictionary once can be in every row. So texts
stay in their dictionary until the rows are measured, and a row that is too long never becomes an object.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from app.intake.rows import LONGEST_ROW_BYTES, Position, RawRow, Steps

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray
    from pyarrow import Array, DataType, RecordBatch
    from pyarrow.parquet import FileMetaData, ParquetFile, RowGroupMetaData

    Sizes = NDArray[numpy.int64]

LARGEST_GROUP_BYTES = 512 * 1024 * 1024
"""Of a row group, unpacked. A page of it is unpacked whole, and a group may have one page alone."""

_ROWS = 1024
_BLOCK_BYTES = 8 * 1024 * 1024
"""Rows are read, and turned into objects, about this many bytes at a time."""

_ITEM_BYTES = 8
"""Of a number, and more or less of the frame of a text, list or object."""


def read_parquet(path: Path, start: Position) -> Steps:
    """Rows from `start` on; whole groups of rows before it are not read.

    Raises ValueError where pyarrow is missing, the file is damaged, or a group of its rows is too large.
    """
    index = start.offset
    try:
        for part in _read_parts(_open(path), start.offset):
            for row, size in _read_rows(part, index):
                index += 1
                yield row, size, index, index + 1
    except NotImplementedError as error:
        raise ValueError(
            f"the Parquet file has a column of a kind that cannot be read ({error}); leave it out"
        ) from None
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
        metadata = ParquetFile(path).metadata
        return ParquetFile(
            path,
            metadata=metadata,
            buffer_size=_BLOCK_BYTES,
            pre_buffer=False,
            read_dictionary=sorted(_find_dictionaries(metadata)),
        )
    except (ArrowException, OSError) as error:
        raise ValueError(f"the Parquet file is damaged ({error}); save it again") from None


def _find_dictionaries(metadata: "FileMetaData") -> set[str]:
    """Columns of texts that can be read as places in a dictionary: all but those whose texts share beginnings."""
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    columns = [group.column(number) for group in groups for number in range(metadata.num_columns)]
    texts = {column.path_in_schema for column in columns if column.physical_type == "BYTE_ARRAY"}
    return texts - {column.path_in_schema for column in columns if any("DELTA" in name for name in column.encodings)}


def _read_parts(file: "ParquetFile", skip: int) -> Iterator["RecordBatch"]:
    """Small batches of rows, without the first `skip` rows."""
    for number in range(file.metadata.num_row_groups):
        group = file.metadata.row_group(number)
        if skip >= group.num_rows:
            skip -= group.num_rows
            continue
        if group.total_byte_size > LARGEST_GROUP_BYTES:
            raise ValueError(
                f"row group {number + 1} of the Parquet file has {group.total_byte_size // 2**20:,} MB, unpacked; expected "
                f"{LARGEST_GROUP_BYTES // 2**20} MB at most, so write it with smaller row groups (row_group_size=10000)"
            )
        for batch in file.iter_batches(batch_size=_count_rows(group), row_groups=[number], use_threads=False):
            gone = min(skip, batch.num_rows)
            skip -= gone
            if gone < batch.num_rows:
                yield batch.slice(gone)


def _count_rows(group: "RowGroupMetaData") -> int:
    """Rows of a group to be read at once: by their mean size, and by what one may be at most where texts share beginnings."""
    sizes: list[int] = [1, group.total_byte_size // max(group.num_rows, 1)]
    for number in range(group.num_columns):
        column = group.column(number)
        if any("DELTA" in name and "BYTE_ARRAY" in name for name in column.encodings):
            sizes.append(column.total_uncompressed_size)
    return max(1, min(_ROWS, _BLOCK_BYTES // max(sizes)))


def _read_rows(batch: "RecordBatch", index: int) -> Iterator[tuple[RawRow, int]]:
    """The rows of a batch with their sizes, the first being row `index` of the file."""
    import numpy as np

    sizes = np.zeros(batch.num_rows, dtype=np.int64)
    for column in batch.columns:
        sizes += _measure(column)
    begin = held = 0
    for end, size in enumerate((*sizes.tolist(), 0)):
        is_end, is_too_long = end == batch.num_rows, size > LONGEST_ROW_BYTES
        held += size
        if begin < end and (is_end or is_too_long or held > _BLOCK_BYTES):
            yield from zip(
                _read_objects(batch.slice(begin, end - begin), index + begin), sizes[begin:end].tolist(), strict=True
            )
            begin, held = end, size
        if is_too_long:
            error = f"longer than {LONGEST_ROW_BYTES // 2**20} MB; a row must be shorter"
            yield RawRow(index + end + 1, None, error), 0
            begin, held = end + 1, 0


def _measure(cells: "Array") -> "Sizes":
    """Bytes of each cell (N,), texts of a dictionary as if each were written out."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = cells.type
    if isinstance(cells, pa.ExtensionArray):
        return _measure(cells.storage)
    sizes: Sizes = np.full(len(cells), _ITEM_BYTES, dtype=np.int64)
    if pa.types.is_struct(kind):
        for field in cells.flatten():
            sizes += _measure(field)
    elif pa.types.is_map(kind):
        sizes += _sum_items(cells, _measure(cells.keys) + _measure(cells.items))
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
        sizes += _sum_items(cells, _measure(cells.values))
    elif pa.types.is_fixed_size_list(kind) and kind.list_size:
        items = cells.values[cells.offset * kind.list_size : (cells.offset + len(cells)) * kind.list_size]
        sizes += _measure(items).reshape(len(cells), -1).sum(axis=1)
    elif pa.types.is_dictionary(kind) and _is_text(kind.value_type):
        sizes += _fill(pc.binary_length(cells.dictionary).take(cells.indices))
    elif _is_text(kind):
        sizes += _fill(pc.binary_length(cells))
    return sizes


def _fill(lengths: "Array") -> "Sizes":
    import pyarrow.compute as pc

    filled: Sizes = pc.fill_null(lengths, 0).to_numpy(zero_copy_only=False)
    return filled


def _is_text(kind: "DataType") -> bool:
    from pyarrow import types

    is_short = types.is_string(kind) or types.is_binary(kind)
    return bool(
        is_short or types.is_large_string(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind)
    )


def _sum_items(cells: "Array", sizes: "Sizes") -> "Sizes":
    """The sum of the items' sizes of each list (N,)."""
    import numpy as np

    sums = np.concatenate(([0], np.cumsum(sizes)))
    totals: Sizes = np.diff(sums[cells.offsets.to_numpy()])
    return totals


def _read_objects(part: "RecordBatch", index: int) -> list[RawRow]:
    """The rows of a batch, the first being row `index` of the file; one that is not UTF-8 spoils no other."""
    try:
        values = _write_out(part).to_pylist()
    except UnicodeDecodeError as error:
        if part.num_rows == 1:
            return [RawRow(index + 1, None, f"a text is not UTF-8 ({error.reason}); save it as UTF-8")]
        return [row for at in range(part.num_rows) for row in _read_objects(part.slice(at, 1), index + at)]
    return [RawRow(index + number, value) for number, value in enumerate(values, start=1)]


def _write_out(part: "RecordBatch") -> "RecordBatch":
    """The batch with the texts of its dictionaries in each row, since these become objects in a fifth of the time."""
    import pyarrow as pa

    columns = [_undo(column) for column in part.columns]
    return pa.RecordBatch.from_arrays(columns, names=part.schema.names)


def _undo(column: "Array") -> "Array":
    import pyarrow as pa

    if pa.types.is_dictionary(column.type):
        return column.dictionary_decode()
    plain = _plain_type(column.type)
    return column if plain == column.type else column.cast(plain)


def _plain_type(kind: "DataType") -> "DataType":
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        return kind.value_type
    if pa.types.is_struct(kind):
        return pa.struct([pa.field(one.name, _plain_type(one.type)) for one in kind])
    if pa.types.is_list(kind):
        return pa.list_(pa.field(kind.value_field.name, _plain_type(kind.value_type)))
    return kind
