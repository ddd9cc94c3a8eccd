import pytest
import torch

from tests.workers.training.factories import (
    demonstration,
    make_tokenizer,
    prompt_row,
    write_demonstrations,
    write_prompts,
)
from workers.training import data
from workers.training.data import Pair, batches_by_length, collate, micro_batches


class TestCollate:
    def test_by_hand(self):
        batch = collate([Pair([5, 6, 7], [8]), Pair([9], [1, 2])], pad_id=0)
        assert batch.input_ids.tolist() == [[5, 6, 7, 8, 0], [0, 0, 9, 1, 2]]
        assert batch.attention_mask.tolist() == [[1, 1, 1, 1, 0], [0, 0, 1, 1, 1]]
        assert batch.position_ids.tolist() == [[0, 1, 2, 3, 3], [0, 0, 0, 1, 2]]
        assert batch.response_mask.tolist() == [[True, False], [True, True]]
        assert batch.responses.tolist() == [[8, 0], [1, 2]]

    def test_tells_a_pad_token_in_a_response_from_padding(self):
        assert collate([Pair([1], [0, 2]), Pair([1], [3])], pad_id=0).response_mask.tolist() == [
            [True, True],
            [True, False],
        ]

    def test_refuses_an_empty_prompt(self):
        with pytest.raises(ValueError, match="no tokens"):
            collate([Pair([], [1])], pad_id=0)


class TestBatchesByLength:
    def test_each_row_comes_once_and_the_seed_decides_the_order(self):
        lengths = [(7 * i) % 13 for i in range(50)]
        orders = [batches_by_length(lengths, 8, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
        assert sorted(at for batch in orders[0] for at in batch) == list(range(50))
        assert orders[0] == orders[1] != orders[2]

    def test_rows_of_a_batch_are_alike_in_length(self):
        batches = batches_by_length(list(range(64)), 8, torch.Generator().manual_seed(0))
        assert all(max(batch) - min(batch) == 7 for batch in batches)


class TestMicroBatches:
    def test_stay_within_the_budget_and_lose_nothing(self):
        lengths = [3, 9, 2, 9, 4, 20]
        runs = list(micro_batches(range(6), lengths, max_tokens=18))
        assert sorted(at for run in runs for at in run) == list(range(6))
        assert all(len(run) * max(lengths[at] for at in run) <= 18 or len(run) == 1 for run in runs)


class TestReadDemonstrations:
    def test_splits_them_counts_the_long_ones_and_never_reads_the_test_split(self, tmp_path):
        rows = [
            demonstration(0, "who", "cat"),
            demonstration(1, "who", "hat", "valid"),
            demonstration(2, "who", "dog " * 90),
        ]
        folder = write_demonstrations(tmp_path / "demos", [*rows, demonstration(3, "who", "dog", "test")])
        read = data.read_demonstrations(folder, make_tokenizer(), context=64)
        assert (len(read.train), len(read.valid), read.dropped) == (1, 1, 1)


class TestReadPrompts:
    def test_names_the_prompts_that_are_too_long(self, tmp_path):
        folder = write_prompts(tmp_path / "prompts", [prompt_row(0, "who"), prompt_row(1, "dog " * 90)])
        prompts, dropped = data.read_prompts(folder, make_tokenizer(), longest=40)
        assert ([prompt.id for prompt in prompts], dropped) == (["q0"], ["q1"])
