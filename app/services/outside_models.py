"""Models trained elsewhere: what their folder must hold to join the registry, and whom they descend from."""

import json
from pathlib import Path

from sqlalchemy.orm import Session

from app.errors import BadInput
from app.models import Checkpoint, CheckpointKind, Json, ParentRole, Project
from app.queries import checkpoints as queries

ROLES = {
    "base": ParentRole.INIT,
    "sft": ParentRole.INIT,
    "policy": ParentRole.INIT,
    "reference": ParentRole.REFERENCE,
    "reward": ParentRole.REWARD,
}
"""What the trainers call a parent in `preferable.json` -> its role in the lineage."""


def check_folder(folder: Path, kind: CheckpointKind) -> None:
    """Raise BadInput unless `config.json` describes a model of this kind that opens without running code of its own."""
    if kind == CheckpointKind.BASE:
        raise BadInput("A project never changes its base; register another base by PREFERABLE_BASE_MODEL.")
    config = read_object(folder / "config.json")
    if not config:
        raise BadInput(f"{folder} is no model folder: it has no readable config.json.")
    if "auto_map" in config:
        raise BadInput(
            f"{folder} needs code of its own to open (auto_map in config.json), and such code is never run here. "
            "Save the model in an architecture of transformers."
        )
    is_reward = any(str(name).endswith("ForSequenceClassification") for name in config.get("architectures") or ())
    if is_reward != (kind == CheckpointKind.REWARD):
        found = "a sequence classifier" if is_reward else "a language model"
        raise BadInput(f"{folder} holds {found}; that cannot be registered as {kind}.", field="kind")
    if is_reward and not isinstance(config.get("reward_mean"), int | float):
        raise BadInput(
            f"{folder} has no reward_mean in config.json. Set it to the mean score of the demonstrations, so that scores "
            "can be compared."
        )


def find_parents(session: Session, project: Project, folder: Path) -> dict[ParentRole, Checkpoint]:
    """The registered models that `preferable.json` names by identity; the base where it names none that is known."""
    noted = read_object(folder / "preferable.json").get("parents")
    found: dict[ParentRole, Checkpoint] = {}
    for name, sha256 in noted.items() if isinstance(noted, dict) else ():
        parent = queries.find_by_sha256(session, project.id, str(sha256))
        if name in ROLES and parent is not None:
            found[ROLES[name]] = parent
    if ParentRole.INIT not in found:
        base = queries.find_latest(session, project.id, CheckpointKind.BASE)
        found |= {ParentRole.INIT: base} if base is not None else {}
    return found


def read_object(path: Path) -> Json:
    """The JSON object in a file; empty where there is none to read."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
