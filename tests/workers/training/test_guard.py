import math

import pytest
import torch
from torch import nn

from workers.training.guard import Guard, Report, paired_fall


def policy(value):
    """A policy of one weight."""
    layer = nn.Linear(1, 1, bias=False)
    nn.init.constant_(layer.weight, value)
    return layer


def report(score, seconds=(), kl=1.0):
    return Report({"heldout_score": score, "heldout_kl": kl}, list(seconds))


def watch(*reports, patience=2):
    """A watched guard after reports of (score, second scores) at iterations 0, 1, ...: the policy's weight is the iteration."""
    guard = Guard(None, patience, is_watched=True)
    for step, (score, seconds) in enumerate(reports):
        guard.take(step, report(score, seconds), policy(float(step)))
    return guard


class TestPairedFall:
    def test_by_hand(self):
        # differences 2, 1, 1: mean 4/3, variance ((2/3)^2 + 2 (1/3)^2) / 2 = 1/3, error sqrt(1/3 / 3) = 1/3
        assert paired_fall([3.0, 5.0, 4.0], [1.0, 4.0, 3.0]) == pytest.approx((4 / 3, 1 / 3), abs=1e-12)

    def test_of_a_single_pair_has_no_error_to_compare_with(self):
        assert paired_fall([3.0], [1.0]) == (2.0, math.inf)


class TestOverOptimisation:
    BEST = (1.0, [2.0, 2.0, 2.0])

    def test_stops_after_so_many_reports_in_a_row_and_puts_the_best_back(self):
        guard = watch((0.0, [1.0, 1.0, 1.0]), self.BEST, (2.0, [1.0, 1.5, 1.0]))
        assert not guard.reason
        guard.take(3, report(3.0, [0.0, 0.5, 1.0]), policy(3.0))
        assert guard.reason.startswith(
            "over-optimised: at 2 reports in a row the score was above that of iteration 1 (now 3,"
        )
        restored = policy(3.0)
        guard.restore(restored)
        assert (restored.weight.item(), guard.kept_step) == (1.0, 1)

    def test_not_where_the_second_score_fell_by_less_than_its_standard_error(self):
        noisy = (2.0, [4.0, 2.0, -0.5])  # differences -2, 0, 2.5: mean 0.17, error 1.3
        assert not watch(self.BEST, noisy, noisy, noisy).reason

    def test_not_where_the_score_fell_too(self):
        worse = (0.5, [1.0, 1.0, 1.0])
        assert not watch(self.BEST, worse, worse, worse).reason

    def test_counts_from_the_start_after_a_report_that_recovered(self):
        fooled, recovered = (2.0, [1.0, 1.0, 1.0]), (2.0, [2.0, 2.0, 2.0])
        assert not watch(self.BEST, fooled, recovered, fooled).reason
        assert watch(self.BEST, fooled, recovered, fooled, fooled).reason

    def test_a_better_report_becomes_the_measure(self):
        guard = watch(self.BEST, (2.0, [1.0, 1.0, 1.0]), (3.0, [3.0, 3.0, 3.0]), (4.0, [2.0, 2.0, 2.0]))
        assert (guard.kept_step, guard.best, guard.falls, guard.reason) == (2, 3.0, 1, "")

    def test_a_report_that_is_taken_again_counts_once(self):
        guard = watch(self.BEST, (2.0, [1.0, 1.0, 1.0]))
        guard.take(1, report(2.0, [1.0, 1.0, 1.0]), policy(1.0))
        assert not guard.reason

    def test_goes_on_from_its_state(self):
        guard = watch(self.BEST, (2.0, [1.0, 1.0, 1.0]))
        again = Guard(**vars(guard))
        again.take(2, report(2.0, [1.0, 1.0, 1.0]), policy(2.0))
        assert again.reason

    def test_begins_with_the_policy_before_training(self):
        guard = Guard(None, 1, is_watched=True)
        guard.begin(report(0.0, [1.0, 1.0]), policy(7.0))
        guard.take(1, report(1.0, [0.0, 0.5]), policy(1.0))
        assert guard.reason
        assert torch.equal(guard.weights[0], policy(7.0).weight)


class TestDivergence:
    def test_stops_past_its_bound_and_keeps_the_best_score_within(self):
        guard = Guard(2.0, 3, is_watched=False)
        for step, (score, kl) in enumerate([(1.0, 0.5), (3.0, 1.0), (2.0, 1.5), (9.0, 2.5)]):
            guard.take(step, report(score, kl=kl), policy(float(step)))
        assert guard.reason == "held-out KL 2.50 nats passed kl_max 2.0"
        assert guard.kept_step == 1

    def test_says_so_where_no_report_was_within_bounds(self):
        guard = Guard(2.0, 3, is_watched=False)
        guard.begin(report(1.0, kl=0.0), policy(0.0))
        guard.take(1, report(1.0, kl=3.0), policy(1.0))
        with pytest.raises(RuntimeError, match="before the first held-out report"):
            guard.restore(policy(1.0))


class TestIdle:
    def test_remembers_nothing_and_stops_nothing(self):
        guard = Guard(None, 1, is_watched=False)
        guard.begin(report(1.0), policy(0.0))
        guard.take(1, Report({}, []), policy(1.0))
        assert (guard.weights, guard.reason) == ([], "")
