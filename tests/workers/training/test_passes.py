import random
from dataclasses import replace
from functools import partial

import pytest
import torch

from tests.workers.training.factories import events, make_reward, make_sft, write_prompts
from tests.workers.training.ppo_runs import QUICK, even, make_starts, run_ppo
from workers.training import checkpoints, data, models, passes, ppo, starts
from workers.training.branches import BlockBatch, SetBatch
from workers.training.data import Pair
from workers.training.passes import Layout

FAMILIES = ["llama", "gpt2", "qwen", "neox", "untied"]
FORMS = {"rows": (SetBatch, 10_000), "blocks": (BlockBatch, 1)}
SEVERAL = replace(QUICK, responses_per_prompt=3)


def equal(found, expected, family):
    """To float64's last digits; norms of Llama's kind compute in float32 whatever the weights are."""
    tolerance = 1e-10 if family in ("gpt2", "neox") else 1e-6
    return torch.allclose(found, expected, rtol=0, atol=tolerance * max(1, expected.abs().max().item()))


def load(folder, family):
    """A language model, a reward model and the plain layout, all in float64."""
    sft = make_sft(folder / "sft", family)
    tokenizer, policy = checkpoints.load_tokenizer(sft), checkpoints.load_language_model(sft)
    value = checkpoints.load_reward_model(make_reward(folder / "reward", sft))
    for model in (policy, value):
        checkpoints.prepare(model, tokenizer)
        model.double().eval()
    return policy, value, Layout(tokenizer.pad_token_id, policy.device, torch.float64)


def ragged(seed, responses=3):
    """Responses to a prompt of a few tokens."""
    rng = random.Random(seed)

    def tokens(least, most):
        return [rng.randrange(8, 200) for _ in range(rng.randint(least, most))]

    prompt = tokens(1, 9)
    return [Pair(prompt, tokens(1, 7)) for _ in range(responses)]


def in_order(measure, model, layout, rows, max_tokens=10_000):
    """What a measure finds of the response tokens, row by row."""
    found = {}
    for batch in layout.batches(rows, max_tokens):
        for number, values, mask in zip(batch.numbers, measure(model, batch), batch.mask, strict=True):
            found[number] = values[mask]
    return torch.cat([found[number] for number in range(len(rows))])


def prompts_of(rows):
    return [data.Prompt(str(at), [], row.prompt, "train") for at, row in enumerate(rows)]


class TestMeasures:
    @pytest.mark.parametrize("form", FORMS)
    @pytest.mark.parametrize("family", FAMILIES)
    def test_packed_log_probabilities_values_and_gradients_equal_those_of_each_response_by_itself(
        self, tmp_path, family, form
    ):
        policy, value, plain = load(tmp_path, family)
        kind, long = FORMS[form]
        packed = replace(plain, takes_rows=True, takes_blocks=form == "blocks", long=long)
        rows = [*ragged(0), *ragged(1, 2), *ragged(2, 1)]
        assert all(isinstance(batch.inputs, kind) for batch in packed.batches(rows, 10_000))
        for measure, model in (
            (lambda model, batch: passes.logprobs(model, batch, 0.7), policy),
            (lambda model, batch: passes.logprobs_and_entropies(model, batch, 0.7)[0], policy),
            (lambda model, batch: passes.logprobs_and_entropies(model, batch, 0.7)[1], policy),
            (passes.values, value),
        ):
            found, expected = (in_order(measure, model, layout, rows) for layout in (packed, plain))
            assert equal(found, expected, family)
            weights = torch.arange(len(found)).cos()
            parameters = [each for each in model.parameters() if each.requires_grad]
            one, other = (
                torch.autograd.grad((values * weights).sum(), parameters, allow_unused=True)
                for values in (found, expected)
            )
            for mine, its in zip(one, other, strict=True):
                assert equal(mine, its, family) if its is not None else mine is None

    @pytest.mark.parametrize("family", FAMILIES)
    def test_logits_made_in_chunks_change_nothing(self, tmp_path, monkeypatch, family):
        policy, _, plain = load(tmp_path, family)
        rows = [*ragged(0), *ragged(1, 2)]
        found = []
        for logits in (models.LOGITS, 700):  # of a vocabulary of 300
            monkeypatch.setattr(models, "LOGITS", logits)
            for at in (0, 1):
                measure = partial(lambda at, model, batch: passes.logprobs_and_entropies(model, batch, 0.7)[at], at)
                found.append(in_order(measure, policy, plain, rows))
        assert equal(found[2], found[0], family)
        assert equal(found[3], found[1], family)

    def test_packed_long_response_to_a_prompt_of_its_own_computes_the_last_layer_where_it_is_read(self, tmp_path):
        policy, _, plain = load(tmp_path, "llama")
        blocks = replace(plain, takes_blocks=True, long=1)
        rows = [row for seed in range(3) for row in ragged(seed, 1)]
        widths = []
        policy.model.layers[-1].mlp.up_proj.register_forward_hook(lambda *args: widths.append(args[2].shape[1]))
        found = in_order(passes.logprobs, policy, blocks, rows)
        assert widths == [sum(1 + len(row.response) for row in rows)]
        assert equal(found, in_order(passes.logprobs, policy, plain, rows), "llama")


class TestBatches:
    @pytest.mark.parametrize("max_tokens", [1, 20, 10_000])
    def test_hold_every_row_once_and_its_tokens(self, tmp_path, max_tokens):
        _, _, plain = load(tmp_path, "llama")
        rows = [*ragged(0), *ragged(1), *ragged(2)]
        for layout in (plain, replace(plain, takes_rows=True), replace(plain, takes_blocks=True, long=1)):
            batches = layout.batches(rows, max_tokens)
            assert sorted(number for batch in batches for number in batch.numbers) == list(range(9))
            for batch in batches:
                expected = [token for number in batch.numbers for token in rows[number].response]
                assert batch.tokens.tolist() == expected
                assert batch.mask.sum(1).tolist() == [len(rows[number].response) for number in batch.numbers]

    def test_a_prompt_is_repeated_only_where_the_budget_does_not_hold_its_responses(self, tmp_path):
        _, _, plain = load(tmp_path, "llama")
        rows = [Pair([5, 6, 7], [8, 9])] * 3 + [Pair([5], [8])]
        layout = replace(plain, takes_rows=True)
        assert layout._sets(rows, range(4), 9) == [[0, 1, 2], [3]]
        assert layout._sets(rows, range(4), 8) == [[0, 1], [2], [3]]
        assert layout._sets(rows, range(4), 1) == [[0], [1], [2], [3]]
        assert plain._sets(rows, range(4), 9) == [[0], [1], [2], [3]]
        empty_first = [Pair([5], []), Pair([5], [8]), Pair([6], []), Pair([6], [7])]
        assert layout._sets(empty_first, range(4), 9) == [[0, 1], [2, 3]]

    def test_a_prompt_without_tokens_is_refused(self, tmp_path):
        _, _, plain = load(tmp_path, "llama")
        for layout in (plain, replace(plain, takes_rows=True), replace(plain, takes_blocks=True, long=1)):
            with pytest.raises(ValueError, match="a prompt has no tokens"):
                layout.batches([Pair([], [8, 9])] * 2, 100)


class TestChoose:
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    @pytest.mark.parametrize("family", FAMILIES)
    def test_takes_rows_and_where_they_are_long_blocks(self, tmp_path, family, dtype):
        policy, value, plain = load(tmp_path, family)
        policy.float(), value.float()
        plain, prompts = replace(plain, dtype=dtype, long=30), prompts_of(ragged(0))
        chosen = passes.choose(plain, [policy], value, prompts, 4, 2)
        assert (chosen.takes_rows, chosen.takes_blocks) == (True, False)
        chosen = passes.choose(plain, [policy], value, prompts, 4, 9)
        assert chosen == replace(plain, takes_rows=True, takes_blocks=True)
        chosen = passes.choose(plain, [policy], value, prompts, 1, 30)
        assert chosen == replace(plain, takes_blocks=True)

    def test_takes_each_response_by_itself_where_the_model_sees_a_few_tokens_back_only(self, tmp_path):
        policy, value, plain = load(tmp_path, "sliding")
        for tokens in (2, 20):  # the window is of 4: a short prompt is left behind within a response only
            prompts = prompts_of([Pair(list(range(8, 8 + tokens)), [])])
            assert passes.choose(replace(plain, long=1), [policy], value, prompts, 3, 9) == replace(plain, long=1)

    def test_takes_each_response_by_itself_where_the_head_is_not_all_there_is(self, tmp_path, monkeypatch):
        policy, value, plain = load(tmp_path, "llama")
        monkeypatch.setattr(models, "has_plain_head", lambda model: False)
        assert passes.choose(plain, [policy], value, prompts_of(ragged(0)), 3, 9) == plain


class TestSeveralResponsesAPrompt:
    def test_packed_learns_what_is_learned_from_each_response_by_itself(self, tmp_path, monkeypatch):
        begun, prompts = make_starts(tmp_path, "llama"), write_prompts(tmp_path / "prompts")
        kinds = []
        plain = Layout._inputs

        def watched(layout, sets):
            inputs = plain(layout, sets)
            kinds.append(type(inputs))
            return inputs

        monkeypatch.setattr(Layout, "_inputs", watched)
        run_ppo(tmp_path / "packed", begun, prompts, SEVERAL)
        assert SetBatch in kinds
        monkeypatch.setattr(starts.Models, "with_layout_for", lambda parts, *_: parts)
        kinds.clear()
        run_ppo(tmp_path / "alone", begun, prompts, SEVERAL)
        assert set(kinds) == {data.Batch}
        for one, other in zip(*(events(tmp_path / name, "metrics") for name in ("packed", "alone")), strict=True):
            assert one["values"] == pytest.approx(other["values"], rel=1e-3, abs=1e-4)

    @pytest.mark.parametrize("adapters", [0, 2])
    def test_packed_also_where_frozen_weights_are_narrowed(self, tmp_path, adapters):
        config = replace(SEVERAL, compute="bfloat16", lora_rank=adapters)
        begun, prompts = make_starts(tmp_path, "llama"), write_prompts(tmp_path / "prompts")
        parts, _ = ppo.begin(config, begun, prompts, "cpu", even)
        assert parts.layout.takes_rows
        run_ppo(tmp_path / "run", begun, prompts, config)

    def test_a_model_that_cannot_says_so(self, tmp_path):
        run_ppo(tmp_path / "run", make_starts(tmp_path, "sliding"), write_prompts(tmp_path / "prompts"), SEVERAL)
        assert any(
            "each is read with its prompt by itself" in event["text"] for event in events(tmp_path / "run", "log")
        )

    def test_are_drawn_apart_answer_one_prompt_and_stay_together_in_minibatches(self, tmp_path):
        parts = ppo.load(make_starts(tmp_path), "cpu", even)
        material = ppo.read_material(SEVERAL, make_starts(tmp_path), write_prompts(tmp_path / "prompts"), parts)
        found = ppo._answer(SEVERAL, parts, material.prompts, 0, lambda: None)
        assert len(found.rows) == SEVERAL.batch_size
        assert [len(set(group.tolist())) for group in found.groups.split(3)] == [1, 1, 1, 1]
        for at in range(0, 12, 3):
            assert len({tuple(row.response) for row in found.rows[at : at + 3]}) > 1
        order = [at for minibatch in ppo._minibatches(replace(SEVERAL, minibatch_size=6), 0, 12) for at in minibatch]
        assert sorted(order) == list(range(12))
        assert all(order[at : at + 3] == [order[at], order[at] + 1, order[at] + 2] for at in range(0, 12, 3))
        assert order != sorted(order)

    def test_refuses_a_number_that_does_not_divide_the_batch(self):
        with pytest.raises(ValueError, match=r"responses_per_prompt is 5; expected a divisor of batch_size \(12\)"):
            replace(QUICK, responses_per_prompt=5)
