"""Reads a JSON array element by element in flat memory. Where its syntax breaks, one bad row says so and the reading ends."""

import codecs
import json
import re
from typing import BinaryIO, NoReturn

from app.intake.lines import LONGEST_SKIP_BYTES, check_value
from app.intake.rows import END, LONGEST_ROW_BYTES, Position, RawRow, Steps

_BLOCK_BYTES = 1 << 16

_NEAR_THE_END = 16
"""Characters. A fault so close to the end of what is held may come of what is not yet: a word or an escape is cut there."""

_QUOTED = 20
"""Characters that a message has of what is wrong."""

_BLANK = re.compile(r"[ \t\n\r]*")
_MARK = re.compile(r'["\[\]{}]')
_MARK_IN_TEXT = re.compile(r'["\\]')
_TOO_LONG = f"longer than {LONGEST_ROW_BYTES // 2**20} MB; a row must be shorter"

_decode = json.JSONDecoder().raw_decode


class _Broken(Exception):
    """The array cannot be read on, as it says."""


class _TooLong(Exception):
    """An element has no end within the length that a row may have."""


def read_array(stream: BinaryIO, start: Position) -> Steps:
    """Rows of a file that is one JSON array; a place is the byte after an element, or `END`.

    Raises ValueError for a file that does not begin as an array.
    """
    if start.offset == END:
        return
    stream.seek(start.offset)
    text, number = _Text(stream, start.offset), start.line
    try:
        has_more = _go_on(text) if start.offset else _enter(text)
        while has_more:
            row, size_bytes = _read_element(text, number)
            place, number = text.offset, number + 1
            try:
                has_more = _go_on(text)
            except _Broken:
                yield row, size_bytes, place, number
                raise
            yield row, size_bytes, place if has_more else END, number
    except _Broken as fault:
        yield RawRow(number, None, f"{fault}; mend it there, as what follows is not read"), 0, END, number + 1


def _enter(text: "_Text") -> bool:
    """Go into the array, and tell whether it has elements. Raises ValueError where it is none."""
    if text.peek() == "\ufeff":
        text.at += 1
    if text.peek() != "[":
        raise ValueError("this is one JSON value; expected an array of objects, [{…}, …], or one object a line")
    text.at += 1
    return text.peek() != "]" or _go_on(text)


def _go_on(text: "_Text") -> bool:
    """Go from the end of an element to the next, and tell whether there is one."""
    found = text.peek()
    if found not in (",", "]"):
        text.fail("expected a comma, or ] at the end of the array", text.at)
    text.at += 1
    if found == "]" and text.peek():
        text.fail("the array has ended; expected nothing after it", text.at)
    return found == ","


def _read_element(text: "_Text", number: int) -> tuple[RawRow, int]:
    text.peek()
    begin = text.offset
    try:
        value = text.take()
    except _TooLong:
        text.skip()
        return RawRow(number, None, _TOO_LONG), 0
    size_bytes = text.offset - begin
    if size_bytes > LONGEST_ROW_BYTES:
        return RawRow(number, None, _TOO_LONG), 0
    return check_value(value, number), size_bytes


class _Text:
    """The part of a stream's text that is in hand, and the place in it. Raises _Broken where it cannot be read on."""

    def __init__(self, stream: BinaryIO, offset: int) -> None:
        self.text, self.at = "", 0
        self._stream, self._decoder = stream, codecs.getincrementaldecoder("utf-8")()
        self._is_whole = False
        """There is no more to come, or nothing that is UTF-8."""
        self._fault: str | None = None
        self._counted_at, self._counted_bytes = 0, offset

    @property
    def offset(self) -> int:
        """Byte of the stream that the place is at."""
        self._counted_bytes += _count_bytes(self.text[self._counted_at : self.at])
        self._counted_at = self.at
        return self._counted_bytes

    def peek(self) -> str:
        """Go to the next character that is not blank, and give it; empty at the end."""
        while True:
            if blank := _BLANK.match(self.text, self.at):
                self.at = blank.end()
            if self.at < len(self.text):
                return self.text[self.at]
            if not self._fill(_BLOCK_BYTES):
                return ""

    def take(self) -> object:
        """Go past a JSON value, and give it. Raises _TooLong."""
        while True:
            try:
                value, end = _decode(self.text, self.at)
            except json.JSONDecodeError as error:
                is_cut = error.pos > len(self.text) - _NEAR_THE_END or error.msg.startswith("Unterminated")
                if not is_cut or self._is_whole:
                    self.fail(f"not JSON ({error.msg})", error.pos, is_cut=is_cut)
            except RecursionError:
                self.fail("its lists and objects are nested too deep; expected an array of flat objects", self.at)
            except ValueError:
                self.fail("a number has too many digits; write it as text, in quotation marks", self.at)
            else:
                if end < len(self.text) - _NEAR_THE_END or self._is_whole:
                    self.at = end
                    return value
            held = len(self.text) - self.at
            if held > LONGEST_ROW_BYTES:
                raise _TooLong
            self._fill(min(max(held, _BLOCK_BYTES), LONGEST_ROW_BYTES + _BLOCK_BYTES - held))

    def skip(self) -> None:
        """Go past a list, object or text by its brackets and quotation marks alone."""
        depth, is_text, end = 0, False, self.offset + LONGEST_SKIP_BYTES
        while True:
            mark = (_MARK_IN_TEXT if is_text else _MARK).search(self.text, self.at)
            self.at = mark.end() if mark else len(self.text)
            if self.at == len(self.text) and not self._fill(_BLOCK_BYTES):
                self.fail("the file ends within an element", self.at)
            if mark is None:
                if self.offset > end:
                    self.fail(f"the element has no end within {LONGEST_SKIP_BYTES // 2**20} MB", self.at)
                continue
            if mark[0] == "\\":
                self.at += 1
            elif mark[0] == '"':
                is_text = not is_text
            else:
                depth += 1 if mark[0] in "[{" else -1
            if not depth and not is_text:
                return

    def fail(self, why: str, at: int, *, is_cut: bool = False) -> NoReturn:
        """Raise _Broken for what stands at an index of the text; `is_cut` where it may be well and lack its end."""
        if self._fault and (is_cut or at == len(self.text)):
            raise _Broken(self._fault)
        at -= self.at
        while len(self.text) - self.at - at < _QUOTED and self._fill(_BLOCK_BYTES):
            pass
        at += self.at
        byte = self.offset + _count_bytes(self.text[self.at : at]) + 1
        came = f"near {self.text[at : at + _QUOTED]!r}" if at < len(self.text) else "where the file ends"
        raise _Broken(f"{why} at byte {byte}, {came}")

    def _fill(self, size: int) -> bool:
        """Take `size` bytes more into hand, letting go of what is behind the place. Tells whether there were any."""
        self.text, self._counted_bytes = self.text[self.at :], self.offset
        self.at = self._counted_at = 0
        data = b"" if self._is_whole else self._stream.read(size)
        try:
            self.text += self._decoder.decode(data, final=not data)
        except UnicodeDecodeError as error:
            self.text += error.object[: error.start].decode()
            byte = self.offset + _count_bytes(self.text) + 1
            self._fault = f"byte {byte} (0x{error.object[error.start]:02x}) of the file is not UTF-8; save it as UTF-8"
        self._is_whole = not data or self._fault is not None
        return bool(data)


def _count_bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())
