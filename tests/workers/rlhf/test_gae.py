import pytest
import torch

from workers.rlhf.gae import advantages_and_returns, explained_variance


def naive(rewards, values, length, gamma, lam):
    """A_t = sum_l (gamma lam)^l delta_{t+l}, written out (Schulman et al. 2016, Eq. 16)."""
    value = lambda t: values[t] if t < length else 0.0  # noqa: E731
    deltas = [rewards[t] + gamma * value(t + 1) - value(t) for t in range(length)]
    return [sum((gamma * lam) ** (k - t) * deltas[k] for k in range(t, length)) for t in range(length)]


class TestAdvantagesAndReturns:
    def test_by_hand(self):
        rewards, values = torch.tensor([[0.0, 0.0, 1.0]]), torch.tensor([[0.5, 0.6, 0.7]])
        mask = torch.ones(1, 3, dtype=torch.bool)
        advantages, returns = advantages_and_returns(rewards, values, mask, gamma=1.0, lam=0.5)
        # deltas 0.1, 0.1, 0.3; A_3 = 0.3, A_2 = 0.1 + 0.15, A_1 = 0.1 + 0.125
        assert advantages[0].tolist() == pytest.approx([0.225, 0.25, 0.3], abs=1e-6)
        assert returns[0].tolist() == pytest.approx([0.725, 0.85, 1.0], abs=1e-6)

    @pytest.mark.parametrize(("gamma", "lam"), [(1.0, 0.95), (0.9, 0.5), (1.0, 1.0), (0.99, 0.0)])
    def test_equals_the_sum_written_out_for_responses_of_any_length(self, gamma, lam):
        torch.manual_seed(0)
        rewards, values = torch.randn(5, 6, dtype=torch.float64), torch.randn(5, 6, dtype=torch.float64)
        lengths = [1, 2, 6, 4, 3]
        mask = torch.arange(6)[None] < torch.tensor(lengths)[:, None]
        advantages, returns = advantages_and_returns(rewards, values, mask, gamma=gamma, lam=lam)
        for b, length in enumerate(lengths):
            expected = naive(rewards[b].tolist(), values[b].tolist(), length, gamma, lam)
            assert advantages[b, :length].tolist() == pytest.approx(expected, abs=1e-10)
            assert advantages[b, length:].abs().sum() == 0
            assert returns[b, length:].abs().sum() == 0

    def test_with_lambda_1_returns_are_the_rewards_to_come_whatever_the_values(self):
        rewards, values = torch.tensor([[1.0, 2.0, 3.0]]), torch.randn(1, 3)
        _, returns = advantages_and_returns(rewards, values, torch.ones(1, 3, dtype=torch.bool), gamma=1.0, lam=1.0)
        assert returns[0].tolist() == pytest.approx([6.0, 5.0, 3.0], abs=1e-5)

    def test_ignores_what_lies_behind_the_response(self):
        mask = torch.tensor([[True, True, False]])
        one = advantages_and_returns(
            torch.tensor([[1.0, 2.0, 9.0]]), torch.tensor([[0.1, 0.2, 9.0]]), mask, gamma=1.0, lam=0.95
        )
        other = advantages_and_returns(
            torch.tensor([[1.0, 2.0, 0.0]]), torch.tensor([[0.1, 0.2, 0.0]]), mask, gamma=1.0, lam=0.95
        )
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))

    def test_are_zero_where_the_values_foresee_the_rewards(self):
        rewards, values = torch.tensor([[0.0, 0.0, 5.0]]), torch.tensor([[5.0, 5.0, 5.0]])
        advantages, _ = advantages_and_returns(rewards, values, torch.ones(1, 3, dtype=torch.bool), gamma=1.0, lam=0.95)
        assert advantages.tolist() == [[0.0, 0.0, 0.0]]


class TestExplainedVariance:
    RETURNS = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    MASK = torch.ones(1, 4, dtype=torch.bool)

    def test_by_hand(self):
        assert explained_variance(self.RETURNS, self.RETURNS, self.MASK).item() == 1.0
        assert explained_variance(torch.zeros(1, 4), self.RETURNS, self.MASK).item() == pytest.approx(0.0, abs=1e-6)
        # R - V = 0, 0, 2, 2: variance 1; R: variance 1.25
        values = torch.tensor([[1.0, 2.0, 1.0, 2.0]])
        assert explained_variance(values, self.RETURNS, self.MASK).item() == pytest.approx(1 - 1 / 1.25, abs=1e-6)

    def test_ignores_what_the_mask_hides(self):
        mask = torch.tensor([[True, True, True, False]])
        values, returns = torch.tensor([[1.0, 0.0, 2.0, 5.0]]), self.RETURNS
        hidden = torch.where(mask, 0.0, torch.tensor(90.0))
        found = explained_variance(values, returns, mask)
        assert explained_variance(values + hidden, returns, mask) == found
        assert explained_variance(values, returns + hidden, mask) == found

    def test_of_returns_that_are_all_alike_is_finite(self):
        ones = torch.ones(1, 4)
        assert explained_variance(ones, ones, self.MASK).item() == 1.0
