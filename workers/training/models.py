"""What the loops ask of a transformers model: log-probabilities of responses, values per token, one score per response.

Dropout follows the model's mode (the loops keep it in evaluation mode for the reward model and PPO).
PAD is no token a model may emit: its logit is put out of reach here and in the sampler alike, so that both give the same
distribution. Logits, the largest tensors of a language model, are made where something is scored only, and at most `LOGITS` at
a time: past that, in chunks that are computed again for the gradient. A head that does more than a linear layer is left whole.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from workers.training import parallel
from workers.training.data import Batch

NEVER = -1e9
"""A logit whose probability is exactly 0 in every precision, and still finite, so that 0 * logit is 0 in an entropy."""

LOGITS = 2**26
"""Logits held at a time: 256 MB in float32, about four times that with their gradient."""

_PLAIN: WeakKeyDictionary[PreTrainedModel, bool] = WeakKeyDictionary()


def response_logits(model: PreTrainedModel, batch: Batch) -> Tensor:
    """(B, T, V) logits, float32 or finer, that predict the last T tokens of each row; the head sees these columns only."""
    output = model(
        input_ids=batch.input_ids,
        attention_mask=batch.attention_mask,
        position_ids=batch.position_ids,
        logits_to_keep=batch.response_width + 1,
        use_cache=False,
    )
    return without_pad(float32_at_least(output.logits[:, :-1]), model)


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
    tokens = batch.last_tokens
    if tokens.numel() <= logits_at_once(model) or not has_plain_head(model):
        logprobs = token_logprobs(response_logits(model, batch), tokens, temperature)
    else:
        logprobs = state_logprobs(model, states_before(model, batch), tokens.flatten(), temperature).view(tokens.shape)
    return flush_left(logprobs, batch)


def states_before(model: PreTrainedModel, batch: Batch) -> Tensor:
    """(B * T, D) the states in which the last T columns' tokens are chosen, row by row."""
    return states(model, batch)[:, -batch.response_width - 1 : -1].flatten(0, 1)


def state_logprobs(model: PreTrainedModel, before: Tensor, tokens: Tensor, temperature: float = 1.0) -> Tensor:
    """(N,) log-probability of `tokens` (N,), each chosen in the state (N, D) `before` it, at most `LOGITS` logits at a time."""

    def score(before: Tensor, tokens: Tensor) -> Tensor:
        return token_logprobs(state_logits(model, before)[None], tokens[None], temperature)[0]

    if len(tokens) <= (size := logits_at_once(model)):
        return score(before, tokens)
    chunks = zip(before.split(size), tokens.split(size), strict=True)
    return torch.cat([checkpoint(score, *chunk, use_reentrant=False, preserve_rng_state=False) for chunk in chunks])


def logits_at_once(model: PreTrainedModel) -> int:
    """Tokens whose logits come to `LOGITS`."""
    return max(1, LOGITS // _vocabulary(model))


def state_logits(model: PreTrainedModel, before: Tensor) -> Tensor:
    """(..., V) logits, float32 or finer, of what is chosen in states (..., D), for a model that `has_plain_head`."""
    return without_pad(float32_at_least(head_logits(model, before)), model)


def head_logits(model: PreTrainedModel, before: Tensor) -> Tensor:
    """(..., V) the language model's head on states (..., D), softly capped where its config says so (Gemma 2)."""
    logits: Tensor = model.get_output_embeddings()(before)
    cap = getattr(model.config.get_text_config(), "final_logit_softcapping", None)
    return logits if cap is None else cap * torch.tanh(logits / cap)


def has_plain_head(model: PreTrainedModel) -> bool:
    """Whether `head_logits` of `states` are the model's logits: tried once on two tokens, not looked up."""
    if model not in _PLAIN:
        ids = torch.tensor([[0, 1]], device=model.device)
        with evaluation(model):
            expected = model(input_ids=ids, use_cache=False).logits
            try:
                found = head_logits(model, model.base_model(input_ids=ids, use_cache=False).last_hidden_state)
            except (AttributeError, RuntimeError, TypeError, ValueError):
                return _PLAIN.setdefault(model, False)
        half_the_digits = torch.finfo(expected.dtype).eps ** 0.5 * expected.abs().max().item()
        _PLAIN[model] = found.shape == expected.shape and (found - expected).abs().max().item() <= half_the_digits
    return _PLAIN[model]


def entropy(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """(B, T) entropy in nats of the distributions given by logits (B, T, V) at a temperature."""
    parts = []
    for part in logits.flatten(0, 1).split(max(1, LOGITS // logits.shape[-1])):
        scaled = part / temperature
        parts.append(torch.logsumexp(scaled, -1) - (scaled.softmax(-1) * scaled).sum(-1))
    return torch.cat(parts).view(logits.shape[:-1])


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


def states(model: PreTrainedModel, batch: Rows) -> Tensor:
    """(B, W, D) what the head reads: the last hidden state at every column."""
    output = parallel.trunk(model)(
        input_ids=batch.input_ids,
        attention_mask=batch.attention_mask,
        position_ids=batch.position_ids,
        use_cache=False,
    )
    last: Tensor = output.last_hidden_state
    return last


def head_outputs(model: PreTrainedModel, batch: Rows) -> Tensor:
    """(B, W) the scalar head of a reward or value model at every column."""
    return read_head(model, states(model, batch))


def read_head(model: PreTrainedModel, before: Tensor) -> Tensor:
    """(...) the scalar head on states (..., D), never coarser than float32: bfloat16 would tell 8.00 from 8.03 at best."""
    with torch.autocast(before.device.type, enabled=False):
        scores: Tensor = model.score(before.to(model.score.weight.dtype))
    return float32_at_least(scores.squeeze(-1))


def end_scores(model: PreTrainedModel, batch: Batch) -> Tensor:
    """(B,) raw score of each response, read at its last token (the end token, where it ended). Not yet less `reward_mean`."""
    return head_outputs(model, batch)[:, -1]


def state_values(model: PreTrainedModel, batch: Batch) -> Tensor:
    """(B, T) value of the state in which each response token was chosen: the head one column before the token."""
    return flush_left(head_outputs(model, batch)[:, -batch.response_width - 1 : -1], batch)


def place(model: PreTrainedModel, device: str) -> PreTrainedModel:
    """The model on its device; sharded there over the ranks, where there are several."""
    if parallel.size() == 1:
        return model.to(device)
    if model.get_output_embeddings() is not None:
        has_plain_head(model)  # while every rank holds the model whole
    return parallel.shard(model, device)


@contextmanager
def evaluation(model: PreTrainedModel) -> Iterator[None]:
    """No dropout and no gradients inside, all weights on every rank; the model's mode is put back afterwards."""
    was_training = model.training
    model.eval()
    try:
        # Not inference_mode: what is computed here goes into losses as a constant.
        with parallel.whole(model), torch.no_grad():
            yield
    finally:
        model.train(was_training)


def set_residual_dropout(model: PreTrainedModel, probability: float) -> None:
    """Set every dropout on the residual stream to a probability."""
    for module in residual_dropouts(model):
        module.p = probability


def residual_dropouts(model: PreTrainedModel) -> list[nn.Dropout]:
    """The modules that drop units on the residual stream (`resid_dropout` and the like in GPT-2); Llama's kin have none."""
    return [
        module
        for name, module in model.named_modules()
        if isinstance(module, nn.Dropout)
        and name.rpartition(".")[2] not in ("attn_dropout", "attention_dropout")
        and ".lora_dropout." not in name
    ]


def float32_at_least(values: Tensor) -> Tensor:
    """The values in float32, or in float64 where they came so: what a model computed in bfloat16 is summed no coarser."""
    return values if values.dtype is torch.float64 else values.float()


def _vocabulary(model: PreTrainedModel) -> int:
    return int(model.config.get_text_config().vocab_size)
