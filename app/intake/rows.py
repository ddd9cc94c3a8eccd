"""What the readers of files hand on: a row as it stood in the file, a batch of rows, and the place where to go on."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from enum import StrEnum

LONGEST_ROW_BYTES = 4 * 1024 * 1024
"""A longer line, or row of a table, is an error of its own."""

END = -1
"""`Position.offset` behind the last element of a JSON array."""

Step = tuple["RawRow", int, int, int]
"""A row, its size in bytes, and where the next begins: byte of the stream (or row index) and line number."""

Steps = Iterator[Step]


class Container(StrEnum):
    """How the rows of a file lie in its bytes."""

    JSONL = "jsonl"
    """One JSON value a line."""
    JSON = "json"
    """One JSON array."""
    CSV = "csv"
    """Cells between commas (or semicolons), with a header."""
    TSV = "tsv"
    """Cells between tabs, with a header."""
    PARQUET = "parquet"
    PLAIN = "plain"
    """Text with blank lines between paragraphs; only for the pretraining mix."""


@dataclass(frozen=True)
class Position:
    """A place between two rows of a file."""

    offset: int = 0
    """Byte of the decompressed stream, or `END`; in Parquet the index of a row."""
    row: int = 0
    """Rows before it, the bad ones among them."""
    line: int = 1
    """Number of the line (in JSON and Parquet: of the row) that comes next."""
    read: int = field(default=0, compare=False)
    """How far it is, out of `size`. Of a compressed file this is some 64 kB ahead, as bytes are read in blocks."""

    def to_json(self) -> dict[str, int]:
        """The position as a JSON object."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, int]) -> "Position":
        """The position that `to_json` made an object of. Raises TypeError for anything else."""
        return cls(**value)


START = Position()


@dataclass(frozen=True, slots=True)
class RawRow:
    """One row as the file has it, or why it cannot be read."""

    line: int
    """Where it begins, counted from 1: the line, in JSON and Parquet the row."""
    value: dict[str, object] | str | None
    """None where there is an error."""
    error: str | None = None


@dataclass(frozen=True)
class Batch:
    """Some rows, and where to go on after them."""

    rows: list[RawRow]
    end: Position
