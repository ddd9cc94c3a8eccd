"""Scores of ranked sets, K-wise: one row holds the prompt once and its K responses behind it.

Every response attends to the prompt and to itself alone, and its positions go on from the prompt's end, so that its score is
that of the response encoded by itself; the prompt is computed once instead of K times. The mask is our own, of four dimensions:
without one, transformers takes restarted positions for packed documents and hides the prompt from all responses but the first.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from workers.training import data, models
from workers.training.data import Pair
from workers.training.rankings import RankedSet

PAD_SEGMENT = -1
"""Where padding belongs; the prompt is segment 0 and the responses are 1 to K."""


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


def collate(sets: Sequence[Sequence[Pair]], pad_id: int, dtype: torch.dtype, device: torch.device) -> SetBatch:
    """Sets of responses to one prompt each as one batch, the mask in the model's `dtype`."""
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
class SetScorer:
    """Raw scores of whole sets under a reward model, within a budget of padded tokens."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    max_tokens: int
    why_alone: str | None
    """Why each response is encoded by itself; None where the model takes K responses in one row."""

    @classmethod
    def choose(
        cls,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        sets: Sequence[RankedSet],
        max_tokens: int = 16384,
    ) -> "SetScorer":
        """K responses in one row if the model scores the longest set so as it does response by response.

        It is tried, not looked up: attention that cannot take the mask (flash, sliding windows, recurrence) shows in the scores.
        """
        packed, alone = (cls(model, tokenizer, max_tokens, why) for why in (None, "each by itself"))
        longest = max(sets, key=len)
        with models.evaluation(model):
            expected = alone.score([longest])
            try:
                difference = (packed.score([longest]) - expected).abs().max().item()
            except (IndexError, RuntimeError, TypeError, ValueError) as error:
                return cls(model, tokenizer, max_tokens, f"{type(error).__name__}: {error}")
        half_the_digits = torch.finfo(model.dtype).eps ** 0.5 * expected.abs().max().item()
        if difference <= half_the_digits:
            return packed
        return cls(model, tokenizer, max_tokens, f"its scores would differ by {difference:.1g}")

    def micro_batches(self, sets: Sequence[RankedSet]) -> Iterator[list[RankedSet]]:
        """Whole sets, alike in length, within the budget."""
        widths = [self._width(element) for element in sets]
        for chunk in data.micro_batches(range(len(sets)), widths, self.max_tokens):
            yield [sets[at] for at in chunk]

    def score(self, sets: Sequence[RankedSet]) -> Tensor:
        """(N,) scores of the N outputs of the sets, laid end to end, in one forward pass."""
        pad, model = self.tokenizer.pad_token_id, self.model
        if self.why_alone:
            outputs = [output for element in sets for output in element.outputs]
            return models.end_scores(model, data.collate(outputs, pad, model.device))
        batch = collate([element.outputs for element in sets], pad, model.dtype, model.device)
        return models.head_outputs(model, batch)[batch.ends]

    def score_all(self, sets: Sequence[RankedSet]) -> list[list[float]]:
        """Scores by set and output, in order, without gradients."""
        found: dict[int, list[float]] = {}
        with models.evaluation(self.model):
            for chunk in self.micro_batches(sets):
                scores = iter(self.score(chunk).tolist())
                found |= {id(element): [next(scores) for _ in element.outputs] for element in chunk}
        return [found[id(element)] for element in sets]

    def _width(self, element: RankedSet) -> int:
        if self.why_alone:
            return len(element) * len(element.outputs)
        return len(element.outputs[0].prompt) + sum(len(output.response) for output in element.outputs)
