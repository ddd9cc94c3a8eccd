"""A round that keeps every bound, to be changed in one place by each test."""

from app.statistics import Estimate
from workers.simulate.measure import ModelNumbers, RewardNumbers
from workers.simulate.report import RoundNumbers, Trivial


def estimate(value: float, low: float | None = None, high: float | None = None) -> Estimate:
    return Estimate(value, value - 0.02 if low is None else low, value + 0.02 if high is None else high, 200)


def model(gold: float, length: float = 10.0) -> ModelNumbers:
    return ModelNumbers(
        gold=estimate(gold),
        components={"asked": gold, "true": 0.9},
        by_category={"chat": estimate(gold), "extract": estimate(gold)},
        length_tokens=length,
        distinct=0.8,
        ended=1.0,
    )


def round_numbers() -> RoundNumbers:
    return RoundNumbers(
        number=1,
        policy="P 1",
        judgements=100,
        judgements_so_far=100,
        comparisons=400,
        comparisons_so_far=400,
        prompts=200,
        samples=4,
        reward=RewardNumbers(estimate(0.85), estimate(0.9), estimate(0.55), pairs=900, prompts=300),
        reward_on_newest=RewardNumbers(estimate(0.8), estimate(0.9), estimate(0.5), pairs=300, prompts=250),
        kl=estimate(4.0),
        models={"base": model(0.1), "SFT": model(0.5), "policy": model(0.7, 12.0)},
        wins={"policy over SFT": estimate(0.75), "policy over base": estimate(0.95), "SFT over base": estimate(0.9)},
        change_by_category={"chat": estimate(0.2), "extract": estimate(-0.01)},
        trivial=(
            Trivial("empty", "", estimate(0.0), estimate(0.0)),
            Trivial("fixed", "Yes.", estimate(0.2), estimate(0.1)),
            Trivial("echo", "(the last user turn)", estimate(0.1), estimate(0.05)),
        ),
        seconds={"judging": 60.0},
    )
