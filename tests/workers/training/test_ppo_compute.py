"""PPO with matrix products in bfloat16: what it learns from is close to float32's, what it writes is float32."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from tests.workers.training.factories import WORDS, events, open_run, prompt_row, weights, write_prompts
from tests.workers.training.ppo_runs import QUICK, even, make_starts, run_ppo
from workers.training import ppo, rollouts, starts
from workers.training.engine import Decoding
from workers.training.events import CancelledError
from workers.training.ppo import PPOConfig

HALF = replace(QUICK, compute="bfloat16", report_every=2)
ADAPTERS = replace(HALF, lora_rank=2)


@pytest.fixture
def begun(tmp_path):
    return make_starts(tmp_path)


@pytest.fixture
def prompts(tmp_path):
    return write_prompts(tmp_path / "prompts")


@pytest.mark.parametrize("config", [HALF, ADAPTERS], ids=["all weights", "adapters"])
class TestBfloat16:
    def test_learns_and_writes_float32(self, tmp_path, begun, prompts, config):
        run_ppo(tmp_path / "run", begun, prompts, config)
        before, after = weights(begun.policy), weights(tmp_path / "run" / "checkpoint")
        assert {tensor.dtype for tensor in after.values()} == {torch.float32}
        assert any(not torch.equal(before[name], after[name]) for name in before)

    def test_resumed_equals_uninterrupted_bit_for_bit(self, tmp_path, begun, prompts, config):
        straight = run_ppo(tmp_path / "straight", begun, prompts, config)
        with open_run(tmp_path / "broken") as run:
            step = run.step
            run.step = lambda at, *rest: (run.cancel() if at == 2 else None, step(at, *rest))
            with pytest.raises(CancelledError, match="after step 2 of 4"):
                ppo.train(config, begun, prompts, run)
        assert run_ppo(tmp_path / "broken", begun, prompts, config)["sha256"] == straight["sha256"]

    def test_is_not_float32_under_another_name(self, tmp_path, begun, prompts, config):
        for name in ("bfloat16", "float32"):
            run_ppo(tmp_path / name, begun, prompts, replace(config, compute=name))
        first, other = (
            events(tmp_path / name, "metrics")[0]["values"]["value_loss"] for name in ("bfloat16", "float32")
        )
        assert first != other


def test_adapters_learn_beside_weights_that_bfloat16_holds_as_most_released_ones_are(tmp_path, begun, prompts):
    for folder in (begun.policy, begun.reward):
        rounded = {name: tensor.bfloat16().float() for name, tensor in weights(folder).items()}
        save_file(rounded, folder / "model.safetensors", {"format": "pt"})
    assert torch.bfloat16 in {
        weight.dtype
        for weight in starts.load(begun, "cpu", adapters=ADAPTERS, compute=torch.bfloat16).policy.parameters()
    }
    run_ppo(tmp_path / "run", begun, prompts, ADAPTERS)


def test_a_rewarded_token_becomes_frequent(tmp_path, begun):
    config = replace(HALF, episodes=960, batch_size=64, minibatch_size=16, lr=3e-3, value_lr=1e-2, ema=0.0)
    rows = [prompt_row(at, f"who has {word}", "valid" if at % 2 else "train") for at, word in enumerate(WORDS)]
    metrics = run_ppo(tmp_path / "run", begun, write_prompts(tmp_path / "asked", rows), config, even)["metrics"]
    assert metrics["heldout_score"] > metrics["heldout_score_before"] + 0.5


class TestRollouts:
    def test_are_float32s_but_for_rounding(self, begun, prompts):
        parts = starts.load(begun, "cpu")
        half = starts.load(begun, "cpu", compute=torch.bfloat16)
        asked = ppo.read_material(QUICK, begun, prompts, parts).prompts[:4]
        found = rollouts.collect(half, asked, Decoding(n=1, max_new_tokens=8, seed=0), 512)
        gap = (found.logprobs - found.sampler_logprobs)[found.mask].abs()
        assert 0 < gap.max() < 0.1
        assert found.sequence_kl().abs().max() == 0
        for name in ("logprobs", "ref_logprobs", "values"):
            assert getattr(found, name).dtype is torch.float32
        raw = found.values[found.mask] + half.value.config.reward_mean
        assert (raw.bfloat16().float() != raw).any()  # the head is never coarser than float32

    def test_an_onlooker_s_matrices_are_narrowed_and_a_learner_s_are_not(self, begun):
        parts = starts.load(begun, "cpu", compute=torch.bfloat16)
        onlooker, learner = (
            {weight.dtype for weight in model.parameters()} for model in (parts.reference, parts.policy)
        )
        assert onlooker == {torch.float32, torch.bfloat16}
        assert learner == {torch.float32}


def test_an_unknown_precision_is_refused():
    with pytest.raises(ValueError, match="compute is 'half'; expected one of auto, float32, bfloat16"):
        PPOConfig(compute="half")
