"""Pools in an admin's hands: many prompts changed at once and changed back, pools switched off, quarantined prompts looked at."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import func  # sql: the database's clock, as a value
from sqlalchemy.orm import Session

from app.errors import BadInput, Conflict, NotFound
from app.intake import categories, likeness, pii
from app.models import Category, Prompt, PromptEdit, PromptPool, PromptStatus
from app.permissions import Access, Permission
from app.queries import pools as queries
from app.queries import prompts as prompt_queries
from app.queries.pools import PromptFilter
from app.services import audit, notices, prompt_labels


class Act(StrEnum):
    """What can be done to many prompts at once."""

    ACTIVATE = "activate"
    RETIRE = "retire"
    CATEGORISE = "categorise"
    ACCEPT = "accept"
    """Take the categories that were suggested."""
    MOVE = "move"


@dataclass(frozen=True)
class Change:
    """An act with what it needs: the category of `categorise`, the pool's name of `move`."""

    act: Act
    category: Category | None = None
    pool: str = ""


MOST_EDITED = 100_000
"""Prompts of one edit: they are locked while a page waits."""

_RETIRED_NOTICE = "A task you had begun is retired: its prompt was taken out of the work. What you did is kept."


def edit(
    session: Session, access: Access, wanted: PromptFilter, change: Change, *, uids: Sequence[uuid.UUID] | None = None
) -> PromptEdit:
    """Change the prompts of a filter, or those of these uids alone; `undo` takes it back. Tasks of retired prompts stay retired.

    Quarantined prompts are not let in so: somebody looks at each. Raises BadInput where nothing would change.
    """
    access.demand(Permission.MANAGE_PROMPTS)
    if uids is not None and not uids:
        raise BadInput("No prompt was chosen. Tick some, or choose all that match.")
    if change.act == Act.ACCEPT:
        return _accept(session, access, wanted, uids)
    field, value = _target(session, access, change)
    made = PromptEdit(project_id=access.project.id, author_id=access.user.id, field=field, value=value, prompts=0)
    queries.edit_prompts(session, made, wanted, uids=uids, except_private=change.act == Act.ACTIVATE, most=MOST_EDITED)
    if made.prompts > MOST_EDITED:
        raise BadInput(
            f"More than {MOST_EDITED:,} prompts match. Narrow the filter, by pool or split, and change them in parts; a whole "
            "pool can be switched off at once."
        )
    if not made.prompts:
        raise BadInput(
            "Nothing would change: the chosen prompts are so already, or wait in quarantine for a look at each."
        )
    if change.act == Act.ACTIVATE:
        prompt_queries.open_waiting(session, queries.of_edit(made))
    if change.act == Act.RETIRE:
        for task in queries.retire_tasks(session, made):
            notices.tell_at_work(session, task, _RETIRED_NOTICE)
    _record(session, access, "edit prompts", made)
    return made


def _target(session: Session, access: Access, change: Change) -> tuple[str, str | None]:
    match change.act:
        case Act.ACTIVATE:
            return "status", PromptStatus.ACTIVE.value
        case Act.RETIRE:
            return "status", PromptStatus.RETIRED.value
        case Act.MOVE:
            name = change.pool.strip()
            if not 1 <= len(name) <= 80 or "\x00" in name:
                raise BadInput("Name the pool to move them to, in 1 to 80 characters.", field="pool")
            return "pool_id", str(prompt_queries.get_or_insert_pool(session, access.project.id, name).id)
        case _:
            return "category", change.category.value if change.category else None


def _accept(session: Session, access: Access, wanted: PromptFilter, uids: Sequence[uuid.UUID] | None) -> PromptEdit:
    """Give the chosen prompts that have no category the one that patterns suggest, where they suggest any."""
    rows = queries.list_uncategorised(session, access.project.id, wanted, uids, limit=MOST_EDITED + 1)
    if len(rows) > MOST_EDITED:
        raise BadInput(
            f"More than {MOST_EDITED:,} of these prompts have no category. Narrow the filter, by pool or split, and accept "
            "them in parts."
        )
    chosen: dict[Category, list[int]] = {}
    for prompt_id, messages in rows:
        if (category := categories.suggest_category(messages)) is not None:
            chosen.setdefault(category, []).append(prompt_id)
    count = sum(map(len, chosen.values()))
    if not count:
        raise BadInput("Nothing would change: the chosen prompts have a category, or nothing in them suggests one.")
    made = PromptEdit(
        project_id=access.project.id,
        author_id=access.user.id,
        field="category",
        value=queries.SUGGESTED,
        prompts=count,
    )
    queries.set_categories(session, made, chosen)
    _record(session, access, "edit prompts", made)
    return made


def undo(session: Session, access: Access, uid: uuid.UUID) -> int:
    """Take an edit back where nobody has changed the prompts since; how many. Raises NotFound, Conflict for a second time."""
    access.demand(Permission.MANAGE_PROMPTS)
    made = queries.lock_edit(session, access.project.id, uid)
    if made is None:
        raise NotFound("There is no such edit in this project.")
    if made.undone_at is not None:
        raise Conflict("This edit was undone already.")
    undone = queries.undo_edit(session, made)
    queries.shut_waiting(session, made)
    made.undone_at = func.now()
    _record(session, access, "undo edit of prompts", made)
    return undone


def switch_pool(session: Session, access: Access, uid: uuid.UUID, *, is_active: bool) -> PromptPool:
    """Let the prompts of a pool be sampled, or not. Raises NotFound."""
    access.demand(Permission.MANAGE_PROMPTS)
    pool = queries.find_pool(session, access.project.id, uid)
    if pool is None:
        raise NotFound("There is no such pool in this project.")
    if pool.is_active != is_active:
        pool.is_active = is_active
        audit.record(
            session,
            actor=access.user,
            project=access.project,
            action="switch pool on" if is_active else "switch pool off",
            subject_kind="prompt_pool",
            subject_uid=pool.uid,
            pool=pool.name,
        )
    return pool


def mask(session: Session, access: Access, uid: uuid.UUID) -> Prompt:
    """Put the name of its kind in the place of everything that patterns found, and let the prompt in.

    One that is then the same as another becomes its duplicate; the fingerprint stays that of the text as it came, so that the
    same file again brings it back no more. Raises NotFound, Conflict where it is not quarantined, or patterns
    found nothing.
    """
    prompt = _lock_quarantined(session, access, uid)
    if not prompt.findings:
        raise Conflict("Patterns found nothing in this prompt, so nothing can be masked: release it, or take it out.")
    found = [pii.Finding(pii.PiiKind(one["kind"]), one["turn"], one["start"], one["end"]) for one in prompt.findings]
    messages = pii.mask(prompt.messages, found)
    same = prompt_queries.find_active(session, access.project.id, likeness.fingerprint(messages))
    prompt.messages, prompt.findings = [dict(turn) for turn in messages], []
    prompt.is_private, prompt.is_indexed = False, False
    if same is None:
        prompt.status = PromptStatus.ACTIVE
        prompt_queries.open_waiting(session, [prompt.id])
    else:
        prompt.status, prompt.duplicate_of_id = PromptStatus.DUPLICATE, same
    prompt_labels.record(session, access, "mask prompt", prompt, findings=len(found))
    return prompt


def discard(session: Session, access: Access, uid: uuid.UUID) -> Prompt:
    """Take a quarantined prompt out for good: it stays private, so in no snapshot. Raises NotFound, Conflict."""
    prompt = _lock_quarantined(session, access, uid)
    prompt.status = PromptStatus.RETIRED
    prompt_labels.record(session, access, "retire prompt", prompt)
    return prompt


def _lock_quarantined(session: Session, access: Access, uid: uuid.UUID) -> Prompt:
    access.demand(Permission.MANAGE_PROMPTS)
    prompt_queries.lock_imports(session, access.project.id)
    found = prompt_queries.find_prompt(session, access.project.id, uid)
    if found is None:
        raise NotFound("There is no such prompt in this project.")
    prompt = prompt_queries.lock_prompt(session, found.id)
    if prompt.status != PromptStatus.PII:
        raise Conflict(f"This prompt is {prompt.status}, not in quarantine any more; somebody has decided on it.")
    return prompt


def _record(session: Session, access: Access, action: str, made: PromptEdit) -> None:
    audit.record(
        session,
        actor=access.user,
        project=access.project,
        action=action,
        subject_kind="prompt_edit",
        subject_uid=made.uid,
        field=made.field,
        value=made.value,
        prompts=made.prompts,
    )
