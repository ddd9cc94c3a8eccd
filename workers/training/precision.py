"""In which precision a forward pass computes. Weights that learn and their optimiser stay float32: they are the master copy."""

from contextlib import AbstractContextManager

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

NAMES = ("auto", "float32", "bfloat16")


def compute_dtype(name: str, device: str | torch.device) -> torch.dtype:
    """The dtype of matrix products for a setting of `NAMES`; auto is bfloat16 on CUDA that has it, else float32.

    Not every CPU is faster with it (those with AVX-512 BF16 or AMX are), so that auto leaves CPUs at float32.
    """
    if name == "auto":
        is_cuda = torch.device(device).type == "cuda"
        return torch.bfloat16 if is_cuda and torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    return {"float32": torch.float32, "bfloat16": torch.bfloat16}[name]


def require_known(name: str) -> None:
    """Raise ValueError for a setting that is none of `NAMES`."""
    if name not in NAMES:
        raise ValueError(f"setting compute is {name!r}; expected one of {', '.join(NAMES)}")


def autocast(device: torch.device, compute: torch.dtype) -> AbstractContextManager[None]:
    """Matrix products in `compute` inside; nothing changes for float32."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=compute is torch.bfloat16)


def narrow(model: PreTrainedModel, compute: torch.dtype, *, exactly: bool) -> None:
    """Keep the frozen weights of a model's linear layers in `compute`, so that they are not rounded anew at every pass.

    Products under `autocast` stay what they were; embeddings, norms and heads stay as they are. With `exactly` only weights that
    lose nothing are narrowed: those that a checkpoint is still to be written from.
    """
    for name, module in model.base_model.named_modules():
        if not isinstance(module, nn.Linear | Conv1D) or module.weight.requires_grad or ".lora_" in name:
            continue
        narrowed = module.weight.detach().to(compute)
        if not exactly or torch.equal(narrowed.to(module.weight.dtype), module.weight):
            module.weight.data = narrowed


def sentence(model: PreTrainedModel, compute: torch.dtype) -> str:
    """Where a learning model is and in what it computes, for a run's log."""
    return f"on {model.device}, weights that learn and optimiser in {say(model.dtype)}, computing in {say(compute)}"


def say(dtype: torch.dtype) -> str:
    """A dtype as people write it."""
    return str(dtype).removeprefix("torch.")
