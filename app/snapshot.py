"""The file contract between the web and the learning half: a snapshot is a folder of JSONL with a manifest.

Standard library only, so that `workers.training` may import it. The JSON Schema of each row is
`app/snapshot_schema.json`; both sides are tested against it. A snapshot is immutable: `write` builds it in a temporary
folder beside its final place and renames it there, `read_manifest` verifies every hash before the first row is used.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

FORMAT = 1
KINDS = ("demonstrations", "rankings", "prompts", "text")
FILES = tuple(f"{kind}.jsonl" for kind in KINDS)

Row = dict[str, Any]
"""One JSON object of a snapshot file; its keys are fixed by `snapshot_schema.json`."""


class SnapshotError(ValueError):
    """A snapshot folder that cannot be trusted or understood; the message names the file and the mend."""


@dataclass(frozen=True)
class FileEntry:
    """What the manifest says of one file: its content hash and its number of rows."""

    sha256: str
    rows: int


@dataclass(frozen=True)
class Manifest:
    """The head of a snapshot.

    `kind` names the file the snapshot exists for; others may lie beside it (a rankings snapshot carries the
    demonstrations that the reward model is normalised on). `filters` says how its rows were chosen.
    """

    kind: str
    files: Mapping[str, FileEntry]
    filters: Mapping[str, Any] = field(default_factory=dict)
    format: int = FORMAT

    @property
    def sha256(self) -> str:
        """Identity of the content: hash over the sorted (file name, file hash) pairs."""
        lines = "".join(f"{name} {entry.sha256}\n" for name, entry in sorted(self.files.items()))
        return hashlib.sha256(lines.encode()).hexdigest()


def write(
    folder: Path, kind: str, files: Mapping[str, Iterable[Row]], filters: Mapping[str, Any] | None = None
) -> Manifest:
    """Write a snapshot to `folder`, which must not exist yet, and return its manifest. Rows are streamed.

    Raises SnapshotError for an unknown kind or file name, FileExistsError where `folder` is taken.
    """
    if kind not in KINDS:
        raise SnapshotError(f"snapshot kind is {kind!r}; expected one of {', '.join(KINDS)}")
    if unknown := set(files) - set(FILES):
        raise SnapshotError(f"unknown snapshot file {sorted(unknown)[0]!r}; expected one of {', '.join(FILES)}")
    if folder.exists():
        raise FileExistsError(f"{folder} exists; a snapshot is never overwritten")
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        entries = {name: _write_rows(scratch / name, rows) for name, rows in files.items()}
        manifest = Manifest(kind=kind, files=entries, filters=dict(filters or {}))
        text = json.dumps(asdict(manifest), indent=1, sort_keys=True, ensure_ascii=False)
        (scratch / "manifest.json").write_text(text + "\n", encoding="utf-8")
        os.replace(scratch, folder)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    folder.chmod(0o755)
    return manifest


def read_manifest(folder: Path, *, verify: bool = True) -> Manifest:
    """Read and check the manifest of `folder`; with `verify`, hash every file too.

    Raises SnapshotError where the manifest is missing, not JSON, of another format, or at odds with the files.
    """
    path = folder / "manifest.json"
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        entries = {name: FileEntry(**entry) for name, entry in data["files"].items()}
        manifest = Manifest(kind=data["kind"], files=entries, filters=data["filters"], format=data["format"])
    except FileNotFoundError:
        raise SnapshotError(f"{folder} is not a snapshot: it has no manifest.json") from None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise SnapshotError(f"{path} cannot be read: {error!r}") from error
    if manifest.format != FORMAT:
        raise SnapshotError(f"{path} has snapshot format {manifest.format!r}; this version reads format {FORMAT}")
    for name, entry in manifest.files.items() if verify else ():
        if name not in FILES:
            raise SnapshotError(f"{path} names the unknown file {name!r}; expected one of {', '.join(FILES)}")
        if not (folder / name).is_file():
            raise SnapshotError(f"{folder / name} is missing, though the manifest names it")
        if (actual := file_sha256(folder / name)) != entry.sha256:
            raise SnapshotError(
                f"{folder / name} was changed after the snapshot: sha256 {actual}, manifest says {entry.sha256}"
            )
    if stray := sorted(name for name in FILES if name not in manifest.files and (folder / name).exists()):
        raise SnapshotError(f"{folder / stray[0]} lies in the snapshot, but the manifest does not name it; remove it")
    return manifest


def read_rows(folder: Path, name: str) -> Iterator[Row]:
    """Yield the rows of one file of a snapshot, in file order; nothing where the snapshot lacks the file.

    Raises SnapshotError with file and line for a row that is not a JSON object.
    """
    path = folder / name
    if not path.exists():
        return
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                row = json.loads(line)
            except ValueError as error:
                raise SnapshotError(f"{path}, line {number}: not JSON ({error})") from error
            if not isinstance(row, dict):
                raise SnapshotError(f"{path}, line {number}: expected a JSON object, found {type(row).__name__}")
            yield row


def file_sha256(path: Path) -> str:
    """Hex sha256 of a file's bytes, read in blocks."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def folder_sha256(folder: Path, *, ignore: tuple[str, ...] = ("preferable.json",)) -> str:
    """Identity of a checkpoint folder: sha256 over the sorted (relative path, sha256) of all files but `ignore`."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in ignore)
    lines = "".join(f"{path.relative_to(folder).as_posix()} {file_sha256(path)}\n" for path in paths)
    return hashlib.sha256(lines.encode()).hexdigest()


def encode_row(row: Row) -> bytes:
    """A row as the line it is in its file."""
    return json.dumps(row, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _write_rows(path: Path, rows: Iterable[Row]) -> FileEntry:
    digest, count = hashlib.sha256(), 0
    with path.open("wb") as stream:
        for row in rows:
            line = encode_row(row)
            digest.update(line)
            stream.write(line)
            count += 1
        stream.flush()
        os.fsync(stream.fileno())
    return FileEntry(sha256=digest.hexdigest(), rows=count)
