import math

import pytest
import torch

from workers.rlhf.kl import AdaptiveKL, FixedKL, best_of_n_kl, k1, kl_rewards, sequence_kl

MASK = torch.tensor([[True, True, True], [True, True, False]])


class TestEstimator:
    def test_by_hand(self):
        logprobs, ref_logprobs = torch.log(torch.tensor([[0.5]])), torch.log(torch.tensor([[0.25]]))
        assert k1(logprobs, ref_logprobs).item() == pytest.approx(math.log(2), abs=1e-6)

    def test_is_zero_for_equal_policies(self):
        logprobs = torch.randn(2, 3)
        assert k1(logprobs, logprobs).abs().sum() == 0

    def test_averages_to_the_divergence(self):
        torch.manual_seed(0)
        p, q = torch.randn(7, dtype=torch.float64).softmax(0), torch.randn(7, dtype=torch.float64).softmax(0)
        exact = (p * (p / q).log()).sum().item()
        assert (p * k1(p.log(), q.log())).sum().item() == pytest.approx(
            exact, abs=1e-10
        )  # in expectation, term by term

    def test_sequence_kl_sums_the_tokens_of_a_response(self):
        logprobs, ref_logprobs = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 99.0]]), torch.zeros(2, 3)
        assert sequence_kl(logprobs, ref_logprobs, MASK).tolist() == [6.0, 9.0]


class TestKlRewards:
    def test_by_hand(self):
        logprobs, ref_logprobs = (
            torch.tensor([[-1.0, -2.0, -3.0], [-1.0, -1.0, 7.0]]),
            torch.tensor([[-2.0, -2.0, -2.0], [-1.0, -3.0, 8.0]]),
        )
        rewards = kl_rewards(torch.tensor([10.0, 20.0]), logprobs, ref_logprobs, MASK, kl_coef=0.5)
        # row 1: -0.5 * (1, 0, -1), score at token 3; row 2: -0.5 * (0, 2), score at token 2, nothing behind it
        assert rewards.tolist() == [[-0.5, 0.0, 10.5], [0.0, 19.0, 0.0]]

    def test_sums_to_the_score_less_the_coefficient_times_the_kl(self):
        torch.manual_seed(1)
        logprobs, ref_logprobs = torch.randn(2, 3, dtype=torch.float64), torch.randn(2, 3, dtype=torch.float64)
        scores = torch.randn(2, dtype=torch.float64)
        rewards = kl_rewards(scores, logprobs, ref_logprobs, MASK, kl_coef=0.3)
        expected = scores - 0.3 * sequence_kl(logprobs, ref_logprobs, MASK)
        assert torch.allclose(rewards.sum(1), expected, atol=1e-10, rtol=0)

    def test_worked_example_of_which_token_gets_the_score(self):
        # prompt "who?", score 1.0, beta 0.1, log pi - log pi_ref = 0.2 at every token
        #   "a cat <end>"  ended: the score belongs to <end>, the third token      -0.02  -0.02  -0.02 + 1
        #   "a cat sat"    cut at three tokens: to the last token drawn, "sat"      -0.02  -0.02  -0.02 + 1
        #   "a <end>"      ended after two: to <end>; what pads the row gets none   -0.02  -0.02 + 1   0
        mask = torch.tensor([[True, True, True], [True, True, True], [True, True, False]])
        logprobs = torch.full((3, 3), -0.8, dtype=torch.float64)
        ref_logprobs = torch.full((3, 3), -1.0, dtype=torch.float64)
        rewards = kl_rewards(torch.ones(3, dtype=torch.float64), logprobs, ref_logprobs, mask, kl_coef=0.1)
        expected = torch.tensor([[-0.02, -0.02, 0.98], [-0.02, -0.02, 0.98], [-0.02, 0.98, 0.0]], dtype=torch.float64)
        assert torch.allclose(rewards, expected, atol=1e-12, rtol=0)

    def test_puts_the_score_on_the_only_token_of_an_empty_response(self):
        rewards = kl_rewards(
            torch.tensor([3.0]), torch.zeros(1, 2), torch.zeros(1, 2), torch.tensor([[True, False]]), kl_coef=1.0
        )
        assert rewards.tolist() == [[3.0, 0.0]]


class TestBestOfNKl:
    def test_by_hand(self):
        assert best_of_n_kl(1) == 0.0
        assert best_of_n_kl(2) == pytest.approx(math.log(2) - 0.5, abs=1e-12)
        assert best_of_n_kl(64) == pytest.approx(4.158883 - 0.984375, abs=1e-6)

    @pytest.mark.parametrize("n", [2, 5, 64])
    def test_equals_the_integral_over_the_rank(self, n):
        # the best of n has density n u^(n-1) at the quantile u of the score: KL = integral of n u^(n-1) log(n u^(n-1)) du
        steps = 200_000
        density = n * ((torch.arange(steps, dtype=torch.float64) + 0.5) / steps) ** (n - 1)
        assert best_of_n_kl(n) == pytest.approx(torch.xlogy(density, density).mean().item(), abs=1e-6)

    def test_refuses_none(self):
        with pytest.raises(ValueError, match="n is 0"):
            best_of_n_kl(0)


class TestCoefficients:
    def test_fixed_stays(self):
        coefficient = FixedKL(0.02)
        coefficient.update(100.0, 512)
        assert coefficient.value == 0.02

    @pytest.mark.parametrize(("kl", "expected"), [(6.0, 0.1), (6.6, 0.1 * 1.01), (60.0, 0.1 * 1.02), (0.0, 0.1 * 0.98)])
    def test_adaptive_by_hand(self, kl, expected):
        coefficient = AdaptiveKL(0.1, target=6.0, horizon=1000)
        coefficient.update(kl, 100)  # error 0, 0.1, clipped to 0.2, clipped to -0.2; times 100 / 1000
        assert coefficient.value == pytest.approx(expected, abs=1e-12)
