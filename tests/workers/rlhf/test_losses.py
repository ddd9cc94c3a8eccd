import math
from itertools import combinations

import pytest
import torch

from workers.rlhf.losses import nll, policy_loss, preferences, ranking_loss, value_loss

ALL = torch.ones(1, 3, dtype=torch.bool)


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


class TestNll:
    def test_by_hand(self):
        logprobs = torch.tensor([[-1.0, -2.0], [-4.0, -100.0]])
        mask = torch.tensor([[True, True], [True, False]])
        assert nll(logprobs, mask).item() == 7.0

    def test_is_additive_over_micro_batches(self):
        logprobs, mask = torch.randn(4, 3), torch.rand(4, 3) < 0.5
        parts = sum(nll(logprobs[at : at + 2], mask[at : at + 2]) for at in (0, 2))
        assert nll(logprobs, mask).item() == pytest.approx(parts.item(), abs=1e-6)


class TestPreferences:
    def test_lists_each_comparison_once(self):
        preferred = preferences(torch.tensor([[1, 3, 2]]), torch.ones(1, 3, dtype=torch.bool))
        assert preferred[0].tolist() == [[0, 1, 1], [0, 0, 0], [0, 1, 0]]

    def test_drops_ties_and_what_is_not_rankable(self):
        tiers, rankable = torch.tensor([[1, 1, 2, 0]]), torch.tensor([[True, True, True, False]])
        assert preferences(tiers, rankable)[0].tolist() == [[0, 0, 1, 0], [0, 0, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]]

    def test_keeps_ties_at_one_half_on_both_sides_where_asked_to(self):
        tiers, rankable = torch.tensor([[1, 1, 2, 1]]), torch.tensor([[True, True, True, False]])
        expected = [[0, 0.5, 1, 0], [0.5, 0, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
        assert preferences(tiers, rankable, tie=0.5)[0].tolist() == expected


class TestRankingLoss:
    def test_of_a_pair_by_hand(self):
        loss = ranking_loss(torch.tensor([[2.0, 1.0]]), preferences(torch.tensor([[1, 2]]), ALL[:, :2]), torch.ones(1))
        assert loss.item() == pytest.approx(-math.log(sigmoid(1.0)), abs=1e-6)

    def test_of_three_divides_by_three_comparisons(self):
        scores = torch.tensor([[3.0, 1.0, 0.0]])
        loss = ranking_loss(scores, preferences(torch.tensor([[1, 2, 3]]), ALL), torch.ones(1))
        # pairs (3, 1), (3, 0), (1, 0): differences 2, 3, 1; divided by C(3, 2)
        assert loss.item() == pytest.approx(-sum(math.log(sigmoid(d)) for d in (2, 3, 1)) / 3, abs=1e-6)

    def test_leaves_ties_out_of_the_sum_and_not_of_the_divisor(self):
        scores = torch.tensor([[3.0, 1.0, 0.0]])
        loss = ranking_loss(scores, preferences(torch.tensor([[1, 2, 2]]), ALL), torch.ones(1))
        assert loss.item() == pytest.approx(-sum(math.log(sigmoid(d)) for d in (2, 3)) / 3, abs=1e-6)

    def test_counts_no_output_that_is_not_rankable(self):
        scores, rankable = torch.tensor([[3.0, 1.0, 0.0]]), torch.tensor([[True, True, False]])
        loss = ranking_loss(scores, preferences(torch.tensor([[1, 2, 0]]), rankable), torch.ones(1))
        assert loss.item() == pytest.approx(-math.log(sigmoid(2)), abs=1e-6)

    def test_of_a_judgement_that_is_all_ties_is_zero_and_so_is_its_gradient(self):
        scores = torch.randn(1, 3, requires_grad=True)
        loss = ranking_loss(scores, preferences(torch.tensor([[1, 1, 1]]), ALL), torch.ones(1))
        loss.backward()
        assert loss.item() == 0.0
        assert scores.grad.abs().sum().item() == 0.0

    def test_equals_a_loop_over_pairs(self):
        torch.manual_seed(3)
        scores = torch.randn(4, 5, dtype=torch.float64)
        tiers, rankable, weights = (
            torch.randint(1, 4, (4, 5)),
            torch.rand(4, 5) < 0.8,
            torch.rand(4, dtype=torch.float64),
        )
        expected = 0.0
        for j in range(4):
            terms = []
            for a, b in combinations(range(5), 2):
                if rankable[j, a] and rankable[j, b] and tiers[j, a] != tiers[j, b]:
                    better, worse = (a, b) if tiers[j, a] < tiers[j, b] else (b, a)
                    terms.append(-math.log(sigmoid(scores[j, better].item() - scores[j, worse].item())))
            expected += weights[j].item() * sum(terms) / max(1, math.comb(int(rankable[j].sum()), 2))
        loss = ranking_loss(scores, preferences(tiers, rankable).double(), weights)
        assert loss.item() == pytest.approx(expected, abs=1e-10)

    def test_of_a_soft_judge_is_the_cross_entropy(self):
        scores, preferred = torch.tensor([[0.5, 0.0]]), torch.tensor([[[0.0, 0.7], [0.3, 0.0]]])
        expected = -0.7 * math.log(sigmoid(0.5)) - 0.3 * math.log(sigmoid(-0.5))
        assert ranking_loss(scores, preferred, torch.ones(1)).item() == pytest.approx(expected, abs=1e-6)

    def test_does_not_see_a_constant_added_to_the_scores(self):
        scores, preferred = (
            torch.randn(2, 4, dtype=torch.float64),
            preferences(torch.tensor([[1, 2, 3, 4], [2, 2, 1, 3]]), ALL.new_ones(2, 4)),
        )
        weights = torch.ones(2, dtype=torch.float64)
        shifted = ranking_loss(scores + 7, preferred, weights).item()
        assert ranking_loss(scores, preferred, weights).item() == pytest.approx(shifted, abs=1e-10)

    def test_does_not_see_the_score_of_an_output_that_is_not_rankable(self):
        preferred = preferences(torch.tensor([[1, 2, 3]]), torch.tensor([[True, True, False]]))
        one, other = torch.tensor([[1.0, 0.0, 5.0]]), torch.tensor([[1.0, 0.0, -5.0]])
        assert torch.equal(ranking_loss(one, preferred, torch.ones(1)), ranking_loss(other, preferred, torch.ones(1)))

    def test_gradient(self):
        scores = torch.randn(2, 4, dtype=torch.float64, requires_grad=True)
        preferred = preferences(torch.tensor([[1, 2, 2, 4], [3, 1, 2, 2]]), torch.ones(2, 4, dtype=torch.bool)).double()
        weights = torch.tensor([1.0, 0.5], dtype=torch.float64)
        assert torch.autograd.gradcheck(lambda s: ranking_loss(s, preferred, weights), scores)


def labels(judgements, outputs):
    """Targets (J, K, K), antisymmetric margins and weights of every kind: hard, tied, soft, graded, left out; float64."""
    upper = torch.tensor([0.0, 0.5, 1.0, 0.2, 0.9], dtype=torch.float64)
    drawn = upper[torch.randint(0, 5, (judgements, outputs, outputs))].triu(1)
    compared = (torch.rand(judgements, outputs, outputs) < 0.8).triu(1)
    preferred = drawn * compared + ((1 - drawn) * compared).mT
    margins = torch.randint(-2, 3, (judgements, outputs, outputs)).double().triu(1)
    return preferred, margins - margins.mT, torch.rand(judgements, dtype=torch.float64)


class TestLabels:
    """Hard labels, ties, soft labels and graded strength are cases of the one formula."""

    def test_margin_by_hand(self):
        scores, preferred = torch.tensor([[2.0, 1.0]]), torch.tensor([[[0.0, 1.0], [0.0, 0.0]]])
        loss = ranking_loss(scores, preferred, torch.ones(1), torch.tensor([[[0.0, 3.0], [-3.0, 0.0]]]))
        # -log sigmoid(2 - 1 - 3)
        assert loss.item() == pytest.approx(-math.log(sigmoid(-2.0)), abs=1e-6)

    def test_tie_by_hand(self):
        scores, preferred = torch.tensor([[2.0, 1.0]]), preferences(torch.tensor([[1, 1]]), ALL[:, :2], tie=0.5)
        loss = ranking_loss(scores, preferred, torch.ones(1))
        # -1/2 log sigmoid(1) - 1/2 log sigmoid(-1)
        assert loss.item() == pytest.approx(-0.5 * math.log(sigmoid(1)) - 0.5 * math.log(sigmoid(-1)), abs=1e-6)

    def test_a_tie_that_is_kept_stands_in_the_sum_and_in_the_divisor(self):
        scores = torch.tensor([[3.0, 1.0, 0.0]])
        loss = ranking_loss(scores, preferences(torch.tensor([[1, 2, 2]]), ALL, tie=0.5), torch.ones(1))
        tie = -0.5 * math.log(sigmoid(1)) - 0.5 * math.log(sigmoid(-1))
        expected = (-math.log(sigmoid(2)) - math.log(sigmoid(3)) + tie) / 3
        assert loss.item() == pytest.approx(expected, abs=1e-6)

    def test_equals_a_loop_over_pairs_for_every_kind_at_once(self):
        torch.manual_seed(8)
        scores = torch.randn(6, 5, dtype=torch.float64)
        preferred, margins, weights = labels(6, 5)
        expected = 0.0
        for j in range(6):
            total, outputs = 0.0, set()
            for a, b in combinations(range(5), 2):
                p, margin = preferred[j, a, b].item(), margins[j, a, b].item()
                if p + preferred[j, b, a].item() == 0:
                    continue
                outputs |= {a, b}
                chance = sigmoid(scores[j, a].item() - scores[j, b].item() - margin)
                total -= p * math.log(chance) + (1 - p) * math.log(1 - chance)
            expected += weights[j].item() * total / max(1, math.comb(len(outputs), 2))
        assert ranking_loss(scores, preferred, weights, margins).item() == pytest.approx(expected, abs=1e-10)

    @pytest.mark.parametrize(("p", "margin"), [(0.5, 0.0), (0.8, 0.0), (0.8, 1.5), (0.3, -1.0)])
    def test_is_least_where_the_scores_differ_by_the_logit_and_the_margin(self, p, margin):
        best = math.log(p / (1 - p)) + margin
        preferred = torch.tensor([[[0, p], [1 - p, 0]]], dtype=torch.float64)
        margins = torch.tensor([[[0, margin], [-margin, 0]]], dtype=torch.float64)

        def slope(difference):
            scores = torch.tensor([[difference, 0.0]], dtype=torch.float64, requires_grad=True)
            loss = ranking_loss(scores, preferred, torch.ones(1, dtype=torch.float64), margins)
            return torch.autograd.grad(loss, scores)[0][0, 0].item()

        assert slope(best) == pytest.approx(0.0, abs=1e-12)
        assert slope(best - 0.1) < 0 < slope(best + 0.1)

    def test_a_margin_is_a_shift_of_the_scores(self):
        torch.manual_seed(9)
        scores, shift = torch.randn(4, 5, dtype=torch.float64), torch.randn(4, 5, dtype=torch.float64)
        preferred, _, weights = labels(4, 5)
        margins = shift[:, :, None] - shift[:, None, :]
        together, apart = (
            ranking_loss(scores, preferred, weights, margins),
            ranking_loss(scores - shift, preferred, weights),
        )
        assert together.item() == pytest.approx(apart.item(), abs=1e-10)

    def test_a_soft_label_is_the_mean_of_the_hard_ones(self):
        scores, weights = torch.randn(1, 3, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
        up, down = (preferences(torch.tensor([tiers]), ALL).double() for tiers in ([1, 2, 3], [3, 2, 1]))
        mixed = ranking_loss(scores, 0.7 * up + 0.3 * down, weights).item()
        parts = [ranking_loss(scores, hard, weights).item() for hard in (up, down)]
        assert mixed == pytest.approx(0.7 * parts[0] + 0.3 * parts[1], abs=1e-10)

    def test_weights_are_linear(self):
        torch.manual_seed(10)
        scores = torch.randn(3, 4, dtype=torch.float64)
        preferred, margins, weights = labels(3, 4)
        whole = ranking_loss(scores, preferred, 2 * weights, margins).item()
        parts = [
            ranking_loss(scores[j : j + 1], preferred[j : j + 1], weights[j : j + 1], margins[j : j + 1])
            for j in range(3)
        ]
        assert whole == pytest.approx(2 * sum(parts).item(), abs=1e-10)

    def test_gradient(self):
        torch.manual_seed(11)
        scores = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
        preferred, margins, weights = labels(3, 4)
        assert torch.autograd.gradcheck(lambda s: ranking_loss(s, preferred, weights, margins), scores)


class TestPolicyLoss:
    def test_by_hand(self):
        # ratios 1.5, 0.5, 1.1 with eps 0.2; advantages 1, -1, 2
        logprobs, advantages = torch.log(torch.tensor([[1.5, 0.5, 1.1]])), torch.tensor([[1.0, -1.0, 2.0]])
        result = policy_loss(logprobs, torch.zeros(1, 3), advantages, ALL, cliprange=0.2)
        assert result.loss.item() == pytest.approx(-1.2 + 0.8 - 2.2, abs=1e-6)
        assert result.clipped.item() == 2
        expected = 0.5 * sum(math.log(r) ** 2 for r in (1.5, 0.5, 1.1))
        assert result.approx_kl.item() == pytest.approx(expected, abs=1e-6)

    def test_of_an_unchanged_policy_is_minus_the_advantage_with_the_plain_policy_gradient(self):
        logprobs = torch.randn(2, 3, requires_grad=True)
        advantages = torch.randn(2, 3)
        result = policy_loss(logprobs, logprobs.detach(), advantages, ALL.expand(2, 3), cliprange=0.2)
        result.loss.backward()
        assert result.loss.item() == pytest.approx(-advantages.sum().item(), abs=1e-6)
        assert torch.allclose(logprobs.grad, -advantages)

    def test_has_no_gradient_where_clipped_and_improving(self):
        logprobs = torch.log(torch.tensor([[1.5, 0.5]])).requires_grad_()
        policy_loss(logprobs, torch.zeros(1, 2), torch.tensor([[1.0, -1.0]]), ALL[:, :2], cliprange=0.2).loss.backward()
        assert logprobs.grad.tolist() == [[0.0, 0.0]]

    def test_keeps_the_gradient_where_the_ratio_went_the_wrong_way(self):
        logprobs = torch.log(torch.tensor([[1.5, 0.5]])).requires_grad_()
        policy_loss(logprobs, torch.zeros(1, 2), torch.tensor([[-1.0, 1.0]]), ALL[:, :2], cliprange=0.2).loss.backward()
        assert logprobs.grad.tolist() == [[1.5, -0.5]]

    @pytest.mark.parametrize(("hidden", "advantage"), [(-9.0, -7.0), (500.0, 3.0)])  # the latter's ratio is infinite
    def test_does_not_see_padding(self, hidden, advantage):
        mask = torch.tensor([[True, False]])
        one, other = (
            policy_loss(torch.tensor([[0.1, x]]), torch.zeros(1, 2), torch.tensor([[1.0, a]]), mask, cliprange=0.2)
            for x, a in ((0.0, 1.0), (hidden, advantage))
        )
        assert [value.item() for value in one] == [value.item() for value in other]

    def test_equals_a_loop(self):
        torch.manual_seed(4)
        new, old, advantages = (torch.randn(3, 4, dtype=torch.float64) for _ in range(3))
        mask = torch.rand(3, 4) < 0.7
        expected = 0.0
        for b in range(3):
            for t in range(4):
                if mask[b, t]:
                    ratio, a = math.exp(new[b, t] - old[b, t]), advantages[b, t].item()
                    expected -= min(ratio * a, min(max(ratio, 0.8), 1.2) * a)
        assert policy_loss(new, old, advantages, mask, cliprange=0.2).loss.item() == pytest.approx(expected, abs=1e-10)

    def test_gradient(self):
        torch.manual_seed(5)
        new = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
        old, advantages = torch.randn(2, 3, dtype=torch.float64), torch.randn(2, 3, dtype=torch.float64)
        mask = torch.tensor([[True, True, False], [True, True, True]])
        assert torch.autograd.gradcheck(lambda x: policy_loss(x, old, advantages, mask, cliprange=0.2).loss, new)


class TestValueLoss:
    @pytest.mark.parametrize("side", [1.0, -1.0])
    def test_by_hand(self, side):
        # V 1.0, old 0.0, R 2.0: kept within 0.2 of 0.0 the value is 0.2, and (0.2 - 2)^2 is the larger error; so below 0
        loss = value_loss(
            torch.tensor([[side]]), torch.zeros(1, 1), torch.tensor([[2 * side]]), ALL[:, :1], cliprange_value=0.2
        )
        assert loss.item() == pytest.approx(0.5 * 1.8**2, abs=1e-6)

    def test_is_the_squared_error_within_the_clip_range(self):
        loss = value_loss(
            torch.tensor([[0.1]]), torch.zeros(1, 1), torch.tensor([[2.0]]), ALL[:, :1], cliprange_value=0.2
        )
        assert loss.item() == pytest.approx(0.5 * 1.9**2, abs=1e-6)

    def test_does_not_see_padding(self):
        mask = torch.tensor([[True, False]])
        values = [torch.tensor([[0.1, x]]) for x in (5.0, -5.0)]
        one, other = (
            value_loss(v, torch.zeros(1, 2), torch.ones(1, 2), mask, cliprange_value=0.2).item() for v in values
        )
        assert one == other

    def test_equals_a_loop(self):
        torch.manual_seed(6)
        new, old, returns = (torch.randn(3, 4, dtype=torch.float64) for _ in range(3))
        mask = torch.rand(3, 4) < 0.7
        expected = 0.0
        for b in range(3):
            for t in range(4):
                if mask[b, t]:
                    v, o, r = new[b, t].item(), old[b, t].item(), returns[b, t].item()
                    expected += 0.5 * max((v - r) ** 2, (min(max(v, o - 0.2), o + 0.2) - r) ** 2)
        assert value_loss(new, old, returns, mask, cliprange_value=0.2).item() == pytest.approx(expected, abs=1e-10)

    def test_gradient(self):
        torch.manual_seed(7)
        new = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
        old, returns = torch.randn(2, 3, dtype=torch.float64), torch.randn(2, 3, dtype=torch.float64)
        assert torch.autograd.gradcheck(
            lambda v: value_loss(v, old, returns, ALL.expand(2, 3), cliprange_value=0.2), new
        )
