"""Checkpoint folders: load only what is safe, save what opens in plain transformers.

A checkpoint is a folder in Hugging Face layout (config.json, safetensors, tokenizer files, chat template). Beside it lies
`preferable.json` with its kind, parents and format hash; it is no part of the checkpoint's identity
(`app.snapshot.folder_sha256`). Pickled weights are refused: to unpickle is to run whatever the file says.
"""

import json
import math
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from app.snapshot import folder_sha256
from workers.training import conversation, lora, parallel

Kind = Literal["base", "sft", "reward", "policy"]
SIDECAR = "preferable.json"
WEIGHTS = ("model.safetensors", "model.safetensors.index.json")


class CheckpointError(ValueError):
    """A checkpoint folder that is missing, unsafe or of another format; the message says which and how to mend it."""


def resolve(name: str | Path) -> Path:
    """The local folder of a checkpoint given as a folder or, where no such folder exists, as a Hugging Face hub id.

    Raises CheckpointError where it is neither, has no safetensors, or holds adapters of another model.
    """
    folder = Path(name)
    if not folder.is_dir():
        folder = _download(str(name))
    if not (folder / "config.json").is_file():
        raise CheckpointError(f"{folder} is no checkpoint: it has no config.json")
    if (folder / "adapter_config.json").is_file():  # transformers would follow it to another model
        raise CheckpointError(f"{folder} holds adapters (adapter_config.json); merge them into the model first")
    if not any((folder / weights).is_file() for weights in WEIGHTS):
        pickles = sorted(path.name for pattern in ("*.bin", "*.pt", "*.pth", "*.pkl") for path in folder.glob(pattern))
        found = f"its weights are pickled ({pickles[0]})" if pickles else "it has no weights"
        raise CheckpointError(
            f"{folder} is refused: {found}; only safetensors are loaded (save it with safe_serialization)"
        )
    return folder


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a checkpoint, checked against the format hash that was written beside it.

    Raises CheckpointError where template or special tokens were changed after the checkpoint was saved.
    """
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    noted = read_sidecar(folder).get("format_sha256")
    if noted is not None and noted != conversation.format_sha256(tokenizer):
        raise CheckpointError(
            f"{folder}: chat template or special tokens differ from those it was trained with; restore its tokenizer files"
        )
    return tokenizer


def load_language_model(folder: Path, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """A causal language model in evaluation mode; raises CheckpointError where the folder holds a reward model."""
    config = json.loads((resolve(folder) / "config.json").read_text(encoding="utf-8"))
    if any(name.endswith("ForSequenceClassification") for name in config.get("architectures") or ()):
        raise CheckpointError(f"{folder} is a reward model; expected a language model")
    return _load(AutoModelForCausalLM, folder, dtype)


def load_reward_model(folder: Path, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """A trained reward model in evaluation mode; its score is comparable across prompts only less `config.reward_mean`."""
    model = _load(AutoModelForSequenceClassification, folder, dtype, num_labels=1)
    if getattr(model.config, "reward_mean", None) is None:
        raise CheckpointError(f"{folder} is no reward model of ours: config.json has no reward_mean")
    if not math.isfinite(mean := model.config.reward_mean):
        raise CheckpointError(
            f"{folder} has reward_mean {mean} in config.json; expected a finite number: train it again"
        )
    return model


def reward_model_from(folder: Path, seed: int, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """A fresh reward model: the trunk of a language model under a new scalar head, N(0, 1/sqrt(d+1)) as in OpenAI's code.

    https://github.com/openai/lm-human-preferences/blob/cbfd210/lm_human_preferences/language/model.py#L382
    """
    model = _load(AutoModelForSequenceClassification, folder, dtype, num_labels=1)
    generator = torch.Generator().manual_seed(seed)
    head: nn.Linear = model.score
    with torch.no_grad():
        head.weight.copy_(torch.randn(head.weight.shape, generator=generator) / (head.in_features + 1) ** 0.5)
    return model


def prepare(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, known: int | None = None) -> None:
    """Fit a model to its tokenizer after tokens were added: PAD set, embeddings grown, each new row the mean of the old.

    `known` is how many tokens the tokenizer had before any was added; None where none was yet. Rows that a model keeps spare
    behind them (Pythia has some) were never trained, and are new once a token takes them.

    The mean row makes a new token about as likely as an average one; random rows would make some likely by accident
    (https://nlp.stanford.edu/~johnhew/vocab-expansion.html).
    """
    rows = model.get_input_embeddings().num_embeddings
    known = min(rows, len(tokenizer) if known is None else known)
    generation = getattr(model, "generation_config", None)  # reward models have none
    ends = conversation.end_tokens(tokenizer, generation)
    conversation.ensure_pad(tokenizer, ends)
    if len(tokenizer) > rows:
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    if len(tokenizer) > known:
        for layer in (model.get_input_embeddings(), model.get_output_embeddings()):
            if layer is not None:
                with torch.no_grad():
                    layer.weight[known : len(tokenizer)] = layer.weight[:known].mean(0)
    model.config.pad_token_id = tokenizer.pad_token_id
    if generation is not None:
        generation.pad_token_id = tokenizer.pad_token_id
        generation.eos_token_id = sorted(ends) if len(ends) > 1 else min(ends)  # plain transformers stops there too


def require_same_format(child: Path, parent: Path) -> None:
    """Raise CheckpointError unless two checkpoints render a conversation to the same ids."""
    if conversation.format_sha256(load_tokenizer(child)) != conversation.format_sha256(load_tokenizer(parent)):
        raise CheckpointError(
            f"{parent} reads conversations in another format than {child}; train both from one SFT checkpoint"
        )


def save(
    folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, kind: Kind, parents: Mapping[str, Path]
) -> str:
    """Write a checkpoint, adapters merged, beside its final place, rename it there, replacing an older one; its identity.

    A model that is sharded over ranks is gathered on rank 0, which writes it.
    """
    weights = lora.merged(model) or parallel.whole_state_dict(model)
    return parallel.agree("" if parallel.rank() else _write(folder, model, weights, tokenizer, kind, parents))


def read_sidecar(folder: Path) -> dict[str, Any]:
    """What `save` noted beside a checkpoint; empty for one that was made elsewhere."""
    path = folder / SIDECAR
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


def _write(
    folder: Path,
    model: PreTrainedModel,
    weights: Mapping[str, Tensor] | None,
    tokenizer: PreTrainedTokenizerBase,
    kind: Kind,
    parents: Mapping[str, Path],
) -> str:
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        model.save_pretrained(scratch, state_dict=weights)
        tokenizer.save_pretrained(scratch)
        notes = {
            "kind": kind,
            "parents": {role: folder_sha256(parent) for role, parent in parents.items()},
            "format_sha256": conversation.format_sha256(tokenizer),
        }
        (scratch / SIDECAR).write_text(json.dumps(notes, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        scratch.chmod(0o755)
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(scratch, folder)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    return folder_sha256(folder)


def _load(family: Any, folder: Path, dtype: torch.dtype, **options: Any) -> PreTrainedModel:
    resolve(folder)
    try:
        model = family.from_pretrained(folder, dtype=dtype, use_safetensors=True, trust_remote_code=False, **options)
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{folder} cannot be loaded: {error}") from error
    return model.eval()


def _download(name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=["*.json", "*.safetensors", "*.jinja", "*.txt", "*.model"]))
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise CheckpointError(
            f"{name!r} is neither a folder nor a model that can be fetched from the hub ({type(error).__name__})"
        ) from error
