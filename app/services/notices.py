"""What people are told on their home page: about a task they had in hand, and by an admin to everybody."""

import uuid
from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta

from sqlalchemy.orm import Session

from app.errors import BadInput, NotFound
from app.models import Notice, Task
from app.permissions import Access, Permission
from app.queries import notices as queries
from app.services import audit

LONGEST_CHARACTERS = 500
"""Of an announcement."""

LONGEST_DAYS = 366
"""How far ahead an announcement may end."""

_SHOWN = 20


def tell(session: Session, task: Task, user_ids: Sequence[int], text: str) -> None:
    """Tell people something about a task."""
    rows = [
        Notice(project_id=task.project_id, user_id=user_id, task_id=task.id, text=text) for user_id in sorted(user_ids)
    ]
    queries.insert_notices(session, rows)


def tell_at_work(session: Session, task: Task, text: str, *, but: int | None = None) -> int:
    """Tell those who hold a task or have begun it, one person aside; gives how many."""
    people = set(queries.list_at_work(session, task.id)) - {but}
    tell(session, task, sorted(people), text)
    return len(people)


def list_unread(session: Session, access: Access) -> Sequence[queries.NoticeRow]:
    """What this person was told and has not put away."""
    return queries.list_unread(session, access.project.id, access.user.id, limit=_SHOWN)


def list_announcements(session: Session, access: Access) -> Sequence[Notice]:
    """What everybody in the project is told now."""
    return queries.list_announcements(session, access.project.id)


def put_away(session: Session, access: Access, uid: uuid.UUID) -> None:
    """Show a notice no more. Raises NotFound for one that is not theirs."""
    if not queries.mark_read(session, access.project.id, access.user.id, uid):
        raise NotFound("You have no such notice.")


def announce(session: Session, access: Access, *, text: str, last_day: str) -> Notice:
    """Tell everybody in the project until the end of a day (UTC). Raises BadInput for no or too long a text, or no such day."""
    access.demand(Permission.MANAGE_PEOPLE)
    words = " ".join(text.split())
    if not 1 <= len(words) <= LONGEST_CHARACTERS:
        raise BadInput(
            f"An announcement has 1 to {LONGEST_CHARACTERS} characters; this has {len(words):,}.", field="announcement"
        )
    notice = Notice(project_id=access.project.id, text=words, author_id=access.user.id, ends_at=_end_of(last_day))
    queries.insert_notices(session, [notice])
    _record(session, access, "announce", notice)
    return notice


def end_announcement(session: Session, access: Access, uid: uuid.UUID) -> None:
    """Show an announcement no more. Raises NotFound."""
    access.demand(Permission.MANAGE_PEOPLE)
    notice = queries.find_announcement(session, access.project.id, uid)
    if notice is None:
        raise NotFound("There is no such announcement.")
    if notice.read_at is None:
        notice.read_at = datetime.now(UTC)
        _record(session, access, "end announcement", notice)


def _end_of(day: str) -> datetime:
    today = datetime.now(UTC).date()
    try:
        last = date.fromisoformat(day.strip())
    except ValueError as error:
        raise BadInput("Choose the last day on which people see it.", field="last_day") from error
    if not today <= last <= today + timedelta(days=LONGEST_DAYS):
        raise BadInput(f"The last day is {last}; choose one from {today}, within a year.", field="last_day")
    return datetime.combine(last + timedelta(days=1), time(), UTC)


def _record(session: Session, access: Access, action: str, notice: Notice) -> None:
    audit.record(
        session,
        actor=access.user,
        project=access.project,
        action=action,
        subject_kind="notice",
        subject_uid=notice.uid,
        text=notice.text,
    )
