import pytest
import torch
from torch.nn import functional as F

from tests.workers.training.factories import make_model, make_tokenizer, write_text
from workers.training import data, pretraining
from workers.training.data import Pair

BLOCKS = [Pair([5], [6, 7, 8]), Pair([9], [10, 11, 12]), Pair([13], [14])]


@pytest.fixture
def tokenizer():
    return make_tokenizer()


@pytest.fixture
def model(tokenizer, monkeypatch):
    """A model that computes in float64 from end to end."""
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    return make_model(tokenizer, "gpt2").double()


def gradients(model):
    found = torch.cat([parameter.grad.flatten() for parameter in model.parameters()])
    model.zero_grad()
    return found


class TestText:
    def test_holds_its_last_blocks_out(self, tmp_path, tokenizer):
        folder = write_text(tmp_path / "text")
        blocks = data.read_text(folder, tokenizer, 16)
        text = pretraining.Text.read(folder, tokenizer, 16)
        assert len(text.heldout) == len(blocks) // 20
        assert [[*row.prompt, *row.response] for row in text.train + text.heldout] == blocks

    def test_refuses_a_text_that_fills_less_than_two_blocks(self, tmp_path, tokenizer):
        with pytest.raises(ValueError, match="expected at least one block of 64"):
            pretraining.Text.read(write_text(tmp_path / "text", ["the cat"]), tokenizer, 64)


class TestBackward:
    def naive(self, model):
        """Mean negative log-likelihood of a token, block by block, from a plain forward pass."""
        total = 0.0
        for block in BLOCKS:
            ids = torch.tensor([block.prompt + block.response])
            logits = model(ids).logits[0, :-1].clone()
            logits[:, model.config.pad_token_id] = -1e9
            total = total + F.cross_entropy(logits, ids[0, 1:], reduction="sum")
        return total / 7

    def test_gradient_is_added_as_the_naive_sum_times_the_coefficient(self, model, tokenizer):
        before = 2.0 * next(model.parameters()).sum()
        (before + 27.8 * self.naive(model)).backward()
        expected = gradients(model)
        (2.0 * next(model.parameters()).sum()).backward()
        loss = pretraining.backward(model, tokenizer, BLOCKS, 27.8, 8192)
        assert torch.allclose(gradients(model), expected, atol=1e-10, rtol=0)
        assert loss == pytest.approx(self.naive(model).item(), abs=1e-6)

    @pytest.mark.parametrize("max_tokens", [1, 8, 8192])
    def test_micro_batch_size_does_not_change_the_gradient(self, model, tokenizer, max_tokens):
        pretraining.backward(model, tokenizer, BLOCKS, 1.0, 4096)
        expected = gradients(model)
        pretraining.backward(model, tokenizer, BLOCKS, 1.0, max_tokens)
        assert torch.allclose(gradients(model), expected, atol=1e-12, rtol=0)

    def test_loss_is_the_same_without_a_gradient(self, model, tokenizer):
        assert pretraining.loss(model, tokenizer, BLOCKS, 8) == pytest.approx(self.naive(model).item(), abs=1e-10)
        assert all(parameter.grad is None for parameter in model.parameters())
