"""Ranked sets: the outputs of a prompt, encoded once each, with every judgement of them."""

import hashlib
import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedTokenizerBase

from app import snapshot
from app.snapshot import SnapshotError
from app.statistics import Comparison
from workers.rlhf.losses import preferences
from workers.training import data
from workers.training.data import Pair

FILE = "rankings.jsonl"


@dataclass(frozen=True)
class Judgement:
    """What one judge said of a set's K outputs, and who that was; None where the snapshot does not say."""

    preferred: Tensor
    """(K, K) target probability that row is better than column; 0 on both sides of the diagonal where not compared."""
    strength: Tensor
    """(K, K) levels above the slightest by which row was found better, negative where column was; 0 where not graded."""
    weight: float = 1.0
    labeller: str | None = None
    group: str | None = None
    confidence: int | None = None
    round: int | None = None

    @property
    def comparisons(self) -> list[tuple[int, int]]:
        """Pairs (better, worse) of outputs; a soft judge prefers what it finds likelier to be better, a tie is none."""
        return [(better, worse) for better, worse in (self.preferred > self.preferred.T).nonzero().tolist()]


@dataclass
class RankedSet:
    """K outputs of one prompt and J judgements of them. One batch element of the reward model."""

    prompt_id: str
    outputs: list[Pair]
    """K encoded outputs, in the order of the samples' names."""
    judgements: list[Judgement] = field(default_factory=list)

    @property
    def weight(self) -> float:
        """What this set counts in the loss: the weights of its judgements."""
        return sum(judgement.weight for judgement in self.judgements)

    def __len__(self) -> int:
        """Tokens of the longest output, prompt included."""
        return max(len(output) for output in self.outputs)


@dataclass(frozen=True)
class Rankings:
    """The ranked sets of a snapshot by split, and what was left out or cut, in counts by reason."""

    train: list[RankedSet]
    valid: list[RankedSet]
    outputs: Counter[str]
    """Outputs `too_long` for the model's context or `without_tokens`, both left out; `cut` at the length limit and `empty`
    (the end token alone), both kept."""
    judgements: Counter[str]
    """Judgements left out: of `one_output` (what is left of them), `tied` throughout, `unranked`, of `no_weight`."""

    @property
    def dropped_outputs(self) -> int:
        """Outputs left out."""
        return self.outputs["too_long"] + self.outputs["without_tokens"]

    @property
    def dropped_judgements(self) -> int:
        """Judgements left out."""
        return self.judgements.total()


class Targets(NamedTuple):
    """What the loss compares scores with, for J judgements of sets of at most K outputs."""

    places: Tensor
    """(J, K) where each judgement's outputs stand among the outputs of the sets, laid end to end"""
    preferred: Tensor
    """(J, K, K) target probabilities, 0 behind a short set"""
    strength: Tensor
    """(J, K, K) levels of strength, 0 behind a short set"""
    weights: Tensor
    """(J,)"""


def read(folder: Path, tokenizer: PreTrainedTokenizerBase, context: int, *, tie: float = 0.0) -> Rankings:
    """The rankings of a snapshot, judgements of one set of outputs gathered; split `test` is never read.

    `tie` is the target of two outputs that a training judgement tied: 0 drops the pair, 1/2 keeps it. Held-out ties are
    always dropped, because a tie is no comparison to be right about.

    Raises SnapshotError with file and row for a row that breaks the contract of `app/snapshot_schema.json`.
    """
    sets: dict[str, dict[tuple[str, ...], RankedSet]] = {"train": {}, "valid": {}}
    outputs: dict[str, set[str]] = {"too_long": set(), "without_tokens": set(), "cut": set(), "empty": set()}
    left_out: Counter[str] = Counter()
    for number, row in enumerate(snapshot.read_rows(folder, FILE), 1):
        where = f"{folder / FILE}, " + (f"row {row['id']!r}" if "id" in row else f"line {number}")
        try:
            if row["split"] not in sets:
                continue
            _check(row)
            prompt_id = str(row["prompt_id"])
            responses = sorted(row["responses"], key=lambda response: str(response["sample"]))
            pairs = [_encode(tokenizer, row["prompt"], response) for response in responses]
            kept = _usable(responses, pairs, context, outputs)
            ranked = [responses[at] for at in kept]
            judgement = _judgement(ranked, row, tie if row["split"] == "train" else 0.0)
        except KeyError as error:
            raise SnapshotError(f"{where} lacks the key {error}") from None
        except (TypeError, ValueError) as error:
            raise SnapshotError(f"{where}: {error}") from error
        if reason := _why_useless(ranked, row, judgement):
            left_out[reason] += 1
            continue
        key = tuple(response["sample"] for response in ranked)
        element = sets[row["split"]].setdefault(key, RankedSet(prompt_id, [pairs[at] for at in kept]))
        element.judgements.append(judgement)
    counts = Counter({reason: len(samples) for reason, samples in outputs.items()})
    return Rankings(list(sets["train"].values()), list(sets["valid"].values()), counts, left_out)


def half(prompt_id: str) -> int:
    """0 or 1: which half of the prompts this one belongs to, whatever else is in the snapshot."""
    return hashlib.sha256(prompt_id.encode()).digest()[0] & 1


def of_half(elements: Sequence[RankedSet], which: int) -> list[RankedSet]:
    """The sets of the prompts of one half."""
    return [element for element in elements if half(element.prompt_id) == which]


def without(elements: Sequence[RankedSet], labellers: Collection[str | None]) -> list[RankedSet]:
    """The sets with the judgements of some labellers taken out; a set without any left is gone."""
    rest = [
        replace(element, judgements=[one for one in element.judgements if one.labeller not in labellers])
        for element in elements
    ]
    return [element for element in rest if element.judgements]


def targets(elements: Sequence[RankedSet]) -> Targets:
    """Every judgement of some sets, as tensors."""
    widest = max(len(element.outputs) for element in elements)
    places, preferred, strength, weights = [], [], [], []
    first = 0
    for element in elements:
        size = len(element.outputs)
        behind = (0, widest - size, 0, widest - size)
        for judgement in element.judgements:
            places.append(list(range(first, first + size)) + [first] * (widest - size))
            preferred.append(F.pad(judgement.preferred, behind))
            strength.append(F.pad(judgement.strength, behind))
            weights.append(judgement.weight)
        first += size
    return Targets(torch.tensor(places), torch.stack(preferred), torch.stack(strength), torch.tensor(weights))


def comparisons(
    elements: Sequence[RankedSet], numbers: Sequence[Sequence[float]]
) -> list[tuple[Judgement, Comparison]]:
    """Every comparison of every judgement, with a number per output, beside the judgement that made it."""
    return [
        (judgement, Comparison(element.prompt_id, of_output[better], of_output[worse]))
        for element, of_output in zip(elements, numbers, strict=True)
        for judgement in element.judgements
        for better, worse in judgement.comparisons
    ]


def _check(row: Mapping[str, Any]) -> None:
    """Raise ValueError or KeyError for what would otherwise be learned from wrongly, or fail without a word about where."""
    samples = [response["sample"] for response in row["responses"]]
    if len(set(samples)) < len(samples):
        raise ValueError("it lists one sample twice; expected each output once")
    for response in row["responses"]:
        name, text, tier = response["sample"], response["text"], response["tier"]
        if not isinstance(text, str):
            raise ValueError(f"the text of sample {name!r} is {text!r}; expected a string")
        if tier is not None and (type(tier) is not int or tier < 1):
            raise ValueError(f"the tier of sample {name!r} is {tier!r}; expected 1 (best), 2, ... or null")
    for pair in row["pairs"] or ():
        if unknown := {pair["left"], pair["right"]} - set(samples):
            raise ValueError(f"it compares sample {sorted(unknown)[0]!r}, which is not among its responses")
        if not 0 <= pair["p_left"] <= 1:
            raise ValueError(f"p_left is {pair['p_left']!r}; expected a probability from 0 to 1")
        if pair["strength"] not in (None, 1, 2, 3, 4):
            raise ValueError(f"strength is {pair['strength']!r}; expected 1 (slightest) to 4, or null")
    if not (math.isfinite(row["weight"]) and row["weight"] >= 0):
        raise ValueError(f"weight is {row['weight']!r}; expected a number of 0 or more")


def _encode(tokenizer: PreTrainedTokenizerBase, prompt: Any, response: dict[str, Any]) -> Pair:
    ended = response["finish_reason"] != "length"
    return data.encode_pair(tokenizer, prompt, response["text"], ended=ended)


def _usable(
    responses: Sequence[dict[str, Any]], pairs: Sequence[Pair], context: int, outputs: Mapping[str, set[str]]
) -> list[int]:
    """Places of the outputs that can be scored; what is special about any is noted in `outputs`, by sample."""
    kept = []
    for at, (response, pair) in enumerate(zip(responses, pairs, strict=True)):
        special = {
            "too_long": len(pair) > context,
            "without_tokens": not pair.response,
            "cut": response["finish_reason"] == "length",
            "empty": not response["text"],
        }
        for reason, applies in special.items():
            if applies:
                outputs[reason].add(response["sample"])
                break
        if not (special["too_long"] or special["without_tokens"]):
            kept.append(at)
    return kept


def _judgement(responses: Sequence[dict[str, Any]], row: Mapping[str, Any], tie: float) -> Judgement:
    """From the tiers, with a direct comparison in their place where there is one."""
    preferred, strength = _from_tiers(responses, tie), torch.zeros(len(responses), len(responses))
    _lay_pairs(preferred, strength, responses, row["pairs"] or (), tie)
    said = (row["labeller"], row["group"], row["confidence"], row["round"])
    return Judgement(preferred, strength, float(row["weight"]), *said)


def _from_tiers(responses: Sequence[dict[str, Any]], tie: float) -> Tensor:
    rankable = torch.tensor([[response["tier"] is not None for response in responses]], dtype=torch.bool)
    tiers = torch.tensor([[response["tier"] or 0 for response in responses]])
    return preferences(tiers, rankable, tie=tie)[0]


def _lay_pairs(
    preferred: Tensor,
    strength: Tensor,
    responses: Sequence[dict[str, Any]],
    pairs: Sequence[dict[str, Any]],
    tie: float,
) -> None:
    """Write direct comparisons over `preferred` and `strength`, both (K, K)."""
    place = {response["sample"]: at for at, response in enumerate(responses)}
    for pair in pairs:
        left, right = place.get(pair["left"]), place.get(pair["right"])
        p_left = pair["p_left"]
        if left is None or right is None:  # one of them was left out
            continue
        tied = p_left == 0.5
        preferred[left, right], preferred[right, left] = (tie, tie) if tied else (p_left, 1 - p_left)
        levels = 0 if tied else math.copysign((pair["strength"] or 1) - 1, p_left - 0.5)
        strength[left, right], strength[right, left] = levels, -levels


def _why_useless(responses: Sequence[dict[str, Any]], row: Mapping[str, Any], judgement: Judgement) -> str | None:
    """Why a judgement has nothing to say to the model; None where it has."""
    if len(responses) < 2:
        return "one_output"
    if not judgement.preferred.any():
        ranked = row["pairs"] is not None or sum(response["tier"] is not None for response in responses) > 1
        return "tied" if ranked else "unranked"
    if row["split"] == "train" and not judgement.weight:
        return "no_weight"
    return None
