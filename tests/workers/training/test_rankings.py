import pytest
import torch

from tests.workers.training.factories import make_tokenizer, ranking, write_rankings
from workers.training import rankings


def read(tmp_path, rows, context=64):
    return rankings.read(write_rankings(tmp_path / "rankings", rows), make_tokenizer(), context)


class TestRead:
    def test_judgements_of_one_set_of_outputs_are_one_row_whatever_their_order(self, tmp_path):
        one = ranking(0, "who", ["cat", "hat", "dog"], [1, 2, 3], samples=["a", "b", "c"])
        other = ranking(1, "who", ["dog", "cat", "hat"], [2, 1, 1], samples=["c", "a", "b"], weight=0.5)
        (element,) = read(tmp_path, [one, other]).train
        assert len(element.outputs) == 3
        assert element.weights == [1.0, 0.5]
        assert element.preferred[0].tolist() == [[0, 1, 1], [0, 0, 1], [0, 0, 0]]
        assert element.preferred[1].tolist() == [[0, 0, 1], [0, 0, 1], [0, 0, 0]]  # a and b tied above c

    def test_judgements_without_comparison_are_counted(self, tmp_path):
        found = read(
            tmp_path, [ranking(0, "who", ["cat", "hat"], [1, 1]), ranking(1, "who", ["cat", "hat"], [1, None])]
        )
        assert (found.train, found.dropped_judgements) == ([], 2)

    def test_outputs_that_are_too_long_leave_the_ranking_and_are_counted(self, tmp_path):
        found = read(tmp_path, [ranking(0, "who", ["cat", "hat", "dog " * 90], [1, 2, 3])])
        assert found.dropped_outputs == 1
        assert len(found.train[0].outputs) == 2

    def test_direct_comparisons_go_before_tiers(self, tmp_path):
        pairs = [{"left": "a", "right": "b", "p_left": 0.75, "strength": 2}]
        found = read(tmp_path, [ranking(0, "who", ["cat", "hat"], [None, None], samples=["a", "b"], pairs=pairs)])
        assert found.train[0].preferred[0].tolist() == [[0, 0.75], [0.25, 0]]

    def test_an_output_cut_at_the_limit_carries_no_end_token(self, tmp_path):
        tokenizer = make_tokenizer()
        found = read(tmp_path, [ranking(0, "who", ["cat", "hat"], [1, 2], finish="length")])
        assert all(output.response[-1] != tokenizer.eos_token_id for output in found.train[0].outputs)

    def test_splits(self, tmp_path):
        rows = [
            ranking(i, f"who {i}", ["cat", "hat"], [1, 2], split=split)
            for i, split in enumerate(("train", "valid", "test"))
        ]
        found = read(tmp_path, rows)
        assert (len(found.train), len(found.valid)) == (1, 1)


class TestTensors:
    def test_lay_sets_of_different_sizes_end_to_end(self, tmp_path):
        rows = [ranking(0, "who", ["cat", "hat"], [2, 1]), ranking(1, "what", ["cat", "hat", "dog"], [1, 2, 3])]
        index, preferred, weights = rankings.tensors(read(tmp_path, rows).train)
        assert index.tolist() == [[0, 1, 0], [2, 3, 4]]
        assert preferred.sum((1, 2)).tolist() == [1, 3]
        assert torch.equal(preferred[0, 2], torch.zeros(3))
        assert weights.tolist() == [1, 1]


class TestComparisons:
    def test_pairs_the_numbers_of_preferred_and_other(self, tmp_path):
        found = rankings.comparisons(
            read(tmp_path, [ranking(0, "who", ["cat", "hat", "dog"], [2, 1, 2])]).train, [[10.0, 20.0, 30.0]]
        )
        assert [(pair.prompt, pair.better, pair.worse) for pair in found] == [("who", 20.0, 10.0), ("who", 20.0, 30.0)]

    @pytest.mark.parametrize(("p_left", "better"), [(0.9, 1.0), (0.1, 2.0)])
    def test_a_soft_judge_prefers_the_likelier(self, tmp_path, p_left, better):
        pairs = [{"left": "a", "right": "b", "p_left": p_left, "strength": None}]
        sets = read(tmp_path, [ranking(0, "who", ["cat", "hat"], [None, None], samples=["a", "b"], pairs=pairs)]).train
        assert rankings.comparisons(sets, [[1.0, 2.0]])[0].better == better
