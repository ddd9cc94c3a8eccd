"""Readers of files made of lines: JSON lines, tables of cells, plain text. A bad row is told of and reading goes on."""

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

from app.intake.rows import LONGEST_ROW_BYTES, Container, Position, RawRow, Steps
from app.intake.sniffing import BOM

DOCUMENT_LETTERS = 4_000
"""Paragraphs of plain text are put together up to this length."""

PARAGRAPH_LETTERS = 40_000
"""A paragraph that is longer is cut at the next end of a line."""

LONGEST_SKIP_BYTES = 64 * 1024 * 1024
"""Of a row that is too long, so much is passed over to find its end."""

_TOO_LONG = f"longer than {LONGEST_ROW_BYTES // 2**20} MB"
_NOT_UTF8 = "not UTF-8; save the file as UTF-8"
_NUL = "holds a NUL character, which cannot be stored; remove it"


def read_jsonl(stream: BinaryIO, start: Position) -> Steps:
    """Rows of a file with one JSON value a line. Blank lines are none."""
    lines = _Lines(stream, start)
    for raw in lines:
        number = lines.line - 1
        if raw is None:
            yield RawRow(number, None, f"{_TOO_LONG}; a row must be shorter"), 0, lines.offset, lines.line
        elif not raw.isspace():
            yield parse_json(raw, number), len(raw), lines.offset, lines.line


def parse_json(raw: bytes, line: int) -> RawRow:
    """One JSON value, an object or a text, as a row."""
    try:
        text = raw.decode()
        value = json.loads(text)
    except UnicodeDecodeError as error:
        return RawRow(line, None, f"byte {error.start + 1} (0x{raw[error.start]:02x}) is {_NOT_UTF8}")
    except json.JSONDecodeError as error:
        if "\x00" in text:
            return RawRow(line, None, _NUL)
        return RawRow(line, None, f"not JSON at character {error.pos + 1}: {error.msg}; expected one object a line")
    except RecursionError:
        return RawRow(line, None, "its lists and objects are nested too deep; make the row flat")
    except ValueError:
        return RawRow(line, None, "holds a number with too many digits; write it as text, in quotation marks")
    return check_value(value, line)


def check_value(value: object, line: int) -> RawRow:
    """A parsed value as a row: an object or a text, anything else is an error."""
    if isinstance(value, dict | str):
        return RawRow(line, value)
    names = {list: "a list", bool: "true or false", type(None): "null"}
    return RawRow(line, None, f'{names.get(type(value), "a number")}; expected an object such as {{"prompt": "…"}}')


def read_cells(stream: BinaryIO, container: Container, start: Position) -> Steps:
    """Rows of a table with a header, as objects by column; a row that ends early lacks the columns that follow.

    Raises ValueError for a header that names no columns or one of them twice.
    """
    # The limit is of the whole process and far lower by default. It is only ever raised; `_Lines.limit` is what counts.
    csv.field_size_limit(max(csv.field_size_limit(), LONGEST_ROW_BYTES))
    delimiter = "\t" if container is Container.TSV else _find_delimiter(stream)
    table = _Table(_Lines(stream, Position()), delimiter)
    header = _read_header(table)
    if start.offset:
        stream.seek(start.offset)
        table = _Table(_Lines(stream, start), delimiter)
    lines = table.lines
    for number, cells in table:
        if isinstance(cells, str):
            row = RawRow(number, None, cells)
        elif len(cells) > len(header) and any(cells[len(header) :]):
            mend = "put a cell that holds the separator between quotation marks"
            row = RawRow(number, None, f"{len(cells)} cells, but the header has {len(header)}; {mend}")
        else:
            row = RawRow(number, dict(zip(header, cells, strict=False)))
        yield row, lines.row_bytes, lines.offset, lines.line


def read_plain(stream: BinaryIO, start: Position) -> Steps:
    """Documents of plain text: paragraphs put together up to `DOCUMENT_LETTERS`."""
    held: list[_Paragraph] = []
    for paragraph in _read_paragraphs(_Lines(stream, start)):
        length = sum(len(one.text) for one in held) + len(paragraph.text)
        if held and (paragraph.error or length > DOCUMENT_LETTERS):
            yield _join(held, paragraph.offset, paragraph.line)
            held = []
        if paragraph.error:
            yield RawRow(paragraph.line, None, paragraph.error), 0, paragraph.end, paragraph.line + 1
        else:
            held.append(paragraph)
    if held:
        yield _join(held, held[-1].end, held[-1].line + len(held[-1].parts))


@dataclass
class _Paragraph:
    offset: int
    line: int
    parts: list[str] = field(default_factory=list)
    end: int = 0
    error: str | None = None

    @property
    def text(self) -> str:
        return "\n".join(self.parts)


def _join(held: list[_Paragraph], offset: int, line: int) -> tuple[RawRow, int, int, int]:
    text = "\n\n".join(one.text for one in held)
    return RawRow(held[0].line, text), len(text), offset, line


def _read_paragraphs(lines: "_Lines") -> Iterator[_Paragraph]:
    """Paragraphs without their blank lines; a line that cannot be read stands alone, as an error."""
    now, length, before = _Paragraph(lines.offset, lines.line), 0, lines.offset
    for raw in lines:
        text, error = _read_text(raw)
        is_blank = not error and not text.strip()
        if now.parts and (error or is_blank or length > PARAGRAPH_LETTERS):
            yield now
            now, length = _Paragraph(before, lines.line - 1), 0
        if error:
            yield _Paragraph(before, lines.line - 1, end=lines.offset, error=error)
        if error or is_blank:
            now = _Paragraph(lines.offset, lines.line)
        else:
            now.parts.append(text)
            now.end = lines.offset
            length += len(text)
        before = lines.offset
    if now.parts:
        yield now


def _read_text(raw: bytes | None) -> tuple[str, str | None]:
    if raw is None:
        return "", f"{_TOO_LONG}; break the line"
    if b"\x00" in raw:
        return "", _NUL
    try:
        return raw.decode().rstrip(), None
    except UnicodeDecodeError as error:
        return "", f"byte {error.start + 1} (0x{raw[error.start]:02x}) is {_NOT_UTF8}"


class _Lines:
    """Lines of a stream as bytes, None for one that is too long; keeps the place after the last one given.

    Raises ValueError for one of which no end is found within `LONGEST_SKIP_BYTES`.
    """

    def __init__(self, stream: BinaryIO, start: Position) -> None:
        self.stream, self.offset, self.line = stream, start.offset, start.line
        self.row_bytes = 0
        """Bytes given since it was last set to zero."""

    def __iter__(self) -> Iterator[bytes | None]:
        readline, limit = self.stream.readline, LONGEST_ROW_BYTES + 1
        while raw := readline(limit):
            size = len(raw)
            is_too_long = size == limit and not raw.endswith(b"\n")
            self.line += 1
            if is_too_long:
                size += self._skip_rest()
            elif not self.offset:
                raw = raw.removeprefix(BOM) or b"\n"
            self.offset += size
            self.row_bytes += size
            yield None if is_too_long else raw

    def _skip_rest(self) -> int:
        size = 0
        while raw := self.stream.readline(65536):
            size += len(raw)
            if raw.endswith(b"\n"):
                break
            if size > LONGEST_SKIP_BYTES:
                raise ValueError(
                    f"line {self.line - 1} is longer than {LONGEST_SKIP_BYTES // 2**20} MB; break the file into lines, a row each"
                )
        return size


class _TooLong(Exception):
    """A row of a table that has grown over the limit; passes through the csv reader, which then begins anew."""


class _Table:
    """Rows of cells with the number of the line where each begins; a text in place of the cells says what is wrong."""

    def __init__(self, lines: _Lines, delimiter: str) -> None:
        self.lines, self.delimiter = lines, delimiter
        self._raw = iter(lines)
        self._fault: str | None = None

    def __iter__(self) -> Iterator[tuple[int, list[str] | str]]:
        lines = self.lines
        rows = csv.reader(_Texts(self), delimiter=self.delimiter, strict=True)
        while True:
            lines.row_bytes, self._fault, first = 0, None, lines.line
            try:
                cells: list[str] | str = next(rows)
            except StopIteration:
                return
            except _TooLong:
                cells = f"{_TOO_LONG}; perhaps a quotation mark is opened and never closed"
            except csv.Error as error:
                cells = _explain(error)
            if isinstance(cells, list) and not self._fault and _is_blank(cells):
                continue
            yield first, self._fault or cells

    def next_text(self) -> str:
        """The next line for the csv reader. Raises _TooLong, StopIteration at the end."""
        raw = next(self._raw)
        if raw is None or self.lines.row_bytes > LONGEST_ROW_BYTES:
            raise _TooLong
        if b"\x00" in raw:
            self._fault = _NUL
        try:
            return raw.decode()
        except UnicodeDecodeError as error:
            self._fault = (
                f"byte {error.start + 1} (0x{raw[error.start]:02x}) of line {self.lines.line - 1} is {_NOT_UTF8}"
            )
            return raw.decode("utf-8", "replace")


class _Texts:
    """An iterator that goes on after it has raised, as a generator cannot."""

    def __init__(self, table: _Table) -> None:
        self._table = table

    def __iter__(self) -> "_Texts":
        return self

    def __next__(self) -> str:
        return self._table.next_text()


def _is_blank(cells: list[str]) -> bool:
    return not cells or (len(cells) == 1 and not cells[0].strip())


def _explain(error: csv.Error) -> str:
    if "unexpected end of data" in str(error):
        return "a cell is opened with a quotation mark that is never closed; close it, or write two marks for one in the text"
    mend = 'a cell that begins with a quotation mark must end with one, and marks inside it are doubled ("")'
    return f"no row of a table ({error}); {mend}"


def _find_delimiter(stream: BinaryIO) -> str:
    """Comma, or what a header without commas has in its place: semicolons or tabs, as spreadsheets write them."""
    first = stream.readline(LONGEST_ROW_BYTES)
    stream.seek(0)
    return next((mark.decode() for mark in (b",", b";", b"\t") if mark in first), ",")


def _read_header(table: _Table) -> list[str]:
    _, cells = next(iter(table), (1, "the file has no header; expected the names of the columns in its first line"))
    if isinstance(cells, str):
        raise ValueError(f"the header cannot be read: {cells}")
    names = [name.strip() or f"column {number}" for number, name in enumerate(cells, start=1)]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(f"the header has the column {twice!r} twice; give each column a name of its own")
    return names
