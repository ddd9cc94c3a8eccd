"""Files on their way in: uploaded, looked at, started, stopped. What a worker does with them is in `import_work`."""

import hashlib
import shutil
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from sqlalchemy.orm import Session

from app import jobs as outbox
from app import storage
from app.errors import BadInput, Conflict, NotFound
from app.intake import containers, shapes
from app.intake.containers import START, Container
from app.intake.records import Record
from app.models import Import, ImportKind, JobState
from app.permissions import Access, Permission
from app.queries import imports as queries
from app.queries.jobs import LIVE
from app.schemas.imports import ImportSettings
from app.schemas.values import storable
from app.services import audit, jobs
from app.settings import get_settings

LARGEST_FILE_BYTES = 2 * 1024**3

PAPERS_CAP = 200
"""Prompts of one source that are let in (Ouyang et al. 2022, §3.2: about 200 of a user)."""

LONGEST_NAME = 200
"""Characters of a file's name that are kept."""

MOST_COLUMNS = 200
"""Columns that a mapping can choose among: a page of every one of a hundred thousand would help nobody."""

KEPT_DAYS = 7
"""How long an uploaded file waits for somebody to start its import, or to go on with it."""

PREVIEW_ROWS = 20
PREVIEW_BYTES = 1024**2
PREVIEW_MOST_BYTES = 16 * 1024**2
"""Unpacked in search of the first rows: a small file may hold a line of many GB."""

JOB = "import_file"
_BLOCK_BYTES = 64 * 1024**2


def upload(session: Session, access: Access, *, kind: ImportKind, name: str, data: BinaryIO) -> Import:
    """Keep a file and guess how it is to be read; nothing of it is stored yet.

    Raises BadInput where it is empty, too large, or nothing that can be read.
    """
    access.demand(Permission.MANAGE_PROMPTS)
    uid = uuid.uuid4()
    path = storage.import_file(get_settings(), uid)
    path.parent.mkdir(parents=True)
    try:
        size, sha256 = _keep(data, path, keep_alive=lambda: queries.keep_alive(session))
        container = _sniff(path, name)
        row = Import(
            uid=uid,
            project_id=access.project.id,
            kind=kind,
            name=_clean(name),
            container=container,
            size_bytes=size,
            sha256=sha256,
            settings={},
            created_by_id=access.user.id,
        )
        row.settings = guess(row, path).model_dump(mode="json")
        queries.insert_import(session, row)
    except BaseException:
        shutil.rmtree(path.parent, ignore_errors=True)
        raise
    _record(session, access, "upload import", row)
    return row


def _clean(name: str) -> str:
    """A file's name as it can be stored and shown."""
    kept = storable(name)
    return (kept if len(kept) <= LONGEST_NAME else f"{kept[: LONGEST_NAME - 1]}…") or "file"


def _keep(data: BinaryIO, path: Path, *, keep_alive: Callable[[], None]) -> tuple[int, str]:
    digest, size = hashlib.sha256(), 0
    with path.open("wb") as out:
        while block := data.read(_BLOCK_BYTES):
            size += len(block)
            keep_alive()
            if size > LARGEST_FILE_BYTES:
                raise BadInput(
                    f"The file is larger than {LARGEST_FILE_BYTES // 1024**3} GB. Split it and import the parts.",
                    field="file",
                )
            digest.update(block)
            out.write(block)
    return size, digest.hexdigest()


def _sniff(path: Path, name: str) -> Container:
    try:
        return containers.sniff(path, name)
    except ValueError as error:
        raise BadInput(str(error), field="file") from None


def guess(row: Import, path: Path) -> ImportSettings:
    """Settings that fit what the first rows look like."""
    values = [raw.value for raw in _first_rows(row, path) if raw.value is not None]
    mapping = shapes.detect(values, row.kind)
    is_intake = row.kind == ImportKind.PROMPTS
    stem = row.name.removesuffix(".gz").rsplit(".", 1)[0]
    return ImportSettings(
        pool=stem[:80].strip() or "Imported",
        mapping=mapping.to_json(),
        leaves_out_near=is_intake,
        leaves_out_prefixes=is_intake,
        most_per_source=PAPERS_CAP if is_intake else 0,
    )


def _first_rows(row: Import, path: Path) -> Sequence[containers.RawRow]:
    try:
        batches = containers.open_rows(
            path,
            Container(row.container),
            START,
            batch_rows=PREVIEW_ROWS,
            batch_bytes=PREVIEW_BYTES,
            most_bytes=PREVIEW_MOST_BYTES,
        )
        return next((batch.rows for batch in batches), [])
    except ValueError as error:
        raise BadInput(str(error), field="file") from None


@dataclass(frozen=True)
class PreviewRow:
    """A row of the file as it would come in: its records, or why it would be refused."""

    line: int
    raw: str
    records: Sequence[Record] = ()
    problem: str | None = None


@dataclass(frozen=True)
class Preview:
    """The first rows, and the columns that rows of the file have."""

    rows: Sequence[PreviewRow]
    columns: Sequence[str]


def preview(row: Import, settings: ImportSettings) -> Preview:
    """How the first rows would come in. Raises BadInput where the file is gone or cannot be read."""
    path = storage.import_file(get_settings(), row.uid)
    if not path.exists():
        raise BadInput("The uploaded file is no longer here. Upload it again.", field="file")
    columns: dict[str, None] = {}
    rows = []
    mapping = shapes.Mapping.from_json(settings.mapping)
    for raw in _first_rows(row, path):
        if isinstance(raw.value, dict):
            columns |= dict.fromkeys(raw.value)
        rows.append(_preview_row(raw, row.kind, mapping))
    return Preview(rows, list(columns)[:MOST_COLUMNS])


def _preview_row(raw: containers.RawRow, kind: ImportKind, mapping: shapes.Mapping) -> PreviewRow:
    text = str(raw.value)[:500]
    if raw.error is not None or raw.value is None:
        return PreviewRow(raw.line, text, problem=raw.error)
    try:
        return PreviewRow(raw.line, text, shapes.read_records(raw.value, kind, mapping, line=raw.line))
    except ValueError as error:
        return PreviewRow(raw.line, text, problem=str(error))


def find(session: Session, access: Access, uid: uuid.UUID) -> Import:
    """An import of this project. Raises NotFound."""
    row = queries.find_import(session, access.project.id, uid)
    if row is None:
        raise NotFound("There is no such import in this project.")
    return row


def configure(session: Session, access: Access, uid: uuid.UUID, settings: ImportSettings) -> Import:
    """Keep how a draft is to be read. Raises NotFound, Conflict where it was started."""
    row = _lock(session, access, uid)
    if row.job_id is not None:
        raise Conflict(
            "This import was started already; its settings stand. Upload the file again to read it otherwise."
        )
    row.settings = settings.model_dump(mode="json")
    return row


def _lock(session: Session, access: Access, uid: uuid.UUID) -> Import:
    access.demand(Permission.MANAGE_PROMPTS)
    return queries.lock_import(session, find(session, access, uid).id)


def start(session: Session, access: Access, uid: uuid.UUID, settings: ImportSettings) -> Import:
    """Have a worker bring the file in. A second click finds it started. Raises BadInput, NotFound."""
    row = _lock(session, access, uid)
    if row.job_id is not None:
        return row
    row.settings = settings.model_dump(mode="json")
    try:
        shapes.check_mapping(shapes.Mapping.from_json(settings.mapping), row.kind)
    except ValueError as error:
        raise BadInput(f"The rows cannot be read so: {error}.", field="mapping") from None
    if row.kind != ImportKind.TEXT and not settings.pool:
        raise BadInput("Name the pool these prompts go to, in 1 to 80 characters.", field="pool")
    job = outbox.enqueue(
        session,
        project_id=row.project_id,
        kind=JOB,
        arguments={"import_id": row.id},
        requested_by_id=access.user.id,
    )
    row.job_id = job.id
    _record(session, access, "start import", row)
    return row


def cancel(session: Session, access: Access, uid: uuid.UUID) -> Import:
    """Stop an import; what it brought so far stays. Raises NotFound, Conflict where it is over."""
    access.demand(Permission.MANAGE_PROMPTS)
    row = find(session, access, uid)
    if row.job is None:
        raise Conflict("This import was not started; there is nothing to stop.")
    jobs.request_cancel(session, row.job)
    _record(session, access, "cancel import", row)
    return row


def retry(session: Session, access: Access, uid: uuid.UUID) -> Import:
    """Go on with a failed or stopped import from where it ended. Raises NotFound, Conflict."""
    access.demand(Permission.MANAGE_PROMPTS)
    row = find(session, access, uid)
    if row.job is None:
        raise Conflict("This import was not started yet.")
    jobs.reopen(session, row.job)
    _record(session, access, "retry import", row)
    return row


def discard(session: Session, access: Access, uid: uuid.UUID) -> None:
    """Throw away a file that was uploaded and never started. Raises NotFound, Conflict."""
    row = _lock(session, access, uid)
    if row.job_id is not None:
        raise Conflict("This import was started; it stays in the list, and what it brought in the project.")
    _record(session, access, "discard import", row)
    queries.delete_import(session, row)
    shutil.rmtree(storage.import_file(get_settings(), row.uid).parent, ignore_errors=True)


def sweep(session: Session, limit: int = 100) -> int:
    """Remove files that nobody has asked for in a week: drafts, and what ended without coming to its end. How many."""
    stale = queries.list_stale(session, days=KEPT_DAYS, limit=limit)
    for row in stale:
        shutil.rmtree(storage.import_file(get_settings(), row.uid).parent, ignore_errors=True)
        if row.job_id is None:
            queries.delete_import(session, row)
        else:
            row.has_upload = False
    return len(stale)


@dataclass(frozen=True)
class Progress:
    """How far an import is. `share` is of the file's length, None until that is known; `seconds_left` likewise."""

    share: float | None = None
    seconds_left: float | None = None


def find_progress(row: Import) -> Progress:
    """How far a running import is, and when it will be done if it goes on as so far."""
    job = row.job
    if job is None or not job.total or job.state not in LIVE:
        return Progress()
    share = min(job.progress / job.total, 1.0)
    if not share or job.started_at is None or job.state != JobState.RUNNING:
        return Progress(share)
    seconds = (datetime.now(UTC) - job.started_at).total_seconds()
    return Progress(share, seconds * (1 - share) / share if job.attempt == 1 else None)


def _record(session: Session, access: Access, action: str, row: Import) -> None:
    audit.record(
        session,
        actor=access.user,
        project=access.project,
        action=action,
        subject_kind="import",
        subject_uid=row.uid,
        file=row.name,
        kind=row.kind.value,
    )
