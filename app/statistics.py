"""Every number we quote is defined here, once: win rates, reward-model accuracy, agreement, and their intervals.

Pure functions over plain values; numpy only. Outputs of one prompt are not independent, so that a mean is taken per prompt
first and then over prompts, and the bootstrap draws prompts, never pairs.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np

DRAWS = 2000
"""Bootstrap resamples."""
SEED = 20220304
"""Seed of the bootstrap: the same data give the same interval."""

BIN_EDGES = tuple(math.log(p / (1 - p)) for p in (0.6, 0.7, 0.8, 0.9))
"""Differences of scores at which a model is 60, 70, 80, 90 % sure."""

Ties = Literal["strict", "excluded", "half"]


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95 % interval and the number of prompts (or trials) it rests on."""

    value: float
    low: float
    high: float
    count: int


@dataclass(frozen=True)
class Comparison:
    """A pair of a judgement that is not tied: a number (score, length) of the preferred output, and of the other."""

    prompt: str
    better: float
    worse: float


def mean_over_prompts(values: Mapping[str, Sequence[float]]) -> Estimate:
    """Mean per prompt, then over prompts, with a bootstrap interval over prompts.

    Prompts without a value are left out; raises ValueError where none has one.
    """
    means = np.array([np.mean(of_prompt) for of_prompt in values.values() if len(of_prompt)], dtype=np.float64)
    if not len(means):
        raise ValueError("there is no value of any prompt; expected at least one")
    index = np.random.default_rng(SEED).integers(0, len(means), (DRAWS, len(means)))
    low, high = np.quantile(means[index].mean(1), (0.025, 0.975))
    return Estimate(float(means.mean()), float(low), float(high), len(means))


def win_rate(left: Mapping[str, Sequence[float]], right: Mapping[str, Sequence[float]]) -> Estimate:
    """How often `left`'s samples score above `right`'s on the prompts they share, ties counting one half.

    Both map a prompt to the scores of its samples; each sample of one side meets each of the other side.
    """
    return mean_over_prompts({prompt: _meetings(left[prompt], right[prompt]) for prompt in left if prompt in right})


def judged_win_rate(outcomes: Mapping[str, Sequence[float]]) -> Estimate:
    """Win rate from judgements: a prompt's outcomes are 1 for a win, 0 for a loss and 1/2 for a tie."""
    return mean_over_prompts(outcomes)


def accuracy(comparisons: Iterable[Comparison]) -> Estimate:
    """Share of comparisons in which the preferred output has the larger number, equal numbers counting one half.

    With a reward model's scores: its accuracy. With lengths: the longer-wins baseline it must beat.
    """
    return mean_over_prompts(_by_prompt(comparisons))


def accuracy_difference(first: Iterable[Comparison], second: Iterable[Comparison]) -> Estimate:
    """Accuracy on `first` less accuracy on `second`, prompt by prompt on the prompts that both have (a paired bootstrap)."""
    one, other = _by_prompt(first), _by_prompt(second)
    return mean_over_prompts({p: [float(np.mean(one[p]) - np.mean(other[p]))] for p in one if p in other})


@dataclass(frozen=True)
class Bin:
    """Comparisons in which a model is about equally sure of itself."""

    low: float
    """Least difference of scores."""
    high: float
    """Its upper end, not included."""
    share: float
    """Of all comparisons, each prompt weighing the same."""
    predicted: float
    """Mean probability sigmoid(|difference|) that the model gives to the output it puts first."""
    accuracy: float
    """How often people put it first too; equal scores count one half."""


@dataclass(frozen=True)
class Calibration:
    """Whether a model that is 80 % sure is right 80 times in 100."""

    error: float
    """Expected calibration error: sum over bins of share * |accuracy - predicted| (Naeini et al. 2015; Guo et al. 2017)."""
    bins: tuple[Bin, ...]
    """Those that hold a comparison, from unsure to sure."""


def calibration(comparisons: Iterable[Comparison]) -> Calibration:
    """How the difference of two scores, read as a log-odds (Bradley-Terry), meets what people preferred.

    Bins are those of the predicted probability, 0.1 wide from 0.5, so that they compare across models. Each prompt weighs the
    same, as in `accuracy`: the shares times the accuracies sum to it. Raises ValueError without a comparison.
    """
    pairs = list(comparisons)
    if not pairs:
        raise ValueError("there is no comparison; expected at least one")
    of_prompt = Counter(pair.prompt for pair in pairs)
    weights = np.array([1 / (len(of_prompt) * of_prompt[pair.prompt]) for pair in pairs])
    outcomes = np.array([_outcome(pair.better, pair.worse) for pair in pairs])
    differences = np.abs(np.array([pair.better - pair.worse for pair in pairs], dtype=np.float64))
    predicted = 1 / (1 + np.exp(-differences))
    at = np.digitize(differences, BIN_EDGES)
    bins = []
    for number in sorted(set(at.tolist())):
        inside = at == number
        share = float(weights[inside].sum())
        means = [float((weights * values)[inside].sum() / share) for values in (predicted, outcomes)]
        bins.append(Bin((0.0, *BIN_EDGES)[number], (*BIN_EDGES, math.inf)[number], share, *means))
    return Calibration(sum(bin.share * abs(bin.accuracy - bin.predicted) for bin in bins), tuple(bins))


def agreement(judgements: Iterable[tuple[str, Sequence[int | None], Sequence[int | None]]], ties: Ties) -> Estimate:
    """Share of pairs of outputs that two judges order alike; an item is (prompt, tiers of one judge, tiers of the other).

    Tiers are of the same outputs in the same order; an output that either judge found not rankable (None) makes no pair.
    `ties`: "strict" counts a tie as an order of its own, "excluded" leaves out pairs that either judge tied, "half" gives one
    half where just one of them tied.
    """
    values: dict[str, list[float]] = {}
    for prompt, first, second in judgements:
        shared = [(a, b) for a, b in zip(first, second, strict=True) if a is not None and b is not None]
        for (a, b), (c, d) in combinations(shared, 2):
            one, other = _sign(a - c), _sign(b - d)
            if ties == "excluded" and 0 in (one, other):
                continue
            half = 0.5 if ties == "half" and 0 in (one, other) else 0.0
            values.setdefault(prompt, []).append(1.0 if one == other else half)
    return mean_over_prompts(values)


def wilson_interval(successes: int, trials: int) -> Estimate:
    """A proportion of independent trials with Wilson's score interval (1927), 95 %; sound at 0 and at 1 too."""
    if not 0 <= successes <= trials or trials == 0:
        raise ValueError(f"{successes} successes in {trials} trials; expected 0 <= successes <= trials and trials > 0")
    z = 1.959963984540054
    share, scale = successes / trials, 1 + z * z / trials
    centre = (share + z * z / (2 * trials)) / scale
    spread = z / scale * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    return Estimate(share, max(0.0, centre - spread), min(1.0, centre + spread), trials)


def _by_prompt(comparisons: Iterable[Comparison]) -> dict[str, list[float]]:
    values: dict[str, list[float]] = {}
    for pair in comparisons:
        values.setdefault(pair.prompt, []).append(_outcome(pair.better, pair.worse))
    return values


def _meetings(left: Sequence[float], right: Sequence[float]) -> list[float]:
    return [_outcome(a, b) for a in left for b in right]


def _outcome(better: float, worse: float) -> float:
    return 1.0 if better > worse else 0.5 if better == worse else 0.0


def _sign(difference: float) -> int:
    return (difference > 0) - (difference < 0)
