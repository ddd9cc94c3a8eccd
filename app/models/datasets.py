"""Snapshots: immutable, hashed exports, and what went into each."""

from enum import StrEnum

from sqlalchemy import Index
from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import Base, HasUid, InProject, Json, enum_type, refers, scoped


class SnapshotKind(StrEnum):
    """The file a snapshot exists for (`app.snapshot.KINDS`)."""

    DEMONSTRATIONS = "demonstrations"
    RANKINGS = "rankings"
    PROMPTS = "prompts"
    TEXT = "text"


class Snapshot(InProject, HasUid, Base):
    """A folder under `snapshots/<uid>` of the store, taken in one repeatable-read transaction."""

    __tablename__ = "snapshots"
    __table_args__ = scoped()

    kind: Mapped[SnapshotKind] = mapped_column(enum_type(SnapshotKind))
    sha256: Mapped[str]
    manifest: Mapped[Json]


class SnapshotJudgement(Base):
    """Membership, so that an excluded labeller's reach into models is known."""

    __tablename__ = "snapshot_judgements"
    __table_args__ = (
        refers("snapshot_id", "snapshots", ondelete="CASCADE"),
        refers("judgement_id", "judgements"),
        Index(None, "judgement_id"),
    )

    project_id: Mapped[int]
    snapshot_id: Mapped[int] = mapped_column(primary_key=True)
    judgement_id: Mapped[int] = mapped_column(primary_key=True)


class SnapshotDemonstration(Base):
    """Membership of demonstrations."""

    __tablename__ = "snapshot_demonstrations"
    __table_args__ = (
        refers("snapshot_id", "snapshots", ondelete="CASCADE"),
        refers("demonstration_id", "demonstrations"),
        Index(None, "demonstration_id"),
    )

    project_id: Mapped[int]
    snapshot_id: Mapped[int] = mapped_column(primary_key=True)
    demonstration_id: Mapped[int] = mapped_column(primary_key=True)
