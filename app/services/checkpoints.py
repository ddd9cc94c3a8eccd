"""The registry: models enter as candidates, people promote and roll back, a better reward model takes over by rule.

Every change holds the registry's lock (`queries.checkpoints.lock_registry`), so that numbers, the active model and the open
round always agree, however often a button is clicked.
"""

import math
import re
from collections.abc import Mapping
from pathlib import Path

from sqlalchemy.orm import Session

from app import storage
from app.errors import BadInput, Conflict, NotFound
from app.models import (
    Checkpoint,
    CheckpointKind,
    CheckpointParent,
    CheckpointState,
    Json,
    ParentRole,
    Project,
    Round,
    User,
)
from app.permissions import Access, Permission
from app.queries import checkpoints as queries
from app.queries import rounds as round_queries
from app.services import audit, outside_models
from app.settings import get_settings
from app.snapshot import folder_sha256

ACCURACY, ACCURACY_HIGH, INCUMBENT_ACCURACY = "accuracy", "accuracy_high", "incumbent_accuracy"
"""Metrics of a reward model: held-out accuracy (house.md §6), the upper end of its interval, and the former model's beside it."""

PROMOTABLE = (CheckpointKind.SFT, CheckpointKind.POLICY)


def register(
    session: Session,
    project: Project,
    *,
    kind: CheckpointKind,
    sha256: str,
    parents: Mapping[ParentRole, Checkpoint],
    metrics: Mapping[str, object],
    state: CheckpointState = CheckpointState.CANDIDATE,
) -> Checkpoint:
    """Enter a model whose files lie in the store; metrics that are not finite are kept as null.

    The caller has verified the files (`verify_files`), before its first statement where it can: gigabytes are read.
    Raises BadInput where the files are missing, or where a parent is of another project.
    """
    _find_files(sha256)
    if strangers := [parent.name for parent in parents.values() if parent.project_id != project.id]:
        raise BadInput(f"{strangers[0]} belongs to another project; a model's parents are of its own project.")
    queries.lock_registry(session, project.id)
    checkpoint = Checkpoint(
        project_id=project.id,
        kind=kind,
        number=queries.get_next_number(session, project.id, kind),
        state=state,
        sha256=sha256,
        metrics=_finite(metrics),
    )
    session.add(checkpoint)
    session.flush()
    for role, parent in parents.items():
        session.add(
            CheckpointParent(project_id=project.id, checkpoint_id=checkpoint.id, parent_id=parent.id, role=role)
        )
    session.flush()
    return checkpoint


def register_folder(
    session: Session, project: Project, folder: Path, *, kind: CheckpointKind, actor: User | None
) -> Checkpoint:
    """Copy a Hugging Face model folder into the store and enter it as a candidate (`preferable checkpoint register`).

    Parents are those noted in `preferable.json`, as far as the project knows them by their identity; else the base.
    Raises BadInput for a folder that is no safe model of this kind, Conflict for one that is registered already.
    """
    outside_models.check_folder(folder, kind)
    sha256 = storage.put_checkpoint(get_settings(), folder)
    if (known := queries.find_by_identity(session, project.id, kind, sha256)) is not None:
        raise Conflict(f"These files are registered already, as {known.name}.")
    verify_files(sha256)
    checkpoint = register(
        session,
        project,
        kind=kind,
        sha256=sha256,
        parents=outside_models.find_parents(session, project, folder),
        metrics={},
    )
    audit.record(
        session,
        actor=actor,
        project=project,
        action="register checkpoint",
        subject_kind="checkpoint",
        subject_uid=checkpoint.uid,
        name=checkpoint.name,
        sha256=sha256,
    )
    return checkpoint


def verify_files(sha256: str) -> None:
    """Read the files with this identity through. Raises BadInput where the store lacks them, or they do not hash to it."""
    if (actual := folder_sha256(_find_files(sha256))) != sha256:
        raise BadInput(
            f"The files of checkpoint {sha256[:12]} hash to {actual[:12]}: they were changed or damaged. "
            "Put a sound copy into the store and register it again."
        )


def open_first_round(session: Session, project: Project, checkpoint: Checkpoint) -> Round:
    """Begin a project's loop: `checkpoint` answers the prompts of round 1. A project that has begun is left alone."""
    queries.lock_registry(session, project.id)
    if (begun := round_queries.find_open_round(session, project.id)) is not None:
        return begun
    return _open_round(session, project, checkpoint, number=1)


def promote(session: Session, access: Access | None, project: Project, checkpoint: Checkpoint) -> Round:
    """Let `checkpoint` answer the prompts from now on; promoting an earlier one rolls back. Returns the round it opens.

    The former model and the open, unheld tasks of its round retire; held leases finish there. A second click on the same
    model changes nothing and returns the same round. `access` is None for the one promotion that happens by itself, a
    project's first SFT model; a policy needs a person.
    Raises BadInput for a base or reward model, Conflict where the files are gone, Forbidden without the right.
    """
    if access is not None:
        access.demand(Permission.PROMOTE)
    elif checkpoint.kind != CheckpointKind.SFT:
        raise Conflict(f"{checkpoint.name} is promoted by a person's click only; open its page and promote it there.")
    if checkpoint.kind not in PROMOTABLE:
        raise BadInput(f"{checkpoint.name} cannot answer prompts in the loop; promote an SFT model or a policy.")
    queries.lock_registry(session, project.id)
    session.refresh(checkpoint)
    former = active_policy(session, project.id)
    ending = open_round(session, project.id)
    if former.id == checkpoint.id:
        return ending
    if not storage.checkpoint_folder(get_settings(), checkpoint.sha256).is_dir():
        raise Conflict(f"The files of {checkpoint.name} are gone from the store; restore them, then promote it again.")
    former.state = CheckpointState.RETIRED
    session.flush()
    round_queries.close_round(session, ending)
    opened = _open_round(session, project, checkpoint, number=ending.number + 1)
    retired = round_queries.retire_unleased_tasks(session, project.id)
    audit.record(
        session,
        actor=access.user if access else None,
        project=project,
        action="promote checkpoint",
        subject_kind="checkpoint",
        subject_uid=checkpoint.uid,
        name=checkpoint.name,
        former=former.name,
        round=opened.number,
        retired_tasks=retired,
    )
    return opened


def activate_reward(session: Session, project: Project, checkpoint: Checkpoint, access: Access | None = None) -> bool:
    """Let the next PPO runs climb this reward model; whether it is the active one now.

    By rule (`access` is None) it takes over when it is no worse than the active one, else stays a candidate; a person with
    the right to promote may choose any. Raises BadInput for a model of another kind.
    """
    if checkpoint.kind != CheckpointKind.REWARD:
        raise BadInput(f"{checkpoint.name} is not a reward model.")
    if access is not None:
        access.demand(Permission.PROMOTE)
    queries.lock_registry(session, project.id)
    session.refresh(checkpoint)
    former = queries.find_active_reward(session, project.id)
    if former is not None and former.id == checkpoint.id:
        return True
    if access is None and former is not None and not is_no_worse(former.metrics, checkpoint.metrics):
        return False
    if former is not None:
        former.state = CheckpointState.RETIRED
        session.flush()
    checkpoint.state = CheckpointState.ACTIVE
    session.flush()
    audit.record(
        session,
        actor=access.user if access else None,
        project=project,
        action="activate reward model",
        subject_kind="checkpoint",
        subject_uid=checkpoint.uid,
        name=checkpoint.name,
        former=former.name if former else None,
    )
    return True


def is_no_worse(old: Mapping[str, object], new: Mapping[str, object]) -> bool:
    """Whether a new reward model may replace the old: its held-out accuracy is not lower by more than its interval.

    So the upper end of the new interval reaches the old accuracy: the one measured beside it on the same comparisons
    (`incumbent_accuracy`) where the run did so, else the one of old. Without held-out comparisons to tell by on either
    side the new model, which has seen more judgements, takes over.
    """
    former, reached = new.get(INCUMBENT_ACCURACY, old.get(ACCURACY)), new.get(ACCURACY_HIGH, new.get(ACCURACY))
    if not isinstance(former, int | float) or not isinstance(reached, int | float):
        return True
    return reached >= former


def active_policy(session: Session, project_id: int) -> Checkpoint:
    """The model whose samples are judged now; every project has one from its first round on."""
    active = queries.find_active_policy(session, project_id)
    if active is None:
        raise NotFound("This project has no active model yet; its first round was never opened.")
    return active


def open_round(session: Session, project_id: int) -> Round:
    """The round that is going on."""
    round_ = round_queries.find_open_round(session, project_id)
    if round_ is None:
        raise NotFound("This project has no open round yet.")
    return round_


def active_reward(session: Session, project_id: int) -> Checkpoint | None:
    """The reward model that the next PPO run climbs; None before the first."""
    return queries.find_active_reward(session, project_id)


def is_fitted_from(session: Session, reward: Checkpoint, sft: Checkpoint) -> bool:
    """Whether a reward model began as this SFT model; PPO starts by itself only where the two it takes belong together."""
    return queries.find_parent_id(session, reward, ParentRole.INIT) == sft.id


def latest(session: Session, project_id: int, kind: CheckpointKind) -> Checkpoint | None:
    """The newest checkpoint of this kind, whatever its state."""
    return queries.find_latest(session, project_id, kind)


def _find_files(sha256: str) -> Path:
    if not re.fullmatch(r"[0-9a-f]{64}", sha256):
        raise BadInput(f"A checkpoint's identity is 64 hexadecimal digits; {sha256[:80]!r} is not.", field="sha256")
    folder = storage.checkpoint_folder(get_settings(), sha256)
    if not folder.is_dir():
        raise BadInput(f"The store holds no checkpoint {sha256[:12]}; copy its files there before it is registered.")
    return folder


def _open_round(session: Session, project: Project, checkpoint: Checkpoint, *, number: int) -> Round:
    checkpoint.state = CheckpointState.ACTIVE
    opened = Round(project_id=project.id, number=number, checkpoint_id=checkpoint.id)
    session.add(opened)
    session.flush()
    return opened


def _finite(metrics: Mapping[str, object]) -> Json:
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in metrics.items()
    }
