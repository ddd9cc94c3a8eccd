"""Guidelines and who has read them."""

from collections.abc import Sequence

from sqlalchemy import bindparam, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from app.models import Guideline, GuidelineAck, Phase, User


def find_current(session: Session, project_id: int, phase: Phase = Phase.TRAIN) -> Guideline | None:
    """The newest version."""
    return session.scalar(
        select(Guideline)
        .where(Guideline.project_id == project_id, Guideline.phase == phase)
        .order_by(Guideline.version.desc())
        .limit(1)
    )


def find_version(session: Session, project_id: int, version: int, phase: Phase = Phase.TRAIN) -> Guideline | None:
    """One version."""
    return session.scalar(
        select(Guideline).where(
            Guideline.project_id == project_id, Guideline.phase == phase, Guideline.version == version
        )
    )


def list_versions(
    session: Session, project_id: int, phase: Phase = Phase.TRAIN
) -> Sequence[tuple[Guideline, str | None]]:
    """Every version with its author's name, newest first."""
    rows = session.execute(
        select(Guideline, User.name)
        .outerjoin(User, User.id == Guideline.author_id)
        .where(Guideline.project_id == project_id, Guideline.phase == phase)
        .order_by(Guideline.version.desc())
    )
    return [(guideline, name) for guideline, name in rows]


def find_ack(session: Session, guideline_id: int, user_id: int) -> GuidelineAck | None:
    """That and when a person has read a version."""
    return session.scalar(
        select(GuidelineAck).where(GuidelineAck.guideline_id == guideline_id, GuidelineAck.user_id == user_id)
    )


def look(session: Session, project_id: int, user_id: int, phase: Phase = Phase.TRAIN) -> tuple[Guideline | None, bool]:
    """The newest version, and whether there is one that this person has not read."""
    row = session.execute(_LOOK, {"project": project_id, "user": user_id, "phase": phase}).one_or_none()
    return (row[0], row[1] is None) if row else (None, False)


_LOOK = (
    select(Guideline, GuidelineAck.id)
    .outerjoin(GuidelineAck, (GuidelineAck.guideline_id == Guideline.id) & (GuidelineAck.user_id == bindparam("user")))
    .where(Guideline.project_id == bindparam("project"), Guideline.phase == bindparam("phase"))
    .order_by(Guideline.version.desc())
    .limit(1)
)


def find_acknowledged(session: Session, project_id: int, user_id: int, phase: Phase = Phase.TRAIN) -> Guideline | None:
    """The newest version this person has read."""
    return session.scalar(
        select(Guideline)
        .join(GuidelineAck, GuidelineAck.guideline_id == Guideline.id)
        .where(Guideline.project_id == project_id, Guideline.phase == phase, GuidelineAck.user_id == user_id)
        .order_by(Guideline.version.desc())
        .limit(1)
    )


def insert_ack(session: Session, guideline: Guideline, user_id: int) -> bool:
    """Note that a person has read a version; False where that is noted already."""
    added = session.scalar(
        insert(GuidelineAck)
        .values(project_id=guideline.project_id, guideline_id=guideline.id, user_id=user_id)
        .on_conflict_do_nothing()
        .returning(GuidelineAck.id)
    )
    return added is not None


def count_acks(session: Session, project_id: int) -> dict[int, int]:
    """How many people have read each version, by the version's id."""
    rows = session.execute(
        select(GuidelineAck.guideline_id, func.count())
        .where(GuidelineAck.project_id == project_id)
        .group_by(GuidelineAck.guideline_id)
    )
    return {guideline_id: count for guideline_id, count in rows}
