import pytest
import torch

from tests.workers.training.factories import (
    demonstration,
    make_tokenizer,
    prompt_row,
    write_demonstrations,
    write_prompts,
    write_text,
)
from workers.training import conversation, data
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


class TestEndless:
    def test_takes_each_row_once_a_pass_in_a_new_order_whatever_the_step_asked_first(self):
        steps = [data.endless(6, 4, step, seed=3) for step in range(3)]
        taken = [at for step in steps for at in step]
        passes = [taken[:6], taken[6:]]
        assert [sorted(one) for one in passes] == [list(range(6))] * 2
        assert passes[0] != passes[1]
        assert [data.endless(6, 4, step, seed=3) for step in (2, 0, 1)] == [steps[2], steps[0], steps[1]]


class TestPaddedTokens:
    def test_counts_what_the_runs_compute(self):
        assert data.padded_tokens([3, 9, 2, 9, 4, 20], max_tokens=18) == 3 * 4 + 2 * 9 + 20  # (2, 3, 4), (9, 9), (20)


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

    def test_counts_what_is_left_out_by_reason(self, tmp_path):
        rows = [
            demonstration(0, "who", "cat"),
            demonstration(1, "who", " \n"),
            demonstration(2, "who", "", "valid"),
            demonstration(3, "dog " * 90, "cat"),
            demonstration(4, "who", "dog " * 90),
        ]
        read = data.read_demonstrations(write_demonstrations(tmp_path / "demos", rows), make_tokenizer(), context=64)
        assert (len(read.train), read.dropped) == (1, 4)
        assert read.left_out == {
            "with an empty response": 2,
            "with a prompt that fills the model's context of 64 tokens": 1,
            "longer than the model's context of 64 tokens": 1,
        }

    @pytest.mark.parametrize("response", [None, 7, ["cat"]])
    def test_refuses_a_response_that_is_no_text_naming_file_and_row(self, tmp_path, response):
        folder = write_demonstrations(tmp_path / "demos", [demonstration(8, "who", response)])
        with pytest.raises(ValueError, match=r"demonstrations\.jsonl, row d8: the response is .*; expected text"):
            data.read_demonstrations(folder, make_tokenizer(), context=64)

    @pytest.mark.parametrize("prompt", [None, "who", [{"role": "user"}], [{"role": "user", "content": None}], ["who"]])
    def test_refuses_a_prompt_that_is_no_conversation_naming_file_and_row(self, tmp_path, prompt):
        folder = write_demonstrations(tmp_path / "demos", [demonstration(8, "who", "cat") | {"prompt": prompt}])
        with pytest.raises(ValueError, match=r"demonstrations\.jsonl, row d8: the prompt is .*; expected turns"):
            data.read_demonstrations(folder, make_tokenizer(), context=64)

    def test_names_the_row_that_the_chat_template_refuses(self, tmp_path):
        tokenizer = make_tokenizer(template=True)
        tokenizer.chat_template = "{{ raise_exception('no system turns') }}"
        folder = write_demonstrations(tmp_path / "demos", [demonstration(8, "who", "cat")])
        with pytest.raises(ValueError, match=r"demonstrations\.jsonl, row d8: the model's chat template refuses"):
            data.read_demonstrations(folder, tokenizer, context=64)


class TestReadText:
    def test_lays_documents_end_to_end_and_cuts_them_into_blocks(self, tmp_path):
        tokenizer = make_tokenizer()
        folder = write_text(tmp_path / "text", ["red cat", "  ", "the dog"])
        stream = conversation.encode_text(tokenizer, "red cat") + conversation.encode_text(tokenizer, "the dog")
        assert stream.count(tokenizer.bos_token_id) == stream.count(tokenizer.eos_token_id) == 2
        blocks = data.read_text(folder, tokenizer, 3)
        assert [len(block) for block in blocks] == [3] * (len(stream) // 3)
        assert [token for block in blocks for token in block] == stream[: len(stream) // 3 * 3]

    def test_a_special_token_spelled_out_in_the_text_stays_text(self, tmp_path):
        tokenizer = make_tokenizer()
        assert conversation.encode_text(tokenizer, "red<|end|>cat").count(tokenizer.eos_token_id) == 1

    def test_refuses_less_than_a_block_and_what_is_no_text(self, tmp_path):
        with pytest.raises(ValueError, match="expected at least one block of 999"):
            data.read_text(write_text(tmp_path / "short", ["red"]), make_tokenizer(), 999)
        with pytest.raises(ValueError, match=r"text\.jsonl, row 2: the text is 5"):
            data.read_text(write_text(tmp_path / "bad", ["red", 5]), make_tokenizer(), 2)


class TestReadPrompts:
    def test_names_the_prompts_that_are_too_long(self, tmp_path):
        folder = write_prompts(tmp_path / "prompts", [prompt_row(0, "who"), prompt_row(1, "dog " * 90)])
        prompts, dropped = data.read_prompts(folder, make_tokenizer(), longest=40)
        assert ([prompt.id for prompt in prompts], dropped) == (["q0"], ["q1"])

    def test_names_the_row_that_the_chat_template_refuses(self, tmp_path):
        folder = write_prompts(tmp_path / "prompts", [prompt_row(0, "who"), prompt_row(1, "who") | {"prompt": []}])
        with pytest.raises(ValueError, match=r"prompts\.jsonl, row q1: the conversation is empty"):
            data.read_prompts(folder, make_tokenizer(), longest=40)

    def test_keeps_what_a_reward_may_look_at(self, tmp_path):
        row = prompt_row(0, "who") | {"category": "qa", "reference": "the cat", "verifier": "exact"}
        ((prompt,), _) = data.read_prompts(write_prompts(tmp_path / "prompts", [row]), make_tokenizer(), longest=40)
        assert (prompt.category, prompt.reference, prompt.verifier) == ("qa", "the cat", "exact")
        assert prompt.messages == row["prompt"]
