import random
from dataclasses import replace

import pytest
import torch

from tests.workers.training.factories import make_sft
from workers.training import branches, checkpoints, data, models
from workers.training.branches import Reads
from workers.training.data import Pair
from workers.training.kwise import SetScorer
from workers.training.rankings import RankedSet

FAMILIES = ["llama", "gpt2", "qwen", "neox"]


def load(folder, family, dtype=torch.float64):
    """A reward model with a random head, and its tokenizer."""
    sft = make_sft(folder / family, family)
    tokenizer, model = checkpoints.load_tokenizer(sft), checkpoints.reward_model_from(sft, seed=1)
    checkpoints.prepare(model, tokenizer)
    return model.to(dtype).eval(), tokenizer


def ranked(outputs, seed):
    """A set of ragged responses to a prompt of a few tokens."""
    rng = random.Random(seed)

    def tokens(least, most):
        return [rng.randrange(8, 200) for _ in range(rng.randint(least, most))]

    prompt = tokens(1, 12)
    return RankedSet(f"p{seed}", [Pair(prompt, tokens(1, 9)) for _ in range(outputs)])


def alone(model, sets):
    """(N,) the definition: every response encoded by itself, without padding."""
    pairs = [output for element in sets for output in element.outputs]
    return torch.cat([models.end_scores(model, data.collate([pair], model.config.pad_token_id)) for pair in pairs])


def gradient(scores, model):
    """Of a sum that weighs every score otherwise, for all parameters, flat."""
    total = (scores * torch.arange(1, len(scores) + 1).cos()).sum()
    return torch.cat([part.flatten() for part in torch.autograd.grad(total, list(model.parameters()))])


class TestScore:
    @pytest.mark.parametrize("family", FAMILIES)
    def test_value_and_gradient_equal_those_of_each_response_encoded_by_itself(self, tmp_path, family):
        model, tokenizer = load(tmp_path, family)
        sets = [ranked(outputs, seed=outputs) for outputs in range(2, 10)]
        scores = SetScorer(model, tokenizer, 4096, None).score(sets)
        expected = alone(model, sets)
        assert torch.allclose(scores, expected, atol=1e-6)  # scores pass through float32
        assert torch.allclose(gradient(scores, model), gradient(expected, model), atol=1e-6)

    @pytest.mark.parametrize("family", FAMILIES)
    def test_of_a_response_does_not_see_the_others(self, tmp_path, family):
        model, tokenizer = load(tmp_path, family)
        scorer = SetScorer(model, tokenizer, 4096, None)
        element = ranked(3, seed=0)
        others = RankedSet("p", [element.outputs[2], Pair(element.outputs[0].prompt, [9] * 20), element.outputs[1]])
        one, another = scorer.score([element]), scorer.score([others])
        assert torch.allclose(one[[2, 1]], another[[0, 2]], atol=1e-6)

    @pytest.mark.parametrize("family", FAMILIES)
    def test_by_blocks_value_and_gradient_equal_those_of_each_response_encoded_by_itself(
        self, tmp_path, monkeypatch, family
    ):
        """Sets of 2 to 9 ragged responses packed end to end in one row."""
        monkeypatch.setattr(branches, "LONG", 1)
        model, tokenizer = load(tmp_path, family)
        sets = [ranked(outputs, seed=outputs) for outputs in range(2, 10)]
        scores = SetScorer(model, tokenizer, 4096, None, takes_blocks=True).score(sets)
        expected = alone(model, sets)
        assert torch.allclose(scores, expected, atol=1e-6)  # scores pass through float32
        assert torch.allclose(gradient(scores, model), gradient(expected, model), atol=1e-6)

    def test_by_blocks_leaves_the_model_as_it_was(self, tmp_path):
        model, _ = load(tmp_path, "llama")
        sets = [ranked(4, seed=1)]
        before = alone(model, sets)
        batch = branches.collate_blocks([sets[0].outputs], model.dtype, model.device, Reads.LAST)
        branches.states(model, batch)
        with pytest.raises(IndexError):
            branches.states(model, replace(batch, input_ids=batch.input_ids + 10_000))
        assert torch.equal(alone(model, sets), before)

    def test_without_the_mask_it_would_be_another(self, tmp_path):
        """The trap the mask is there for: the test above could fail."""
        model, _ = load(tmp_path, "llama")
        sets = [ranked(4, seed=1)]
        batch = branches.collate([sets[0].outputs], 0, model.dtype, model.device, Reads.LAST)
        causal = torch.ones_like(batch.input_ids)
        plain = replace(batch, attention_mask=causal)
        assert not torch.allclose(models.head_outputs(model, plain)[batch.read], alone(model, sets), atol=1e-3)


class TestScoreAll:
    @pytest.mark.parametrize("why_alone", [None, "asked to"])
    @pytest.mark.parametrize("max_tokens", [1, 100, 4096])
    def test_gives_scores_by_set_and_output_however_it_was_cut(self, tmp_path, why_alone, max_tokens):
        model, tokenizer = load(tmp_path, "llama")
        sets = [ranked(outputs, seed=outputs) for outputs in (4, 2, 9)]
        found = SetScorer(model, tokenizer, max_tokens, why_alone).score_all(sets)
        assert [len(scores) for scores in found] == [4, 2, 9]
        assert [score for scores in found for score in scores] == pytest.approx(alone(model, sets).tolist(), abs=1e-5)


class TestCompute:
    """Forward passes in bfloat16, weights in float32."""

    @pytest.mark.parametrize("path", ["rows", "blocks", "alone"])
    @pytest.mark.parametrize("family", FAMILIES)
    def test_scores_and_gradients_are_near_those_of_float32(self, tmp_path, monkeypatch, family, path):
        """Ragged sets, so that rows are padded: a mask of float32's lowest number is infinite in bfloat16."""
        monkeypatch.setattr(branches, "LONG", 1)
        model, tokenizer = load(tmp_path, family, torch.float32)
        sets = [ranked(outputs, seed=outputs) for outputs in range(2, 10)]
        plain = SetScorer(
            model, tokenizer, 4096, "asked to" if path == "alone" else None, takes_blocks=path == "blocks"
        )
        half = replace(plain, compute=torch.bfloat16)
        expected, found = plain.score(sets), half.score(sets)
        assert found.dtype is torch.float32
        assert not torch.equal(found, expected)
        scale = expected.abs().max().item()
        assert torch.allclose(found, expected, rtol=0, atol=0.03 * scale)  # bfloat16 keeps 8 bits: 2^-8 a product
        one, another = gradient(found, model), gradient(expected, model)
        assert torch.isfinite(one).all()
        assert torch.nn.functional.cosine_similarity(one, another, dim=0) > 0.995

    def test_scores_have_the_digits_of_float32(self, tmp_path):
        """The head does not compute in bfloat16, where near scores would be equal."""
        model, tokenizer = load(tmp_path, "llama", torch.float32)
        scores = SetScorer(model, tokenizer, 4096, None, compute=torch.bfloat16).score([ranked(9, seed=0)])
        assert (scores != scores.bfloat16().float()).any()

    @pytest.mark.parametrize("family", FAMILIES)
    def test_rows_are_taken_as_in_float32(self, tmp_path, monkeypatch, family):
        monkeypatch.setattr(branches, "LONG", 30)
        model, tokenizer = load(tmp_path, family, torch.float32)
        sets = [ranked(2, seed=1), ranked(9, seed=0)]
        scorer = SetScorer.choose(model, tokenizer, sets, compute=torch.bfloat16)
        assert scorer.takes_blocks and scorer.why_alone is None and scorer.compute is torch.bfloat16


class TestChoose:
    @pytest.mark.parametrize("family", FAMILIES)
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_takes_sets_in_one_row(self, tmp_path, family, dtype):
        model, tokenizer = load(tmp_path, family, dtype)
        assert SetScorer.choose(model, tokenizer, [ranked(4, seed=0), ranked(2, seed=1)]).why_alone is None

    @pytest.mark.parametrize("family", FAMILIES)
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_takes_long_sets_by_blocks(self, tmp_path, monkeypatch, family, dtype):
        monkeypatch.setattr(branches, "LONG", 30)
        model, tokenizer = load(tmp_path, family, dtype)
        long, short = ranked(9, seed=0), ranked(2, seed=1)
        scorer = SetScorer.choose(model, tokenizer, [short, long])
        assert scorer.takes_blocks
        assert not SetScorer.choose(model, tokenizer, [short]).takes_blocks

    def test_takes_long_sets_in_rows_where_the_model_has_no_feed_forward_of_that_name(self, tmp_path, monkeypatch):
        monkeypatch.setattr(branches, "LONG", 1)
        model, tokenizer = load(tmp_path, "llama")
        for layer in model.model.layers:
            layer.add_module("unnamed", layer._modules.pop("mlp"))
            monkeypatch.setattr(type(layer), "mlp", property(lambda self: self.unnamed), raising=False)
        scorer = SetScorer.choose(model, tokenizer, [ranked(4, seed=0)])
        assert not scorer.takes_blocks and scorer.why_alone is None

    @pytest.mark.parametrize("long", [1, 10_000])
    def test_encodes_each_alone_where_the_model_sees_a_few_tokens_back_only(self, tmp_path, monkeypatch, long):
        monkeypatch.setattr(branches, "LONG", long)
        model, tokenizer = load(tmp_path, "sliding")
        scorer = SetScorer.choose(model, tokenizer, [ranked(4, seed=0)])
        assert "would differ by" in scorer.why_alone
        assert torch.allclose(scorer.score([ranked(4, seed=0)]), alone(model, [ranked(4, seed=0)]), atol=1e-6)

    def test_encodes_each_alone_where_the_model_refuses_the_mask(self, tmp_path, monkeypatch):
        model, tokenizer = load(tmp_path, "llama")
        plain = models.states

        def picky(model, batch):
            if batch.attention_mask.ndim == 4:
                raise ValueError("a mask of two dimensions is expected")
            return plain(model, batch)

        monkeypatch.setattr(models, "states", picky)
        assert SetScorer.choose(model, tokenizer, [ranked(4, seed=0)]).why_alone == (
            "ValueError: a mask of two dimensions is expected"
        )
