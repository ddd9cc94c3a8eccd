"""The sampler: many responses to many prompts from one transformers model, drawn reproducibly.

Prompts alike in length are prefilled together, once each; their key-value cache is fanned out to the n responses, and rows leave
the batch when they end. Every draw comes from a counter (seed, prompt, response index, step) and from a float64 softmax, so
that a response does not depend on which others share its batch: exactly so in float64, up to rounding at a probability's edge
in float32.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase

from workers.training import checkpoints, conversation
from workers.training.data import context_length
from workers.training.models import evaluation, without_pad

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True)
class Response:
    """One sampled response.

    `token_ids` ends with the end token where `finish_reason` is "stop"; `logprobs[t]` is the log-probability of token t at the
    sampling temperature over the whole vocabulary (before `top_p` cut it); `seed` identifies the response's stream of draws.
    """

    text: str
    token_ids: list[int]
    logprobs: list[float]
    finish_reason: FinishReason
    seed: int


@dataclass(frozen=True)
class Decoding:
    """How tokens are chosen. Temperature 0 takes the likeliest token, its log-probability given at temperature 1."""

    n: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    max_new_tokens: int = 128
    seed: int = 0

    def __post_init__(self) -> None:
        if self.n < 1 or self.max_new_tokens < 1:
            raise ValueError(f"n and max_new_tokens must be at least 1; they are {self.n} and {self.max_new_tokens}")
        if self.temperature < 0 or not 0 < self.top_p <= 1:
            raise ValueError(
                f"temperature must be 0 or more and top_p in (0, 1]; they are {self.temperature} and {self.top_p}"
            )


@dataclass
class _Row:
    """A response being drawn."""

    seed: int
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    ended: bool = False

    def uniform(self) -> float:
        """The next number in [0, 1) of this row's stream: 53 bits of a hash of (seed, step)."""
        counter = self.seed.to_bytes(8, "little") + len(self.tokens).to_bytes(4, "little")
        return (int.from_bytes(hashlib.blake2b(counter, digest_size=8).digest(), "little") >> 11) * 2.0**-53


class Engine:
    """Samples from a model that it does not own: weights changed outside (by PPO) are seen by the next call."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, max_rows: int = 256) -> None:
        """`max_rows` bounds the responses drawn side by side, and with it the memory of the cache."""
        self.model, self.tokenizer, self.max_rows = model, tokenizer, max_rows
        self.context = context_length(model.config)

    @classmethod
    def load(
        cls, folder: str | Path, device: str = "cpu", dtype: torch.dtype = torch.float32, *, max_rows: int = 256
    ) -> "Engine":
        """An engine over a checkpoint folder (or hub id)."""
        folder = checkpoints.resolve(folder)
        model = checkpoints.load_language_model(folder, dtype)
        return cls(model.to(device), checkpoints.load_tokenizer(folder), max_rows=max_rows)

    def sample(
        self,
        prompts: Sequence[Sequence[conversation.Message]],
        *,
        n: int,
        temperature: float,
        top_p: float = 1.0,
        max_new_tokens: int,
        seed: int,
    ) -> list[list[Response]]:
        """n responses to each prompt, in the order of the prompts. A prompt that occurs twice gets different responses.

        Raises ValueError naming the first prompt that leaves no room for `max_new_tokens` in the model's context.
        """
        ids = [conversation.encode_prompt(self.tokenizer, messages) for messages in prompts]
        return self.sample_ids(ids, Decoding(n, temperature, top_p, max_new_tokens, seed))

    def sample_ids(self, prompts: Sequence[list[int]], decoding: Decoding) -> list[list[Response]]:
        """`sample` for prompts that are token ids already."""
        self._check_room(prompts, decoding.max_new_tokens)
        rows = self._rows(prompts, decoding)
        with evaluation(self.model):
            for group in self._groups(prompts, decoding.n):
                self._draw([prompts[at] for at in group], [row for at in group for row in rows[at]], decoding)
        return [[self._response(row) for row in of_prompt] for of_prompt in rows]

    def _rows(self, prompts: Sequence[list[int]], decoding: Decoding) -> list[list[_Row]]:
        seen: dict[tuple[int, ...], int] = defaultdict(int)
        rows = []
        for ids in prompts:
            first = seen[key := tuple(ids)]
            seen[key] += decoding.n
            rows.append([_Row(_row_seed(decoding.seed, ids, first + index)) for index in range(decoding.n)])
        return rows

    def _check_room(self, prompts: Sequence[list[int]], max_new_tokens: int) -> None:
        for number, ids in enumerate(prompts, start=1):
            if not ids:
                raise ValueError(f"prompt {number} has no tokens; there is nothing to continue")
            if len(ids) + max_new_tokens > self.context:
                start = conversation.decode_response(self.tokenizer, ids)[:60]
                raise ValueError(
                    f"prompt {number} ({start!r}...) has {len(ids)} tokens; with {max_new_tokens} new ones it exceeds "
                    f"the model's context of {self.context}: shorten it or lower max_new_tokens"
                )

    def _groups(self, prompts: Sequence[list[int]], n: int) -> Iterator[list[int]]:
        order = sorted(range(len(prompts)), key=lambda at: len(prompts[at]))
        size = max(1, self.max_rows // n)
        yield from (order[at : at + size] for at in range(0, len(order), size))

    def _draw(self, prompts: list[list[int]], rows: list[_Row], decoding: Decoding) -> None:
        """Fill `rows` (the n of each prompt side by side): prefill, fan out, then a token a step until all have ended."""
        device, width = self.model.device, max(map(len, prompts))
        pad, end = self.tokenizer.pad_token_id or 0, self.tokenizer.eos_token_id
        ids = torch.tensor([[pad] * (width - len(p)) + p for p in prompts], device=device)
        mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=device)
        cache = DynamicCache(config=self.model.config)
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        logits = self._forward(ids, mask, positions, cache).repeat_interleave(decoding.n, 0)
        if decoding.n > 1:
            cache.batch_repeat_interleave(decoding.n)
        mask = mask.repeat_interleave(decoding.n, 0)
        live = list(rows)
        for _ in range(decoding.max_new_tokens - 1):
            tokens = _choose(logits, live, decoding, end)
            keep = [at for at, row in enumerate(live) if not row.ended]
            if not keep:
                return
            if len(keep) < len(live):
                index = torch.tensor(keep, device=device)
                cache.batch_select_indices(index)
                live, tokens, mask = [live[at] for at in keep], tokens[index], mask[index]
            mask = torch.cat([mask, mask.new_ones(len(live), 1)], 1)
            logits = self._forward(tokens[:, None], mask, mask.sum(1, keepdim=True) - 1, cache)
        _choose(logits, live, decoding, end)

    def _forward(self, ids: Tensor, mask: Tensor, positions: Tensor, cache: DynamicCache) -> Tensor:
        """(rows, V) float64 logits of the next token; `cache` grows by the columns of `ids`."""
        output = self.model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return without_pad(output.logits[:, -1].double(), self.model)

    def _response(self, row: _Row) -> Response:
        text = conversation.decode_response(self.tokenizer, row.tokens)
        return Response(text, row.tokens, row.logprobs, "stop" if row.ended else "length", row.seed)


def _choose(logits: Tensor, rows: list[_Row], decoding: Decoding, end: int) -> Tensor:
    """Draw one token for each row from logits (rows, V) by inverting the cumulative distribution, note it, return (rows,) ids."""
    logprobs = (logits / (decoding.temperature or 1.0)).log_softmax(-1)
    if decoding.temperature == 0:
        tokens = logprobs.argmax(-1)
    else:
        probabilities = logprobs.exp()
        if decoding.top_p < 1:
            probabilities = _nucleus(probabilities, decoding.top_p)
        edges = probabilities.cumsum(-1)
        uniforms = torch.tensor([[row.uniform()] for row in rows], dtype=edges.dtype, device=edges.device)
        tokens = (
            torch.searchsorted(edges, uniforms * edges[:, -1:], right=True).squeeze(1).clamp(max=edges.shape[-1] - 1)
        )
    chosen = logprobs.gather(1, tokens[:, None]).squeeze(1)
    for row, token, logprob in zip(rows, tokens.tolist(), chosen.tolist(), strict=True):
        row.tokens.append(token)
        row.logprobs.append(logprob)
        row.ended = token == end
    return tokens


def _nucleus(probabilities: Tensor, top_p: float) -> Tensor:
    """Zero all but the smallest set of likeliest tokens whose probability reaches `top_p` (Holtzman et al. 2020, section 3.1)."""
    ordered, index = probabilities.sort(-1, descending=True)
    outside = ordered.cumsum(-1) - ordered >= top_p
    return torch.zeros_like(probabilities).scatter(-1, index, ordered.masked_fill(outside, 0.0))


def _row_seed(seed: int, prompt: Sequence[int], index: int) -> int:
    """The 63-bit key of a response's draws; from the prompt's tokens, not its place, so that batches may be cut at will."""
    text = f"{seed}|{index}|{','.join(map(str, prompt))}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1
