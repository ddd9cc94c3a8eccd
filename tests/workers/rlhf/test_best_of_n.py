from itertools import combinations

import pytest
import torch

from workers.rlhf.best_of_n import expected_gold


def naive(proxy, gold, n):
    """The mean over every set of n samples of the gold score of its best by the proxy."""
    sets = list(combinations(range(len(proxy)), n))
    return sum(gold[max(chosen, key=lambda at: proxy[at])] for chosen in sets) / len(sets)


class TestExpectedGold:
    def test_by_hand(self):
        proxy, gold = torch.tensor([[3.0, 1.0, 2.0]]), torch.tensor([[30.0, 60.0, 0.0]])
        # by proxy: gold 60, 0, 30; n = 2: weights C(0,1), C(1,1), C(2,1) over C(3,2) = 0, 1/3, 2/3
        assert expected_gold(proxy, gold, 2).item() == pytest.approx(20.0, abs=1e-6)
        assert expected_gold(proxy, gold, 3).item() == pytest.approx(30.0, abs=1e-6)

    @pytest.mark.parametrize("n", range(1, 8))
    def test_equals_the_mean_over_all_sets(self, n):
        torch.manual_seed(n)
        proxy, gold = torch.randn(4, 7, dtype=torch.float64), torch.randn(4, 7, dtype=torch.float64)
        expected = [naive(*row, n) for row in zip(proxy.tolist(), gold.tolist(), strict=True)]
        assert expected_gold(proxy, gold, n).tolist() == pytest.approx(expected, abs=1e-10)

    def test_of_one_is_the_mean_whatever_the_proxy_says(self):
        gold = torch.tensor([[1.0, 2.0, 6.0]], dtype=torch.float64)
        assert expected_gold(torch.randn(1, 3), gold, 1).item() == pytest.approx(3.0, abs=1e-12)

    def test_of_equal_proxy_scores_takes_the_later(self):
        proxy, gold = torch.zeros(1, 2, dtype=torch.float64), torch.tensor([[1.0, 5.0]], dtype=torch.float64)
        assert expected_gold(proxy, gold, 2).item() == 5.0

    def test_weights_sum_to_1_for_many_samples(self):
        ones = torch.ones(1, 1000, dtype=torch.float64)
        assert expected_gold(torch.randn(1, 1000), ones, 500).item() == pytest.approx(1.0, abs=1e-10)

    def test_does_not_fall_with_n_where_the_proxy_is_the_gold_score(self):
        torch.manual_seed(0)
        gold = torch.randn(1, 16, dtype=torch.float64)
        found = [expected_gold(gold, gold, n).item() for n in range(1, 17)]
        assert found == sorted(found)
        assert found[-1] == pytest.approx(gold.max().item(), abs=1e-12)

    @pytest.mark.parametrize("n", [0, 4])
    def test_refuses_more_than_there_are_and_none(self, n):
        with pytest.raises(ValueError, match=f"n is {n}; expected 1 to 3"):
            expected_gold(torch.zeros(1, 3), torch.zeros(1, 3), n)
