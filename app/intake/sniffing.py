"""Tells by its name and first bytes what kind of file it is, and says of one that cannot be read what it is instead."""

import gzip
import json
import zlib
from pathlib import Path, PurePath

from app.intake.rows import Container

HEAD_BYTES = 65536
"""Looked at to tell a file's kind."""

GZIP = b"\x1f\x8b"
BOM = b"\xef\xbb\xbf"

_BY_SUFFIX = {
    ".jsonl": Container.JSONL,
    ".ndjson": Container.JSONL,
    ".jsonlines": Container.JSONL,
    ".json": Container.JSON,
    ".csv": Container.CSV,
    ".tsv": Container.TSV,
    ".tab": Container.TSV,
    ".parquet": Container.PARQUET,
    ".pq": Container.PARQUET,
    ".txt": Container.PLAIN,
    ".text": Container.PLAIN,
    ".md": Container.PLAIN,
    "": Container.PLAIN,
}
_READABLE = (
    "JSON lines (.jsonl), a JSON array (.json), CSV, TSV, Parquet or plain text (.txt), also compressed with gzip"
)

_FOREIGN = (
    (b"\xff\xfe\x00\x00", "UTF-32 text; save it as UTF-8"),
    (b"\x00\x00\xfe\xff", "UTF-32 text; save it as UTF-8"),
    (b"\xff\xfe", "UTF-16 text; save it as UTF-8"),
    (b"\xfe\xff", "UTF-16 text; save it as UTF-8"),
    (b"BZh", "compressed with bzip2; unpack it, or compress it with gzip"),
    (b"\xfd7zXZ\x00", "compressed with xz; unpack it, or compress it with gzip"),
    (b"(\xb5/\xfd", "compressed with zstd; unpack it, or compress it with gzip"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive; unpack it and bring the file inside"),
    (b"Rar!", "a RAR archive; unpack it and bring the file inside"),
    (b"%PDF-", "a PDF; bring its text as .txt"),
    (b"\xd0\xcf\x11\xe0", "an old Excel or Word file; save the table as CSV in UTF-8"),
    (b"SQLite format 3\x00", "an SQLite database; save the table as CSV in UTF-8"),
    (b"\x89HDF", "an HDF5 file; save the table as Parquet or JSON lines"),
    (b"\x93NUMPY", "a NumPy array; save the rows as Parquet or JSON lines"),
    (b"ARROW1", "an Arrow (Feather) file; save the table as Parquet"),
    (b"PARE", "an encrypted Parquet file; save it without encryption"),
    (
        b"version https://git-lfs",
        "a Git LFS pointer, not the data itself; fetch the file with 'git lfs pull' and bring that",
    ),
    (b"<!doctype html", "a web page, perhaps of a login, in place of the data; download the file itself"),
    (b"<html", "a web page, perhaps of a login, in place of the data; download the file itself"),
)
_OFFICE = {
    ".xlsx": "an Excel workbook; save the sheet as CSV in UTF-8",
    ".xlsm": "an Excel workbook; save the sheet as CSV in UTF-8",
    ".ods": "a spreadsheet; save the sheet as CSV in UTF-8",
    ".docx": "a Word document; save it as plain text in UTF-8",
}
_ZIP = b"PK\x03\x04"
_CONTROL = bytes(set(range(32)) - set(b"\t\n\v\f\r\b\x1b"))


def is_gzip(path: Path) -> bool:
    """Whether the file begins as gzip does, whatever its name."""
    with path.open("rb") as stream:
        return stream.read(len(GZIP)) == GZIP


def sniff(path: Path, name: str) -> Container:
    """How the rows of the file lie in it; `name` is what its owner calls it.

    Raises ValueError that says what the file is, where it is none that can be read.
    """
    suffix = _find_suffix(name)
    zipped = is_gzip(path)
    head = _read_head(path, zipped)
    if head.startswith(b"PAR1"):
        if zipped:
            raise ValueError("this is a Parquet file compressed with gzip; unpack it, as Parquet compresses by itself")
        return Container.PARQUET
    head = head.removeprefix(BOM)
    if not head.strip():
        raise ValueError("the file is empty; expected " + _READABLE)
    _refuse_foreign(head, suffix)
    return _choose(head, suffix)


def _find_suffix(name: str) -> str:
    path = PurePath(name.lower())
    return PurePath(path.stem).suffix if path.suffix == ".gz" else path.suffix


def _read_head(path: Path, zipped: bool) -> bytes:
    if not zipped:
        with path.open("rb") as stream:
            return stream.read(HEAD_BYTES)
    try:
        with gzip.open(path) as stream:
            return stream.read1(HEAD_BYTES)
    except (EOFError, OSError, zlib.error) as error:
        raise ValueError(f"the gzip file is damaged ({error}); compress and upload it again") from None


def _refuse_foreign(head: bytes, suffix: str) -> None:
    if head.startswith(_ZIP):
        raise ValueError(f"this is {_OFFICE.get(suffix, 'a zip archive; unpack it and bring the file inside')}")
    start = head[:64].lstrip().lower()
    for magic, what in _FOREIGN:
        if head.startswith(magic) or start.startswith(magic):
            raise ValueError(f"this is {what}")
    if head[257:262] == b"ustar":
        raise ValueError("this is a tar archive; unpack it and bring the file inside")
    if head[0] == 0x80 and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        raise ValueError(
            "this is a Python pickle, which is never opened, as it can run code; save the rows as JSON lines"
        )
    if head.count(0) > len(head) // 3:
        raise ValueError("this is UTF-16 text or binary; save it as UTF-8")
    if len(head) - len(head.translate(None, _CONTROL)) > len(head) // 50:
        raise ValueError("this is binary, not text; expected " + _READABLE)
    if suffix in (".parquet", ".pq"):
        raise ValueError("the name says Parquet, but the file does not begin as Parquet does; download it again")
    if b"\r" in head.rstrip() and b"\n" not in head:
        raise ValueError("its lines end as on an old Mac (CR alone); save it with line ends LF or CRLF")


def _choose(head: bytes, suffix: str) -> Container:
    first, newline, _ = head.lstrip().partition(b"\n")
    if first.startswith(b"{") and _is_json(first):
        return Container.JSONL
    named = _BY_SUFFIX.get(suffix)
    if named is None:
        raise ValueError(f"files named {suffix} are not known; expected {_READABLE}")
    says_json = named in (Container.JSONL, Container.JSON)
    if first.startswith(b"[") and (says_json or suffix == ""):
        return Container.JSON
    if says_json and newline and (first.strip() == b"{" or (named == Container.JSON and first.startswith(b"{"))):
        raise ValueError("this is one JSON object; expected an array of objects, [{…}, …], or one object a line")
    return Container.JSONL if says_json else named


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True
