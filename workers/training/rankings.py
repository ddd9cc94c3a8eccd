"""Ranked sets: the outputs of a prompt, encoded once each, with every judgement of them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from app import snapshot
from app.statistics import Comparison
from workers.rlhf.losses import preferences
from workers.training import data
from workers.training.data import Pair


@dataclass
class RankedSet:
    """K outputs of one prompt and J judgements of them. One batch element of the reward model."""

    prompt_id: str
    outputs: list[Pair]
    """K encoded outputs, in the order of the samples' names."""
    preferred: list[Tensor] = field(default_factory=list)
    """J matrices (K, K): 1 where a judgement puts row above column, or a soft judge's probability."""
    weights: list[float] = field(default_factory=list)
    """J weights."""

    @property
    def weight(self) -> float:
        """What this set counts in the loss: the weights of its judgements."""
        return sum(self.weights)

    def __len__(self) -> int:
        """Tokens of the longest output, prompt included."""
        return max(len(output) for output in self.outputs)


@dataclass(frozen=True)
class Rankings:
    """The ranked sets of a snapshot by split, and what was left out."""

    train: list[RankedSet]
    valid: list[RankedSet]
    dropped_outputs: int
    """Outputs longer than the model's context."""
    dropped_judgements: int
    """Judgements without a comparison: all outputs tied, or not rankable."""


def read(folder: Path, tokenizer: PreTrainedTokenizerBase, context: int) -> Rankings:
    """The rankings of a snapshot, judgements of one set of outputs gathered; split `test` is never read."""
    sets: dict[str, dict[tuple[str, ...], RankedSet]] = {"train": {}, "valid": {}}
    too_long: set[str] = set()
    empty = 0
    for row in snapshot.read_rows(folder, "rankings.jsonl"):
        if row["split"] not in sets:
            continue
        responses = sorted(row["responses"], key=lambda response: response["sample"])
        pairs = [_encode(tokenizer, row["prompt"], response) for response in responses]
        fits = [at for at, pair in enumerate(pairs) if len(pair) <= context]
        too_long |= {response["sample"] for at, response in enumerate(responses) if at not in fits}
        kept = [responses[at] for at in fits]
        preferred = _preferred(kept, row["pairs"])
        if not preferred.any():
            empty += 1
            continue
        key = tuple(response["sample"] for response in kept)
        element = sets[row["split"]].setdefault(key, RankedSet(str(row["prompt_id"]), [pairs[at] for at in fits]))
        element.preferred.append(preferred)
        element.weights.append(float(row["weight"]))
    return Rankings(list(sets["train"].values()), list(sets["valid"].values()), len(too_long), empty)


def tensors(elements: Sequence[RankedSet]) -> tuple[Tensor, Tensor, Tensor]:
    """Index (J, K) of each judgement's outputs, laid end to end, preferred (J, K, K), 0 behind a short set, and weights (J,)."""
    widest = max(len(element.outputs) for element in elements)
    index, preferred, weights = [], [], []
    first = 0
    for element in elements:
        size = len(element.outputs)
        places = list(range(first, first + size)) + [first] * (widest - size)
        for matrix, weight in zip(element.preferred, element.weights, strict=True):
            index.append(places)
            preferred.append(torch.nn.functional.pad(matrix, (0, widest - size, 0, widest - size)))
            weights.append(weight)
        first += size
    return torch.tensor(index), torch.stack(preferred), torch.tensor(weights)


def comparisons(elements: Sequence[RankedSet], numbers: Sequence[Sequence[float]]) -> list[Comparison]:
    """Every comparison of every judgement, with a number per output; a soft judge prefers what it finds likelier to be better."""
    found = []
    for element, of_output in zip(elements, numbers, strict=True):
        for matrix in element.preferred:
            for better, worse in (matrix > matrix.T).nonzero().tolist():
                found.append(Comparison(element.prompt_id, of_output[better], of_output[worse]))
    return found


def _encode(tokenizer: PreTrainedTokenizerBase, prompt: Any, response: dict[str, Any]) -> Pair:
    ended = response["finish_reason"] != "length"
    return data.encode_pair(tokenizer, prompt, response["text"], ended=ended)


def _preferred(responses: Sequence[dict[str, Any]], pairs: Sequence[dict[str, Any]] | None) -> Tensor:
    """(K, K) float32 preferences of one judgement, from its direct comparisons where it has some, else from its tiers."""
    if pairs is not None:
        place = {response["sample"]: at for at, response in enumerate(responses)}
        matrix = torch.zeros(len(responses), len(responses))
        for pair in pairs:
            if pair["left"] in place and pair["right"] in place:
                left, right = place[pair["left"]], place[pair["right"]]
                matrix[left, right], matrix[right, left] = pair["p_left"], 1 - pair["p_left"]
        return matrix
    rankable = torch.tensor([[response["tier"] is not None for response in responses]], dtype=torch.bool)
    tiers = torch.tensor([[response["tier"] or 0 for response in responses]])
    return preferences(tiers, rankable)[0]
