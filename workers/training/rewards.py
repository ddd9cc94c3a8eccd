"""What PPO climbs: a reward is a callable over prompts and responses that returns named numbers, `score` among them.

A prompt is a row of the snapshot, so that a reward may look at its category, its reference answer, the name of its verifier. A
reward model is one such callable, a plain function is another, and `Mix` weighs several:

    def brief(prompts, responses):
        return {"score": [-len(response.token_ids) / 100 for response in responses]}

    reward = Mix({"model": (1.0, RewardModel.load(folder, tokenizer)), "brief": (0.5, brief)})
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from workers.training import checkpoints, conversation, data, models, reward
from workers.training.data import Pair, Prompt
from workers.training.engine import Response

Components = Mapping[str, Tensor | Sequence[float]]
"""(B,) numbers by name. `score` is what is climbed; the others are shown beside it."""


class Reward(Protocol):
    """Anything that tells what responses are worth, without learning from them."""

    def __call__(self, prompts: Sequence[Prompt], responses: Sequence[Response]) -> Components:
        """The components of B responses; responses[i] answers prompts[i], and a prompt may come several times."""


@dataclass(frozen=True)
class RewardModel:
    """A reward model's score of the text, less `reward_mean`: 0 is the mean of the demonstrations."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    max_tokens: int = 8192
    """Padded tokens in one forward pass."""
    compute: torch.dtype = torch.float32
    """What its matrix products are computed in."""

    @classmethod
    def load(
        cls,
        folder: Path,
        tokenizer: PreTrainedTokenizerBase,
        device: str = "cpu",
        max_tokens: int = 8192,
        compute: torch.dtype = torch.float32,
    ) -> "RewardModel":
        """The frozen reward model of a checkpoint; raises CheckpointError where it is none of ours."""
        model = checkpoints.load_reward_model(folder).requires_grad_(False)
        return cls(models.place(model, device), tokenizer, max_tokens, compute)

    def __call__(self, prompts: Sequence[Prompt], responses: Sequence[Response]) -> dict[str, Tensor]:
        """`score` (B,). The text is read anew, as people read it: the tokens drawn may spell it otherwise.

        Where that takes more tokens (broken UTF-8 does) than the model's context has left, the rest is cut off.
        """
        context = data.context_length(self.model.config)
        rows = []
        for prompt, response in zip(prompts, responses, strict=True):
            ids = conversation.encode_response(self.tokenizer, response.text, ended=response.finish_reason == "stop")
            rows.append(Pair(prompt.ids, ids[: context - len(prompt.ids)]))
        raw = torch.tensor(reward.score_rows(self.model, self.tokenizer, rows, self.max_tokens, self.compute))
        return {"score": raw - self.model.config.reward_mean}


@dataclass(frozen=True)
class Mix:
    """A weighted sum of rewards: `score` = sum over parts of weight * its score, every part's own score beside it by its name.

    Further components of a part keep their names behind the part's: `model_length` is what the part `model` calls `length`.
    """

    parts: Mapping[str, tuple[float, Reward]]
    """Weight and reward by name."""

    def __post_init__(self) -> None:
        if not self.parts or "score" in self.parts:
            raise ValueError(
                f"the parts of the mix are named {', '.join(self.parts) or 'nothing'}; name at least one, and none `score`, "
                "which is their sum"
            )

    def __call__(self, prompts: Sequence[Prompt], responses: Sequence[Response]) -> dict[str, Tensor]:
        """`score` and the components of the parts, (B,) each."""
        mixed: dict[str, Tensor] = {"score": torch.zeros(len(responses))}
        for part, (weight, worth) in self.parts.items():
            for name, values in measure(worth, prompts, responses).items():
                mixed[part if name == "score" else f"{part}_{name}"] = values
            mixed["score"] = mixed["score"] + weight * mixed[part]
        return mixed


def measure(
    worth: Reward, prompts: Sequence[Prompt], responses: Sequence[Response], device: str | torch.device = "cpu"
) -> dict[str, Tensor]:
    """The components of a reward as (B,) float32 tensors.

    Raises ValueError where `score` is missing, or a component is not one finite number for each response.
    """
    found = worth(prompts, responses)
    if "score" not in found:
        raise ValueError(f"the reward returned {', '.join(found) or 'nothing'}; expected a component named `score`")
    components = {name: torch.as_tensor(values, dtype=torch.float32, device=device) for name, values in found.items()}
    for name, values in components.items():
        if values.shape != (len(responses),):
            raise ValueError(
                f"the reward's {name} has the shape {tuple(values.shape)}; expected one number for each of {len(responses)} "
                "responses"
            )
        if not (finite := values.isfinite()).all():
            at = int((~finite).nonzero()[0])
            raise ValueError(
                f"the reward's {name} is {values[at].item()} for a response to prompt {prompts[at].id}; expected a finite number"
            )
    return components
