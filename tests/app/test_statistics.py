import math
import random
import subprocess
import sys

import pytest

from app.statistics import (
    Comparison,
    PairCounts,
    accuracy,
    accuracy_difference,
    agreement,
    calibration,
    count_pairs,
    disagreement,
    judged_win_rate,
    mean_over_prompts,
    wilson_interval,
    win_rate,
)


class TestMeanOverPrompts:
    def test_weighs_every_prompt_the_same(self):
        estimate = mean_over_prompts({"a": [1.0, 1.0, 1.0, 1.0], "b": [0.0]})
        assert (estimate.value, estimate.count) == (0.5, 2)

    def test_interval_is_the_same_every_time_and_holds_the_mean(self):
        values = {str(i): [float(i % 3)] for i in range(60)}
        first, second = mean_over_prompts(values), mean_over_prompts(values)
        assert first == second
        assert first.low < first.value < first.high

    def test_interval_is_that_of_the_normal_law_for_many_prompts(self):
        values = {str(i): [float(i % 2)] for i in range(400)}
        estimate = mean_over_prompts(values)
        # half-width 1.96 * 0.5 / sqrt(400) = 0.049; 2,000 draws leave about 2 % error in a quantile
        assert estimate.high - estimate.value == pytest.approx(0.049, abs=0.006)

    def test_does_not_narrow_when_every_sample_is_doubled(self):
        once = mean_over_prompts({str(i): [float(i % 2)] for i in range(50)})
        twice = mean_over_prompts({str(i): [float(i % 2)] * 2 for i in range(50)})
        assert once == twice

    def test_leaves_out_prompts_without_a_value(self):
        assert mean_over_prompts({"a": [1.0], "b": []}).count == 1

    def test_refuses_nothing_at_all(self):
        with pytest.raises(ValueError, match="at least one"):
            mean_over_prompts({"a": []})


class TestWinRate:
    def test_counts_a_tie_as_one_half(self):
        assert win_rate({"a": [1.0]}, {"a": [1.0]}).value == 0.5

    def test_lets_every_sample_meet_every_sample(self):
        assert win_rate({"a": [2.0, 0.0]}, {"a": [1.0, 0.0]}).value == pytest.approx((1 + 1 + 0 + 0.5) / 4)

    def test_uses_the_prompts_both_sides_have(self):
        assert win_rate({"a": [1.0], "b": [0.0]}, {"a": [0.0], "c": [9.0]}).count == 1

    def test_of_the_two_sides_adds_to_one(self):
        left, right = {"a": [1.0, 3.0], "b": [2.0]}, {"a": [2.0], "b": [2.0, 5.0]}
        assert win_rate(left, right).value + win_rate(right, left).value == pytest.approx(1.0)

    def test_from_judgements(self):
        assert judged_win_rate({"a": [1.0, 0.5], "b": [0.0]}).value == pytest.approx(0.375)

    def test_ties_nobody_is_asked_about_weigh_at_once_what_they_weigh_at_the_end(self):
        early = judged_win_rate({"a": [1.0], "b": [1.0]}, alike=30, asked=10)
        assert (early.value, early.count) == (pytest.approx((15 + 10) / 40), 2)
        outcomes = {str(n): [float(n % 5 > 0)] for n in range(100)}
        late = judged_win_rate(outcomes, alike=100, asked=100)
        whole = mean_over_prompts(outcomes | {f"alike {n}": [0.5] for n in range(100)})
        assert late.value == pytest.approx(whole.value)
        ends = {"abs": 0.01}  # two bootstraps of one thing: an end wanders by a tenth of the width from seed to seed
        assert (late.low, late.high) == (pytest.approx(whole.low, **ends), pytest.approx(whole.high, **ends))


class TestAccuracy:
    def test_is_the_mean_per_prompt_then_over_prompts(self):
        pairs = [Comparison("a", 2, 1), Comparison("a", 2, 1), Comparison("a", 2, 1), Comparison("b", 1, 2)]
        assert accuracy(pairs).value == 0.5

    def test_counts_equal_numbers_as_one_half(self):
        assert accuracy([Comparison("a", 1.0, 1.0)]).value == 0.5


def drawn(count, *, seed=0, scale=1.0):
    """Comparisons of a perfectly calibrated judge: people prefer a over b with probability sigmoid(difference)."""
    rng = random.Random(seed)
    found = []
    for at in range(count):
        difference = rng.uniform(0, 3)
        right = rng.random() < 1 / (1 + math.exp(-difference))
        found.append(Comparison(f"p{at % 50}", scale * difference * right, scale * difference * (not right)))
    return found


class TestAccuracyDifference:
    def test_by_hand_on_shared_prompts_only(self):
        first = [Comparison("a", 2, 1), Comparison("a", 1, 2), Comparison("b", 2, 1), Comparison("c", 1, 2)]
        second = [Comparison("a", 1, 2), Comparison("b", 2, 1), Comparison("d", 2, 1)]
        # a: 1/2 - 0, b: 1 - 1
        assert accuracy_difference(first, second).value == pytest.approx(0.25)
        assert accuracy_difference(first, second).count == 2

    def test_of_a_thing_and_itself_is_nothing_for_certain(self):
        pairs = drawn(200)
        estimate = accuracy_difference(pairs, pairs)
        assert (estimate.low, estimate.value, estimate.high) == (0.0, 0.0, 0.0)


class TestCalibration:
    def test_by_hand(self):
        odds = math.log(0.75 / 0.25)
        found = calibration([Comparison("a", odds, 0), Comparison("a", 0, odds), Comparison("b", 5, 5)])
        # prompt a weighs 1/2 and so does b: a is 75 % sure and right once in two, b is undecided
        assert [(bin.share, bin.predicted, bin.accuracy) for bin in found.bins] == [
            pytest.approx((0.5, 0.5, 0.5)),
            pytest.approx((0.5, 0.75, 0.5)),
        ]
        assert found.error == pytest.approx(0.5 * 0.25)
        assert found.bins[0].low == 0.0
        assert (found.bins[1].low, found.bins[1].high) == pytest.approx((math.log(7 / 3), math.log(4)))

    def test_the_last_bin_is_open(self):
        assert calibration([Comparison("a", 900, 0)]).bins[0].high == math.inf

    def test_shares_times_accuracies_sum_to_the_accuracy(self):
        pairs = [*drawn(300, seed=1), Comparison("p1", 0.3, 0.9), Comparison("p1", 0.4, 0.4)]
        bins = calibration(pairs).bins
        assert sum(bin.share for bin in bins) == pytest.approx(1.0, abs=1e-12)
        assert sum(bin.share * bin.accuracy for bin in bins) == pytest.approx(accuracy(pairs).value, abs=1e-12)

    def test_error_is_small_for_calibrated_scores_and_large_for_boastful_ones(self):
        # 20,000 draws in 5 bins leave about half a percent of error
        assert calibration(drawn(20_000)).error < 0.02
        assert calibration(drawn(20_000, scale=4.0)).error > 0.1

    def test_does_not_see_a_constant_added_to_the_scores(self):
        pairs = drawn(100)
        moved = [Comparison(pair.prompt, pair.better + 7, pair.worse + 7) for pair in pairs]
        assert calibration(moved).error == pytest.approx(calibration(pairs).error, abs=1e-12)

    def test_refuses_nothing_at_all(self):
        with pytest.raises(ValueError, match="at least one"):
            calibration([])


class TestAgreement:
    TWO = (("p", [1, 2, 3], [1, 2, 2]),)  # pairs: alike, alike, ordered against tied

    @pytest.mark.parametrize(("ties", "expected"), [("strict", 2 / 3), ("excluded", 1.0), ("half", 2.5 / 3)])
    def test_by_hand(self, ties, expected):
        assert agreement(self.TWO, ties).value == pytest.approx(expected)

    def test_two_ties_agree_under_strict_and_half(self):
        both = [("p", [1, 1], [2, 2])]
        assert (agreement(both, "strict").value, agreement(both, "half").value) == (1.0, 1.0)

    def test_opposite_orders_never_agree(self):
        assert agreement([("p", [1, 2], [2, 1])], "half").value == 0.0

    def test_leaves_out_what_either_found_not_rankable(self):
        assert agreement([("p", [1, None, 2], [1, 2, 3])], "strict").value == 1.0

    def test_counts_say_all_three(self):
        counts = count_pairs([1, 2, 2, None], [1, 1, 1, 2])  # pairs: ordered against tied twice, tied by both
        assert counts == PairCounts(pairs=3, alike=1, one_tied=2, both_tied=1)
        assert [counts.share(ties) for ties in ("strict", "half", "excluded")] == [1 / 3, 2 / 3, None]

    def test_refuses_rankings_of_different_outputs(self):
        with pytest.raises(ValueError, match="argument 2 is"):
            agreement([("p", [1, 2], [1, 2, 3])], "strict")


class TestWilsonInterval:
    def test_by_hand(self):
        z = 1.959963984540054
        estimate = wilson_interval(8, 10)
        centre = (0.8 + z * z / 20) / (1 + z * z / 10)
        spread = z * math.sqrt(0.8 * 0.2 / 10 + z * z / 400) / (1 + z * z / 10)
        assert (estimate.low, estimate.high) == pytest.approx((centre - spread, centre + spread), abs=1e-12)
        assert (estimate.low, estimate.high) == pytest.approx((0.4902, 0.9433), abs=1e-4)  # published table

    @pytest.mark.parametrize(("successes", "low", "high"), [(0, 0.0, 0.2775), (10, 0.7225, 1.0)])
    def test_is_sound_at_the_ends(self, successes, low, high):
        estimate = wilson_interval(successes, 10)
        assert (estimate.low, estimate.high) == pytest.approx((low, high), abs=1e-4)

    def test_refuses_impossible_counts(self):
        with pytest.raises(ValueError, match="3 successes in 2 trials"):
            wilson_interval(3, 2)


def test_importing_it_leaves_torch_and_the_database_unloaded():
    code = "import sys, app.statistics; sys.exit(any(name in sys.modules for name in ('torch', 'sqlalchemy', 'transformers')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


class TestDisagreement:
    def test_is_the_mean_difference_of_the_probabilities_of_each_pair(self) -> None:
        # one pair: sigma(1) = 0.7311 by the first, sigma(-1) = 0.2689 by the second
        assert disagreement([1.0, 0.0], [0.0, 1.0]) == pytest.approx(0.46211715726)
        # three pairs: only those with the last response are judged otherwise, sigma(2) against sigma(0)
        assert disagreement([0, 0, 2], [0, 0, 0]) == pytest.approx(2 * (0.88079707798 - 0.5) / 3)

    def test_is_none_between_scores_that_differ_by_a_constant(self) -> None:
        assert disagreement([1.0, -2.0, 3.5], [11.0, 8.0, 13.5]) == pytest.approx(0)

    def test_goes_to_one_and_never_overflows(self) -> None:
        assert disagreement([1e6, 0.0], [0.0, 1e6]) == 1.0

    @pytest.mark.parametrize(("first", "second"), [([1.0], [1.0]), ([], []), ([1.0, 2.0], [1.0])])
    def test_refuses_what_has_no_pairs(self, first: list[float], second: list[float]) -> None:
        with pytest.raises(ValueError, match="at least 2"):
            disagreement(first, second)
