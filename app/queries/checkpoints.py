"""SQL of the registry: checkpoints, their lineage, and the lock under which the registry of one project changes."""

import uuid
from collections.abc import Sequence

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.models import Checkpoint, CheckpointKind, CheckpointParent, CheckpointState, ParentRole, Project, Run


def lock_registry(session: Session, project_id: int) -> None:
    """Hold the project's row until the transaction ends, so that numbers and promotions follow one another.

    The lock leaves inserts that merely refer to the project alone (FOR NO KEY UPDATE): labellers go on submitting.
    """
    session.execute(select(Project.id).where(Project.id == project_id).with_for_update(key_share=True)).one()


def find_checkpoint(session: Session, project_id: int, uid: uuid.UUID) -> Checkpoint | None:
    """One checkpoint of the project."""
    return session.scalar(select(Checkpoint).where(Checkpoint.project_id == project_id, Checkpoint.uid == uid))


def find_by_identity(session: Session, project_id: int, kind: CheckpointKind, sha256: str) -> Checkpoint | None:
    """The newest checkpoint of this kind with these files."""
    return session.scalar(
        select(Checkpoint)
        .where(Checkpoint.project_id == project_id, Checkpoint.kind == kind, Checkpoint.sha256 == sha256)
        .order_by(Checkpoint.number.desc())
        .limit(1)
    )


def find_by_sha256(session: Session, project_id: int, sha256: str) -> Checkpoint | None:
    """The newest checkpoint of any kind with these files."""
    return session.scalar(
        select(Checkpoint)
        .where(Checkpoint.project_id == project_id, Checkpoint.sha256 == sha256)
        .order_by(Checkpoint.id.desc())
        .limit(1)
    )


def find_active_policy(session: Session, project_id: int) -> Checkpoint | None:
    """The model whose samples are judged: a policy, or the SFT or base model before the first one is promoted."""
    return session.scalar(
        select(Checkpoint).where(
            Checkpoint.project_id == project_id,
            Checkpoint.state == CheckpointState.ACTIVE,
            Checkpoint.kind != CheckpointKind.REWARD,
        )
    )


def find_active_reward(session: Session, project_id: int) -> Checkpoint | None:
    """The reward model that the next PPO run climbs."""
    return session.scalar(
        select(Checkpoint).where(
            Checkpoint.project_id == project_id,
            Checkpoint.state == CheckpointState.ACTIVE,
            Checkpoint.kind == CheckpointKind.REWARD,
        )
    )


def find_latest(session: Session, project_id: int, kind: CheckpointKind) -> Checkpoint | None:
    """The checkpoint of this kind with the highest number, whatever its state."""
    return session.scalar(
        select(Checkpoint)
        .where(Checkpoint.project_id == project_id, Checkpoint.kind == kind)
        .order_by(Checkpoint.number.desc())
        .limit(1)
    )


def get_next_number(session: Session, project_id: int, kind: CheckpointKind) -> int:
    """The number the next checkpoint of this kind takes; hold `lock_registry`."""
    highest = session.scalar(
        select(func.max(Checkpoint.number)).where(Checkpoint.project_id == project_id, Checkpoint.kind == kind)
    )
    return (highest or 0) + 1


def list_checkpoints(session: Session, project_id: int) -> Sequence[Checkpoint]:
    """All checkpoints of the project, oldest first."""
    return session.scalars(select(Checkpoint).where(Checkpoint.project_id == project_id).order_by(Checkpoint.id)).all()


def list_edges(session: Session, project_id: int) -> Sequence[CheckpointParent]:
    """All edges of the project's lineage, oldest first."""
    return session.scalars(
        select(CheckpointParent).where(CheckpointParent.project_id == project_id).order_by(CheckpointParent.id)
    ).all()


def find_parent_id(session: Session, checkpoint: Checkpoint, role: ParentRole) -> int | None:
    """The checkpoint that one was made from, in this role."""
    return session.scalar(
        select(CheckpointParent.parent_id).where(
            CheckpointParent.project_id == checkpoint.project_id,
            CheckpointParent.checkpoint_id == checkpoint.id,
            CheckpointParent.role == role,
        )
    )


def list_runs_with_result(session: Session, project_id: int) -> Sequence[Run]:
    """The runs that made a checkpoint."""
    return session.scalars(select(Run).where(Run.project_id == project_id, Run.result_id.is_not(None))).all()
