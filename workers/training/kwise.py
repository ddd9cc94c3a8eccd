"""Scores of ranked sets, K-wise: one row holds the prompt once and its K responses behind it.

Every response attends to the prompt and to itself alone, and its positions go on from the prompt's end, so that its score is
that of the response encoded by itself; the prompt is computed once instead of K times. Who sees whom is told in one of two ways:

- Short sets (a few hundred tokens) lie in rows of a padded batch, under a mask of our own, of four dimensions: without one,
  transformers takes restarted positions for packed documents and hides the prompt from all responses but the first.
- Long sets (`LONG`) lie end to end in one row without padding, and attention is computed block by block: the prompt causally,
  each response against the prompt and itself. What the mask would hide is never computed. Nor is what no score depends on: in
  the last layer, attention and feed-forward run at the responses' last tokens only.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AttentionInterface, PreTrainedModel, PreTrainedTokenizerBase
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from workers.training import data, models, parallel, precision
from workers.training.data import Pair
from workers.training.frozen import Lower
from workers.training.rankings import RankedSet

PAD_SEGMENT = -1
"""Where padding belongs; the prompt is segment 0 and the responses are 1 to K."""

LONG = 512
"""Tokens of a set from which attention by blocks pays: its calls are few beside what they save."""

BY_BLOCKS = "kwise_blocks"
"""The name under which transformers finds `_attend`."""


@dataclass(frozen=True)
class SetBatch:
    """B rows of W columns, flush left, with N responses in all."""

    input_ids: Tensor
    """(B, W) int64"""
    attention_mask: Tensor
    """(B, 1, W, W), added to the attention scores: 0 where a column may be seen, the lowest number where not"""
    position_ids: Tensor
    """(B, W) int64; every response goes on from the end of the prompt"""
    ends: tuple[Tensor, Tensor]
    """Rows (N,) and columns (N,) of the responses' last tokens, in the order of the sets' outputs"""
    tokens: Tensor
    """(B, W) bool, False on padding"""


def collate(sets: Sequence[Sequence[Pair]], pad_id: int, dtype: torch.dtype, device: torch.device) -> SetBatch:
    """Sets of responses to one prompt each as one batch, the mask in the `dtype` that the model computes in."""
    rows = [_Row.of(outputs) for outputs in sets]
    width = max(len(row.ids) for row in rows)
    segments = torch.tensor([row.segments + [PAD_SEGMENT] * (width - len(row.ids)) for row in rows], device=device)
    seen, seeing = segments[:, None, :], segments[:, :, None]
    visible = ((seen == 0) | (seen == seeing)).tril()  # padding sees padding, so that no softmax is over nothing
    mask = torch.zeros(visible.shape, dtype=dtype, device=device).masked_fill_(~visible, torch.finfo(dtype).min)
    ends = [(at, end) for at, row in enumerate(rows) for end in row.ends]
    return SetBatch(
        torch.tensor([row.ids + [pad_id] * (width - len(row.ids)) for row in rows], device=device),
        mask[:, None],
        torch.tensor([row.positions + [0] * (width - len(row.ids)) for row in rows], device=device),
        (torch.tensor([at for at, _ in ends], device=device), torch.tensor([end for _, end in ends], device=device)),
        segments != PAD_SEGMENT,
    )


@dataclass(frozen=True)
class _Row:
    ids: list[int]
    positions: list[int]
    segments: list[int]
    ends: list[int]

    @classmethod
    def of(cls, outputs: Sequence[Pair]) -> "_Row":
        prompt = outputs[0].prompt
        row = cls(list(prompt), list(range(len(prompt))), [0] * len(prompt), [])
        for segment, output in enumerate(outputs, 1):
            row.ids.extend(output.response)
            row.positions.extend(range(len(prompt), len(output)))
            row.segments.extend([segment] * len(output.response))
            row.ends.append(len(row.ids) - 1)
        return row


@dataclass(frozen=True)
class BlockBatch:
    """Sets end to end in one row of W columns, with N responses in all: S segments, each a prompt or one of its responses."""

    input_ids: Tensor
    """(1, W) int64"""
    position_ids: Tensor
    """(1, W) int64; every prompt starts at 0 and every response goes on from the end of its prompt"""
    ends: Tensor
    """(N,) columns of the responses' last tokens, in the order of the sets' outputs"""
    lengths: list[int]
    """S numbers of tokens, W in all"""
    masks: list[Tensor | None]
    """S masks: (1, 1, R, P + R) of a response's R tokens over its prompt's P and its own, added to the scores; None: a prompt"""

    @property
    def tokens(self) -> Tensor:
        """(1, W) bool, True: there is no padding."""
        return torch.ones_like(self.input_ids, dtype=torch.bool)


def collate_blocks(sets: Sequence[Sequence[Pair]], dtype: torch.dtype, device: torch.device) -> BlockBatch:
    """Sets of responses to one prompt each end to end, the masks in the `dtype` that the model computes in."""
    rows = [_Row.of(outputs) for outputs in sets]
    firsts = accumulate((len(row.ids) for row in rows), initial=0)
    ends = [first + end for first, row in zip(firsts, rows, strict=False) for end in row.ends]
    lengths: list[int] = []
    masks: list[Tensor | None] = []
    for outputs in sets:
        width = len(outputs[0].prompt)
        lengths.append(width)
        masks.append(None)
        for output in outputs:
            size = len(output.response)
            later = torch.full((size, size), torch.finfo(dtype).min, dtype=dtype, device=device).triu(1)
            lengths.append(size)
            masks.append(F.pad(later, (width, 0))[None, None])
    return BlockBatch(
        torch.tensor([[token for row in rows for token in row.ids]], device=device),
        torch.tensor([[position for row in rows for position in row.positions]], device=device),
        torch.tensor(ends, device=device),
        lengths,
        masks,
    )


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    lengths: Sequence[int],
    masks: Sequence[Tensor | None],
    last_layer: int,
    sliding_window: int | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Attention (1, W, H, D) of query (1, H, W, D) over key and value (1, H or fewer, W, D), segment by segment.

    In the last layer the responses' last tokens alone attend; all other columns are 0, and nothing reads them.
    Raises ValueError where the model's attention does not reach back over a prompt and its response.
    """
    if sliding_window is not None and sliding_window < max(mask.shape[3] for mask in masks if mask is not None):
        raise ValueError(f"its attention reaches {sliding_window} tokens back only")
    is_last = module.layer_idx == last_layer
    found = []
    prompt = seen = (key, value)
    # Split, not sliced: the gradient of a slice is as wide as the whole row.
    segments = zip(*(tensor.split(list(lengths), 2) for tensor in (query, key, value)), strict=True)
    for (q, k, v), mask in zip(segments, masks, strict=True):
        if mask is None:
            prompt = seen = (k, v)
        else:
            seen = (torch.cat([prompt[0], k], 2), torch.cat([prompt[1], v], 2))
        if not is_last:
            found.append(sdpa_attention_forward(module, q, *seen, mask, **options)[0])
        elif mask is None:
            found.append(q.new_zeros(1, q.shape[2], q.shape[1], v.shape[3]))
        else:
            at_end, _ = sdpa_attention_forward(module, q[:, :, -1:], *seen, None, **options)
            found.append(F.pad(at_end, (0, 0, 0, 0, q.shape[2] - 1, 0)))
    return torch.cat(found, 1), None


AttentionInterface.register(BY_BLOCKS, _attend)


@contextmanager
def _by_blocks(model: PreTrainedModel, batch: BlockBatch) -> Iterator[None]:
    """Inside, the model attends by `_attend`, and its last feed-forward layer computes the columns `batch.ends` only."""
    feed_forward = [module for name, module in model.base_model.named_modules() if name.endswith(".mlp")][-1]

    def pick(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (inputs[0][:, batch.ends],)

    def put_back(_: nn.Module, __: tuple[Tensor, ...], output: Tensor) -> Tensor:
        whole = output.new_zeros(1, batch.input_ids.shape[1], output.shape[2])
        return whole.index_copy(1, batch.ends, output)

    hooks = [feed_forward.register_forward_pre_hook(pick), feed_forward.register_forward_hook(put_back)]
    before, model.config._attn_implementation = model.config._attn_implementation, BY_BLOCKS
    try:
        yield
    finally:
        model.config._attn_implementation = before
        for hook in hooks:
            hook.remove()


def block_states(model: PreTrainedModel, batch: BlockBatch) -> Tensor:
    """(N, D) the last hidden state at each response's last token."""
    with _by_blocks(model, batch):
        output = parallel.trunk(model)(
            input_ids=batch.input_ids,
            position_ids=batch.position_ids,
            use_cache=False,
            lengths=batch.lengths,
            masks=batch.masks,
            last_layer=model.config.num_hidden_layers - 1,
        )
    last: Tensor = output.last_hidden_state[0, batch.ends]
    return last


@dataclass(frozen=True)
class SetScorer:
    """Raw scores of whole sets under a reward model, within a budget of padded tokens."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    max_tokens: int
    why_alone: str | None
    """Why each response is encoded by itself; None where the model takes K responses in one row."""
    takes_blocks: bool = False
    """Whether long sets are attended block by block."""
    compute: torch.dtype = torch.float32
    """Of forward passes: bfloat16, or the precision of the weights."""
    lower: Lower | None = None
    """Frozen blocks; passes begin behind them where what they put out is kept."""

    @classmethod
    def choose(
        cls,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        sets: Sequence[RankedSet],
        max_tokens: int = 16384,
        compute: torch.dtype = torch.float32,
    ) -> "SetScorer":
        """K responses in one row if the model scores the longest sets so as it does response by response; by blocks if it can.

        It is tried, not looked up: attention that cannot take the mask (flash, sliding windows, recurrence) shows in the scores.
        """
        packed, alone = (cls(model, tokenizer, max_tokens, why, compute=compute) for why in (None, "each by itself"))
        blocks, longest = replace(packed, takes_blocks=True), max(sets, key=len)
        narrowest, widest = min(sets, key=packed._width), max(sets, key=packed._width)
        probes = [widest, longest, narrowest] if packed._width(widest) >= LONG else []
        differences = [parallel.agree(alone._difference(blocks, probe)) for probe in probes]
        if probes and not any(differences):
            return blocks
        return replace(packed, why_alone=parallel.agree(alone._difference(packed, longest)))

    def _difference(self, other: "SetScorer", element: RankedSet) -> str | None:
        """How the other's scores of a set fail to be these; None where they are."""
        with models.evaluation(self.model):
            expected = self.score([element])
            try:
                difference = (other.score([element]) - expected).abs().max().item()
            except (AttributeError, IndexError, RuntimeError, TypeError, ValueError) as error:
                return f"{type(error).__name__}: {error}"
        half_the_digits = torch.finfo(self._dtype).eps ** 0.5 * expected.abs().max().item()
        return None if difference <= half_the_digits else f"its scores would differ by {difference:.1g}"

    def micro_batches(self, sets: Sequence[RankedSet]) -> Iterator[tuple[list[RankedSet], float]]:
        """Whole sets, alike in length, within the budget, and what they count: see `parallel.micro_batches`."""
        for chunk, counts in parallel.micro_batches(range(len(sets)), self._widths(sets), self.max_tokens):
            yield [sets[at] for at in chunk], counts

    def score(self, sets: Sequence[RankedSet]) -> Tensor:
        """(N,) scores of the N outputs of the sets, laid end to end, in one forward pass."""
        rows, batch = self._batch(sets)
        tokens = _tokens(batch)
        lower = self.lower if self.lower is not None and self.lower.knows(rows) else None
        with lower.skipped(rows, tokens) if lower is not None else nullcontext():
            states = self._states(batch)
        return models.read_head(self.model, states)

    def freeze(self, lower: Lower, sets: Sequence[RankedSet]) -> "SetScorer":
        """This scorer with frozen blocks, whose output for these sets is computed now and kept."""
        with models.evaluation(self.model):
            for chunk in data.micro_batches(range(len(sets)), self._widths(sets), self.max_tokens):
                rows, batch = self._batch([sets[at] for at in chunk])
                lower.keep(rows, _tokens(batch), partial(self._states, batch))
        return replace(self, lower=lower)

    def score_all(self, sets: Sequence[RankedSet]) -> list[list[float]]:
        """Scores by set and output, in order, without gradients; of several ranks each scores its share."""
        return parallel.spread(self._score_all, sets)

    def _score_all(self, sets: Sequence[RankedSet]) -> list[list[float]]:
        found: dict[int, list[float]] = {}
        with models.evaluation(self.model):
            for chunk in data.micro_batches(range(len(sets)), self._widths(sets), self.max_tokens):
                scores = iter(self.score([sets[at] for at in chunk]).tolist())
                found |= {at: [next(scores) for _ in sets[at].outputs] for at in chunk}
        return [found[at] for at in range(len(sets))]

    def _batch(self, sets: Sequence[RankedSet]) -> tuple[list[list[Pair]], data.Batch | SetBatch | BlockBatch]:
        """The rows that sets make, each of responses to one prompt, and their batch."""
        pad, device = self.tokenizer.pad_token_id, self.model.device
        if self.why_alone:
            outputs = [output for element in sets for output in element.outputs]
            return [[output] for output in outputs], data.collate(outputs, pad, device)
        rows = [element.outputs for element in sets]
        if self.takes_blocks and min(self._width(element) for element in sets) >= LONG:
            return rows, collate_blocks(rows, self._dtype, device)
        return rows, collate(rows, pad, self._dtype, device)

    def _states(self, batch: data.Batch | SetBatch | BlockBatch) -> Tensor:
        """(N, D) what the head reads: the last hidden state at each response's last token."""
        with precision.autocast(self.model.device, self.compute):
            if isinstance(batch, BlockBatch):
                return block_states(self.model, batch)
            ends = batch.ends if isinstance(batch, SetBatch) else (slice(None), -1)
            return models.states(self.model, batch)[ends]

    @property
    def _dtype(self) -> torch.dtype:
        """What a forward pass computes in. A mask in another precision could be infinite there, and a row of it no number."""
        return self.compute if self.compute is torch.bfloat16 else self.model.dtype

    def _widths(self, sets: Sequence[RankedSet]) -> list[int]:
        return [self._width(element) for element in sets]

    def _width(self, element: RankedSet) -> int:
        if self.why_alone:
            return len(element) * len(element.outputs)
        return len(element.outputs[0].prompt) + sum(len(output.response) for output in element.outputs)


def _tokens(batch: data.Batch | SetBatch | BlockBatch) -> Tensor:
    """(B, W) bool, where a batch holds tokens."""
    return batch.attention_mask.bool() if isinstance(batch, data.Batch) else batch.tokens
