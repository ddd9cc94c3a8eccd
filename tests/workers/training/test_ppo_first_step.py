"""The first update of PPO: the policy is the one that answered, so that ratio, KL and gradient are known; and its cuts."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from tests.workers.training.factories import events, write_prompts
from tests.workers.training.ppo_runs import QUICK, even, make_starts, read, run_ppo
from workers.rlhf import masked
from workers.training import ppo, rollouts
from workers.training.engine import Decoding

FIXED = replace(QUICK, episodes=12, minibatch_size=12, kl_coef=0.05)
ADAPTIVE = replace(FIXED, kl_target=6.0, kl_horizon=1200)
MINIBATCH = range(10)


@pytest.fixture
def prompts(tmp_path):
    return write_prompts(tmp_path / "prompts")


@pytest.fixture
def exact(tmp_path, prompts, monkeypatch):
    """Rollouts, then the models that made them in float64 from end to end, and the policy's log-probabilities so."""
    parts, chosen = read(make_starts(tmp_path, "gpt2"), prompts, reward=even)
    found = rollouts.collect(parts, chosen[:10], Decoding(max_new_tokens=8), 8192)
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    parts.policy.double(), parts.value.double()
    logprobs = torch.zeros(found.mask.shape, dtype=torch.float64)
    with torch.no_grad():
        for at, row in enumerate(found.rows):
            logprobs[at, : len(row.response)] = alone(parts.policy, row)
    return parts, replace(found, logprobs=logprobs)


def alone(model, row):
    """(T,) log-probabilities of a response from a plain forward pass over it alone."""
    ids = torch.tensor([row.prompt + row.response])
    logits = model(ids).logits[0, len(row.prompt) - 1 : -1].clone()
    logits[:, model.config.pad_token_id] = -1e9
    return -F.cross_entropy(logits, ids[0, len(row.prompt) :], reduction="none")


def gradients(*models):
    found = torch.cat([part.grad.flatten() for model in models for part in model.parameters() if part.grad is not None])
    for model in models:
        model.zero_grad()
    return found


class TestFirstStep:
    @pytest.mark.parametrize(("config", "after"), [(FIXED, 0.05), (ADAPTIVE, 0.05 * (1 - 0.2 * 12 / 1200))])
    def test_first_step_has_ratio_1_and_kl_0(self, tmp_path, prompts, config, after, monkeypatch):
        learners = []
        plain = ppo.Learner.begin
        monkeypatch.setattr(
            ppo.Learner, "begin", lambda *args, **options: learners.append(plain(*args, **options)) or learners[-1]
        )
        run_ppo(tmp_path / "run", make_starts(tmp_path), prompts, config)
        (event,) = events(tmp_path / "run", "metrics")
        values = event["values"]
        assert values["kl"] == pytest.approx(0.0, abs=1e-4)
        assert values["approx_kl"] == pytest.approx(0.0, abs=1e-8)
        assert values["clip_fraction"] == 0.0
        assert values["policy_loss"] == pytest.approx(0.0, abs=1e-5)  # ratio 1: minus the mean of whitened advantages
        assert (values["kl_coef"], learners[0].kl.value) == pytest.approx((0.05, after), abs=1e-12)

    @pytest.mark.parametrize("config", [FIXED, ADAPTIVE, replace(FIXED, cliprange=1e-6, kl_coef=3.0)])
    def test_first_step_gradient_is_that_of_the_advantages_alone(self, exact, config):
        parts, found = exact
        targets = ppo.aim(config, found, config.kl_coef)
        ppo.backward(config, parts, found, targets, MINIBATCH, must_match=True)
        ours = gradients(parts.policy)
        tokens = sum(len(found.rows[at].response) for at in MINIBATCH)
        loss = 0.0
        for at in MINIBATCH:  # policy gradient: -A log pi, without ratio, clip or reference
            logprobs = alone(parts.policy, found.rows[at])
            loss = loss - (targets.advantages[at, : len(logprobs)] * logprobs).sum() / tokens
        loss.backward()
        assert torch.allclose(ours, gradients(parts.policy), atol=1e-10, rtol=0)

    def test_first_step_aims_at_the_score_alone_since_there_is_no_kl_to_pay(self, exact):
        _, found = exact
        found = replace(found, ref_logprobs=found.logprobs)
        light, heavy = (ppo.aim(FIXED, found, coefficient) for coefficient in (0.0, 100.0))
        assert torch.equal(light.returns, heavy.returns)

    def test_advantages_are_whitened_over_the_batch_not_over_each_minibatch(self, exact):
        _, found = exact
        advantages = ppo.aim(FIXED, found, 0.05).advantages
        assert masked.masked_mean(advantages, found.mask).item() == pytest.approx(0.0, abs=1e-6)
        assert masked.masked_variance(advantages, found.mask).item() == pytest.approx(1.0, abs=1e-6)
        assert abs(masked.masked_mean(advantages[:4], found.mask[:4]).item()) > 1e-3


class TestMicroBatches:
    @pytest.mark.parametrize("micro_batch_tokens", [1, 40, 100])
    def test_micro_batch_size_changes_neither_gradients_nor_what_is_watched(self, exact, micro_batch_tokens):
        parts, found = exact
        targets = ppo.aim(FIXED, found, 0.05)
        with torch.no_grad():  # an update later: ratios apart from 1, some of them clipped
            for parameter in (*parts.policy.parameters(), *parts.value.parameters()):
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
        whole = ppo.backward(FIXED, parts, found, targets, MINIBATCH, must_match=False)
        expected = gradients(parts.policy, parts.value)
        config = replace(FIXED, micro_batch_tokens=micro_batch_tokens)
        assert ppo.backward(config, parts, found, targets, MINIBATCH, must_match=False) == pytest.approx(
            whole, abs=1e-6
        )
        assert torch.allclose(gradients(parts.policy, parts.value), expected, atol=1e-10, rtol=0)
        assert 0 < whole["clip_fraction"] < 1

    def test_backward_waits_for_the_device_once(self, exact, monkeypatch):
        parts, found = exact
        targets, waits = ppo.aim(FIXED, found, 0.05), []
        for name in ("item", "tolist"):
            plain = getattr(torch.Tensor, name)
            monkeypatch.setattr(torch.Tensor, name, lambda *args, plain=plain: (waits.append(plain), plain(*args))[1])
        config = replace(FIXED, micro_batch_tokens=1)  # a micro-batch for each of ten responses
        ppo.backward(config, parts, found, targets, MINIBATCH, must_match=True)
        assert len(waits) == 1

    def test_micro_batch_size_does_not_change_a_run_by_more_than_rounding(self, tmp_path, prompts):
        starts = make_starts(tmp_path)
        one, other = (
            run_ppo(tmp_path / str(size), starts, prompts, replace(QUICK, micro_batch_tokens=size))["metrics"]
            for size in (1, 8192)
        )
        for name in ("heldout_score", "heldout_kl", "heldout_entropy", "heldout_length"):
            assert one[name] == pytest.approx(other[name], abs=1e-4)
