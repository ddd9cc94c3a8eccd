"""What holds in every run of PPO, looked at while it runs: faults that would otherwise pass for bad luck."""

import torch

EXACT = {torch.float32: 1e-3, torch.bfloat16: 1.0}
"""Nats by which two passes of equal weights may differ at a token: rounding in products of other shapes (seen: 0.25)."""
SAMPLER = {torch.float32: 0.01, torch.bfloat16: 0.05}
"""Largest mean |log p| between sampler and trainer, in nats a token, by what they compute in.

Same weights, other kernels: float32 gives about 1e-6, bfloat16, whose logits have two digits and a half, about 0.03.
"""


def require_zero(nats: float, compute: torch.dtype, what: str) -> None:
    """Raise RuntimeError where a log ratio of equal policies is not 0: the first ratio, the first KL."""
    if not nats <= EXACT[compute]:
        raise RuntimeError(
            f"{what} is {nats:.3g} nats at some token; expected 0. Are log-probabilities computed alike?"
        )


def require_agreement(nats: float, compute: torch.dtype) -> None:
    """Raise RuntimeError where sampler and trainer differ: PPO would learn from other probabilities than it drew from."""
    if not nats <= SAMPLER[compute]:
        raise RuntimeError(
            f"sampler and trainer disagree by {nats:.3g} nats a token; expected at most {SAMPLER[compute]}. "
            "The model may treat padding or cached keys differently from a plain forward pass"
        )
