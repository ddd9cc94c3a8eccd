"""What PPO changes and must be able to resume: two models under Adam, the averaged policy, the KL coefficient."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from workers.rlhf.kl import AdaptiveKL, FixedKL
from workers.training import lora, optimisers
from workers.training.events import State

ADAM_EPS = 1e-5
"""PyTorch's Adam takes far larger first steps than TensorFlow's at the usual eps (Huang et al. 2024, detail 20)."""


@dataclass
class Learner:
    """The learning half of PPO. `average` is the moving average of the policy's weights that learn; empty where `ema` is 0."""

    policy: PreTrainedModel
    value: PreTrainedModel
    policy_optimiser: torch.optim.AdamW
    value_optimiser: torch.optim.AdamW
    kl: FixedKL | AdaptiveKL
    ema: float
    max_grad_norm: float
    average: list[Tensor]

    @classmethod
    def begin(
        cls,
        policy: PreTrainedModel,
        value: PreTrainedModel,
        *,
        kl: FixedKL | AdaptiveKL,
        ema: float,
        max_grad_norm: float,
    ) -> "Learner":
        """Fresh optimisers, whose rates are told at each update; the average begins at the policy's weights."""
        optimiser, value_optimiser = (optimisers.adamw(model, eps=ADAM_EPS) for model in (policy, value))
        average = [parameter.detach().clone() for parameter in lora.learned(policy)] if ema else []
        return cls(policy, value, optimiser, value_optimiser, kl, ema, max_grad_norm, average)

    def update(self, lr: float, value_lr: float) -> dict[str, float]:
        """One Adam step of each model on the gradients at hand, then the average; the gradients' norms."""
        norm = optimisers.update(self.policy_optimiser, self.policy, lr, self.max_grad_norm)
        value_norm = optimisers.update(self.value_optimiser, self.value, value_lr, self.max_grad_norm)
        with torch.no_grad():
            for mean, parameter in zip(self.average, lora.learned(self.policy), strict=bool(self.average)):
                mean.lerp_(parameter, 1 - self.ema)
        return {"grad_norm": norm, "value_grad_norm": value_norm}

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The policy carries its averaged weights inside, its own again afterwards."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for mean, parameter in zip(self.average, lora.learned(self.policy), strict=bool(self.average)):
            held = parameter.clone()  # not by exchanging `data`: FSDP holds on to a shard's memory
            parameter.copy_(mean)
            mean.copy_(held)

    def state(self) -> State:
        """All that `load` needs; tensors are shared, not copied."""
        return {
            "policy": lora.state(self.policy),
            "value": lora.state(self.value),
            "policy_optimiser": self.policy_optimiser.state_dict(),
            "value_optimiser": self.value_optimiser.state_dict(),
            "kl_coef": self.kl.value,
            "average": self.average,
        }

    def load(self, state: State) -> None:
        """Go on from a saved state."""
        lora.load_state(self.policy, state["policy"])
        lora.load_state(self.value, state["value"])
        self.policy_optimiser.load_state_dict(state["policy_optimiser"])
        self.value_optimiser.load_state_dict(state["value_optimiser"])
        self.kl.value = state["kl_coef"]
        for mean, saved in zip(self.average, state["average"], strict=True):
            mean.copy_(saved)


def kl_coefficient(start: float, target: float | None, horizon: int) -> FixedKL | AdaptiveKL:
    """What stays at `start`, or with a target steers to it from there."""
    return FixedKL(start) if target is None else AdaptiveKL(start, target, horizon)
