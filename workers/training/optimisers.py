"""Adam as the paper runs it, and one update of it."""

import math

import torch
from transformers import PreTrainedModel

from workers.training import parallel


def adamw(model: PreTrainedModel, weight_decay: float = 0.0, eps: float = 1e-8) -> torch.optim.AdamW:
    """AdamW with betas (0.9, 0.95) (InstructGPT, appendix C); matrices decay, vectors (norms, biases) do not.

    Its learning rate is 0: `update` is told the rate of each step.
    """
    matrices = [parameter for parameter in model.parameters() if parameter.requires_grad and parameter.ndim >= 2]
    vectors = [parameter for parameter in model.parameters() if parameter.requires_grad and parameter.ndim < 2]
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.95), eps=eps, fused=True)


def update(optimiser: torch.optim.Optimizer, model: PreTrainedModel, lr: float, max_grad_norm: float) -> float:
    """Clip the gradient's norm, step at learning rate `lr`, clear the gradient; the norm before clipping.

    Raises RuntimeError, the weights untouched, where the gradient is not finite.
    """
    norm = parallel.full(torch.nn.utils.clip_grad_norm_(model.parameters(), max_grad_norm)).item()
    if not math.isfinite(norm):
        raise RuntimeError(
            f"the gradient's norm is {norm}; lower the learning rate, or look for broken rows in the data"
        )
    for group in optimiser.param_groups:
        group["lr"] = lr
    optimiser.step()
    optimiser.zero_grad()
    return norm
