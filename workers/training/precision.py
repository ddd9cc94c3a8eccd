"""In which precision a forward pass computes. Weights and optimiser stay float32 throughout: they are the master copy."""

from contextlib import AbstractContextManager

import torch

NAMES = ("auto", "float32", "bfloat16")


def compute_dtype(name: str, device: str | torch.device) -> torch.dtype:
    """The dtype of matrix products for a setting of `NAMES`; auto is bfloat16 on CUDA that has it, else float32.

    A CPU that knows bfloat16 is no faster with it unless it has tiles for it (AMX), so that auto leaves CPUs at float32.
    """
    if name == "auto":
        is_cuda = torch.device(device).type == "cuda"
        return torch.bfloat16 if is_cuda and torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    return {"float32": torch.float32, "bfloat16": torch.bfloat16}[name]


def autocast(device: torch.device, compute: torch.dtype) -> AbstractContextManager[None]:
    """Matrix products in `compute` inside; nothing changes for float32."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=compute is torch.bfloat16)


def say(dtype: torch.dtype) -> str:
    """A dtype as people write it."""
    return str(dtype).removeprefix("torch.")
