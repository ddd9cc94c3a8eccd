"""What follows when a prompt is labelled: it gets a category unless one was imported; where it holds PII, it is kept back.

A quarantined prompt is in no task that is given out, no draw and no snapshot, until an admin releases it. What was said about
it meanwhile stays stored, and counts again after the release.
"""

import uuid

from sqlalchemy.orm import Session

from app.errors import NotFound
from app.models import Category, Judgement, Prompt, PromptStatus, TaskState
from app.permissions import Access, Permission
from app.queries import prompts as queries
from app.services import audit, notices

CATEGORIES = {
    "open question": Category.OPEN_QA,
    "closed question": Category.CLOSED_QA,
    "rewriting": Category.REWRITE,
    "summary": Category.SUMMARIZATION,
    "extraction": Category.EXTRACT,
}
"""Use cases that the paper's label schema words otherwise than its categories."""


_QUARANTINE_NOTICE = (
    "A task you had begun is retired: somebody found personal data in its prompt. "
    "What you did is kept. Leave it, or submit it all the same."
)


def apply(session: Session, access: Access, prompt_id: int, judgement: Judgement, former: Judgement | None) -> None:
    """Let a prompt be what a person newly says it is.

    That it holds PII takes effect where they did not say so before: an admin may have released it since.
    """
    prompt = queries.lock_prompt(session, prompt_id)
    use_case = judgement.answers.get("use_case")
    category = CATEGORIES.get(str(use_case), use_case)
    if category in set(Category) and (prompt.category is None or prompt.is_category_labelled):
        prompt.category, prompt.is_category_labelled = Category(category), True
    if _has_pii(judgement) and not _has_pii(former) and prompt.status == PromptStatus.ACTIVE:
        prompt.status, prompt.is_private = PromptStatus.PII, True
        retired = queries.lock_open_tasks(session, prompt)
        for task in retired:
            task.state = TaskState.RETIRED
            notices.tell_at_work(session, task, _QUARANTINE_NOTICE)
        record(session, access, "quarantine prompt", prompt, judgement=str(judgement.uid), retired_tasks=len(retired))


def _has_pii(judgement: Judgement | None) -> bool:
    return judgement is not None and judgement.answers.get("has_pii") is True


def release(session: Session, access: Access, uid: uuid.UUID) -> Prompt:
    """Make a quarantined prompt active again; the tasks that were retired stay so, new ones are made. Raises NotFound."""
    access.demand(Permission.MANAGE_PROMPTS)
    found = queries.find_prompt(session, access.project.id, uid)
    if found is None:
        raise NotFound("There is no such prompt in this project.")
    prompt = queries.lock_prompt(session, found.id)
    if prompt.status == PromptStatus.PII:
        prompt.status, prompt.is_private, prompt.findings = PromptStatus.ACTIVE, False, []
        queries.open_waiting(session, [prompt.id])
        record(session, access, "release prompt", prompt)
    return prompt


def record(session: Session, access: Access, action: str, prompt: Prompt, **details: str | int) -> None:
    """Note in the audit log what was done to a prompt."""
    audit.record(
        session,
        actor=access.user,
        project=access.project,
        action=action,
        subject_kind="prompt",
        subject_uid=prompt.uid,
        **details,
    )
