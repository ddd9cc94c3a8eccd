"""Sensitive content: who has agreed to see which kind, and when they opened a task that holds it."""

import uuid
from collections.abc import Iterable

from sqlalchemy.orm import Session

from app.errors import BadInput, Conflict
from app.models import Lease, LeaseState, Membership
from app.permissions import Access
from app.queries import accounts as account_queries
from app.queries import exposure as queries
from app.schemas.judgements import WhySkipped
from app.schemas.needs import CONTENT, Content
from app.services import audit, tasks

HIGHEST_CAP = 1000
"""Sensitive tasks a day that a person's own limit may allow."""


def find_hidden(work: tasks.Work) -> list[Content]:
    """The kinds of content a task holds that its person has not opened yet; none where it may be shown."""
    if work.lease.opened_at or work.lease.state == LeaseState.SUBMITTED:
        return []
    return contents_of(work)


def check_opened(work: tasks.Work) -> None:
    """Raise Conflict where a task holds content that its person has not opened yet: nobody can have judged it."""
    if find_hidden(work):
        raise Conflict("You have not opened this task, so there is nothing of it to answer yet. Show it first.")


def contents_of(work: tasks.Work) -> list[Content]:
    """The kinds of sensitive content a task holds."""
    return [kind for kind in Content if CONTENT + kind in work.task.needs]


def open_task(session: Session, access: Access, uid: uuid.UUID) -> Lease:
    """Note that this person has chosen to see a task they were lent; it stays open to them. Raises NotFound."""
    work = tasks.find_work(session, access, uid)
    return queries.open_lease(session, work.lease.id)


def choose(session: Session, access: Access, kinds: Iterable[str], *, daily_limit: str) -> None:
    """Set which kinds of content this person agrees to see, and how many such tasks a day; an empty limit is the project's.

    Raises BadInput for what is no kind or no limit, Conflict for somebody who is no member.
    """
    membership = _lock(session, access)
    wanted = set(kinds)
    if unknown := sorted(wanted - set(Content)):
        raise BadInput(f"{unknown[0]!r} is no kind of content; expected {', '.join(Content)}.", field="kinds")
    _set(session, access, membership, [kind for kind in Content if kind in wanted], _parse(daily_limit))


def leave(session: Session, access: Access, uid: uuid.UUID) -> list[Content]:
    """Pass a task on and agree no longer to see what it holds; gives those kinds. Raises NotFound, Conflict as `tasks.skip`."""
    work = tasks.find_work(session, access, uid)
    kinds = contents_of(work)
    tasks.skip(session, access, uid, reason=WhySkipped.SENSITIVE)
    membership = _lock(session, access)
    kept = [kind for kind in Content if CONTENT + kind in membership.opted_in and kind not in kinds]
    _set(session, access, membership, kept, membership.content_cap)
    return kinds


def _set(session: Session, access: Access, membership: Membership, kinds: list[Content], cap: int | None) -> None:
    tags = [CONTENT + kind for kind in kinds]
    if (tags, cap) == (membership.opted_in, membership.content_cap):
        return
    membership.opted_in, membership.content_cap = tags, cap
    session.flush()
    audit.record(
        session,
        actor=access.user,
        project=access.project,
        action="choose sensitive content",
        subject_kind="user",
        subject_uid=access.user.uid,
        kinds=[kind.value for kind in kinds],
        daily_limit=cap,
    )


def _lock(session: Session, access: Access) -> Membership:
    membership = account_queries.find_membership(session, access.project.id, access.user.id, lock=True)
    if membership is None:
        raise Conflict("You enter this project as the owner of the installation. Join it as a labeller to choose.")
    return membership


def _parse(text: str) -> int | None:
    if not text.strip():
        return None
    if text.strip().isdecimal() and 1 <= int(text) <= HIGHEST_CAP:
        return int(text)
    raise BadInput(
        f"Your limit is {text[:20]!r}; write a number from 1 to {HIGHEST_CAP:,}, or nothing for the project's.",
        field="daily_limit",
    )
