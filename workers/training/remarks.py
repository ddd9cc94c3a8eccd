"""What a person should know of a PPO run while it runs: sentences for its log."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from torch import Tensor

from workers.training import lora, precision
from workers.training.material import Material
from workers.training.starts import Models

if TYPE_CHECKING:
    from workers.training.ppo import PPOConfig

WIDE = 20
"""Scores are wide once they spread by this many `cliprange_value`; its default is a fifth of the deviation it is meant for."""


def at_start(parts: Models, material: Material, config: "PPOConfig") -> Iterator[str]:
    """Where and in what models compute, what of them learns, what cannot be read together, what was left out."""
    yield precision.sentence(parts.policy, parts.compute)
    for name, model in (("policy", parts.policy), ("value function", parts.value)):
        if sentence := lora.sentence(model, config):
            yield f"{name}: {sentence}"
    if config.responses_per_prompt > 1 and not parts.layout.takes_rows:
        yield "the models do not read several responses behind one prompt alike; each is read with its prompt by itself"
    if dropped := material.too_long:
        yield f"{len(dropped)} prompts leave no room for a response and were left out, the first is {dropped[0]}"


def on_spread(scores: Tensor, config: "PPOConfig") -> str | None:
    """That a value function clipped in units of the score cannot follow scores (B,) that spread far wider; else nothing.

    Whitened rewards have the deviation that the clipping is meant for, whatever the scores'.
    """
    deviation = scores.std().item() if len(scores) > 1 else 0.0
    if config.whiten_rewards or deviation <= WIDE * config.cliprange_value:
        return None
    return (
        f"scores spread by {deviation:.3g} (standard deviation) and cliprange_value is {config.cliprange_value:g}: in an "
        "iteration a value counts only until it has moved by that, so that the value function hardly learns; "
        f"{deviation / 5:.2g} would be to these scores what 0.2 is to scores of deviation 1"
    )
