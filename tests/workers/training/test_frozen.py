"""Passes that begin behind frozen blocks are the whole passes, in scores and gradients; what is frozen stays."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from transformers import GPTJConfig, GPTJForSequenceClassification

from tests.workers.training.factories import FAMILIES, events, make_sft, open_run, weights, write_rankings
from tests.workers.training.test_kwise import alone, load, ranked
from workers.training import branches, frozen, lora, parallel, reward
from workers.training.events import CancelledError
from workers.training.kwise import SetScorer
from workers.training.reward import RewardConfig

CONFIG = RewardConfig(epochs=3, lr=2e-3, batch_size=8, frozen_blocks=1, micro_batch_tokens=200)
SETS = [ranked(outputs, seed=outputs) for outputs in (4, 2, 9, 3)]
TOLERANCE = {"gpt2": 1e-12, "neox": 1e-12}
"""The other families' norms compute in float32."""


def scorer(model, tokenizer, path):
    """How sets lie in a batch: in padded rows, end to end, or each response by itself."""
    return SetScorer(model, tokenizer, 90, "asked to" if path == "alone" else None, takes_blocks=path == "blocks")


def gradient(scores, model):
    """Of a sum that weighs every score otherwise, for all that learns."""
    total = (scores * torch.arange(1, len(scores) + 1).cos()).sum()
    return torch.autograd.grad(total, lora.learned(model))


def count_calls(monkeypatch, module):
    """A list that grows with each call of a linear layer within a module."""
    calls = []
    (layer, *_) = [each for each in module.modules() if hasattr(each, "weight") and each.weight.ndim == 2]
    plain = layer.forward
    monkeypatch.setattr(layer, "forward", lambda *inputs: (calls.append(1), plain(*inputs))[1])
    return calls


def run_reward(folder, sft, ranks, config=CONFIG):
    with open_run(folder) as run:
        return reward.train(config, sft, ranks, run)


class TestLower:
    @pytest.mark.parametrize("path", ["rows", "blocks", "alone"])
    @pytest.mark.parametrize("family", [family for family in FAMILIES if family != "gemma"])
    def test_scores_and_gradients_are_those_of_the_whole_pass(self, tmp_path, monkeypatch, family, path):
        monkeypatch.setattr(branches, "LONG", 1)
        model, tokenizer = load(tmp_path, family)
        lower = frozen.freeze(model, 1)
        plain = scorer(model, tokenizer, path)
        begun = plain.freeze(lower, SETS)
        calls = count_calls(monkeypatch, lower.blocks[0])
        for sets in (SETS, SETS[2:], SETS[1::-1]):  # another batch than what was kept came from
            calls.clear()
            found = begun.score(sets)
            assert not calls
            expected = plain.score(sets)
            assert calls
            atol = TOLERANCE.get(family, 1e-6)
            assert torch.allclose(found, expected, rtol=0, atol=atol)
            for one, another in zip(gradient(found, model), gradient(expected, model), strict=True):
                assert torch.allclose(one, another, rtol=0, atol=10 * atol)  # a gradient sums over all tokens

    def test_a_row_not_seen_before_is_computed_whole(self, tmp_path):
        model, tokenizer = load(tmp_path, "llama")
        begun = scorer(model, tokenizer, "rows").freeze(frozen.freeze(model, 1), SETS[:2])
        assert torch.allclose(begun.score(SETS), alone(model, SETS), atol=1e-6)

    def test_what_is_put_out_is_what_was_kept(self, tmp_path):
        """The equalities above could fail: other states, other scores."""
        model, tokenizer = load(tmp_path, "llama")
        lower = frozen.freeze(model, 1)
        begun = scorer(model, tokenizer, "rows").freeze(lower, SETS)
        before = begun.score(SETS)
        for states in lower.kept.values():
            states.add_(torch.randn_like(states))
        assert not torch.allclose(begun.score(SETS), before, atol=1e-3)

    def test_blocks_that_put_out_a_tuple(self):
        """GPT-J's put out states and attention weights."""
        shape = {"vocab_size": 200, "n_embd": 32, "n_layer": 2, "n_head": 2, "rotary_dim": 8, "n_positions": 96}
        model = GPTJForSequenceClassification(GPTJConfig(num_labels=1, pad_token_id=0, **shape)).double().eval()
        lower = frozen.freeze(model, 1)
        assert lower.others == 1
        plain = scorer(model, SimpleNamespace(pad_token_id=0), "rows")
        begun = plain.freeze(lower, SETS)
        assert torch.allclose(begun.score(SETS), plain.score(SETS), rtol=0, atol=1e-12)

    def test_the_model_is_left_as_it_was(self, tmp_path):
        model, tokenizer = load(tmp_path, "llama")
        before = alone(model, SETS).detach()
        lower = frozen.freeze(model, 1)
        begun = scorer(model, tokenizer, "rows").freeze(lower, SETS)
        begun.score(SETS)
        assert torch.equal(alone(model, SETS), before)
        assert not any("forward" in vars(block) for block in lower.blocks)

    def test_says_what_learns_and_what_is_kept(self, tmp_path):
        model, tokenizer = load(tmp_path, "llama", torch.float32)
        lower = frozen.freeze(model, 1)
        scorer(model, tokenizer, "rows").freeze(lower, SETS)
        tokens = sum(len(s.outputs[0].prompt) + sum(len(o.response) for o in s.outputs) for s in SETS)
        learned = sum(p.numel() for p in [*model.model.layers[1].parameters(), *model.model.norm.parameters()]) + 32
        sentence = lower.sentence(model)
        assert sentence.startswith("the lowest 1 of 2 blocks and the embedding stay as they are")
        assert f"{learned:,} of {model.num_parameters():,} parameters learn" in sentence
        assert f"0 MB for {tokens:,} tokens in float32" in sentence


class TestFreeze:
    @pytest.mark.parametrize("family", [*FAMILIES, "sliding"])
    def test_all_below_stays_and_all_above_learns(self, tmp_path, family):
        model, _ = load(tmp_path, family)
        frozen.freeze(model, 1)
        stays = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
        names = {name for name, _ in model.named_parameters()}
        embeds = {name for name in names if any(part in name for part in ("embed", "wte", "wpe"))}
        first = {name for name in names if ".layers.0." in name or ".h.0." in name}
        assert first
        assert stays == first | {name for name in embeds if "norm" not in name}

    @pytest.mark.parametrize("count", [2, 3])
    def test_a_block_must_be_left_to_learn(self, tmp_path, count):
        model, _ = load(tmp_path, "llama")
        with pytest.raises(ValueError, match=f"frozen_blocks is {count}, but the model has 2 blocks; expected fewer"):
            frozen.freeze(model, count)

    def test_weights_shared_by_blocks_are_refused(self, tmp_path):
        model, _ = load(tmp_path, "llama")
        model.model.layers[1].mlp.up_proj.weight = model.model.layers[0].mlp.up_proj.weight
        with pytest.raises(ValueError, match=r"model.layers.0.mlp.up_proj.weight acts below the 2th block and above"):
            frozen.freeze(model, 1)

    def test_several_processes_are_refused(self, tmp_path, monkeypatch):
        model, _ = load(tmp_path, "llama")
        monkeypatch.setattr(parallel, "size", lambda: 2)
        with pytest.raises(ValueError, match="frozen_blocks is 1 in a run of 2 processes"):
            frozen.freeze(model, 1)

    def test_a_model_without_blocks_is_refused(self, tmp_path):
        model, _ = load(tmp_path, "llama")
        model.model.layers = torch.nn.Sequential(*model.model.layers)
        with pytest.raises(ValueError, match="LlamaForSequenceClassification has no list of blocks"):
            frozen.freeze(model, 1)


class TestTrain:
    @pytest.mark.parametrize("family", ["llama", "gpt2", "sliding"])
    def test_learns_above_and_leaves_all_below(self, tmp_path, family):
        sft, ranks = make_sft(tmp_path / "sft", family), write_rankings(tmp_path / "ranks")
        config = replace(CONFIG, epochs=8, lr=5e-3)
        metrics = run_reward(tmp_path / "run", sft, ranks, config)["metrics"]
        assert metrics["accuracy"] > 0.9
        before, after = weights(sft), weights(tmp_path / "run" / "checkpoint")
        same = {name for name in before.keys() & after.keys() if before[name].equal(after[name])}
        assert after.keys() - before.keys() == {"score.weight"}
        below = {name for name in before if ".0." in name or any(part in name for part in ("embed", "wte", "wpe"))}
        assert below <= same
        assert any(".1." in name for name in before.keys() - same)
        assert any("stay as they are" in event["text"] for event in events(tmp_path / "run", "log"))

    def test_is_the_run_that_computes_frozen_blocks_every_time(self, tmp_path, monkeypatch):
        sft, ranks = make_sft(tmp_path / "sft", "gpt2"), write_rankings(tmp_path / "ranks")
        run_reward(tmp_path / "kept", sft, ranks)
        monkeypatch.setattr(frozen.Lower, "knows", lambda *_: False)
        run_reward(tmp_path / "plain", sft, ranks)
        one, another = (weights(tmp_path / name / "checkpoint") for name in ("kept", "plain"))
        assert all(torch.allclose(one[name], another[name], rtol=0, atol=1e-5) for name in one)

    @pytest.mark.parametrize("compute", ["float32", "bfloat16"])
    def test_resumed_equals_uninterrupted_bit_for_bit(self, tmp_path, compute):
        sft, ranks = make_sft(tmp_path / "sft"), write_rankings(tmp_path / "ranks")
        config = replace(CONFIG, compute=compute)
        straight = run_reward(tmp_path / "straight", sft, ranks, config)
        with open_run(tmp_path / "broken") as run:
            step = run.step
            run.step = lambda at, *rest: (run.cancel() if at == 7 else None, step(at, *rest))
            with pytest.raises(CancelledError):
                reward.train(config, sft, ranks, run)
        saved = torch.load(tmp_path / "broken" / "state" / "state.pt", weights_only=True)["loop"]["model"]
        assert saved and not any("layers.0" in name or "embed" in name for name in saved)
        assert run_reward(tmp_path / "broken", sft, ranks, config)["sha256"] == straight["sha256"]


class TestConfig:
    @pytest.mark.parametrize(
        ("setting", "words"),
        [
            ({"frozen_blocks": -1}, "frozen_blocks is -1; expected 0 or more"),
            (
                {"frozen_blocks": 1, "lora_rank": 2},
                "frozen_blocks is 1 and lora_rank 2, but adapters lie in all blocks",
            ),
            ({"compute": "float16"}, "compute is 'float16'; expected one of auto, float32, bfloat16"),
        ],
    )
    def test_settings_out_of_range_are_refused(self, setting, words):
        with pytest.raises(ValueError, match=words):
            RewardConfig(**setting)
