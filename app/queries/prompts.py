"""Prompts and their pools in SQL."""

import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Integer, LargeBinary, Select, bindparam, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from app.models import (
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


def get_or_insert_pool(session: Session, project_id: int, name: str) -> PromptPool:
    """The pool of that name, made at need."""
    session.execute(insert(PromptPool).values(project_id=project_id, name=name).on_conflict_do_nothing())
    return session.scalars(select(PromptPool).where(PromptPool.project_id == project_id, PromptPool.name == name)).one()


def lock_imports(session: Session, project_id: int) -> None:
    """Let one import at a time into a project, so that two cannot put a source on two sides of the splits."""
    session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(f"prompts/{project_id}", 0))))


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
    """A prompt that is stored, whose it is, and on which side of the splits."""

    id: int
    source: str
    split: Split


def map_stored(session: Session, project_id: int, fingerprints: Sequence[bytes]) -> dict[bytes, StoredRow]:
    """Stored prompts by fingerprint."""
    rows = session.execute(
        _MAP_STORED, {"project_id": project_id, "fingerprints": b"".join(fingerprints), "last": len(fingerprints) - 1}
    )
    return {bytes(fingerprint): StoredRow(prompt_id, source, split) for fingerprint, prompt_id, source, split in rows}


_FINGERPRINT_BYTES = 32
_given = func.generate_series(0, bindparam("last", type_=Integer)).table_valued("number").render_derived("given")
_MAP_STORED = select(Prompt.fingerprint, Prompt.id, Prompt.source, Prompt.split).where(
    Prompt.project_id == bindparam("project_id"),
    Prompt.fingerprint
    == func.substring(
        bindparam("fingerprints", type_=LargeBinary), _given.c.number * _FINGERPRINT_BYTES + 1, _FINGERPRINT_BYTES
    ),
)
"""All fingerprints come as one value: a list of thousands takes several times as long to be written and read."""


def find_active(session: Session, project_id: int, fingerprint: bytes) -> int | None:
    """The active prompt of this fingerprint."""
    return session.scalar(
        select(Prompt.id).where(
            Prompt.project_id == project_id,
            Prompt.fingerprint == fingerprint,
            Prompt.status == PromptStatus.ACTIVE,
        )
    )


def map_rows(session: Session, prompt_ids: Sequence[int]) -> dict[int, StoredRow]:
    """Stored prompts by id."""
    rows = session.execute(select(Prompt.id, Prompt.source, Prompt.split).where(Prompt.id.in_(prompt_ids)))
    return {row[0]: StoredRow(*row) for row in rows}


def map_messages(session: Session, prompt_ids: Collection[int]) -> dict[int, list[Json]]:
    """The turns of those of these prompts that are active, by id."""
    rows = session.execute(
        select(Prompt.id, Prompt.messages).where(
            Prompt.id == func.any(list(prompt_ids)), Prompt.status == PromptStatus.ACTIVE
        )
    )
    return {prompt_id: messages for prompt_id, messages in rows}


def list_imported(session: Session, project_id: int, prompt_ids: Collection[int]) -> set[tuple[int, str]]:
    """Prompt and text of the samples that were imported for these prompts."""
    rows = session.execute(
        select(Sample.prompt_id, Sample.text).where(
            Sample.project_id == project_id,
            Sample.prompt_id == func.any(list(prompt_ids)),
            Sample.origin == SampleOrigin.IMPORTED,
        )
    )
    return {(prompt_id, text) for prompt_id, text in rows}


def open_waiting(session: Session, prompt_ids: Collection[int] | Select[Any]) -> None:
    """Open the tasks that wait for these prompts to be let in."""
    session.execute(
        update(Task)
        .where(Task.prompt_id.in_(prompt_ids), Task.state == TaskState.WAITING)
        .values(state=TaskState.OPEN)
        .execution_options(synchronize_session=False)
    )


def set_parents(session: Session, parents: Sequence[Json]) -> None:
    """Set `parent_id` of the prompts `id`, where none is set."""
    session.connection().execute(
        update(Prompt)
        .where(Prompt.id == bindparam("prompt_id"), Prompt.parent_id.is_(None))
        .values(parent_id=bindparam("new_parent_id")),
        [{"prompt_id": row["id"], "new_parent_id": row["parent_id"]} for row in parents],
    )


def list_pools(session: Session, project_id: int) -> Sequence[PromptPool]:
    """The pools, by name."""
    return session.scalars(
        select(PromptPool).where(PromptPool.project_id == project_id).order_by(PromptPool.name)
    ).all()


def count_by_split(session: Session, project_id: int) -> Mapping[Split, int]:
    """How many prompts each split has."""
    rows = session.execute(
        select(Prompt.split, func.count()).where(Prompt.project_id == project_id).group_by(Prompt.split)
    )
    return {split: count for split, count in rows}
