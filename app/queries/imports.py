"""SQL of imports: the files, what was refused of them, names of their rows, sources, and segments of keys."""

import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import delete, func, or_, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session, joinedload

from app.intake.segments import Segment
from app.models import Import, ImportKey, ImportRefusal, Job, Json, Prompt, PromptSegment, PromptSource, Split
from app.queries.bulk import copy_rows
from app.queries.jobs import LIVE


def insert_import(session: Session, row: Import) -> None:
    """Add a file that was uploaded."""
    session.add(row)
    session.flush()


def delete_import(session: Session, row: Import) -> None:
    """Remove a draft."""
    session.delete(row)
    session.flush()


def find_import(session: Session, project_id: int, uid: uuid.UUID) -> Import | None:
    """The import with this uid, with its job."""
    return session.scalar(
        select(Import).where(Import.project_id == project_id, Import.uid == uid).options(joinedload(Import.job))
    )


def get_import(session: Session, import_id: int) -> Import:
    """The import with this id."""
    return session.get_one(Import, import_id)


def lock_import(session: Session, import_id: int) -> Import:
    """The import's row, locked until the transaction ends."""
    return session.scalars(
        select(Import).where(Import.id == import_id).with_for_update().execution_options(populate_existing=True)
    ).one()


def list_stale(session: Session, *, days: int, limit: int) -> Sequence[Import]:
    """Drafts, and imports that have ended, of so many days ago whose file may still be there, locked."""
    is_over = Job.state.not_in(LIVE)
    return session.scalars(
        select(Import)
        .outerjoin(Job, Job.id == Import.job_id)
        .where(
            Import.has_upload,
            func.coalesce(Job.finished_at, Import.created_at) < func.now() - timedelta(days=days),
            or_(Import.job_id.is_(None), is_over),
        )
        .order_by(Import.id)
        .limit(limit)
        .with_for_update(of=Import, skip_locked=True)
    ).all()


def page_imports(session: Session, project_id: int, *, before: int | None, limit: int) -> Sequence[Import]:
    """Imports, newest first, those with an id below `before`."""
    query = select(Import).where(Import.project_id == project_id).options(joinedload(Import.job))
    if before is not None:
        query = query.where(Import.id < before)
    return session.scalars(query.order_by(Import.id.desc()).limit(limit)).all()


def insert_refusals(session: Session, row: Import, refusals: Sequence[tuple[int, str]]) -> None:
    """Note rows that were not imported, as (line, reason)."""
    columns = ("project_id", "import_id", "line", "reason")
    copy_rows(session, ImportRefusal, columns, ((row.project_id, row.id, *refusal) for refusal in refusals))


def page_refusals(session: Session, import_id: int, *, after: int, limit: int) -> Sequence[ImportRefusal]:
    """Refused rows in the order of the file, those with an id above `after`."""
    return session.scalars(
        select(ImportRefusal)
        .where(ImportRefusal.import_id == import_id, ImportRefusal.id > after)
        .order_by(ImportRefusal.id)
        .limit(limit)
    ).all()


def map_keys(session: Session, import_id: int, keys: Collection[str]) -> Mapping[str, int]:
    """The prompts behind names that the file gave to earlier rows."""
    rows = session.execute(
        select(ImportKey.key, ImportKey.prompt_id).where(ImportKey.import_id == import_id, ImportKey.key.in_(keys))
    )
    return {key: prompt_id for key, prompt_id in rows}


def delete_keys(session: Session, import_id: int) -> None:
    """Forget the names of rows, of which there will be no more."""
    session.execute(delete(ImportKey).where(ImportKey.import_id == import_id))


def keep_alive(session: Session) -> None:
    """Show the database that a transaction which waits for a file is at work: an idle one is ended after a minute."""
    session.execute(select(1))


def insert_keys(session: Session, project_id: int, import_id: int, keys: Mapping[str, int]) -> None:
    """Keep the names of rows for those to come."""
    rows = [{"project_id": project_id, "import_id": import_id, "key": key, "prompt_id": keys[key]} for key in keys]
    session.execute(insert(ImportKey).on_conflict_do_nothing(), rows)


@dataclass
class SourceRow:
    """A source as it stands: its split, how many of its prompts are kept, and how many were added since it was read."""

    split: Split
    prompts: int
    added: int = 0
    is_stored: bool = True


def map_sources(session: Session, project_id: int, names: Collection[str]) -> dict[str, SourceRow]:
    """Those of these sources that the project knows."""
    if not names:
        return {}
    rows = session.execute(
        select(PromptSource.name, PromptSource.split, PromptSource.prompts).where(
            PromptSource.project_id == project_id, PromptSource.name == func.any(list(names))
        )
    )
    return {name: SourceRow(split, prompts) for name, split, prompts in rows}


def upsert_sources(session: Session, project_id: int, sources: Mapping[str, SourceRow]) -> None:
    """Write what was added to these sources."""
    if not sources:
        return
    names = sorted(sources)
    session.execute(
        _UPSERT_SOURCES,
        {
            "project_id": project_id,
            "names": names,
            "splits": [sources[name].split.value for name in names],
            "added": [sources[name].added for name in names],
        },
    )


_UPSERT_SOURCES = text("""
    INSERT INTO prompt_sources (project_id, name, split, prompts)
    SELECT :project_id, given.name, given.split, given.prompts
    FROM unnest(CAST(:names AS text[]), CAST(:splits AS text[]), CAST(:added AS bigint[])) AS given (name, split, prompts)
    ON CONFLICT (project_id, name) DO UPDATE SET prompts = prompt_sources.prompts + excluded.prompts
""")


def list_segment_ids(session: Session, project_id: int) -> Sequence[int]:
    """Ids of a project's segments."""
    return session.scalars(select(PromptSegment.id).where(PromptSegment.project_id == project_id)).all()


def list_segment_sizes(session: Session, project_id: int) -> Sequence[tuple[int, int]]:
    """Id of each segment and how many prompts it is of, oldest first."""
    rows = session.execute(
        select(PromptSegment.id, PromptSegment.prompts)
        .where(PromptSegment.project_id == project_id)
        .order_by(PromptSegment.id)
    )
    return [(segment_id, prompts) for segment_id, prompts in rows]


def get_segment(session: Session, segment_id: int) -> Segment:
    """A segment's keys."""
    keys, ids = session.execute(
        select(PromptSegment.keys, PromptSegment.ids).where(PromptSegment.id == segment_id)
    ).one()
    return Segment(keys=bytes(keys), ids=bytes(ids))


def insert_segment(session: Session, project_id: int, segment: Segment, *, prompts: int) -> int:
    """Keep the keys of some prompts; the segment's id."""
    row = PromptSegment(project_id=project_id, keys=segment.keys, ids=segment.ids, prompts=prompts)
    session.add(row)
    session.flush()
    session.expunge(row)
    return row.id


def delete_segments(session: Session, ids: Collection[int]) -> None:
    """Remove segments that another takes the place of."""
    session.execute(delete(PromptSegment).where(PromptSegment.id.in_(ids)))


def list_unindexed(session: Session, project_id: int, *, limit: int) -> Sequence[tuple[int, list[Json]]]:
    """Prompts whose keys are in no segment."""
    rows = session.execute(
        select(Prompt.id, Prompt.messages)
        .where(Prompt.project_id == project_id, ~Prompt.is_indexed)
        .order_by(Prompt.id)
        .limit(limit)
    )
    return [(prompt_id, messages) for prompt_id, messages in rows]


def mark_indexed(session: Session, ids: Collection[int]) -> None:
    """Note that these prompts have their keys in a segment."""
    session.execute(update(Prompt).where(Prompt.id.in_(ids)).values(is_indexed=True))
