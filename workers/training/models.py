"""What the loops ask of a transformers model: log-probabilities of responses, values per token, one score per response.

All take a `data.Batch`; dropout follows the model's mode (the loops keep it in evaluation mode for the reward model and PPO).
PAD is no token a model may emit: its logit is put out of reach here and in the sampler alike, so that both give the same
distribution.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel

from workers.training.data import Batch

NEVER = -1e9
"""A logit whose probability is exactly 0 in every precision, and still finite, so that 0 * logit is 0 in an entropy."""


def response_logits(model: PreTrainedModel, batch: Batch) -> Tensor:
    """(B, T, V) float32 logits that predict the last T tokens of each row; the head is applied to these columns only."""
    output = model(
        input_ids=batch.input_ids,
        attention_mask=batch.attention_mask,
        position_ids=batch.position_ids,
        logits_to_keep=batch.response_width + 1,
        use_cache=False,
    )
    return without_pad(output.logits[:, :-1].float(), model)


def flush_left(values: Tensor, batch: Batch) -> Tensor:
    """Values (B, T) of the last T tokens of each row, those of its response moved to the front; arbitrary behind them."""
    missing = batch.response_width - batch.response_mask.sum(1, keepdim=True)
    columns = torch.arange(batch.response_width, device=values.device) + missing
    return values.gather(1, columns.clamp(max=max(0, batch.response_width - 1)))


def without_pad(logits: Tensor, model: PreTrainedModel) -> Tensor:
    """Logits (..., V) with PAD's made impossible; unchanged for a model made elsewhere whose PAD is also its end token."""
    pad, end = model.config.pad_token_id, model.config.eos_token_id
    if pad is None or pad == end or (isinstance(end, list) and pad in end):
        return logits
    mask = torch.zeros(logits.shape[-1], dtype=torch.bool, device=logits.device)
    mask[pad] = True
    return logits.masked_fill(mask, NEVER)


def token_logprobs(logits: Tensor, tokens: Tensor, temperature: float = 1.0) -> Tensor:
    """(B, T) log-probability of `tokens` (B, T) under logits (B, T, V) at a temperature; the same T the sampler drew at."""
    if temperature != 1.0:
        logits = logits / temperature
    return -F.cross_entropy(logits.flatten(0, 1), tokens.flatten(), reduction="none").view(tokens.shape)


def response_logprobs(model: PreTrainedModel, batch: Batch, temperature: float = 1.0) -> Tensor:
    """(B, T) log-probability of each response token; columns outside `response_mask` hold no meaning."""
    return flush_left(token_logprobs(response_logits(model, batch), batch.last_tokens, temperature), batch)


def entropy(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """(B, T) entropy in nats of the distributions given by logits (B, T, V) at a temperature."""
    logits = logits / temperature
    return torch.logsumexp(logits, -1) - (logits.softmax(-1) * logits).sum(-1)


class Rows(Protocol):
    """What a forward pass takes: ids, positions, and a mask of tokens or of who sees whom."""

    @property
    def input_ids(self) -> Tensor:
        """(B, W) int64"""

    @property
    def attention_mask(self) -> Tensor:
        """(B, W) int64, or (B, 1, W, W) to be added to the attention scores"""

    @property
    def position_ids(self) -> Tensor:
        """(B, W) int64"""


def head_outputs(model: PreTrainedModel, batch: Rows) -> Tensor:
    """(B, W) the scalar head of a reward or value model at every column."""
    trunk: nn.Module = model.base_model
    output = trunk(
        input_ids=batch.input_ids,
        attention_mask=batch.attention_mask,
        position_ids=batch.position_ids,
        use_cache=False,
    )
    scores: Tensor = model.score(output.last_hidden_state)
    return scores.squeeze(-1).float()


def end_scores(model: PreTrainedModel, batch: Batch) -> Tensor:
    """(B,) raw score of each response, read at its last token (the end token, where it ended). Not yet less `reward_mean`."""
    return head_outputs(model, batch)[:, -1]


def state_values(model: PreTrainedModel, batch: Batch) -> Tensor:
    """(B, T) value of the state in which each response token was chosen: the head one column before the token."""
    return flush_left(head_outputs(model, batch)[:, -batch.response_width - 1 : -1], batch)


@contextmanager
def evaluation(model: PreTrainedModel) -> Iterator[None]:
    """No dropout and no gradients inside; the model's mode is put back afterwards."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():  # not inference_mode: what is computed here goes into losses as a constant
            yield
    finally:
        model.train(was_training)


def set_residual_dropout(model: PreTrainedModel, probability: float) -> None:
    """Set every dropout on the residual stream (`resid_dropout`, `resid_pdrop`'s modules in GPT-2) to a probability."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Dropout) and not name.endswith("attn_dropout"):
            module.p = probability
