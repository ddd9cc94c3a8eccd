"""The artefact store: checkpoints by their content hash, snapshots and runs by their uid, under one folder."""

import os
import shutil
import tempfile
import uuid
from pathlib import Path

from app.errors import BadInput
from app.settings import Settings
from app.snapshot import folder_sha256


def checkpoint_folder(settings: Settings, sha256: str) -> Path:
    """Where the checkpoint with this identity lies."""
    return settings.store / "checkpoints" / sha256


def snapshot_folder(settings: Settings, uid: uuid.UUID) -> Path:
    """Where the snapshot lies."""
    return settings.store / "snapshots" / str(uid)


def run_folder(settings: Settings, uid: uuid.UUID) -> Path:
    """Where the run keeps its resumable state, its events and its result."""
    return settings.store / "runs" / str(uid)


def import_file(settings: Settings, uid: uuid.UUID) -> Path:
    """Where an uploaded file lies until its import is over, alone in a folder; its own name is never part of a path."""
    return settings.store / "imports" / str(uid) / "upload"


def has_progress(settings: Settings, uid: uuid.UUID) -> bool:
    """Whether a run left something to go on from: a saved state, or the result of a training that came to its end."""
    folder = run_folder(settings, uid)
    return (folder / "state" / "state.pt").exists() or (folder / "metrics.json").exists()


def put_checkpoint(settings: Settings, source: Path) -> str:
    """Copy a checkpoint folder into the store and return its identity. Idempotent; atomic by a rename.

    Raises BadInput where the folder holds pickled weights or no safetensors: a pickle runs code when it is opened.
    """
    names = {path.name for path in source.rglob("*") if path.is_file()}
    if pickled := sorted(name for name in names if name.endswith((".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"))):
        raise BadInput(
            f"{pickled[0]} holds pickled weights, which can run code. Save the model as safetensors instead."
        )
    if not any(name.endswith(".safetensors") for name in names):
        raise BadInput(
            f"{source} holds no .safetensors file; expected a Hugging Face model folder saved as safetensors."
        )
    identity = folder_sha256(source)
    target = checkpoint_folder(settings, identity)
    if target.exists():
        return identity
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=".incoming-", dir=target.parent))
    try:
        shutil.copytree(source, scratch, dirs_exist_ok=True)
        scratch.chmod(0o755)
        os.rename(scratch, target)
    except FileExistsError:
        shutil.rmtree(scratch)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        if not target.exists():
            raise
    return identity
