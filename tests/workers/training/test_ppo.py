from dataclasses import replace
from itertools import product

import pytest
import torch

from tests.workers.training.factories import (
    WORDS,
    events,
    make_reward,
    make_sft,
    open_run,
    prompt_row,
    write_prompts,
)
from workers.training import checkpoints, data, models, ppo, rollouts
from workers.training.checkpoints import CheckpointError
from workers.training.engine import Decoding, Response
from workers.training.events import CancelledError
from workers.training.ppo import PPOConfig, Starts

QUICK = PPOConfig(
    episodes=48, batch_size=12, minibatch_size=4, lr=1e-3, value_lr=1e-3, warmup=1, max_new_tokens=8, ema=0.5
)


def run_ppo(folder, starts, prompts, config=QUICK, **options):
    with open_run(folder, **options) as run:
        return ppo.train(config, starts, prompts, run)


@pytest.fixture
def starts(tmp_path):
    sft = make_sft(tmp_path / "sft", "untied")
    return Starts(sft, make_reward(tmp_path / "reward", sft), sft)


@pytest.fixture
def prompts(tmp_path):
    return write_prompts(tmp_path / "prompts")


class TestTrain:
    def test_same_seed_same_policy_and_another_seed_another(self, tmp_path, starts, prompts):
        configs = {"one": QUICK, "two": QUICK, "other": replace(QUICK, seed=1)}
        found = [run_ppo(tmp_path / name, starts, prompts, config)["sha256"] for name, config in configs.items()]
        assert found[0] == found[1] != found[2]

    def test_resumed_equals_uninterrupted_bit_for_bit(self, tmp_path, starts, prompts):
        config = replace(QUICK, kl_target=1.0, kl_max=50.0, report_every=1)
        straight = run_ppo(tmp_path / "straight", starts, prompts, config)
        with open_run(tmp_path / "broken") as run:
            step = run.step
            run.step = lambda at, *rest: (run.cancel() if at == 2 else None, step(at, *rest))
            with pytest.raises(CancelledError, match="after step 2 of 4"):
                ppo.train(config, starts, prompts, run)
        resumed = run_ppo(tmp_path / "broken", starts, prompts, config)
        assert (resumed["sha256"], resumed["metrics"]) == (straight["sha256"], straight["metrics"])
        tails = [[e["values"] for e in events(tmp_path / name, "metrics")][-1] for name in ("straight", "broken")]
        assert tails[0] == tails[1]

    def test_reports_what_ppo_watches(self, tmp_path, starts, prompts):
        run_ppo(tmp_path / "run", starts, prompts, replace(QUICK, report_every=2))
        found = events(tmp_path / "run", "metrics")
        wanted = (
            "score kl entropy length ended clip_fraction approx_kl explained_variance kl_coef value_loss policy_loss lr"
        )
        assert set(wanted.split()) <= set(found[-1]["values"])
        assert {f"heldout_{name}" for name in ("score", "kl", "length", "ended")} <= set(found[-1]["values"])

    def test_the_checkpoint_is_the_average_of_the_weights(self, tmp_path, starts, prompts):
        run_ppo(tmp_path / "still", starts, prompts, replace(QUICK, ema=1.0 - 1e-12))
        still = checkpoints.load_language_model(tmp_path / "still" / "checkpoint").state_dict()
        begin = checkpoints.load_language_model(starts.policy).state_dict()
        assert all(torch.allclose(still[name], begin[name], atol=1e-6) for name in begin)

    def test_adaptive_coefficient_falls_while_the_divergence_is_below_its_target(self, tmp_path, starts, prompts):
        run_ppo(tmp_path / "run", starts, prompts, replace(QUICK, kl_target=1000.0, kl_horizon=100))
        last = events(tmp_path / "run", "metrics")[-1]["values"]
        assert last["kl_coef"] < 0.02


class TestKnownAnswer:
    """The reward is the share of even tokens, times four: 2 for the random policy it begins with, 4 at best."""

    CONFIG = replace(QUICK, episodes=960, batch_size=64, minibatch_size=16, lr=3e-3, value_lr=1e-2, ema=0.0)

    @pytest.fixture(autouse=True)
    def _even(self, monkeypatch):
        def scores(parts, answered, micro_batch_tokens):
            return torch.tensor(
                [
                    4 * sum(token % 2 == 0 for token in answer.token_ids) / len(answer.token_ids)
                    for _, answer in answered
                ]
            )

        monkeypatch.setattr(rollouts, "_scores", scores)

    def learn(self, folder, family, config):
        sft = make_sft(folder / "sft", family, pad_is_end=True)
        rows = [
            prompt_row(i, f"who has {a} {b}", "valid" if i % 2 else "train")
            for i, (a, b) in enumerate(product(WORDS, WORDS[:6]))
        ]
        starts = Starts(sft, make_reward(folder / "reward", sft), sft)
        return run_ppo(folder / "run", starts, write_prompts(folder / "prompts", rows), config)["metrics"]

    @pytest.mark.parametrize("family", ["llama", "gpt2"])
    def test_rewarded_tokens_become_frequent_and_a_heavier_coefficient_keeps_it_nearer(self, tmp_path, family):
        light = self.learn(tmp_path / "light", family, self.CONFIG)
        heavy = self.learn(tmp_path / "heavy", family, replace(self.CONFIG, kl_coef=0.5))
        assert light["heldout_kl_before"] == heavy["heldout_kl_before"] == 0.0
        assert light["heldout_score_before"] == pytest.approx(
            2.0, abs=0.2
        )  # 45 responses of 8 tokens: standard error 0.1
        assert light["heldout_score"] > 3.2
        assert heavy["heldout_score"] > 2.4
        assert 0 < heavy["heldout_kl"] < 0.5 * light["heldout_kl"] < 5


class TestKlMax:
    def test_stops_and_keeps_the_best_within_bounds(self, tmp_path, starts, prompts):
        config = replace(QUICK, episodes=1200, lr=3e-3, kl_coef=0.0, kl_max=0.5, report_every=1, ema=0.0, warmup=0)
        metrics = run_ppo(tmp_path / "run", starts, prompts, replace(config, warmup=10))["metrics"]
        assert metrics["heldout_kl"] <= 0.5
        assert "passed kl_max" in events(tmp_path / "run", "log")[-1]["text"]

    def test_resumed_after_it_strayed_is_over(self, tmp_path, starts, prompts):
        config = replace(QUICK, episodes=1200, lr=3e-3, kl_coef=0.0, kl_max=0.5, report_every=1, ema=0.0, warmup=10)
        straight = run_ppo(tmp_path / "straight", starts, prompts, config)
        last = events(tmp_path / "straight", "metrics")[-1]["step"]
        with open_run(tmp_path / "broken") as run:
            step = run.step
            run.step = lambda at, *rest: (run.cancel() if at == last else None, step(at, *rest))
            with pytest.raises(CancelledError):
                ppo.train(config, starts, prompts, run)
        assert run_ppo(tmp_path / "broken", starts, prompts, config)["sha256"] == straight["sha256"]

    def test_says_so_where_no_report_was_within_bounds(self, tmp_path, starts, prompts):
        config = replace(QUICK, lr=1e-1, kl_coef=0.0, kl_max=1e-6, report_every=1, ema=0.0, warmup=0)
        with pytest.raises(RuntimeError, match="before the first held-out report"):
            run_ppo(tmp_path / "run", starts, prompts, config)

    def test_refuses_a_horizon_that_could_turn_the_coefficient_negative(self):
        with pytest.raises(ValueError, match="kl_horizon is 100 and batch_size 512"):
            PPOConfig(kl_target=6.0, kl_horizon=100)

    def test_needs_reports(self):
        with pytest.raises(ValueError, match="set report_every"):
            PPOConfig(kl_max=1.0)


class TestInvariants:
    def test_a_policy_that_is_not_the_one_that_answered_is_noticed(self, starts, prompts):
        parts = ppo.load(starts, "cpu")
        chosen, _, _ = ppo._prompts(QUICK, prompts, parts)
        found = rollouts.collect(parts, chosen[:4], Decoding(max_new_tokens=8), 8192)
        targets = ppo.Targets(torch.ones_like(found.values), found.values)
        ppo.backward(QUICK, parts, found, targets, range(4), must_match=True)
        with torch.no_grad():
            parts.policy.get_output_embeddings().weight.mul_(1.5)
        with pytest.raises(RuntimeError, match="log ratio of an unchanged policy to itself"):
            ppo.backward(QUICK, parts, found, targets, range(4), must_match=True)

    def test_a_temperature_forgotten_in_the_trainer_is_noticed(self, starts, prompts, monkeypatch):
        with torch.no_grad():
            parts = ppo.load(starts, "cpu")
            parts.policy.get_output_embeddings().weight.mul_(20)  # peaked, so that the temperature matters
        chosen, _, _ = ppo._prompts(QUICK, prompts, parts)
        plain = models.token_logprobs
        monkeypatch.setattr(models, "token_logprobs", lambda logits, tokens, temperature=1.0: plain(logits, tokens))
        with pytest.raises(RuntimeError, match="sampler and trainer disagree"):
            rollouts.collect(parts, chosen[:4], Decoding(temperature=0.5, max_new_tokens=8), 8192)

    def test_a_reference_that_is_not_what_it_claims_is_noticed(self, tmp_path, starts, prompts, monkeypatch):
        plain = ppo.load

        def tampered(*args):
            parts = plain(*args)
            with torch.no_grad():
                parts.reference.get_output_embeddings().weight.mul_(1.5)
            return parts

        monkeypatch.setattr(ppo, "load", tampered)
        with pytest.raises(RuntimeError, match="KL of the policy to a reference that equals it"):
            run_ppo(tmp_path / "run", starts, prompts)

    def test_dropout_is_off(self, tmp_path, prompts):
        sft = make_sft(tmp_path / "sft", "gpt2")  # its config asks for dropout 0.1: a ratio of 1 needs it off
        run_ppo(tmp_path / "run", Starts(sft, make_reward(tmp_path / "reward", sft), sft), prompts)


class TestScores:
    def make_rollouts(self, starts, prompts):
        parts = ppo.load(starts, "cpu")
        chosen, _, _ = ppo._prompts(QUICK, prompts, parts)
        return parts, rollouts.collect(parts, chosen, Decoding(n=4, max_new_tokens=4, seed=2), 8192)

    def test_of_a_response_cut_at_the_limit_can_be_fixed(self, starts, prompts):
        _, found = self.make_rollouts(starts, prompts)
        scores = ppo._scores(replace(QUICK, missing_end_score=-1.0), found)
        for score, plain, ended in zip(scores.tolist(), found.scores.tolist(), found.ended, strict=True):
            assert score == (plain if ended else -1.0)
        assert not all(found.ended)
        assert torch.equal(ppo._scores(QUICK, found), found.scores)

    def test_are_those_of_the_score_command(self, starts, prompts):
        from workers.training import reward

        parts, found = self.make_rollouts(starts, prompts)
        row = found.rows[0]
        text = parts.tokenizer.decode(row.response, skip_special_tokens=True)
        pair = data.Pair(
            row.prompt,
            [*parts.tokenizer(text, add_special_tokens=False)["input_ids"]]
            + [parts.tokenizer.eos_token_id] * found.ended[0],
        )
        assert found.scores[0].item() == pytest.approx(
            reward.score_rows(parts.reward, parts.tokenizer, [pair])[0] - 0.25, abs=1e-5
        )

    def test_of_a_text_that_is_longer_spelled_anew_than_the_context_has_room_for(self, tmp_path):
        sft = make_sft(tmp_path / "sft", "gpt2")  # learned positions: one too many would be out of range
        parts = ppo.load(Starts(sft, make_reward(tmp_path / "reward", sft), sft), "cpu")
        broken = Response("\N{REPLACEMENT CHARACTER}" * 40, [7] * 40, [-1.0] * 40, "stop", 0)  # three bytes each
        prompt = data.Prompt("q", [], [5] * 50, "train")
        assert rollouts._scores(parts, [(prompt, broken)], 8192).isfinite().all()


class TestValues:
    def test_begin_as_the_reward_models(self, starts):
        parts = ppo.load(starts, "cpu")
        batch = data.collate([data.Pair([5, 6], [7, 8])], parts.tokenizer.pad_token_id)
        assert torch.equal(models.head_outputs(parts.value, batch), models.head_outputs(parts.reward, batch))
        assert parts.value is not parts.reward

    def test_explained_variance_by_hand(self):
        mask = torch.ones(1, 4, dtype=torch.bool)
        returns = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
        assert ppo._explained_variance(returns, returns, mask) == 1.0
        assert ppo._explained_variance(torch.zeros(1, 4), returns, mask) == pytest.approx(0.0)


class TestBadInput:
    def test_no_prompts_to_train_on(self, tmp_path, starts):
        folder = write_prompts(tmp_path / "prompts", [prompt_row(0, "who", "valid")])
        with pytest.raises(ValueError, match="no prompt in split 'train'"):
            run_ppo(tmp_path / "run", starts, folder)

    def test_prompts_without_room_are_counted_and_named(self, tmp_path, starts):
        folder = write_prompts(
            tmp_path / "prompts", [*(prompt_row(i, f"who {i}") for i in range(4)), prompt_row(9, "dog " * 95)]
        )
        run_ppo(tmp_path / "run", starts, folder, replace(QUICK, episodes=12))
        assert events(tmp_path / "run", "start")[0]["counts"]["dropped"] == 1
        assert "left out, the first is q9" in events(tmp_path / "run", "log")[0]["text"]

    def test_a_reward_model_of_another_format(self, tmp_path, starts, prompts):
        other = make_reward(tmp_path / "other", make_sft(tmp_path / "chatml", template=True))
        with pytest.raises(CheckpointError, match="another format"):
            run_ppo(tmp_path / "run", replace(starts, reward=other), prompts)

    def test_a_language_model_for_a_reward_model(self, tmp_path, starts, prompts):
        with pytest.raises(CheckpointError, match="no reward model of ours"):
            run_ppo(tmp_path / "run", replace(starts, reward=starts.policy), prompts)

    def test_temperature_0(self):
        with pytest.raises(ValueError, match="need one above 0"):
            PPOConfig(temperature=0.0)


class TestCollect:
    def test_a_sampler_that_lies_about_its_log_probabilities_is_noticed(self, starts, prompts, monkeypatch):
        parts = ppo.load(starts, "cpu")
        chosen, _, _ = ppo._prompts(QUICK, prompts, parts)
        lie = [[Response("x", [7, 8], [-1.0, -1.0], "length", 0)] for _ in chosen]
        monkeypatch.setattr(rollouts.Engine, "sample_ids", lambda *_: lie)
        with pytest.raises(RuntimeError, match=r"sampler and trainer disagree by .* nats a token"):
            rollouts.collect(parts, chosen, Decoding(max_new_tokens=4), 8192)
