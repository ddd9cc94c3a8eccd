import math

import pytest
import torch

from workers.rlhf.masked import masked_mean, masked_variance, whiten


def naive(values, mask):
    kept = [
        v for row, keep in zip(values.tolist(), mask.tolist(), strict=True) for v, k in zip(row, keep, strict=True) if k
    ]
    mean = sum(kept) / len(kept)
    return mean, sum((v - mean) ** 2 for v in kept) / len(kept)


class TestMaskedMean:
    def test_by_hand(self):
        values = torch.tensor([[1.0, 2.0, 99.0], [6.0, 99.0, 99.0]])
        mask = torch.tensor([[True, True, False], [True, False, False]])
        assert masked_mean(values, mask).item() == 3.0  # (1 + 2 + 6) / 3

    def test_is_zero_where_nothing_counts(self):
        assert masked_mean(torch.ones(2, 2), torch.zeros(2, 2, dtype=torch.bool)).item() == 0.0


class TestMaskedVariance:
    def test_is_biased_as_openai_takes_it(self):
        values = torch.tensor([[1.0, 2.0, 99.0], [6.0, 99.0, 99.0]])
        mask = torch.tensor([[True, True, False], [True, False, False]])
        assert masked_variance(values, mask).item() == pytest.approx((4 + 1 + 9) / 3)  # not / 2

    def test_equals_a_loop(self):
        torch.manual_seed(0)
        values, mask = torch.randn(5, 7, dtype=torch.float64), torch.rand(5, 7) < 0.6
        mean, variance = naive(values, mask)
        assert masked_mean(values, mask).item() == pytest.approx(mean, abs=1e-10)
        assert masked_variance(values, mask).item() == pytest.approx(variance, abs=1e-10)


class TestWhiten:
    def test_by_hand(self):
        values, mask = torch.tensor([[1.0, 3.0, 7.0]]), torch.tensor([[True, True, False]])
        assert whiten(values, mask).tolist() == [[-1.0, 1.0, 0.0]]  # mean 2, variance 1
        assert whiten(values, mask, center=False).tolist() == [[1.0, 3.0, 0.0]]

    @pytest.mark.parametrize("seed", range(5))
    def test_gives_mean_0_and_variance_1_under_any_mask(self, seed):
        torch.manual_seed(seed)
        values, mask = 5 + 3 * torch.randn(4, 6, dtype=torch.float64), torch.rand(4, 6) < 0.5
        mean, variance = naive(whiten(values, mask), mask)
        assert abs(mean) < 1e-10
        assert abs(variance - 1) < 1e-8  # eps 1e-8 under the root

    def test_without_centring_keeps_the_mean(self):
        torch.manual_seed(1)
        values, mask = 5 + torch.randn(4, 6, dtype=torch.float64), torch.rand(4, 6) < 0.5
        assert naive(whiten(values, mask, center=False), mask)[0] == pytest.approx(naive(values, mask)[0], abs=1e-10)

    def test_ignores_what_the_mask_hides(self):
        values, mask = torch.tensor([[1.0, 2.0, 5.0]]), torch.tensor([[True, True, False]])
        other = torch.tensor([[1.0, 2.0, -800.0]])
        assert torch.equal(whiten(values, mask), whiten(other, mask))

    def test_of_values_that_are_all_alike_is_zero(self):
        assert whiten(torch.full((1, 3), 2.0), torch.ones(1, 3, dtype=torch.bool)).tolist() == [[0.0, 0.0, 0.0]]

    def test_differs_from_the_unbiased_whitening_of_trl(self):
        values, mask = torch.tensor([[0.0, 2.0]]), torch.ones(1, 2, dtype=torch.bool)
        assert whiten(values, mask)[0, 1].item() == pytest.approx(1.0)
        assert whiten(values, mask)[0, 1].item() != pytest.approx(1 / math.sqrt(2))
