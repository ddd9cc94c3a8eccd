import pytest
import torch
from transformers import BloomConfig, BloomForCausalLM

from tests.workers.training.factories import FAMILIES, make_model, make_reward, make_sft, make_tokenizer
from workers.training import checkpoints, models
from workers.training.data import Pair, collate

ROWS = [Pair([5, 6, 7], [8, 9]), Pair([11], [12, 13, 14]), Pair([3, 4], [2])]


@pytest.fixture(params=["llama", "gpt2"])
def model(request):
    return make_model(make_tokenizer(), request.param).double()


def alone(model, row, temperature=1.0):
    """Log-probabilities of one row from a plain forward pass without padding."""
    logits = model(torch.tensor([row.prompt + row.response])).logits[0].double()
    logits[:, model.config.pad_token_id] = -float("inf")
    steps = range(len(row.prompt) - 1, len(row.prompt) + len(row.response) - 1)
    return [
        (logits[at] / temperature).log_softmax(-1)[token].item() for at, token in zip(steps, row.response, strict=True)
    ]


class TestResponseLogprobs:
    @pytest.mark.parametrize("temperature", [1.0, 0.7])
    def test_of_a_padded_batch_equal_those_of_each_row_alone(self, model, temperature):
        logprobs = models.response_logprobs(model, collate(ROWS, 0), temperature)
        for at, row in enumerate(ROWS):  # Llama's norms pass through float32
            assert logprobs[at, : len(row.response)].tolist() == pytest.approx(alone(model, row, temperature), abs=1e-6)

    def test_give_pad_no_probability(self, model):
        logits = models.response_logits(model, collate(ROWS, 0))
        assert logits.softmax(-1)[..., 0].max().item() == 0.0

    def test_keep_the_end_token_where_a_foreign_model_pads_with_it(self, model):
        model.config.pad_token_id = model.config.eos_token_id
        assert models.response_logits(model, collate(ROWS, 0)).min().item() > models.NEVER


EVEN = [Pair([5, 6, 7], [8, 9]), Pair([11, 4], [12, 13, 14]), Pair([3, 4, 8, 9], [2])]
"""Rows of one length: Gemma 2's attention gives padding no number in float64, as its softmax passes through float32."""


def value_and_gradient(model, temperature=1.0):
    """Of log-probabilities that weigh every token otherwise, for all parameters, flat."""
    batch = collate(EVEN, 0)
    logprobs = models.response_logprobs(model, batch, temperature)[batch.response_mask]
    total = (logprobs * torch.arange(1, len(logprobs) + 1).cos()).sum()
    return logprobs, torch.cat([part.flatten() for part in torch.autograd.grad(total, list(model.parameters()))])


class TestLogitsInChunks:
    @pytest.mark.parametrize("logits", [1, 700, 1500])  # the batch has 9 tokens of 300 logits
    @pytest.mark.parametrize("tied", [True, False])
    @pytest.mark.parametrize("family", FAMILIES)
    def test_value_and_gradient_equal_those_of_all_at_once(self, monkeypatch, family, tied, logits):
        model = make_model(make_tokenizer(), family, tied=tied).double()
        whole = value_and_gradient(model, 0.7)
        monkeypatch.setattr(models, "LOGITS", logits)
        chunks = value_and_gradient(model, 0.7)
        for found, expected in zip(chunks, whole, strict=True):
            assert torch.allclose(found, expected, rtol=1e-10, atol=1e-12)

    def test_a_head_that_does_more_is_noticed_and_left_whole(self, monkeypatch):
        model = make_model(make_tokenizer()).double()
        plain = model.forward

        def scaled(*args, **options):
            output = plain(*args, **options)
            output.logits = output.logits * 3
            return output

        monkeypatch.setattr(model, "forward", scaled)
        whole = value_and_gradient(model)
        monkeypatch.setattr(models, "LOGITS", 700)
        assert not models.has_plain_head(model)
        assert torch.equal(value_and_gradient(model)[0], whole[0])

    def test_entropy_is_the_same(self, monkeypatch):
        logits = torch.randn(2, 3, 5, dtype=torch.float64)
        whole = models.entropy(logits, 0.7)
        monkeypatch.setattr(models, "LOGITS", 10)
        assert torch.allclose(models.entropy(logits, 0.7), whole, rtol=0, atol=1e-14)


class TestFlushLeft:
    def test_moves_each_response_to_the_front(self):
        values = torch.tensor([[9, 1, 2], [3, 4, 5], [9, 9, 6]])  # responses of 2, 3 and 1 tokens
        moved = models.flush_left(values, collate(ROWS, 0))
        assert [row[:size].tolist() for row, size in zip(moved, (2, 3, 1), strict=True)] == [[1, 2], [3, 4, 5], [6]]

    def test_holds_for_responses_without_tokens(self):
        assert models.flush_left(torch.zeros(1, 0), collate([Pair([1], [])], 0)).shape == (1, 0)


class TestEntropy:
    def test_of_a_uniform_distribution_over_all_but_pad(self):
        logits = models.without_pad(torch.zeros(1, 1, 9), make_model(make_tokenizer()))
        assert models.entropy(logits).item() == pytest.approx(torch.tensor(8.0).log().item(), abs=1e-6)

    def test_equals_the_sum_written_out(self):
        logits = torch.randn(2, 3, 5, dtype=torch.float64)
        p = (logits / 0.7).softmax(-1)
        assert torch.allclose(models.entropy(logits, 0.7), -(p * p.log()).sum(-1), atol=1e-10)


class TestHeads:
    def test_score_is_read_at_the_last_token_and_value_one_token_before(self, tmp_path):
        model = checkpoints.load_reward_model(make_reward(tmp_path / "reward", make_sft(tmp_path / "sft")))
        with torch.no_grad():
            batch = collate(ROWS, model.config.pad_token_id)
            scores, values = models.end_scores(model, batch), models.state_values(model, batch)
            for at, row in enumerate(ROWS):
                trunk = model.base_model(torch.tensor([row.prompt + row.response])).last_hidden_state
                outputs = model.score(trunk).flatten().tolist()
                assert scores[at].item() == pytest.approx(outputs[-1], abs=1e-5)
                expected = outputs[len(row.prompt) - 1 : -1]
                assert values[at, : len(row.response)].tolist() == pytest.approx(expected, abs=1e-5)


class TestSetResidualDropout:
    def test_sets_that_of_gpt2_and_leaves_attention_alone(self):
        model = make_model(make_tokenizer(), "gpt2")
        models.set_residual_dropout(model, 0.2)
        assert model.transformer.h[0].mlp.dropout.p == 0.2
        assert model.transformer.h[0].attn.attn_dropout.p == 0.1

    def test_sets_both_of_neox(self):
        model = make_model(make_tokenizer(), "neox")
        models.set_residual_dropout(model, 0.2)
        layer = model.gpt_neox.layers[0]
        assert (layer.post_attention_dropout.p, layer.post_mlp_dropout.p) == (0.2, 0.2)

    def test_leaves_the_attention_of_bloom_alone(self):
        config = BloomConfig(vocab_size=9, hidden_size=8, n_layer=1, n_head=2)
        model = BloomForCausalLM(config)
        assert "transformer.h.0.self_attention.attention_dropout" in dict(model.named_modules())
        assert not models.residual_dropouts(model)

    def test_finds_none_in_llama(self):
        assert not models.residual_dropouts(make_model(make_tokenizer(), "llama"))


class TestEvaluation:
    def test_switches_dropout_and_gradients_off_and_back(self):
        model = make_model(make_tokenizer(), "gpt2").train()
        with models.evaluation(model):
            assert not model.training
            assert not torch.is_grad_enabled()
        assert model.training
        assert torch.is_grad_enabled()
