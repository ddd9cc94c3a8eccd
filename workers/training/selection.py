"""Which epoch's weights become the checkpoint of supervised fine-tuning (InstructGPT, C.1).

The paper trains on though validation loss rises, and takes the checkpoint whose answers the reward model likes best on validation
prompts. Where there is no reward model yet, the lowest validation loss decides.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from workers.training import checkpoints, conversation, data, lora, models, parallel, reward
from workers.training.data import Pair
from workers.training.engine import Decoding, Engine
from workers.training.events import State

RULES = ("auto", "last", "valid_loss", "reward")


def rule(choose: str, *, has_reward: bool, validation: int) -> tuple[str, str | None]:
    """The rule in force, last, valid_loss or reward, for a setting of `RULES`; and a sentence where it is not the one asked for.

    Raises ValueError where reward is asked for and there is no reward model.
    """
    if choose == "reward" and not has_reward:
        raise ValueError("choose is 'reward', but no reward model is given; name one with --reward")
    if choose != "last" and not validation:
        return (
            "last",
            "no demonstrations in split 'valid' to choose an epoch by: the last weights become the checkpoint",
        )
    if choose == "auto":
        return ("reward" if has_reward else "valid_loss"), None
    return choose, None


@dataclass
class Kept:
    """The best weights so far under a rule; the last ones need no keeping."""

    by: str
    epoch: int = 0
    """Counted from 1; 0: none is kept yet."""
    value: float = 0.0
    """Validation loss or mean reward of that epoch."""
    last: float = 0.0
    """That of the last epoch seen."""
    weights: list[Tensor] = field(default_factory=list)
    """In memory of the host."""

    def take(self, epoch: int, value: float, model: PreTrainedModel) -> None:
        """Keep the weights of `epoch` if its value is the best so far."""
        self.last = value
        if self.epoch == 0 or (value > self.value if self.by == "reward" else value < self.value):
            self.epoch, self.value = epoch, value
            self.weights = [weight.detach().to("cpu", copy=True) for weight in lora.learned(model)]

    @torch.no_grad()
    def restore(self, model: PreTrainedModel) -> None:
        """Put the kept weights into the model; it stays as it is where none are kept."""
        for parameter, weight in zip(lora.learned(model), self.weights, strict=bool(self.weights)):
            parameter.copy_(weight)

    def sentence(self, epochs: int) -> str:
        """What was kept and why."""
        why = "highest mean reward" if self.by == "reward" else "lowest validation loss"
        return f"kept the weights of epoch {self.epoch} of {epochs}: {why}, {self.value:.4g}; the last epoch's is {self.last:.4g}"

    def state(self) -> State:
        """All that `load` needs; tensors are shared, not copied."""
        return {"epoch": self.epoch, "value": self.value, "last": self.last, "weights": self.weights}

    def load(self, state: State) -> None:
        """Go on from a saved state."""
        self.epoch, self.value, self.last = state["epoch"], state["value"], state["last"]
        self.weights = [weight.to("cpu") for weight in state["weights"]]


@dataclass(frozen=True)
class Judge:
    """A reward model over the policy's own answers to validation prompts, one a prompt, the same draws every time."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    prompts: Sequence[list[int]]
    decoding: Decoding
    max_tokens: int

    @classmethod
    def load(
        cls,
        folder: Path,
        tokenizer: PreTrainedTokenizerBase,
        rows: Sequence[Pair],
        context: int,
        decoding: Decoding,
        max_tokens: int,
        device: str,
    ) -> "Judge":
        """A judge over the distinct prompts of `rows` that leave room for an answer.

        Raises CheckpointError where the reward model reads another format, ValueError where no prompt leaves room.
        """
        own, model = checkpoints.load_tokenizer(folder), checkpoints.load_reward_model(folder)
        if conversation.format_sha256(own) != conversation.format_sha256(tokenizer):
            raise checkpoints.CheckpointError(
                f"{folder} reads conversations in another format than this run writes; give a reward model of the same base"
            )
        room = min(context, data.context_length(model.config)) - decoding.max_new_tokens
        prompts = [list(prompt) for prompt in dict.fromkeys(tuple(row.prompt) for row in rows) if len(prompt) <= room]
        if not prompts:
            raise ValueError(
                f"no validation prompt leaves room for an answer of {decoding.max_new_tokens} tokens; lower max_new_tokens"
            )
        return cls(models.place(model, device), own, prompts, decoding, max_tokens)

    def score(self, policy: PreTrainedModel) -> float:
        """Mean reward of the policy's answers, less `reward_mean`."""
        scores = parallel.spread(partial(self._scores, policy), self.prompts)
        return sum(scores) / len(scores) - float(self.model.config.reward_mean)

    def _scores(self, policy: PreTrainedModel, prompts: Sequence[list[int]]) -> list[float]:
        answers = Engine(policy, self.tokenizer).sample_ids(prompts, self.decoding)
        rows, context = [], data.context_length(self.model.config)
        for prompt, (answer,) in zip(prompts, answers, strict=True):
            ids = conversation.encode_response(self.tokenizer, answer.text, ended=answer.finish_reason == "stop")
            rows.append(Pair(prompt, ids[: context - len(prompt)]))
        return reward.score_rows(self.model, self.tokenizer, rows, self.max_tokens)
