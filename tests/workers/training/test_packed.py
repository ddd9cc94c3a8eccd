import random

import pytest
import torch

from tests.workers.training.factories import FAMILIES, make_model, make_tokenizer
from workers.training import data, models, packed, sft
from workers.training.data import Pair
from workers.training.packed import Likelihood

TOLERANCE = {"gpt2": 1e-12}
"""In float64; the other families' norms pass through float32 in transformers, where rows by themselves round otherwise."""


def load(family, dtype=torch.float64):
    tokenizer = make_tokenizer()
    return make_model(tokenizer, family).to(dtype), tokenizer


def ragged(count, seed, longest=30):
    rng = random.Random(seed)

    def tokens(most):
        return [rng.randrange(8, 200) for _ in range(rng.randint(1, most))]

    return [Pair(tokens(longest), tokens(longest // 2)) for _ in range(count)]


def alone(model, rows):
    """The definition: the negative log-likelihood () of each response from a plain forward pass of its row, summed."""
    total = torch.zeros((), dtype=model.dtype)
    for row in rows:
        logits = model(torch.tensor([row.prompt + row.response])).logits[0, len(row.prompt) - 1 : -1].clone()
        logits[:, model.config.pad_token_id] = -float("inf")
        total = total - logits.log_softmax(-1).gather(1, torch.tensor(row.response)[:, None]).sum()
    return total


def gradient(model):
    """Of all parameters, flat; cleared."""
    found = torch.cat([parameter.grad.flatten() for parameter in model.parameters()])
    model.zero_grad()
    return found


@pytest.fixture
def always(monkeypatch):
    """Rows are packed however little that saves."""
    monkeypatch.setattr(packed, "PAYS", 99.0)


class TestCollate:
    def test_by_hand(self):
        batch = packed.collate([[Pair([5, 6], [7]), Pair([8], [9, 4])], [Pair([3], [2])]], 0, torch.float32, "cpu")
        assert batch.input_ids.tolist() == [[5, 6, 7, 8, 9, 4], [3, 2, 0, 0, 0, 0]]
        assert batch.position_ids.tolist() == [[0, 1, 2, 0, 1, 2], [0, 1, 0, 0, 0, 0]]
        assert batch.before.tolist() == [1, 3, 4, 6]
        assert batch.tokens.tolist() == [7, 9, 4, 2]
        assert (batch.attention_mask[0, 0] == 0).int().tolist() == [
            [1, 0, 0, 0, 0, 0],
            [1, 1, 0, 0, 0, 0],
            [1, 1, 1, 0, 0, 0],
            [0, 0, 0, 1, 0, 0],
            [0, 0, 0, 1, 1, 0],
            [0, 0, 0, 1, 1, 1],
        ]
        assert (batch.attention_mask[1, 0] == 0).any(1).all()  # padding sees padding: no softmax over nothing

    def test_refuses_an_empty_prompt_which_the_row_before_would_predict_for(self):
        with pytest.raises(ValueError, match="no tokens"):
            packed.collate([[Pair([1], [2]), Pair([], [3])]], 0, torch.float32, "cpu")


class TestParts:
    @pytest.mark.usefixtures("always")
    @pytest.mark.parametrize("family", FAMILIES)
    def test_packed_rows_have_the_loss_and_the_gradient_of_rows_by_themselves(self, family):
        model, tokenizer = load(family)
        rows = ragged(24, seed=3)
        likelihood = Likelihood(model, tokenizer, 200, torch.float32, why_unpacked=None)
        assert 4 < len(likelihood.blocks(rows)) < 24  # several forward passes of several rows each
        total = sum(likelihood.parts(rows))
        total.backward()
        found, expected = gradient(model), alone(model, rows)
        expected.backward()
        tolerance = TOLERANCE.get(family, 1e-6)
        assert total.item() == pytest.approx(expected.item(), rel=tolerance)
        assert torch.allclose(found, gradient(model), rtol=0, atol=tolerance * found.abs().max().item())

    @pytest.mark.parametrize("family", FAMILIES)
    def test_a_packed_row_does_not_see_the_others(self, family):
        model, _ = load(family)
        rows, others = ragged(4, seed=1), ragged(4, seed=2)
        size = len(rows[1].response)
        found = []
        for block in ([rows[0], rows[1]], [others[0], others[1], rows[1]], [rows[1], others[2]]):
            batch = packed.collate([block], 0, model.dtype, model.device)
            first = sum(len(row.response) for row in block[: block.index(rows[1])])
            found.append(packed._logprobs(model, batch)[first : first + size])
        assert all(torch.allclose(found[0], other, atol=TOLERANCE.get(family, 1e-6)) for other in found[1:])

    def test_packed_without_the_mask_it_would_be_another(self):
        """The trap the mask is there for: the tests above could fail."""
        model, _ = load("llama")
        rows = ragged(4, seed=1)
        batch = packed.collate([rows], 0, model.dtype, model.device)
        causal = torch.ones_like(batch.attention_mask[0, 0]).triu(1)[None, None] * torch.finfo(model.dtype).min
        leaky = packed.PackedBatch(batch.input_ids, causal, batch.position_ids, batch.before, batch.tokens)
        assert abs(packed._logprobs(model, leaky).sum().item() + alone(model, rows).item()) > 1e-2

    @pytest.mark.usefixtures("always")
    @pytest.mark.parametrize("why_unpacked", [None, "asked to"])
    @pytest.mark.parametrize("family", FAMILIES)
    def test_do_not_depend_on_the_micro_batch(self, family, why_unpacked):
        padded_gemma = family == "gemma" and why_unpacked  # no number in float64: its softmax passes through float32
        model, tokenizer = load(family, torch.float32 if padded_gemma else torch.float64)
        rows = ragged(24, seed=5)
        found = []
        for max_tokens in (1, 100, 10_000):
            likelihood = Likelihood(model, tokenizer, max_tokens, torch.float32, why_unpacked)
            found.append((sft.backward(likelihood, rows).item(), gradient(model)))
        tolerance = 1e-5 if padded_gemma else TOLERANCE.get(family, 1e-6)
        for loss, gradients in found[1:]:
            assert loss == pytest.approx(found[0][0], rel=tolerance)
            assert torch.allclose(gradients, found[0][1], rtol=0, atol=tolerance * gradients.abs().max().item())

    def test_in_bfloat16_are_near_those_in_float32_and_leave_the_weights_alone(self):
        model, tokenizer = load("llama", torch.float32)
        rows = ragged(24, seed=5)
        exact, coarse = (
            sft.backward(Likelihood(model, tokenizer, 1000, compute, why), rows).item()
            for compute, why in ((torch.float32, None), (torch.bfloat16, None))
        )
        assert exact != coarse == pytest.approx(exact, rel=1e-3)
        assert {parameter.grad.dtype for parameter in model.parameters()} == {torch.float32}


class TestBlocks:
    def test_are_as_long_as_the_longest_row_and_used_where_they_save_padding(self):
        model, tokenizer = load("llama")
        likelihood = Likelihood(model, tokenizer, 10_000, torch.float32, None)
        rows = ragged(30, seed=0)
        blocks = likelihood.blocks(rows)
        assert max(sum(map(len, block)) for block in blocks) == max(map(len, rows))
        assert sorted(map(id, rows)) == sorted(id(row) for block in blocks for row in block)
        assert likelihood.blocks([Pair([1] * 5, [2] * 5)] * 30) is None

    def test_are_none_where_the_model_takes_none(self):
        model, tokenizer = load("llama")
        assert Likelihood(model, tokenizer, 10_000, torch.float32, "refused").blocks(ragged(30, seed=0)) is None


class TestChoose:
    @pytest.mark.parametrize("family", FAMILIES)
    def test_takes_packed_rows(self, family):
        model, tokenizer = load(family, torch.float32)
        assert Likelihood.choose(model, tokenizer, ragged(9, seed=0), 1000, torch.float32).why_unpacked is None

    def test_leaves_rows_unpacked_where_the_model_sees_a_few_tokens_back_only(self):
        model, tokenizer = load("sliding", torch.float32)
        likelihood = Likelihood.choose(model, tokenizer, rows := ragged(9, seed=0), 1000, torch.float32)
        assert "would differ by" in likelihood.why_unpacked
        assert likelihood.mean(rows) == pytest.approx(
            alone(model, rows).item() / sum(len(row.response) for row in rows), rel=1e-5
        )

    def test_leaves_rows_unpacked_where_the_model_refuses_the_mask(self, monkeypatch):
        model, tokenizer = load("llama", torch.float32)

        def picky(model, batch):
            raise ValueError("a mask of two dimensions is expected")

        monkeypatch.setattr(models, "states", picky)
        likelihood = Likelihood.choose(model, tokenizer, ragged(9, seed=0), 1000, torch.float32)
        assert likelihood.why_unpacked == "ValueError: a mask of two dimensions is expected"


class TestMean:
    def test_is_over_tokens_whatever_the_batches(self):
        model, tokenizer = load("llama", torch.float32)
        rows = ragged(20, seed=4)
        means = [
            Likelihood(model, tokenizer, size, torch.float32, why).mean(rows)
            for size in (1, 999)
            for why in (None, "no")
        ]
        assert means == pytest.approx([means[0]] * 4, rel=1e-5)

    def test_of_no_rows_is_none(self):
        assert Likelihood(*load("llama")).mean([]) is None


def test_packed_batches_are_no_wider_than_padded_ones():
    rows = ragged(30, seed=8)
    blocks = Likelihood(*load("llama"), 10_000, torch.float32, None).blocks(rows)
    widths = [sum(map(len, block)) for block in blocks]
    assert data.padded_tokens(widths, 10_000) < 0.9 * data.padded_tokens([len(row) for row in rows], 10_000)
