"""SQL of the pools' pages: prompts by filter, their distribution, and edits of many at once that can be undone."""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Integer,
    Select,
    Text,
    Update,
    case,
    cast,
    func,
    insert,
    literal,
    select,
    true,
    update,
)
from sqlalchemy.dialects.postgresql import JSONPATH
from sqlalchemy.orm import InstrumentedAttribute, Session

from app.models import (
    Category,
    Import,
    Json,
    Lease,
    LeaseState,
    Prompt,
    PromptEdit,
    PromptEditRow,
    PromptPool,
    PromptStatus,
    Split,
    Task,
    TaskState,
)


@dataclass(frozen=True)
class PromptFilter:
    """What a list of prompts is narrowed to; None leaves a side open. The only fields a page or program can ask by."""

    category: Category | None = None
    is_uncategorised: bool = False
    split: Split | None = None
    status: PromptStatus | None = None
    pool: uuid.UUID | None = None
    language: str | None = None
    source: str | None = None
    of_import: uuid.UUID | None = None
    words: str | None = None
    """Text that some turn holds, upper and lower case alike."""

    @property
    def is_open(self) -> bool:
        """Whether it leaves everything in."""
        return self == PromptFilter()


@dataclass(frozen=True)
class PromptRow:
    """A prompt in a list, with the name of its pool and, of a duplicate, what it is one of."""

    prompt: Prompt
    pool: str
    original: list[Json] | None


EDITABLE: Mapping[str, InstrumentedAttribute[Any]] = {
    "status": Prompt.status,
    "category": Prompt.category,
    "pool_id": Prompt.pool_id,
}
"""Columns that an edit of many prompts may set."""

SUGGESTED = "suggested"
"""Value of an edit that gave each prompt the category that was suggested for it."""


def page_prompts(
    session: Session, project_id: int, wanted: PromptFilter, *, before: int | None, limit: int
) -> Sequence[PromptRow]:
    """Newest prompts first, those with an id below `before`."""
    original = select(Prompt).subquery()
    query = (
        _matching(select(Prompt, PromptPool.name, original.c.messages), project_id, wanted)
        .join(PromptPool, PromptPool.id == Prompt.pool_id)
        .outerjoin(original, original.c.id == Prompt.duplicate_of_id)
        .order_by(Prompt.id.desc())
        .limit(limit)
    )
    if before is not None:
        query = query.where(Prompt.id < before)
    return [PromptRow(*row) for row in session.execute(query)]


def _matching(query: Select[Any], project_id: int, wanted: PromptFilter) -> Select[Any]:
    """`query` narrowed to what a filter lets through."""
    return query.where(Prompt.project_id == project_id, *_conditions(project_id, wanted))


def _conditions(project_id: int, wanted: PromptFilter) -> list[ColumnElement[bool]]:
    equal: list[tuple[InstrumentedAttribute[Any], Any]] = [
        (Prompt.category, wanted.category),
        (Prompt.split, wanted.split),
        (Prompt.status, wanted.status),
        (Prompt.language, wanted.language),
        (Prompt.source, wanted.source),
    ]
    conditions = [column == value for column, value in equal if value is not None]
    if wanted.is_uncategorised:
        conditions.append(Prompt.category.is_(None))
    if wanted.pool is not None:
        named = select(PromptPool.id).where(PromptPool.project_id == project_id, PromptPool.uid == wanted.pool)
        conditions.append(Prompt.pool_id.in_(named))
    if wanted.of_import is not None:
        of = (Import.project_id == project_id, Import.uid == wanted.of_import)
        conditions += [
            Prompt.import_id == select(Import.id).where(*of).scalar_subquery(),
            Prompt.id >= select(Import.first_prompt_id).where(*of).scalar_subquery(),
            Prompt.id <= select(Import.last_prompt_id).where(*of).scalar_subquery(),
        ]
    if wanted.words:
        turns = cast(func.jsonb_path_query_array(Prompt.messages, cast("$[*].content", JSONPATH)), Text)
        conditions.append(turns.icontains(wanted.words, autoescape=True))
    return conditions


def count_prompts(session: Session, project_id: int, wanted: PromptFilter) -> int:
    """How many prompts a filter lets through."""
    return int(session.scalars(_matching(select(func.count()).select_from(Prompt), project_id, wanted)).one())


GROUPS: Mapping[str, ColumnElement[Any] | InstrumentedAttribute[Any]] = {
    "category": Prompt.category,
    "split": Prompt.split,
    "status": Prompt.status,
    "language": Prompt.language,
    "turns": func.least(func.ceil(func.jsonb_array_length(Prompt.messages) / 2.0), 10).cast(Integer),
}
"""By what a distribution can be taken."""


def count_by(session: Session, project_id: int, wanted: PromptFilter, group: str) -> Mapping[Any, int]:
    """How many prompts of a filter there are of each value of a group; None for those without."""
    column = GROUPS[group]
    query = _matching(select(column, func.count()).select_from(Prompt), project_id, wanted).group_by(column)
    return {value: count for value, count in session.execute(query)}


LENGTHS = (50, 100, 200, 500, 1000, 2000, 5000)
"""Upper ends of the classes of length, in characters of the last turn; the last class is open."""


def count_lengths(session: Session, project_id: int, wanted: PromptFilter) -> list[int]:
    """How many prompts fall into each class of length."""
    length = func.length(Prompt.messages[-1]["content"].astext)
    classes = case(*((length <= end, at) for at, end in enumerate(LENGTHS)), else_=len(LENGTHS))
    query = _matching(select(classes, func.count()).select_from(Prompt), project_id, wanted).group_by(classes)
    found = {at: count for at, count in session.execute(query)}
    return [found.get(at, 0) for at in range(len(LENGTHS) + 1)]


@dataclass(frozen=True)
class PoolRow:
    """A pool and what is in it."""

    pool: PromptPool
    active: int
    kept_out: int


def list_pool_rows(session: Session, project_id: int) -> Sequence[PoolRow]:
    """The pools by name, with how many prompts work and how many are kept out."""
    is_active = Prompt.status == PromptStatus.ACTIVE
    counts = (
        select(
            Prompt.pool_id,
            func.count().filter(is_active).label("active"),
            func.count().filter(~is_active).label("kept_out"),
        )
        .where(Prompt.project_id == project_id)
        .group_by(Prompt.pool_id)
        .subquery()
    )
    rows = session.execute(
        select(PromptPool, func.coalesce(counts.c.active, 0), func.coalesce(counts.c.kept_out, 0))
        .outerjoin(counts, counts.c.pool_id == PromptPool.id)
        .where(PromptPool.project_id == project_id)
        .order_by(PromptPool.name)
    )
    return [PoolRow(*row) for row in rows]


def find_pool(session: Session, project_id: int, uid: uuid.UUID) -> PromptPool | None:
    """The pool with this uid."""
    return session.scalar(select(PromptPool).where(PromptPool.project_id == project_id, PromptPool.uid == uid))


def edit_prompts(
    session: Session,
    edit: PromptEdit,
    wanted: PromptFilter,
    *,
    uids: Sequence[uuid.UUID] | None,
    except_private: bool,
    most: int,
) -> int:
    """Set the column of an edit on the prompts of a filter, or on those of these uids alone, noting what they were; how many.

    Of more than `most`, one more than that are changed: the caller is to take it back.
    """
    column = EDITABLE[edit.field]
    target: Any = int(edit.value) if edit.field == "pool_id" and edit.value is not None else edit.value
    session.add(edit)
    session.flush()
    conditions = [*_chosen(edit.project_id, wanted, uids), column.is_distinct_from(target)]
    if except_private:
        conditions.append(~Prompt.is_private)
    locked = (
        select(Prompt.id, cast(column, Text).label("before"), Prompt.is_category_labelled)
        .where(*conditions)
        .order_by(Prompt.id)
        .limit(most + 1)
        .with_for_update(key_share=True)
        .cte("locked")
    )
    names = ["project_id", "edit_id", "prompt_id", "before", "after", "was_labelled"]
    given = (literal(edit.project_id), literal(edit.id))
    rows = select(*given, locked.c.id, locked.c.before, literal(edit.value, Text), locked.c.is_category_labelled)
    session.execute(insert(PromptEditRow).from_select(names, rows))
    changed = update(Prompt).where(Prompt.id.in_(of_edit(edit))).values({column: target})
    if edit.field == "category":
        changed = changed.values(is_category_labelled=False)
    edit.prompts = _rows(session, changed)
    session.flush()
    return edit.prompts


def _rows(session: Session, statement: Update) -> int:
    """How many rows a statement changed."""
    result = session.connection().execute(statement)
    return int(result.rowcount)


def _chosen(project_id: int, wanted: PromptFilter, uids: Sequence[uuid.UUID] | None) -> list[ColumnElement[bool]]:
    conditions = [Prompt.project_id == project_id, *_conditions(project_id, wanted)]
    return conditions if uids is None else [*conditions, Prompt.uid.in_(uids)]


def list_uncategorised(
    session: Session, project_id: int, wanted: PromptFilter, uids: Sequence[uuid.UUID] | None, *, limit: int
) -> Sequence[tuple[int, list[Json]]]:
    """Prompts without a category among the chosen, with their turns, locked against another edit."""
    rows = session.execute(
        select(Prompt.id, Prompt.messages)
        .where(*_chosen(project_id, wanted, uids), Prompt.category.is_(None))
        .order_by(Prompt.id)
        .limit(limit)
        .with_for_update(key_share=True)
    )
    return [(prompt_id, messages) for prompt_id, messages in rows]


def set_categories(session: Session, edit: PromptEdit, chosen: Mapping[Category, Sequence[int]]) -> None:
    """Give prompts without a category one, as an edit of `SUGGESTED`, which undone makes it none again."""
    session.add(edit)
    session.flush()
    for category, prompt_ids in chosen.items():
        names = ["project_id", "edit_id", "prompt_id", "after"]
        ids = select(literal(edit.project_id), literal(edit.id), Prompt.id, literal(category.value)).where(
            Prompt.id == func.any(prompt_ids)
        )
        session.execute(insert(PromptEditRow).from_select(names, ids))
        session.execute(update(Prompt).where(Prompt.id == func.any(prompt_ids)).values(category=category))


def of_edit(edit: PromptEdit) -> Select[Any]:
    """Ids of the prompts that an edit changed."""
    return select(PromptEditRow.prompt_id).where(PromptEditRow.edit_id == edit.id)


def lock_edit(session: Session, project_id: int, uid: uuid.UUID) -> PromptEdit | None:
    """An edit, locked until the transaction ends."""
    return session.scalar(
        select(PromptEdit).where(PromptEdit.project_id == project_id, PromptEdit.uid == uid).with_for_update()
    )


def find_edit(session: Session, project_id: int, uid: uuid.UUID) -> PromptEdit | None:
    """The edit with this uid."""
    return session.scalar(select(PromptEdit).where(PromptEdit.project_id == project_id, PromptEdit.uid == uid))


def undo_edit(session: Session, edit: PromptEdit) -> int:
    """Make the prompts of an edit what they were, where nobody has changed them since; how many."""
    column = EDITABLE[edit.field]
    before: Any = PromptEditRow.before
    if edit.field == "pool_id":
        before = cast(before, Prompt.pool_id.type)
    changes: dict[Any, Any] = {column: before}
    if edit.field == "category":
        changes[Prompt.is_category_labelled] = PromptEditRow.was_labelled
    return _rows(
        session,
        update(Prompt)
        .where(
            Prompt.id == PromptEditRow.prompt_id,
            PromptEditRow.edit_id == edit.id,
            cast(column, Text).is_not_distinct_from(PromptEditRow.after),
            ~Prompt.is_category_labelled if edit.field == "category" else true(),
        )
        .values(changes),
    )


def shut_waiting(session: Session, edit: PromptEdit) -> None:
    """Let the imported tasks that an edit opened, and nobody has taken, wait again: their prompts are out once more."""
    taken = select(Lease.id).where(Lease.task_id == Task.id).exists()
    session.execute(
        update(Task)
        .where(
            Task.prompt_id.in_(of_edit(edit)),
            Task.prompt_id == Prompt.id,
            Prompt.status != PromptStatus.ACTIVE,
            Task.state == TaskState.OPEN,
            Task.import_id.is_not(None),
            ~taken,
        )
        .values(state=TaskState.WAITING)
        .execution_options(synchronize_session=False)
    )


def retire_tasks(session: Session, edit: PromptEdit) -> Sequence[Task]:
    """Retire the open tasks of an edit's prompts; those of them that somebody holds."""
    session.execute(
        update(Task)
        .where(Task.prompt_id.in_(of_edit(edit)), Task.project_id == edit.project_id, Task.state == TaskState.OPEN)
        .values(state=TaskState.RETIRED)
        .execution_options(synchronize_session=False)
    )
    held = (
        select(Lease.task_id)
        .join(Task, Task.id == Lease.task_id)
        .where(Task.prompt_id.in_(of_edit(edit)), Lease.state == LeaseState.HELD)
    )
    return session.scalars(select(Task).where(Task.id.in_(held)).order_by(Task.id)).all()


def page_quarantine(
    session: Session, project_id: int, *, of_import: uuid.UUID | None, before: int | None, limit: int
) -> Sequence[PromptRow]:
    """Quarantined prompts, newest first."""
    wanted = replace(PromptFilter(status=PromptStatus.PII), of_import=of_import)
    return page_prompts(session, project_id, wanted, before=before, limit=limit)
