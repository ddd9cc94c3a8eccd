"""Scores of ranked sets, K-wise: the prompt is computed once for its K responses, which lie behind it (`branches`)."""

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from workers.training import branches, data, models, parallel, precision
from workers.training.branches import BlockBatch, Reads, SetBatch
from workers.training.data import Pair
from workers.training.frozen import Lower
from workers.training.rankings import RankedSet


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
        probes = [widest, longest, narrowest] if packed._width(widest) >= branches.LONG else []
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
        if self.takes_blocks and min(self._width(element) for element in sets) >= branches.LONG:
            return rows, branches.collate_blocks(rows, self._dtype, device, Reads.LAST)
        return rows, branches.collate(rows, pad, self._dtype, device, Reads.LAST)

    def _states(self, batch: data.Batch | SetBatch | BlockBatch) -> Tensor:
        """(N, D) what the head reads: the last hidden state at each response's last token."""
        with precision.autocast(self.model.device, self.compute):
            if isinstance(batch, data.Batch):
                return models.states(self.model, batch)[:, -1]
            return branches.states(self.model, batch)

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
