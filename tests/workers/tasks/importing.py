"""Files brought in as a worker does it, without the broker in between."""

import io
import json
import uuid
from collections.abc import Iterable
from typing import Any

from sqlalchemy import func, select

from app import db
from app.models import Import, ImportKind, JobState, Prompt
from app.permissions import Access
from app.queries import imports as queries
from app.schemas.imports import Counts, ImportSettings
from app.services import imports
from workers.tasks.imports import import_file

LONG = (
    "A farmer has twelve hens, and each of them lays five eggs in a week. He sells the eggs by the dozen at the market "
    "of the next town, where a dozen costs three coins. On the way he loses one egg in ten, since the road is bad."
)
"""A prompt beyond the length of a common prefix."""


def stored(access: Access) -> list[Prompt]:
    """The prompts of a project, oldest first."""
    with db.transaction() as session:
        return list(session.scalars(select(Prompt).where(Prompt.project_id == access.project.id).order_by(Prompt.id)))


def count(table: Any, *conditions: Any) -> int:
    """How many rows of a table meet the conditions."""
    with db.transaction() as session:
        return session.scalars(select(func.count()).select_from(table).where(*conditions)).one()


def jsonl(*rows: object) -> bytes:
    """A file of JSON lines; a text is a line as it stands."""
    return "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows).encode()


def put(access: Access, data: bytes, kind: ImportKind = ImportKind.PROMPTS, *, name: str = "rows.jsonl") -> uuid.UUID:
    """Upload a file."""
    with db.transaction() as session:
        return imports.upload(session, access, kind=kind, name=name, data=io.BytesIO(data)).uid


def start(access: Access, uid: uuid.UUID, **settings: Any) -> int:
    """Start an import with these settings in place of those guessed; the job's id."""
    with db.transaction() as session:
        row = imports.find(session, access, uid)
        told = ImportSettings.model_validate(row.settings | settings)
        job_id = imports.start(session, access, uid, told).job_id
    assert job_id is not None
    return job_id


def read(access: Access, uid: uuid.UUID) -> tuple[Import, Counts, list[tuple[int, str]]]:
    """An import as it stands, its counts, and what it refused."""
    with db.transaction() as session:
        row = imports.find(session, access, uid)
        refusals = queries.page_refusals(session, row.id, after=0, limit=1000)
        return row, Counts.from_json(row.counts), [(one.line, one.reason) for one in refusals]


def bring(
    access: Access,
    rows: Iterable[object] | bytes,
    kind: ImportKind = ImportKind.PROMPTS,
    *,
    name: str = "rows.jsonl",
    **settings: Any,
) -> tuple[Counts, list[tuple[int, str]]]:
    """Upload, start and bring in a file; what was counted, and what was refused."""
    uid = put(access, rows if isinstance(rows, bytes) else jsonl(*rows), kind, name=name)
    import_file(start(access, uid, **settings))
    row, counts, refusals = read(access, uid)
    assert row.job is not None
    assert row.job.state == JobState.SUCCEEDED, row.job.error
    return counts, refusals
