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
from workers.training.data import Pair, collate, micro_batches


class TestCollate:
    def test_by_hand(self):
        batch = collate([Pair([5, 6, 7], [8]), Pair([9], [1, 2])], pad_id=0)
        assert batch.input_ids.tolist() == [[5, 6, 7, 8], [0, 9, 1, 2]]
        assert batch.attention_mask.tolist() == [[1, 1, 1, 1], [0, 1, 1, 1]]
        assert batch.position_ids.tolist() == [[0, 1, 2, 3], [0, 0, 1, 2]]
        assert batch.response_mask.tolist() == [[True, False], [True, True]]
        assert batch.last_tokens.tolist() == [[7, 8], [1, 2]]

    def test_tells_a_pad_token_in_a_response_from_padding(self):
        assert collate([Pair([1], [0, 2]), Pair([1], [3])], pad_id=0).response_mask.tolist() == [
            [True, True],
            [True, False],
        ]

    def test_refuses_an_empty_prompt(self):
        with pytest.raises(ValueError, match="no tokens"):
            collate([Pair([], [1])], pad_id=0)


class TestShuffledBatches:
    def test_each_row_comes_once_and_the_seed_decides_the_order(self):
        orders = [data.shuffled_batches(50, 8, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
        assert sorted(at for batch in orders[0] for at in batch) == list(range(50))
        assert [len(batch) for batch in orders[0]] == [8] * 6 + [2]
        assert orders[0] == orders[1] != orders[2]


class TestMicroBatches:
    def test_stay_within_the_budget_and_lose_nothing(self):
        lengths = [3, 9, 2, 9, 4, 20]
        runs = list(micro_batches(range(6), lengths, max_tokens=18))
        assert sorted(at for run in runs for at in run) == list(range(6))
        assert all(len(run) * max(lengths[at] for at in run) <= 18 or len(run) == 1 for run in runs)

    def test_part_short_rows_from_long_ones_where_that_saves_padding(self):
        lengths = [10] * 60 + [100] * 6  # 60 * 10 tokens are worth a pass of their own
        assert [len(run) for run in micro_batches(range(66), lengths, max_tokens=10_000)] == [60, 6]

    def test_keep_a_small_batch_whole(self):
        assert len(list(micro_batches(range(4), [10, 20, 40, 80], max_tokens=10_000))) == 1


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
