"""How a response's tokens are chosen: the settings, the counter that every draw comes from, and the choice itself.

A draw inverts the cumulative distribution of a float64 softmax at a number that is a hash of (seed, prompt, response index,
step). It therefore does not depend on which others share the batch: exactly so where the model computes in float64, up to
rounding at a probability's edge in float32 and bfloat16 (`share_equal` counts how often that decides).
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

FinishReason = Literal["stop", "length"]

ELEMENTS_AT_ONCE = 2**22
"""Logits turned into float64 probabilities side by side, so that a large vocabulary takes no more memory than a small one."""


@dataclass(frozen=True)
class Response:
    """One sampled response.

    `finish_reason` is "stop" where it ended by itself: either `token_ids` closes with an end token, or a stop string was met,
    `text` is what comes before it, and `token_ids` are the fewest tokens that spell `text` (the last may spell more).
    `logprobs[t]` is the log-probability of token t at the sampling temperature over the whole vocabulary, before `top_k` and
    `top_p` cut it; `seed` identifies the response's stream of draws.
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
    """Responses to each prompt."""
    temperature: float = 1.0
    """T: logits are divided by it."""
    top_p: float = 1.0
    """Probability that the likeliest tokens kept must reach, of what `top_k` left; 1 keeps all."""
    max_new_tokens: int = 128
    """Longest response, the end token included."""
    seed: int = 0
    """Of all draws."""
    top_k: int = 0
    """How many of the likeliest tokens are kept; 0 keeps all."""
    stop: tuple[str, ...] = ()
    """Strings that end a response where its text first contains one; the text is cut before it."""

    def __post_init__(self) -> None:
        if self.n < 1 or self.max_new_tokens < 1:
            raise ValueError(f"n and max_new_tokens must be at least 1; they are {self.n} and {self.max_new_tokens}")
        if self.temperature < 0 or not 0 < self.top_p <= 1:
            raise ValueError(
                f"temperature must be 0 or more and top_p in (0, 1]; they are {self.temperature} and {self.top_p}"
            )
        if self.top_k < 0 or not all(self.stop):
            raise ValueError(f"top_k must be 0 or more and no stop string empty; they are {self.top_k} and {self.stop}")

    @property
    def cuts(self) -> bool:
        """Whether unlikely tokens are left out."""
        return self.top_p < 1 or self.top_k > 0


@dataclass
class Row:
    """A response being drawn."""

    decoding: Decoding
    prompt_tokens: int
    seed: int
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    finish_reason: FinishReason | None = None
    """None while it goes on."""

    @property
    def length(self) -> int:
        """Tokens so far, the prompt's included."""
        return self.prompt_tokens + len(self.tokens)

    def uniform(self) -> float:
        """The next number in [0, 1) of this row's stream: 53 bits of a hash of (seed, step)."""
        counter = self.seed.to_bytes(8, "little") + len(self.tokens).to_bytes(4, "little")
        return (int.from_bytes(hashlib.blake2b(counter, digest_size=8).digest(), "little") >> 11) * 2.0**-53


def row_seed(seed: int, prompt: Sequence[int], index: int) -> int:
    """The 63-bit key of a response's draws; from the prompt's tokens, not its place, so that batches may be cut at will."""
    text = f"{seed}|{index}|{','.join(map(str, prompt))}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def draw(logits: Tensor, rows: Sequence[Row], readable: Callable[[Tensor], Tensor]) -> list[int]:
    """Draw one token for each row from logits (rows, V) and note it in the row; the tokens.

    `readable` puts logits of tokens that may not be drawn out of reach.
    """
    at_once = max(1, ELEMENTS_AT_ONCE // logits.shape[-1])
    drawn = [
        _choose(readable(logits[at : at + at_once].double()), rows[at : at + at_once])
        for at in range(0, len(rows), at_once)
    ]
    tokens, logprobs = (torch.cat(parts).tolist() for parts in zip(*drawn, strict=True))
    for row, token, logprob in zip(rows, tokens, logprobs, strict=True):
        row.tokens.append(token)
        row.logprobs.append(logprob)
    return list(tokens)


def share_equal(one: Sequence[Sequence[Response]], other: Sequence[Sequence[Response]]) -> float:
    """Share of responses with the same tokens in two samplings of the same prompts, by place."""
    pairs = [(a, b) for left, right in zip(one, other, strict=True) for a, b in zip(left, right, strict=True)]
    return sum(a.token_ids == b.token_ids for a, b in pairs) / len(pairs)


def _choose(logits: Tensor, rows: Sequence[Row]) -> tuple[Tensor, Tensor]:
    """Ids (rows,) drawn from float64 logits (rows, V), and their log-probabilities (rows,)."""

    def column(values: list[float]) -> Tensor:
        return torch.tensor(values, dtype=logits.dtype, device=logits.device)[:, None]

    decodings = [row.decoding for row in rows]
    if any(decoding.temperature not in (0, 1) for decoding in decodings):
        logits = logits / column([decoding.temperature or 1.0 for decoding in decodings])
    logprobs = logits.log_softmax(-1)
    probabilities = logprobs.exp()
    if any(decoding.cuts for decoding in decodings):
        ranks = column([decoding.top_k or logits.shape[-1] for decoding in decodings])
        masses = column([decoding.top_p if decoding.top_p < 1 else float("inf") for decoding in decodings])
        probabilities = _cut(probabilities, ranks, masses)
    edges = probabilities.cumsum(-1)
    uniforms = column([row.uniform() for row in rows])
    tokens = torch.searchsorted(edges, uniforms * edges[:, -1:], right=True).clamp(max=edges.shape[-1] - 1)
    if any(decoding.temperature == 0 for decoding in decodings):
        greedy = column([decoding.temperature for decoding in decodings]) == 0
        tokens = torch.where(greedy, logprobs.argmax(-1, keepdim=True), tokens)
    return tokens.squeeze(1), logprobs.gather(1, tokens).squeeze(1)


def _cut(probabilities: Tensor, top_k: Tensor, top_p: Tensor) -> Tensor:
    """Zero all but each row's `top_k` (rows, 1) likeliest tokens (Fan et al. 2018, section 5.2), and of these all but the fewest
    that hold the share `top_p` (rows, 1) of what is left (Holtzman et al. 2020, section 3.1); infinite keeps all."""
    ordered, index = probabilities.sort(dim=-1, descending=True, stable=True)
    ordered = ordered.masked_fill(torch.arange(ordered.shape[-1], device=ordered.device) >= top_k, 0.0)
    outside = ordered.cumsum(-1) - ordered >= top_p * ordered.sum(-1, keepdim=True)
    return torch.zeros_like(probabilities).scatter(-1, index, ordered.masked_fill(outside, 0.0))
