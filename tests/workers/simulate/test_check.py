"""The bounds: each can fail by itself."""

from dataclasses import replace

import pytest

from app.statistics import Estimate
from tests.workers.simulate.factories import estimate, round_numbers
from workers.simulate.check import all_kept, bounds
from workers.simulate.report import RoundNumbers


def failing(numbers: RoundNumbers) -> list[str]:
    return [bound.name for bound in bounds(numbers) if not bound.is_kept]


def with_wins(**wins: Estimate) -> RoundNumbers:
    numbers = round_numbers()
    return replace(numbers, wins={**numbers.wins, **{name.replace("_", " "): rate for name, rate in wins.items()}})


class TestBounds:
    def test_keeps_all_for_a_good_round(self) -> None:
        assert all_kept(bounds(round_numbers()))

    def test_demands_a_win_over_sft(self) -> None:
        assert failing(with_wins(policy_over_SFT=estimate(0.649, 0.60, 0.70))) == ["policy over SFT"]

    def test_demands_a_sure_win_over_sft(self) -> None:
        assert failing(with_wins(policy_over_SFT=estimate(0.70, 0.55, 0.80))) == ["policy over SFT, lower end"]

    def test_demands_a_win_over_base(self) -> None:
        assert failing(with_wins(policy_over_base=estimate(0.849, 0.80, 0.90))) == ["policy over base"]

    def test_refuses_a_category_that_fell_by_more_than_its_estimate(self) -> None:
        numbers = replace(
            round_numbers(),
            change_by_category={"chat": estimate(-0.1, -0.2, -0.001), "extract": estimate(-0.1, -0.2, 0.0)},
        )
        assert failing(numbers) == ["chat: gold score less SFT's"]

    def test_demands_a_share_of_the_noise_ceiling(self) -> None:
        reward = replace(round_numbers().reward, accuracy=estimate(0.80), noise_ceiling=estimate(0.90))
        assert failing(replace(round_numbers(), reward=reward)) == ["reward-model accuracy"]

    def test_demands_more_than_length(self) -> None:
        reward = replace(round_numbers().reward, accuracy=estimate(0.85), longer_wins=estimate(0.85))
        assert failing(replace(round_numbers(), reward=reward)) == ["reward-model accuracy over longer-wins"]

    def test_bounds_the_kl(self) -> None:
        assert failing(replace(round_numbers(), kl=estimate(10.01))) == ["KL to SFT"]

    @pytest.mark.parametrize("length", [10 * 0.69, 10 * 1.31])
    def test_bounds_the_length_both_ways(self, length: float) -> None:
        numbers = round_numbers()
        models = {**numbers.models, "policy": replace(numbers.models["policy"], length_tokens=length)}
        assert failing(replace(numbers, models=models)) == ["mean length against SFT's"]

    def test_demands_that_trivial_policies_lose_surely(self) -> None:
        first, *rest = round_numbers().trivial
        numbers = replace(round_numbers(), trivial=(replace(first, over_policy=estimate(0.45, 0.40, 0.50)), *rest))
        assert failing(numbers) == [f"trivial policy {first.name!r} loses"]

    def test_demands_enough_prompts_and_samples(self) -> None:
        assert failing(replace(round_numbers(), prompts=199)) == ["held-out prompts × samples"]
        assert failing(replace(round_numbers(), samples=3)) == ["held-out prompts × samples"]

    def test_keeps_nothing_of_a_nan(self) -> None:
        assert failing(replace(round_numbers(), kl=estimate(float("nan")))) == ["KL to SFT"]

    def test_says_what_was_measured_and_demanded(self) -> None:
        line = str(next(bound for bound in bounds(round_numbers()) if bound.name == "policy over SFT"))
        assert line == "pass  policy over SFT: 75.0 % (bound: ≥ 65.0 %)"
