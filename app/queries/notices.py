"""Notices in SQL: what one person, or everybody in a project, is told on the home page."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import exists, func, select, update
from sqlalchemy.orm import Session

from app.models import Appeal, Draft, Lease, LeaseState, Notice, Task


@dataclass(frozen=True)
class NoticeRow:
    """A notice with the task it is about, if any."""

    notice: Notice
    task: uuid.UUID | None
    is_appealed: bool
    """Whether this person has appealed about the task."""


def insert_notices(session: Session, notices: Sequence[Notice]) -> None:
    """Add notices."""
    session.add_all(notices)
    session.flush()


def list_unread(session: Session, project_id: int, user_id: int, *, limit: int) -> Sequence[NoticeRow]:
    """What this person was told and has not put away, the newest first."""
    rows = session.execute(
        select(Notice, Task.uid, exists().where(Appeal.task_id == Notice.task_id, Appeal.user_id == user_id))
        .outerjoin(Task, Task.id == Notice.task_id)
        .where(Notice.project_id == project_id, Notice.user_id == user_id, Notice.read_at.is_(None))
        .order_by(Notice.id.desc())
        .limit(limit)
    )
    return [NoticeRow(*row) for row in rows]


def list_announcements(session: Session, project_id: int) -> Sequence[Notice]:
    """Announcements of the project that have not ended, the newest first."""
    return session.scalars(
        select(Notice)
        .where(
            Notice.project_id == project_id,
            Notice.user_id.is_(None),
            Notice.read_at.is_(None),
            Notice.ends_at > func.now(),
        )
        .order_by(Notice.id.desc())
    ).all()


def find_announcement(session: Session, project_id: int, uid: uuid.UUID) -> Notice | None:
    """The announcement with this uid."""
    return session.scalar(
        select(Notice).where(Notice.project_id == project_id, Notice.uid == uid, Notice.user_id.is_(None))
    )


def mark_read(session: Session, project_id: int, user_id: int, uid: uuid.UUID) -> bool:
    """Put a person's notice away; False where they have no such notice."""
    read = session.execute(
        update(Notice)
        .where(Notice.project_id == project_id, Notice.user_id == user_id, Notice.uid == uid)
        .values(read_at=func.coalesce(Notice.read_at, func.now()))
        .returning(Notice.id)
    )
    return read.scalar() is not None


def list_at_work(session: Session, task_id: int) -> Sequence[int]:
    """The people who hold a task or have begun it and not answered."""
    begun = select(Draft.id).where(Draft.task_id == task_id, Draft.user_id == Lease.user_id).exists()
    return session.scalars(
        select(Lease.user_id)
        .where(Lease.task_id == task_id, Lease.state != LeaseState.SUBMITTED)
        .where((Lease.state == LeaseState.HELD) | begun)
    ).all()
