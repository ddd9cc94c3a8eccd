"""Every number we quote is defined here, once: win rates, reward-model accuracy, agreement, and their intervals.

Pure functions over plain values; numpy only, loaded by the functions that need it, since web processes start without. Outputs
of one prompt are not independent, so that a mean is taken per prompt first and then over prompts, and the bootstrap draws
prompts, never pairs.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean
from typing import Literal

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
    import numpy as np

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


def judged_win_rate(outcomes: Mapping[str, Sequence[float]], *, alike: int = 0, asked: int = 0) -> Estimate:
    """Win rate from judgements: a prompt's outcomes are 1 for a win, 0 for a loss and 1/2 for a tie.

    `alike`: prompts that both answered with the same text, a tie nobody is asked about; `asked`: the others, judged or not. Those
    judged stand for all that are asked, so that the ties weigh from the first judgement on what they weigh at the end:
    (alike / 2 + asked * judged) / (alike + asked). A bootstrap draw has as many ties as chance gives it.
    """
    import numpy as np

    judged = mean_over_prompts(outcomes)
    if not alike:
        return judged
    asked = max(asked, judged.count)
    share = alike / (alike + asked)
    means = np.array([np.mean(of_prompt) for of_prompt in outcomes.values() if len(of_prompt)], dtype=np.float64)
    generator = np.random.default_rng(SEED)
    drawn = means[generator.integers(0, len(means), (DRAWS, len(means)))].mean(1)
    shares = generator.binomial(alike + asked, share, DRAWS) / (alike + asked)
    low, high = np.quantile(shares / 2 + (1 - shares) * drawn, (0.025, 0.975))
    return Estimate(share / 2 + (1 - share) * judged.value, float(low), float(high), judged.count)


def accuracy(comparisons: Iterable[Comparison]) -> Estimate:
    """Share of comparisons in which the preferred output has the larger number, equal numbers counting one half.

    With a reward model's scores: its accuracy. With lengths: the longer-wins baseline it must beat.
    """
    return mean_over_prompts(_by_prompt(comparisons))


def accuracy_difference(first: Iterable[Comparison], second: Iterable[Comparison]) -> Estimate:
    """Accuracy on `first` less accuracy on `second`, prompt by prompt on the prompts that both have (a paired bootstrap)."""
    one, other = _by_prompt(first), _by_prompt(second)
    return mean_over_prompts({p: [fmean(one[p]) - fmean(other[p])] for p in one if p in other})


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
    import numpy as np

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


@dataclass(frozen=True)
class PairCounts:
    """The pairs of outputs that two judgements both ranked, by what the two say of them."""

    pairs: int
    alike: int
    """Ordered alike, a tie being an order of its own."""
    one_tied: int
    """Tied by just one of the two; never alike."""
    both_tied: int
    """Tied by both; among those alike."""

    def share(self, ties: Ties) -> float | None:
        """Agreement by one of the three definitions of `agreement`; None where that leaves no pair."""
        alike, pairs = float(self.alike), self.pairs
        if ties == "excluded":
            alike, pairs = alike - self.both_tied, pairs - self.one_tied - self.both_tied
        elif ties == "half":
            alike += self.one_tied / 2
        return alike / pairs if pairs else None


def count_pairs(first: Sequence[int | None], second: Sequence[int | None]) -> PairCounts:
    """Compare the tiers two judges gave the same outputs, in the same order; None (not rankable) by either makes no pair."""
    shared = [(a, b) for a, b in zip(first, second, strict=True) if a is not None and b is not None]
    orders = [(_sign(a - c), _sign(b - d)) for (a, b), (c, d) in combinations(shared, 2)]
    return PairCounts(
        pairs=len(orders),
        alike=sum(one == other for one, other in orders),
        one_tied=sum((one == 0) != (other == 0) for one, other in orders),
        both_tied=sum(one == other == 0 for one, other in orders),
    )


def agreement(judgements: Iterable[tuple[str, Sequence[int | None], Sequence[int | None]]], ties: Ties) -> Estimate:
    """Share of pairs of outputs that two judges order alike; an item is (prompt, tiers of one judge, tiers of the other).

    Tiers are of the same outputs in the same order; an output that either judge found not rankable (None) makes no pair.
    `ties`: "strict" counts a tie as an order of its own, "excluded" leaves out pairs that either judge tied, "half" gives one
    half where just one of them tied.
    """
    return agreement_of_counts(((prompt, count_pairs(first, second)) for prompt, first, second in judgements), ties)


def agreement_of_counts(counts: Iterable[tuple[str, PairCounts]], ties: Ties) -> Estimate:
    """`agreement` from what `count_pairs` gave for each two judgements; an item is (prompt, counts)."""
    of_prompt: dict[str, list[PairCounts]] = {}
    for prompt, pairs in counts:
        of_prompt.setdefault(prompt, []).append(pairs)
    shares = {prompt: _pool(several).share(ties) for prompt, several in of_prompt.items()}
    return mean_over_prompts({prompt: [share] for prompt, share in shares.items() if share is not None})


def disagreement(first: Sequence[float], second: Sequence[float]) -> float:
    """How differently two reward models judge the same responses, 0 to 1.

    A difference of scores is the log-odds that people prefer the one response, on any reward model's scale. So of each pair the
    two probabilities are compared: the mean over pairs of their absolute difference. Raises ValueError below 2 responses.
    """
    if len(first) != len(second) or len(first) < 2:
        raise ValueError(f"got {len(first)} and {len(second)} scores; expected as many of each, and at least 2")
    pairs = list(combinations(range(len(first)), 2))
    return fmean(abs(_p_left(first[i], first[j]) - _p_left(second[i], second[j])) for i, j in pairs)


def wilson_interval(successes: int, trials: int) -> Estimate:
    """A proportion of independent trials with Wilson's score interval (1927), 95 %; sound at 0 and at 1 too."""
    if not 0 <= successes <= trials or trials == 0:
        raise ValueError(f"{successes} successes in {trials} trials; expected 0 <= successes <= trials and trials > 0")
    z = 1.959963984540054
    share, scale = successes / trials, 1 + z * z / trials
    centre = (share + z * z / (2 * trials)) / scale
    spread = z / scale * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    return Estimate(share, max(0.0, centre - spread), min(1.0, centre + spread), trials)


def _pool(counts: Sequence[PairCounts]) -> PairCounts:
    return PairCounts(
        sum(one.pairs for one in counts),
        sum(one.alike for one in counts),
        sum(one.one_tied for one in counts),
        sum(one.both_tied for one in counts),
    )


def _by_prompt(comparisons: Iterable[Comparison]) -> dict[str, list[float]]:
    values: dict[str, list[float]] = {}
    for pair in comparisons:
        values.setdefault(pair.prompt, []).append(_outcome(pair.better, pair.worse))
    return values


def _meetings(left: Sequence[float], right: Sequence[float]) -> list[float]:
    return [_outcome(a, b) for a in left for b in right]


def _outcome(better: float, worse: float) -> float:
    return 1.0 if better > worse else 0.5 if better == worse else 0.0


def _p_left(left: float, right: float) -> float:
    """Probability that people prefer the left response by its scores, without overflow."""
    return 0.5 * (1 + math.tanh((left - right) / 2))


def _sign(difference: float) -> int:
    return (difference > 0) - (difference < 0)
