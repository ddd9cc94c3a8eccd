"""Base models from outside: a folder of this machine or a name on the Hugging Face hub, checked and copied into the store."""

import re
import shutil
import tempfile
from importlib.util import find_spec
from pathlib import Path

from app import storage
from app.errors import BadInput
from app.services import outside_models
from app.settings import Settings

KEPT = ("*.safetensors", "*.json", "*.jinja", "*.model", "merges.txt", "vocab.txt")
"""What a model folder is made of. Anything else, pickled weights and code included, stays outside of the store."""

PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.pickle")


def is_hub_name(base_model: str) -> bool:
    """Whether this names a model of the hub rather than a folder of this machine. Raises BadInput where it can be neither."""
    if Path(base_model).is_dir():
        return False
    if not re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", base_model):
        raise BadInput(f"PREFERABLE_BASE_MODEL is {base_model!r}: there is no such folder on this machine.")
    return True


def put_base(settings: Settings) -> str:
    """Bring the model of `PREFERABLE_BASE_MODEL` into the store and return its identity. Downloads a hub name.

    Raises BadInput for a folder or name that is none, for pickled weights, and for a model that needs code of its own.
    """
    name = settings.base_model
    source = _download(name) if is_hub_name(name) else Path(name)
    check_base(source)
    with tempfile.TemporaryDirectory(prefix="preferable-base-") as scratch:
        for pattern in KEPT:
            for file in source.glob(pattern):
                shutil.copyfile(file, Path(scratch, file.name))
        return storage.put_checkpoint(settings, Path(scratch))


def check_base(folder: Path) -> None:
    """Raise BadInput unless `folder` holds a language model as safetensors, with its tokenizer, that opens without code."""
    config = outside_models.read_object(folder / "config.json")
    if not config:
        raise BadInput(f"{folder} is no model folder: it has no readable config.json.")
    if not any(folder.glob("*.safetensors")):
        pickled = sorted(file.name for pattern in PICKLED for file in folder.glob(pattern))
        found = f"pickled weights ({pickled[0]}), which can run code" if pickled else "no weights"
        raise BadInput(f"{folder} holds {found}. Save the model as safetensors: save_pretrained(folder) does.")
    if "auto_map" in config:
        raise BadInput(
            f"{folder} needs code of its own to open (auto_map in config.json), and such code is never run here. "
            "Choose a model in an architecture of transformers."
        )
    names = [str(name) for name in config.get("architectures") or ()]
    if not any(name.endswith(("ForCausalLM", "LMHeadModel")) for name in names):
        raise BadInput(
            f"{folder} holds {', '.join(names) or 'an unnamed architecture'}; expected a causal language model."
        )
    if not any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")):
        raise BadInput(f"{folder} has no tokenizer. Save it beside the model: tokenizer.save_pretrained(folder).")


def read_context(settings: Settings, sha256: str) -> int | None:
    """Tokens that fit into the model, as its configuration says; None where it does not."""
    config = outside_models.read_object(storage.checkpoint_folder(settings, sha256) / "config.json")
    for name in ("max_position_embeddings", "n_positions", "n_ctx", "max_sequence_length"):
        if isinstance(config.get(name), int):
            return int(config[name])
    return None


def _download(name: str) -> Path:
    """The safetensors snapshot of a hub model, from the hub's cache where it is there. Raises BadInput."""
    if find_spec("huggingface_hub") is None:
        raise BadInput(
            f"PREFERABLE_BASE_MODEL is {name!r}: no folder of that name, and a hub model can be downloaded only once the "
            "worker half is installed."
        )
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=list(KEPT)))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise BadInput(
            f"PREFERABLE_BASE_MODEL is {name!r}: no folder of that name, and the hub did not give it ({reason})."
        ) from error
