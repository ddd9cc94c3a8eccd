"""Prompts and their pools in SQL."""

import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Text, bindparam, cast, func, select, update
from sqlalchemy.dialects.postgresql import JSONPATH, insert
from sqlalchemy.orm import Session

from app.models import (
    Category,
    Json,
    Prompt,
    PromptPool,
    PromptStatus,
    Sample,
    SampleOrigin,
    Split,
    Task,
    TaskState,
)


@dataclass(frozen=True)
class PromptFilter:
    """What a list of prompts is narrowed to; None leaves a side open."""

    category: Category | None = None
    split: Split | None = None
    pool: str | None = None
    words: str | None = None
    """Text that some turn holds, upper and lower case alike."""


@dataclass(frozen=True)
class PromptRow:
    """A prompt in a list, with the name of its pool."""

    prompt: Prompt
    pool: str


def get_or_insert_pool(session: Session, project_id: int, name: str) -> PromptPool:
    """The pool of that name, made at need."""
    session.execute(insert(PromptPool).values(project_id=project_id, name=name).on_conflict_do_nothing())
    return session.scalars(select(PromptPool).where(PromptPool.project_id == project_id, PromptPool.name == name)).one()


def lock_imports(session: Session, project_id: int) -> None:
    """Let one import at a time into a project, so that two cannot put a source on two sides of the splits."""
    session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(f"prompts/{project_id}", 0))))


def insert_prompts(session: Session, rows: Sequence[Json]) -> int:
    """Add prompts whose fingerprint the project lacks; gives how many were added."""
    added = session.execute(
        insert(Prompt)
        .on_conflict_do_nothing(index_elements=[Prompt.project_id, Prompt.fingerprint])
        .returning(Prompt.id),
        rows,
    )
    return len(added.all())


def find_prompt(session: Session, project_id: int, uid: uuid.UUID) -> Prompt | None:
    """The prompt with this uid in the project."""
    return session.scalar(select(Prompt).where(Prompt.project_id == project_id, Prompt.uid == uid))


def lock_prompt(session: Session, prompt_id: int) -> Prompt:
    """The prompt's row, locked until the transaction ends."""
    return session.scalars(
        select(Prompt)
        .where(Prompt.id == prompt_id)
        .with_for_update(key_share=True)
        .execution_options(populate_existing=True)
    ).one()


def lock_active(session: Session, prompt_ids: Collection[int]) -> set[int]:
    """Those of these prompts that are active, kept so until the transaction ends: lock them before opening tasks on them."""
    return set(
        session.scalars(
            select(Prompt.id)
            .where(Prompt.id.in_(prompt_ids), Prompt.status == PromptStatus.ACTIVE)
            .order_by(Prompt.id)
            .with_for_update(read=True)
        )
    )


def lock_open_tasks(session: Session, prompt: Prompt) -> Sequence[Task]:
    """A prompt's open tasks, locked against leasing and submitting until the transaction ends."""
    return session.scalars(
        select(Task)
        .where(Task.project_id == prompt.project_id, Task.prompt_id == prompt.id, Task.state == TaskState.OPEN)
        .order_by(Task.id)
        .with_for_update(key_share=True)
        .execution_options(populate_existing=True)
    ).all()


@dataclass(frozen=True)
class StoredRow:
    """A prompt that is stored, and whose it is."""

    id: int
    source: str


def map_stored(session: Session, project_id: int, fingerprints: Sequence[bytes]) -> Mapping[bytes, StoredRow]:
    """Stored prompts by fingerprint."""
    rows = session.execute(
        select(Prompt.fingerprint, Prompt.id, Prompt.source).where(
            Prompt.project_id == project_id, Prompt.fingerprint.in_(fingerprints)
        )
    )
    return {bytes(fingerprint): StoredRow(prompt_id, source) for fingerprint, prompt_id, source in rows}


def map_splits(session: Session, project_id: int, sources: Sequence[str]) -> Mapping[str, Split]:
    """The split each of these sources has in the project already."""
    rows = session.execute(
        select(Prompt.source, Prompt.split)
        .where(Prompt.project_id == project_id, Prompt.source.in_(sources))
        .distinct()
        .order_by(Prompt.source)
    )
    return {source: split for source, split in rows}


def list_imported(session: Session, project_id: int, prompt_ids: Sequence[int]) -> set[tuple[int, str]]:
    """Prompt and text of the samples that were imported for these prompts."""
    rows = session.execute(
        select(Sample.prompt_id, Sample.text).where(
            Sample.project_id == project_id,
            Sample.prompt_id.in_(prompt_ids),
            Sample.origin == SampleOrigin.IMPORTED,
        )
    )
    return {(prompt_id, text) for prompt_id, text in rows}


def insert_samples(session: Session, samples: Sequence[Sample]) -> None:
    """Add samples."""
    session.add_all(samples)
    session.flush()


def set_parents(session: Session, parents: Sequence[Json]) -> None:
    """Set `parent_id` of the prompts `id`, where none is set."""
    session.connection().execute(
        update(Prompt)
        .where(Prompt.id == bindparam("prompt_id"), Prompt.parent_id.is_(None))
        .values(parent_id=bindparam("new_parent_id")),
        [{"prompt_id": row["id"], "new_parent_id": row["parent_id"]} for row in parents],
    )


def page_prompts(
    session: Session, project_id: int, wanted: PromptFilter, *, before: int | None, limit: int
) -> Sequence[PromptRow]:
    """Newest prompts first, those with an id below `before`."""
    query = (
        select(Prompt, PromptPool.name)
        .join(PromptPool, PromptPool.id == Prompt.pool_id)
        .where(Prompt.project_id == project_id)
        .order_by(Prompt.id.desc())
        .limit(limit)
    )
    if before is not None:
        query = query.where(Prompt.id < before)
    if wanted.category:
        query = query.where(Prompt.category == wanted.category)
    if wanted.split:
        query = query.where(Prompt.split == wanted.split)
    if wanted.pool:
        query = query.where(PromptPool.name == wanted.pool)
    if wanted.words:
        turns = cast(func.jsonb_path_query_array(Prompt.messages, cast("$[*].content", JSONPATH)), Text)
        query = query.where(turns.icontains(wanted.words, autoescape=True))
    return [PromptRow(prompt, pool) for prompt, pool in session.execute(query)]


def list_pools(session: Session, project_id: int) -> Sequence[str]:
    """Names of the pools."""
    return session.scalars(
        select(PromptPool.name).where(PromptPool.project_id == project_id).order_by(PromptPool.name)
    ).all()


def count_by_split(session: Session, project_id: int) -> Mapping[Split, int]:
    """How many prompts each split has."""
    rows = session.execute(
        select(Prompt.split, func.count()).where(Prompt.project_id == project_id).group_by(Prompt.split)
    )
    return {split: count for split, count in rows}
