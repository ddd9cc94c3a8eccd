"""Likelihood of responses, many rows to a block: no example sees another, and little padding is computed.

A block holds whole rows behind each other. Every row attends to itself alone and its positions begin at 0, so that its loss is
that of the row by itself. The mask is our own, of four dimensions, as in `branches`; the language model's head is applied to the
states that predict a response token, and to no others.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from workers.rlhf import losses, packing
from workers.training import data, models, parallel, precision
from workers.training.data import Pair

PAD_ROW = -1
"""Where padding belongs; the rows of a block are numbered from 0."""

PAYS = 0.9
"""Blocks are used where they compute at most this share of the padded tokens of rows by themselves; equal tokens cost alike."""


@dataclass(frozen=True)
class PackedBatch:
    """B blocks of W columns, flush left, with N response tokens in all."""

    input_ids: Tensor
    """(B, W) int64"""
    attention_mask: Tensor
    """(B, 1, W, W), added to the attention scores: 0 where a column may be seen, the lowest number where not"""
    position_ids: Tensor
    """(B, W) int64; every row begins at 0"""
    before: Tensor
    """(N,) int64, where in B * W the state lies that predicts each response token: one column before it"""
    tokens: Tensor
    """(N,) int64, the response tokens, in the order of the rows"""


def collate(
    blocks: Sequence[Sequence[Pair]], pad_id: int, dtype: torch.dtype, device: str | torch.device
) -> PackedBatch:
    """Blocks of rows as one batch, the mask in `dtype`. An empty prompt is refused: the row before it would predict for it."""
    width = max(sum(map(len, block)) for block in blocks)
    ids: list[int] = []
    positions: list[int] = []
    numbers: list[int] = []
    before: list[int] = []
    tokens: list[int] = []
    for block in blocks:
        start = len(ids)
        for number, row in enumerate(block):
            if not row.prompt:
                raise ValueError("a prompt has no tokens; the first token of a response needs one before it")
            first = len(ids) + len(row.prompt) - 1
            before.extend(range(first, first + len(row.response)))
            tokens.extend(row.response)
            ids.extend(row.prompt + row.response)
            positions.extend(range(len(row)))
            numbers.extend([number] * len(row))
        missing = start + width - len(ids)
        ids.extend([pad_id] * missing)
        positions.extend([0] * missing)
        numbers.extend([PAD_ROW] * missing)
    owner = torch.tensor(numbers, device=device).view(-1, width)
    visible = (owner[:, None] == owner[:, :, None]).tril()  # padding sees padding, so that no softmax is over nothing
    mask = torch.zeros(visible.shape, dtype=dtype, device=device).masked_fill_(~visible, torch.finfo(dtype).min)
    return PackedBatch(
        torch.tensor(ids, device=device).view(-1, width),
        mask[:, None],
        torch.tensor(positions, device=device).view(-1, width),
        torch.tensor(before, dtype=torch.int64, device=device),
        torch.tensor(tokens, dtype=torch.int64, device=device),
    )


@dataclass(frozen=True)
class Likelihood:
    """Negative log-likelihood of responses under a language model, within a budget of padded tokens."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    max_tokens: int = 16384
    compute: torch.dtype = torch.float32
    why_unpacked: str | None = "not asked for"
    """Why no rows are packed; None where the model takes blocks."""

    @classmethod
    def choose(
        cls,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        rows: Sequence[Pair],
        max_tokens: int,
        compute: torch.dtype,
    ) -> "Likelihood":
        """Blocks if the model finds the longest and the shortest row in one as likely as each by itself.

        It is tried, not looked up: attention that cannot take the mask (flash, sliding windows, recurrence) shows in the numbers.
        """
        ordered = sorted(rows, key=len)
        sample, pad = [ordered[-1], ordered[0]], tokenizer.pad_token_id
        with models.evaluation(model):
            batch = data.collate(sample, pad, model.device)
            expected = models.response_logprobs(model, batch)[batch.response_mask]
            try:
                found = _logprobs(model, collate([sample], pad, model.dtype, model.device))
                difference = (found - expected).abs().max().item()
            except (AttributeError, IndexError, RuntimeError, TypeError, ValueError) as error:
                return cls(model, tokenizer, max_tokens, compute, f"{type(error).__name__}: {error}")
        if difference <= torch.finfo(model.dtype).eps ** 0.5 * expected.abs().max().item():
            return cls(model, tokenizer, max_tokens, compute, None)
        return cls(model, tokenizer, max_tokens, compute, f"log-probabilities would differ by {difference:.1g}")

    def parts(self, rows: Sequence[Pair]) -> Iterator[Tensor]:
        """The negative log-likelihood () of the rows' responses in nats, in parts: one forward pass each, made when asked for.

        The parts of all ranks sum to it.
        """
        pad, device = self.tokenizer.pad_token_id, self.model.device
        if (blocks := self.blocks(rows)) is not None:
            widths = [sum(map(len, block)) for block in blocks]
            for chunk, counts in parallel.micro_batches(range(len(blocks)), widths, self.max_tokens):
                packed = collate([blocks[at] for at in chunk], pad, self._mask_dtype, device)
                with precision.autocast(device, self.compute):
                    logprobs = _logprobs(self.model, packed)
                yield counts * losses.nll(logprobs, torch.ones_like(packed.tokens, dtype=torch.bool))
            return
        for chunk, counts in parallel.micro_batches(range(len(rows)), [len(row) for row in rows], self.max_tokens):
            batch = data.collate([rows[at] for at in chunk], pad, device)
            with precision.autocast(device, self.compute):
                logprobs = models.response_logprobs(self.model, batch)
            yield counts * losses.nll(logprobs, batch.response_mask)

    def blocks(self, rows: Sequence[Pair]) -> list[list[Pair]] | None:
        """The rows in blocks no longer than the longest of them; None where that saves too little padding to pay."""
        if self.why_unpacked:
            return None
        lengths = [len(row) for row in rows]
        most = PAYS * data.padded_tokens(lengths, self.max_tokens)
        if sum(lengths) > most:
            return None
        blocks = packing.best_fit_decreasing(lengths, max(lengths))
        if data.padded_tokens([sum(lengths[at] for at in block) for block in blocks], self.max_tokens) > most:
            return None
        return [[rows[at] for at in block] for block in blocks]

    def mean(self, rows: Sequence[Pair]) -> float | None:
        """Mean negative log-likelihood per response token, in nats, without gradients or dropout; None without rows."""
        if not rows:
            return None
        with models.evaluation(self.model):
            total = sum(parallel.total(torch.stack(list(self.parts(rows)))).tolist())
        return total / sum(len(row.response) for row in rows)

    @property
    def _mask_dtype(self) -> torch.dtype:
        return self.compute if self.compute is torch.bfloat16 else self.model.dtype


def _logprobs(model: PreTrainedModel, batch: PackedBatch) -> Tensor:
    """(N,) log-probability of each response token of the blocks."""
    before = models.states(model, batch).flatten(0, 1).index_select(0, batch.before)
    return models.state_logprobs(model, before, batch.tokens)
