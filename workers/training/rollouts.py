"""What PPO learns from: the policy's own responses, scored by the reward model and measured against the reference."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from workers.rlhf import kl
from workers.rlhf.masked import masked_mean
from workers.training import conversation, data, models, reward
from workers.training.data import Pair
from workers.training.engine import Decoding, Engine, Response

SAMPLER_TOLERANCE = 0.01
"""Largest mean |log p| between sampler and trainer, in nats a token. Same weights, other kernels: float32 gives about 1e-6."""


@dataclass(frozen=True)
class Models:
    """The four models of PPO (InstructGPT, section 3.5). `policy` and `value` learn; the others stay as they are."""

    policy: PreTrainedModel
    reference: PreTrainedModel
    reward: PreTrainedModel
    value: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase


@dataclass(frozen=True)
class Rollouts:
    """B episodes of one prompt and one response each; responses flush left in T columns."""

    rows: list[Pair]
    ended: list[bool]
    """Whether the response closed with the end token, or was cut at the length limit."""
    scores: Tensor
    """(B,) the reward model's score of the text, less `reward_mean`."""
    mask: Tensor
    """(B, T) bool, True on response tokens."""
    logprobs: Tensor
    """(B, T) under the policy that drew them, at the sampling temperature."""
    ref_logprobs: Tensor
    """(B, T) under the reference, at the same temperature."""
    values: Tensor
    """(B, T) of the state before each token; zeros where no value model was asked."""
    entropy: float
    """Mean over tokens, nats."""

    def sequence_kl(self) -> Tensor:
        """(B,) sum over tokens of log pi - log pi_ref."""
        return kl.sequence_kl(self.logprobs, self.ref_logprobs, self.mask)

    def metrics(self) -> dict[str, float]:
        """Mean score, KL, entropy, length in tokens, and the share that ended."""
        return {
            "score": self.scores.mean().item(),
            "kl": self.sequence_kl().mean().item(),
            "entropy": self.entropy,
            "length": self.mask.sum(1).float().mean().item(),
            "ended": sum(self.ended) / len(self.ended),
        }


def collect(
    parts: Models,
    prompts: Sequence[data.Prompt],
    decoding: Decoding,
    micro_batch_tokens: int,
    *,
    with_values: bool = True,
) -> Rollouts:
    """Let the policy answer each prompt `decoding.n` times, and score, measure and value the answers; no gradients.

    Raises RuntimeError where the sampler's log-probabilities and the trainer's differ: PPO would then learn from other
    probabilities than it drew from.
    """
    answers = Engine(parts.policy, parts.tokenizer).sample_ids([prompt.ids for prompt in prompts], decoding)
    answered = [(prompt, answer) for prompt, of_prompt in zip(prompts, answers, strict=True) for answer in of_prompt]
    rows = [Pair(prompt.ids, answer.token_ids) for prompt, answer in answered]
    device = parts.policy.device
    mask = _padded([torch.ones(len(row.response), dtype=torch.bool) for row in rows]).to(device)
    logprobs, ref_logprobs, entropies, values = (torch.zeros(mask.shape, device=device) for _ in range(4))
    offset = parts.reward.config.reward_mean
    with models.evaluation(parts.policy), models.evaluation(parts.value):
        for chunk in data.micro_batches(range(len(rows)), [len(row) for row in rows], micro_batch_tokens):
            batch = data.collate([rows[at] for at in chunk], parts.tokenizer.pad_token_id, device)
            width, logits = batch.response_width, models.response_logits(parts.policy, batch)
            drawn_logprobs = models.token_logprobs(logits, batch.last_tokens, decoding.temperature)
            logprobs[chunk, :width] = models.flush_left(drawn_logprobs, batch)
            entropies[chunk, :width] = models.flush_left(models.entropy(logits, decoding.temperature), batch)
            ref_logprobs[chunk, :width] = models.response_logprobs(parts.reference, batch, decoding.temperature)
            if with_values:
                values[chunk, :width] = models.state_values(parts.value, batch) - offset
    drawn = _padded([torch.tensor(answer.logprobs) for _, answer in answered]).to(device)
    gap = masked_mean((drawn - logprobs).abs(), mask).item()
    if not gap <= SAMPLER_TOLERANCE:
        raise RuntimeError(
            f"sampler and trainer disagree by {gap:.3g} nats a token; expected at most {SAMPLER_TOLERANCE}. "
            "The model may treat padding or cached keys differently from a plain forward pass"
        )
    return Rollouts(
        rows=rows,
        ended=[answer.finish_reason == "stop" for _, answer in answered],
        scores=_scores(parts, answered, micro_batch_tokens),
        mask=mask,
        logprobs=logprobs * mask,
        ref_logprobs=ref_logprobs * mask,
        values=values * mask,
        entropy=masked_mean(entropies, mask).item(),
    )


def _scores(parts: Models, answered: Sequence[tuple[data.Prompt, Response]], micro_batch_tokens: int) -> Tensor:
    """(B,) normalised scores. The reward model reads the text anew, as people do: the tokens drawn may spell it otherwise.

    Where that takes more tokens (broken UTF-8 does) than the reward model's context has left, the rest is cut off.
    """
    context = data.context_length(parts.reward.config)
    rows = []
    for prompt, answer in answered:
        ids = conversation.encode_response(parts.tokenizer, answer.text, ended=answer.finish_reason == "stop")
        rows.append(Pair(prompt.ids, ids[: context - len(prompt.ids)]))
    scores = reward.score_rows(parts.reward, parts.tokenizer, rows, micro_batch_tokens)
    return torch.tensor(scores, device=parts.policy.device) - parts.reward.config.reward_mean


def _padded(rows: Sequence[Tensor]) -> Tensor:
    return torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True)
