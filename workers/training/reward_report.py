"""How well a reward model orders outputs as people did, on comparisons it never saw: by whom, when, and how sure it is.

Every number is defined in `app.statistics`; this module says what it is taken over.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from app import statistics
from app.statistics import Comparison
from workers.training import rankings
from workers.training.kwise import SetScorer
from workers.training.rankings import Judgement, RankedSet

LISTED = 20
"""Labellers, groups, ... that a report lists; the others, with fewer comparisons, are one part."""
UNKNOWN, OTHERS = "unknown", "others"

PARTS: dict[str, Callable[[Judgement], str | int | None]] = {
    "labeller": lambda judgement: judgement.labeller,
    "group": lambda judgement: judgement.group,
    "confidence": lambda judgement: judgement.confidence,
    "round": lambda judgement: judgement.round,
}
"""What held-out comparisons are parted by."""

Report = dict[str, Any]
"""Names and numbers that go into `metrics.json` as they are."""


class Measured(NamedTuple):
    """One comparison of a judgement, by the outputs' scores and by their lengths in tokens."""

    judgement: Judgement
    by_score: Comparison
    by_length: Comparison


def measure(scorer: SetScorer, sets: Sequence[RankedSet]) -> list[Measured]:
    """Every comparison of `sets`, scored."""
    lengths = [[float(len(output.response)) for output in element.outputs] for element in sets]
    both = zip(rankings.comparisons(sets, scorer.score_all(sets)), rankings.comparisons(sets, lengths), strict=True)
    return [Measured(judgement, by_score, by_length) for (judgement, by_score), (_, by_length) in both]


def evaluate(scorer: SetScorer, sets: Sequence[RankedSet]) -> Report:
    """Accuracy on the comparisons of `sets` with its interval, longer-wins beside it, `by` part, and `calibration`.

    Empty where `sets` hold no comparison.
    """
    found = measure(scorer, sets)
    if not found:
        return {}
    accuracy = statistics.accuracy(one.by_score for one in found)
    return {
        "accuracy": accuracy.value,
        "accuracy_low": accuracy.low,
        "accuracy_high": accuracy.high,
        "longer_wins": statistics.accuracy(one.by_length for one in found).value,
        "heldout_prompts": accuracy.count,
        "heldout_comparisons": len(found),
        "by": {name: parts for name, value in PARTS.items() if list(parts := _by(value, found)) != [UNKNOWN]},
        "calibration": _calibration(found),
    }


def accuracy(scorer: SetScorer, sets: Sequence[RankedSet]) -> float | None:
    """Accuracy alone; None where `sets` hold no comparison."""
    found = [pair for _, pair in rankings.comparisons(sets, scorer.score_all(sets))]
    return statistics.accuracy(found).value if found else None


def in_brief(found: Sequence[Measured]) -> Report:
    """Accuracy with its interval on some comparisons, longer-wins beside it; empty where there is none."""
    if not found:
        return {}
    accuracy = statistics.accuracy(one.by_score for one in found)
    return {
        "accuracy": round(accuracy.value, 4),
        "low": round(accuracy.low, 4),
        "high": round(accuracy.high, 4),
        "longer_wins": round(statistics.accuracy(one.by_length for one in found).value, 4),
        "prompts": accuracy.count,
        "comparisons": len(found),
    }


def _by(value: Callable[[Judgement], str | int | None], found: Sequence[Measured]) -> dict[str, Report]:
    """A report on each part; at most `LISTED` have one of their own."""
    parts: dict[str, list[Measured]] = {}
    for one in found:
        said = value(one.judgement)
        parts.setdefault(UNKNOWN if said is None else str(said), []).append(one)
    for small in sorted(parts, key=lambda name: (-len(parts[name]), name))[LISTED:]:
        parts.setdefault(OTHERS, []).extend(parts.pop(small))
    return {name: in_brief(parts[name]) for name in sorted(parts, key=_place)}


def _place(name: str) -> tuple[bool, float, str]:
    """Numbers by size, then names, then what is no part of its own."""
    return name in (UNKNOWN, OTHERS), float(name) if name.lstrip("-").isdigit() else 0.0, name


def _calibration(found: Sequence[Measured]) -> Report:
    result = statistics.calibration(one.by_score for one in found)
    return {
        "error": round(result.error, 4),
        "bins": [
            {
                "from": round(bin.low, 4),
                "share": round(bin.share, 4),
                "predicted": round(bin.predicted, 4),
                "accuracy": round(bin.accuracy, 4),
            }
            for bin in result.bins
        ],
    }
