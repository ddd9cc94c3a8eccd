"""What a run of PPO begins from: checkpoints on disk, and the models they become."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from workers.training import checkpoints, lora, models, passes, precision
from workers.training.data import Prompt
from workers.training.passes import Layout
from workers.training.rewards import Reward, RewardModel


@dataclass(frozen=True)
class Starts:
    """The checkpoints PPO begins from, and the text it mixes in."""

    policy: Path
    reward: Path | None
    """The value function begins as this reward model, which is also what is climbed where no other reward is given."""
    reference: Path
    """What the divergence is measured against: the SFT model, in the paper."""
    watch: Path | None = None
    """A second reward model, best of all trained on the other half of the prompts: measured, never climbed."""
    text: Path | None = None
    """Snapshot of plain text: mixed in where `ptx_coef` is set, its held-out likelihood reported in any case."""

    def checkpoints(self) -> dict[str, Path]:
        """The checkpoints there are, by role."""
        roles = {"policy": self.policy, "reward": self.reward, "reference": self.reference, "watch": self.watch}
        return {role: folder for role, folder in roles.items() if folder is not None}


@dataclass(frozen=True)
class Models:
    """The models of PPO (InstructGPT, section 3.5). `policy` and `value` learn; the others stay as they are."""

    policy: PreTrainedModel
    reference: PreTrainedModel
    value: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    layout: Layout
    """How responses are laid out for policy, reference and value function."""
    reward: Reward
    """What the policy climbs."""
    watch: Reward | None = None
    """A second reward model, asked at held-out reports only."""
    compute: torch.dtype = torch.float32
    """What matrix products are computed in; weights that learn are float32 whatever this is."""

    def with_layout_for(self, prompts: Sequence[Prompt], responses: int, max_new_tokens: int) -> "Models":
        """The same models, laying out so many responses to each prompt as they can read them."""
        language = (self.policy, self.reference)
        return replace(
            self, layout=passes.choose(self.layout, language, self.value, prompts, responses, max_new_tokens)
        )


def load(
    starts: Starts,
    device: str,
    reward: Reward | None = None,
    micro_batch_tokens: int = 8192,
    adapters: lora.Settings = lora.Settings(),
    seed: int = 0,
    compute: torch.dtype = torch.float32,
) -> Models:
    """All models, in evaluation mode, after checking that they read conversations alike.

    Without a reward model the value function begins as the policy under a head of zeros. Where policy and value function learn by
    adapters, their frozen weights are also those of the reference, if it is the same checkpoint, and of the reward model.
    Raises ValueError without any reward.
    """
    tokenizer = checkpoints.load_tokenizer(starts.policy)
    if not tokenizer.chat_template:
        raise checkpoints.CheckpointError(
            f"{starts.policy} has no chat template; fine-tune it with `preferable train sft` first"
        )
    for folder in (starts.reward, starts.reference, starts.watch):
        if folder is not None:
            checkpoints.require_same_format(starts.policy, folder)
    policy = checkpoints.load_language_model(starts.policy)
    checkpoints.prepare(policy, tokenizer)
    if adapters.lora_rank and starts.reference.samefile(starts.policy):
        reference = lora.twin(policy)
    else:
        reference = checkpoints.load_language_model(starts.reference)
        checkpoints.prepare(reference, tokenizer)
    reference.requires_grad_(False)
    value = _value_function(starts)
    if reward is None:
        if starts.reward is None:
            raise ValueError("there is nothing to climb: give a reward model, a reward, or both")
        if adapters.lora_rank:
            climbed = lora.twin(value).requires_grad_(False)
            reward = RewardModel(climbed.to(device), tokenizer, micro_batch_tokens, compute)
        else:
            reward = RewardModel.load(starts.reward, tokenizer, device, micro_batch_tokens, compute)
    watch = None
    if starts.watch is not None:
        watch = RewardModel.load(starts.watch, tokenizer, device, micro_batch_tokens, compute)
    models.has_plain_head(policy)  # both before weights are narrowed, which a pass outside autocast does not take
    models.has_plain_head(reference)
    for model in (policy, value):
        lora.attach(model, adapters, seed, compute=compute)
    onlookers = [reference, *(each.model for each in (reward, watch) if isinstance(each, RewardModel))]
    for model in onlookers if compute is torch.bfloat16 else ():
        precision.narrow(model, compute, exactly=bool(adapters.lora_rank))
    policy, reference, value = (models.place(model, device) for model in (policy, reference, value))
    dtype = compute if compute is torch.bfloat16 else policy.dtype
    layout = Layout(tokenizer.pad_token_id, policy.device, dtype)
    return Models(policy, reference, value, tokenizer, layout, reward, watch, compute)


def _value_function(starts: Starts) -> PreTrainedModel:
    if starts.reward is not None:
        return checkpoints.load_reward_model(starts.reward)
    value = checkpoints.reward_model_from(starts.policy, seed=0)
    nn.init.zeros_(value.score.weight)
    value.config.reward_mean = 0.0
    return value
