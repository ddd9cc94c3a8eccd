"""A prompt once, and its responses behind it: two layouts of such sets, and the hidden states that are read from them.

Every response attends to the prompt and to itself alone, and its positions go on from the prompt's end, so that its states are
those of the response encoded by itself; the prompt is computed once instead of K times. Who sees whom is told in one of two ways:

- Short sets (a few hundred tokens) lie in rows of a padded batch, under a mask of our own, of four dimensions: without one,
  transformers takes restarted positions for packed documents and hides the prompt from all responses but the first.
- Long sets (`LONG`) lie end to end in one row without padding, and attention is computed block by block: the prompt causally,
  each response against the prompt and itself. What the mask would hide is never computed. Nor is what nobody reads: in the
  last layer, attention and feed-forward run at the ends of segments only.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from workers.training import models, parallel
from workers.training.data import Pair

PAD_SEGMENT = -1
"""Where padding belongs; the prompt is segment 0 and the responses are 1 to K."""

LONG = 512
"""Tokens of a set from which attention by blocks pays: its calls are few beside what they save."""

BY_BLOCKS = "branches_by_blocks"
"""The name under which transformers finds `_attend`."""


class Reads(Enum):
    """Which states are read of each response."""

    LAST = "last"
    """At its last token: one state, from which the whole is scored; at the prompt's where the response is empty."""
    BEFORE = "before"
    """One column before each of its tokens, the first of them the prompt's last: the states in which they were chosen."""


@dataclass(frozen=True)
class SetBatch:
    """B rows of W columns, flush left, of which N states are read."""

    input_ids: Tensor
    """(B, W) int64"""
    attention_mask: Tensor
    """(B, 1, W, W), added to the attention scores: 0 where a column may be seen, the lowest number where not"""
    position_ids: Tensor
    """(B, W) int64; every response goes on from the end of the prompt"""
    read: tuple[Tensor, Tensor]
    """Rows (N,) and columns (N,) of what is read, response by response in the order of the sets"""
    tokens: Tensor
    """(B, W) bool, False on padding"""


def collate(
    sets: Sequence[Sequence[Pair]], pad_id: int, dtype: torch.dtype, device: torch.device, reads: Reads
) -> SetBatch:
    """Sets of responses to one prompt each as one batch, the mask in the `dtype` that the model computes in."""
    rows = [_Row.of(outputs, reads) for outputs in sets]
    width = max(len(row.ids) for row in rows)
    segments = torch.tensor([row.segments + [PAD_SEGMENT] * (width - len(row.ids)) for row in rows], device=device)
    seen, seeing = segments[:, None, :], segments[:, :, None]
    visible = ((seen == 0) | (seen == seeing)).tril()  # padding sees padding, so that no softmax is over nothing
    mask = torch.zeros(visible.shape, dtype=dtype, device=device).masked_fill_(~visible, torch.finfo(dtype).min)
    read = [(at, column) for at, row in enumerate(rows) for column in row.read]
    return SetBatch(
        torch.tensor([row.ids + [pad_id] * (width - len(row.ids)) for row in rows], device=device),
        mask[:, None],
        torch.tensor([row.positions + [0] * (width - len(row.ids)) for row in rows], device=device),
        (
            torch.tensor([at for at, _ in read], device=device),
            torch.tensor([column for _, column in read], device=device),
        ),
        segments != PAD_SEGMENT,
    )


@dataclass(frozen=True)
class _Row:
    ids: list[int]
    positions: list[int]
    segments: list[int]
    read: list[int]

    @classmethod
    def of(cls, outputs: Sequence[Pair], reads: Reads) -> "_Row":
        prompt = outputs[0].prompt
        if reads is Reads.BEFORE and not prompt:
            raise ValueError("a prompt has no tokens; the first token of a response needs one before it")
        row = cls(list(prompt), list(range(len(prompt))), [0] * len(prompt), [])
        for segment, output in enumerate(outputs, 1):
            columns = range(len(row.ids), len(row.ids) + len(output.response))
            before = [len(prompt) - 1, *columns]
            row.read.extend(before[-1:] if reads is Reads.LAST else before[:-1])
            row.ids.extend(output.response)
            row.positions.extend(range(len(prompt), len(output)))
            row.segments.extend([segment] * len(output.response))
        return row


@dataclass(frozen=True)
class BlockBatch:
    """Sets end to end in one row of W columns, N states of which are read: S segments, each a prompt or one of its responses."""

    input_ids: Tensor
    """(1, W) int64"""
    position_ids: Tensor
    """(1, W) int64; every prompt starts at 0 and every response goes on from the end of its prompt"""
    read: Tensor
    """(N,) columns of what is read, response by response in the order of the sets"""
    lengths: list[int]
    """S numbers of tokens, W in all"""
    tails: list[int]
    """S numbers of last columns, 0, 1 or all, among which those that are read lie; the last layer computes no others.

    Where the columns before tokens are read, that is all of a response: the last, which nobody reads, is computed along.
    """
    masks: list[Tensor | None]
    """S masks: (1, 1, R, P + R) of a response's R tokens over its prompt's P and its own, added to the scores; None: a prompt"""

    @property
    def tokens(self) -> Tensor:
        """(1, W) bool, True: there is no padding."""
        return torch.ones_like(self.input_ids, dtype=torch.bool)

    def tail_columns(self) -> Tensor:
        """The columns of all tails."""
        ends = accumulate(self.lengths)
        columns = [at for end, tail in zip(ends, self.tails, strict=True) for at in range(end - tail, end)]
        return torch.tensor(columns, device=self.input_ids.device)


def collate_blocks(
    sets: Sequence[Sequence[Pair]], dtype: torch.dtype, device: torch.device, reads: Reads
) -> BlockBatch:
    """Sets of responses to one prompt each end to end, the masks in the `dtype` that the model computes in."""
    rows = [_Row.of(outputs, reads) for outputs in sets]
    firsts = accumulate((len(row.ids) for row in rows), initial=0)
    read = [first + column for first, row in zip(firsts, rows, strict=False) for column in row.read]
    lengths: list[int] = []
    tails: list[int] = []
    masks: list[Tensor | None] = []
    for outputs in sets:
        width = len(outputs[0].prompt)
        lengths.append(width)
        tails.append(0 if reads is Reads.LAST and all(output.response for output in outputs) else 1)
        masks.append(None)
        for output in outputs:
            size = len(output.response)
            later = torch.full((size, size), torch.finfo(dtype).min, dtype=dtype, device=device).triu(1)
            lengths.append(size)
            tails.append(min(1, size) if reads is Reads.LAST else size)
            masks.append(F.pad(later, (width, 0))[None, None])
    return BlockBatch(
        torch.tensor([[token for row in rows for token in row.ids]], device=device),
        torch.tensor([[position for row in rows for position in row.positions]], device=device),
        torch.tensor(read, device=device),
        lengths,
        tails,
        masks,
    )


def states(model: PreTrainedModel, batch: SetBatch | BlockBatch) -> Tensor:
    """(N, D) the last hidden states that are read of a batch."""
    if isinstance(batch, SetBatch):
        return models.states(model, batch)[batch.read]
    with _by_blocks(model, batch):
        output = parallel.trunk(model)(
            input_ids=batch.input_ids,
            position_ids=batch.position_ids,
            use_cache=False,
            blocks=batch,
            last_layer=model.config.num_hidden_layers - 1,
        )
    return output.last_hidden_state[0].index_select(0, batch.read)


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    blocks: BlockBatch,
    last_layer: int,
    sliding_window: int | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Attention (1, W, H, D) of query (1, H, W, D) over key and value (1, H or fewer, W, D), segment by segment.

    In the last layer the tails alone attend; all other columns are 0, and nothing reads them.
    Raises ValueError where the model's attention does not reach back over a prompt and its response.
    """
    furthest = max(mask.shape[3] for mask in blocks.masks if mask is not None)
    if sliding_window is not None and sliding_window < furthest:
        raise ValueError(f"its attention reaches {sliding_window} tokens back only")
    tails = blocks.tails if module.layer_idx == last_layer else blocks.lengths
    found = []
    prompt = seen = (key, value)
    # Split, not sliced: the gradient of a slice is as wide as the whole row.
    segments = zip(*(tensor.split(blocks.lengths, 2) for tensor in (query, key, value)), strict=True)
    for (q, k, v), mask, tail in zip(segments, blocks.masks, tails, strict=True):
        if mask is None:
            prompt = seen = (k, v)
        else:
            seen = (torch.cat([prompt[0], k], 2), torch.cat([prompt[1], v], 2))
        size = q.shape[2]
        if tail == 0:
            found.append(q.new_zeros(1, size, q.shape[1], v.shape[3]))
        elif tail == size:
            found.append(sdpa_attention_forward(module, q, *seen, mask, **options)[0])
        else:
            at_end, _ = sdpa_attention_forward(module, q[:, :, -1:], *seen, None, **options)
            found.append(F.pad(at_end, (0, 0, 0, 0, size - 1, 0)))
    return torch.cat(found, 1), None


AttentionInterface.register(BY_BLOCKS, _attend)


@contextmanager
def _by_blocks(model: PreTrainedModel, batch: BlockBatch) -> Iterator[None]:
    """Inside, the model attends by `_attend`, and its last feed-forward layer computes the tails only."""
    feed_forward = [module for name, module in model.base_model.named_modules() if name.endswith(".mlp")][-1]
    columns = batch.tail_columns()

    def pick(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (inputs[0][:, columns],)

    def put_back(_: nn.Module, __: tuple[Tensor, ...], output: Tensor) -> Tensor:
        whole = output.new_zeros(1, batch.input_ids.shape[1], output.shape[2])
        return whole.index_copy(1, columns, output)

    hooks = [feed_forward.register_forward_pre_hook(pick), feed_forward.register_forward_hook(put_back)]
    before, model.config._attn_implementation = model.config._attn_implementation, BY_BLOCKS
    try:
        yield
    finally:
        model.config._attn_implementation = before
        for hook in hooks:
            hook.remove()
