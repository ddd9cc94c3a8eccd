"""A round's numbers, the tables that are printed of them, and the file they are written to."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from app.statistics import Estimate
from workers.simulate.measure import ModelNumbers, RewardNumbers

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


@dataclass(frozen=True)
class Trivial:
    """A trivial policy: its gold score, and how often gold prefers it to the round's policy."""

    name: str
    says: str
    gold: Estimate
    over_policy: Estimate


@dataclass(frozen=True)
class RoundNumbers:
    """Everything a round is judged by. `judgements` and `comparisons` count the simulation's own, this round and so far."""

    number: int
    policy: str
    judgements: int
    judgements_so_far: int
    comparisons: int
    comparisons_so_far: int
    prompts: int
    samples: int
    reward: RewardNumbers
    """On the answers of every model judged so far."""
    reward_on_newest: RewardNumbers
    """On those of the model judged in this round."""
    kl: Estimate
    models: Mapping[str, ModelNumbers]
    """By name: base, SFT, policy."""
    wins: Mapping[str, Estimate]
    """By "policy over SFT", "policy over base", "SFT over base"."""
    change_by_category: Mapping[str, Estimate]
    """Policy less SFT."""
    trivial: tuple[Trivial, ...]
    seconds: Mapping[str, float]
    """Wall-clock seconds of each phase."""


def describe_round(numbers: RoundNumbers) -> str:
    """The tables of one round, as text."""
    parts = [
        f"Round {numbers.number}: {numbers.policy}, on {numbers.prompts} held-out prompts × {numbers.samples} samples",
        table(("", ""), _facts(numbers)),
        table(("", *numbers.models), _model_rows(numbers.models)),
        table(("gold win rate", "", "95 % interval"), [(name, *_share(rate)) for name, rate in numbers.wins.items()]),
        table(("gold score by category", *numbers.models, "policy − SFT"), _category_rows(numbers)),
        table(("trivial policy", "gold score", "over policy", "says"), [_trivial_row(one) for one in numbers.trivial]),
        "took " + ", ".join(f"{phase} {seconds:.0f} s" for phase, seconds in numbers.seconds.items()),
    ]
    return "\n\n".join(parts)


def write_json(
    path: Path,
    options: "DataclassInstance",
    rounds: Sequence[RoundNumbers],
    bounds: Sequence["DataclassInstance"],
    seconds: float,
) -> None:
    """All numbers of a simulation as one JSON object: its options, its rounds, the bounds and the wall-clock seconds."""
    data = {
        "options": asdict(options),
        "rounds": [asdict(numbers) for numbers in rounds],
        "bounds": [asdict(bound) for bound in bounds],
        "seconds": round(seconds, 1),
    }
    path.write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table that reads as plain text too: columns padded to one width, the first flush left, the others right."""
    cells = [tuple(head), *map(tuple, rows)]
    widths = [max(3, *(len(row[column]) for row in cells)) for column in range(len(head))]

    def line(row: Sequence[str]) -> str:
        padded = [
            cell.ljust(width) if at == 0 else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        return f"| {' | '.join(padded)} |"

    rule = "|".join("-" * (width + 2) if at == 0 else "-" * (width + 1) + ":" for at, width in enumerate(widths))
    return "\n".join([line(cells[0]), f"|{rule}|", *map(line, cells[1:])])


def span(estimate: Estimate, digits: int = 3) -> str:
    """An estimate with its interval: 0.712 [0.690, 0.733]."""
    return f"{estimate.value:.{digits}f} [{estimate.low:.{digits}f}, {estimate.high:.{digits}f}]"


def percent(share: float) -> str:
    """A share as a percentage."""
    return f"{100 * share:.1f} %"


def _share(estimate: Estimate) -> tuple[str, str]:
    return percent(estimate.value), f"{100 * estimate.low:.1f} to {100 * estimate.high:.1f}"


def _facts(numbers: RoundNumbers) -> list[tuple[str, str]]:
    reward, newest = numbers.reward, numbers.reward_on_newest
    return [
        ("judgements (so far)", f"{numbers.judgements} ({numbers.judgements_so_far})"),
        ("comparisons (so far)", f"{numbers.comparisons} ({numbers.comparisons_so_far})"),
        ("held-out pairs (prompts)", f"{reward.pairs} ({reward.prompts})"),
        ("reward-model accuracy", span(reward.accuracy)),
        ("noise ceiling", span(reward.noise_ceiling)),
        ("longer-wins", span(reward.longer_wins)),
        ("share of the ceiling", percent(reward.accuracy.value / reward.noise_ceiling.value)),
        ("  on this round's answers alone", percent(newest.accuracy.value / newest.noise_ceiling.value)),
        ("KL to SFT, nats", span(numbers.kl, 2)),
    ]


def _model_rows(models: Mapping[str, ModelNumbers]) -> list[tuple[str, ...]]:
    components = next(iter(models.values())).components
    return [
        ("gold score", *(span(model.gold) for model in models.values())),
        *((f"  {name}", *(f"{model.components[name]:.3f}" for model in models.values())) for name in components),
        ("mean length, tokens", *(f"{model.length_tokens:.1f}" for model in models.values())),
        ("distinct responses", *(percent(model.distinct) for model in models.values())),
        ("ended by themselves", *(percent(model.ended) for model in models.values())),
    ]


def _category_rows(numbers: RoundNumbers) -> list[tuple[str, ...]]:
    return [
        (name, *(span(model.by_category[name]) for model in numbers.models.values()), span(change))
        for name, change in numbers.change_by_category.items()
    ]


def _trivial_row(one: Trivial) -> tuple[str, str, str, str]:
    rate, interval = _share(one.over_policy)
    return one.name, f"{one.gold.value:.3f}", f"{rate} ({interval})", one.says
