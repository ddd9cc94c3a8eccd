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
from tests.workers.training.ppo_runs import QUICK, even, make_starts, odd, read, run_ppo
from workers.rlhf import gae
from workers.rlhf.kl import FixedKL
from workers.training import checkpoints, data, draws, models, ppo, rollouts
from workers.training.checkpoints import CheckpointError
from workers.training.engine import Decoding
from workers.training.events import CancelledError
from workers.training.learner import Learner
from workers.training.ppo import PPOConfig, Starts


@pytest.fixture
def starts(tmp_path):
    return make_starts(tmp_path)


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
    """The reward is a function, `even`: 2 for the random policy it begins with, 4 at best."""

    CONFIG = replace(QUICK, episodes=960, batch_size=64, minibatch_size=16, lr=3e-3, value_lr=1e-2, ema=0.0)

    def learn(self, folder, family, config):
        sft = make_sft(folder / "sft", family, pad_is_end=True)
        rows = [prompt_row(i, f"who has {a} {b}", "valid" if i % 2 else "train") for i, (a, b) in pairs()]
        starts = Starts(sft, make_reward(folder / "reward", sft), sft)
        return run_ppo(folder / "run", starts, write_prompts(folder / "prompts", rows), config, even)["metrics"]

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


class TestWhitenedRewards:
    def test_have_variance_1_and_keep_their_mean(self, starts, prompts, monkeypatch):
        seen = []
        plain = gae.advantages_and_returns
        monkeypatch.setattr(
            gae, "advantages_and_returns", lambda *args, **options: (seen.append(args), plain(*args, **options))[1]
        )
        parts, asked = read(starts, prompts, QUICK, even)
        found = rollouts.collect(parts, asked, Decoding(max_new_tokens=8, seed=0), 512)
        for whiten in (False, True):
            ppo.aim(replace(QUICK, whiten_rewards=whiten), found, 0.1)
        (raw, _, mask), (whitened, _, _) = seen
        assert whitened[mask].var(correction=0).item() == pytest.approx(1.0, abs=1e-3)
        ratio = raw[mask].var(correction=0).sqrt()
        assert torch.allclose(whitened[mask] - whitened[mask].mean(), (raw[mask] - raw[mask].mean()) / ratio, atol=1e-3)
        assert whitened[mask].mean().item() == pytest.approx(raw[mask].mean().item(), abs=1e-5)


class TestRates:
    def test_rise_to_their_peaks_together_unless_the_value_function_has_a_warm_up_of_its_own(self):
        config = PPOConfig(lr=1.0, value_lr=2.0, warmup=2)
        assert [ppo._rates(config, at) for at in (0, 1, 2, 9)] == [(0.1, 0.2), (0.55, 1.1), (1.0, 2.0), (1.0, 2.0)]
        assert [ppo._rates(replace(config, value_warmup=0), at) for at in (0, 2)] == [(0.1, 2.0), (1.0, 2.0)]

    def test_are_those_of_the_updates(self, tmp_path, starts, prompts, monkeypatch):
        told = []
        update = Learner.update
        monkeypatch.setattr(Learner, "update", lambda self, *rates: (told.append(rates), update(self, *rates))[1])
        config = replace(QUICK, warmup=2, value_warmup=0)
        run_ppo(tmp_path / "run", starts, prompts, config)
        assert told == [ppo._rates(config, at // 3) for at in range(12)]
        assert [event["values"]["lr"] for event in events(tmp_path / "run", "metrics")] == [lr for lr, _ in told[::3]]


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
        parts, chosen = read(starts, prompts)
        found = rollouts.collect(parts, chosen[:4], Decoding(max_new_tokens=8), 8192)
        targets = ppo.Targets(torch.ones_like(found.values), found.values)
        ppo.backward(QUICK, parts, found, targets, range(4), must_match=True)
        with torch.no_grad():
            parts.policy.get_output_embeddings().weight.mul_(1.5)
        with pytest.raises(RuntimeError, match="log ratio of an unchanged policy to itself"):
            ppo.backward(QUICK, parts, found, targets, range(4), must_match=True)

    def test_a_temperature_forgotten_in_the_trainer_is_noticed(self, starts, prompts, monkeypatch):
        parts, chosen = read(starts, prompts)
        with torch.no_grad():
            parts.policy.get_output_embeddings().weight.mul_(20)  # peaked, so that the temperature matters
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
        parts, chosen = read(starts, prompts)
        return parts, rollouts.collect(parts, chosen, Decoding(n=4, max_new_tokens=4, seed=2), 8192)

    def test_of_a_response_cut_at_the_limit_can_be_fixed(self, starts, prompts):
        _, found = self.make_rollouts(starts, prompts)
        scores = ppo._scores(replace(QUICK, missing_end_score=-1.0), found)
        for score, plain, ended in zip(scores.tolist(), found.scores.tolist(), found.ended, strict=True):
            assert score == (plain if ended else -1.0)
        assert not all(found.ended)
        assert torch.equal(ppo._scores(QUICK, found), found.scores)
        plain, fixed = (
            ppo.aim(config, found, 0.0).returns for config in (QUICK, replace(QUICK, missing_end_score=-1.0))
        )
        for row, (one, other, ended) in enumerate(zip(plain, fixed, found.ended, strict=True)):
            assert torch.equal(one, other) == (ended or found.scores[row] == -1.0)

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
            reward.score_rows(parts.reward.model, parts.tokenizer, [pair])[0] - 0.25, abs=1e-5
        )


class TestValues:
    def test_begin_as_the_reward_models(self, starts):
        parts = ppo.load(starts, "cpu")
        batch = data.collate([data.Pair([5, 6], [7, 8])], parts.tokenizer.pad_token_id)
        assert torch.equal(models.head_outputs(parts.value, batch), models.head_outputs(parts.reward.model, batch))
        assert parts.value is not parts.reward.model

    def test_are_zero_where_no_reward_model_is_given(self, starts):
        parts = ppo.load(replace(starts, reward=None), "cpu", even)
        (batch,) = parts.layout.batches([data.Pair([5, 6], [7, 8])], 8192)
        assert rollouts.centred_values(parts, batch).tolist() == [[0.0, 0.0]]


class TestAdam:
    def test_has_the_larger_eps_in_both_optimisers(self, starts):
        parts = ppo.load(starts, "cpu")
        learner = Learner.begin(parts.policy, parts.value, kl=FixedKL(0.0), ema=0.0, max_grad_norm=1.0)
        for optimiser in (learner.policy_optimiser, learner.value_optimiser):
            assert {(group["eps"], group["betas"]) for group in optimiser.param_groups} == {(1e-5, (0.9, 0.95))}


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
        assert any("left out, the first is q9" in event["text"] for event in events(tmp_path / "run", "log"))

    @pytest.mark.parametrize(
        ("times", "settings", "told"),
        [(1, {}, 0), (1000, {}, 1), (1000, {"whiten_rewards": True}, 0), (1000, {"cliprange_value": 200.0}, 0)],
    )
    def test_scores_far_wider_than_the_values_may_move_are_told_of_once(
        self, tmp_path, starts, prompts, times, settings, told
    ):
        def wide(rows, responses):
            return {"score": [times * score for score in even(rows, responses)["score"]]}

        run_ppo(tmp_path / "run", starts, prompts, replace(QUICK, episodes=24, **settings), wide)
        lines = [event["text"] for event in events(tmp_path / "run", "log") if "scores spread by" in event["text"]]
        assert len(lines) == told
        assert all("cliprange_value is 0.2" in line for line in lines)

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

    def test_nothing_to_climb(self, starts):
        with pytest.raises(ValueError, match="there is nothing to climb"):
            ppo.load(replace(starts, reward=None), "cpu")

    @pytest.mark.parametrize("setting", ["guard_reports", "ptx_per_episode", "ptx_tokens"])
    def test_settings_without_meaning(self, setting):
        with pytest.raises(ValueError, match="expected at least 1, 1 and 2"):
            PPOConfig(**{setting: 0})


class TestCancel:
    """QUICK has four iterations of three updates."""

    CONFIG = replace(QUICK, kl_target=1.0, report_every=2)

    def cancelled_at(self, folder, starts, prompts, monkeypatch, *, update):
        """Run until the order to stop comes in an update; how many were made."""
        plain, made = ppo.backward, []
        with open_run(folder) as run, monkeypatch.context() as patch:

            def backward(*args, **options):
                made.append(len(made) + 1)
                if made[-1] == update:
                    run.cancel()
                return plain(*args, **options)

            patch.setattr(ppo, "backward", backward)
            with pytest.raises(CancelledError, match=f"within step {(update - 1) // 3 + 1} of 4"):
                ppo.train(self.CONFIG, starts, prompts, run)
        return len(made)

    def test_stops_within_the_minibatch_and_resumed_equals_uninterrupted(self, tmp_path, starts, prompts, monkeypatch):
        straight = run_ppo(tmp_path / "straight", starts, prompts, self.CONFIG)
        assert self.cancelled_at(tmp_path / "broken", starts, prompts, monkeypatch, update=5) == 5
        resumed = run_ppo(tmp_path / "broken", starts, prompts, self.CONFIG)
        assert (resumed["sha256"], resumed["metrics"]) == (straight["sha256"], straight["metrics"])
        curves = [
            {e["step"]: e["values"] for e in events(tmp_path / name, "metrics")} for name in ("straight", "broken")
        ]
        assert curves[0] == curves[1]

    @pytest.mark.parametrize(
        ("token", "step"), [(11, 1), (35, 3)]
    )  # reports before and after two iterations draw 8 each
    def test_stops_at_a_token_and_resumed_equals_uninterrupted(
        self, tmp_path, starts, prompts, monkeypatch, token, step
    ):
        straight = run_ppo(tmp_path / "straight", starts, prompts, self.CONFIG)
        plain, drawn = draws.draw, []
        with open_run(tmp_path / "broken") as run, monkeypatch.context() as patch:

            def draw(*args):
                drawn.append(1)
                if len(drawn) == token:
                    run.cancel()
                return plain(*args)

            patch.setattr(draws, "draw", draw)
            with pytest.raises(CancelledError, match=f"within step {step} of 4"):
                ppo.train(self.CONFIG, starts, prompts, run)
        assert len(drawn) == token
        resumed = run_ppo(tmp_path / "broken", starts, prompts, self.CONFIG)
        assert (resumed["sha256"], resumed["metrics"]) == (straight["sha256"], straight["metrics"])

    def test_resumed_twice_within_one_iteration_still_equals_uninterrupted(
        self, tmp_path, starts, prompts, monkeypatch
    ):
        straight = run_ppo(tmp_path / "straight", starts, prompts, self.CONFIG)
        for _ in range(2):  # the second start makes updates 2 and 3 of the run, the first of its own being the second
            assert self.cancelled_at(tmp_path / "broken", starts, prompts, monkeypatch, update=1) == 1
        assert run_ppo(tmp_path / "broken", starts, prompts, self.CONFIG)["sha256"] == straight["sha256"]

    def test_resumed_after_a_kill_goes_on_from_the_last_state(self, tmp_path, starts, prompts, monkeypatch):
        straight = run_ppo(tmp_path / "straight", starts, prompts, self.CONFIG)
        plain, made = ppo.backward, []
        with monkeypatch.context() as patch, pytest.raises(OSError, match="power cut"):

            def backward(*args, **options):
                made.append(1)
                if len(made) == 9:
                    raise OSError("power cut")
                return plain(*args, **options)

            patch.setattr(ppo, "backward", backward)
            run_ppo(tmp_path / "broken", starts, prompts, self.CONFIG, state_steps=1)
        resumed = run_ppo(tmp_path / "broken", starts, prompts, self.CONFIG)
        assert (resumed["sha256"], resumed["metrics"]) == (straight["sha256"], straight["metrics"])


class TestWatch:
    """The policy climbs `even`; the second model's score is the opposite, so that every gain is a loss."""

    CONFIG = replace(QUICK, episodes=960, lr=3e-3, value_lr=1e-2, kl_coef=0.0, ema=0.0, report_every=1, guard_reports=2)

    @pytest.fixture
    def watched(self, monkeypatch, starts):
        plain = ppo.load
        monkeypatch.setattr(ppo, "load", lambda *args: replace(plain(*args), watch=odd))
        return starts

    @pytest.fixture
    def prompts(self, tmp_path):
        rows = [prompt_row(i, f"who has {a} {b}", "valid" if i % 2 else "train") for i, (a, b) in pairs()]
        return write_prompts(tmp_path / "prompts", rows)

    def test_a_run_that_only_fools_the_first_stops_and_keeps_the_best_by_the_second(self, tmp_path, watched, prompts):
        metrics = run_ppo(tmp_path / "run", watched, prompts, self.CONFIG, even)["metrics"]
        shown = events(tmp_path / "run", "metrics")
        assert len(shown) < 80
        assert metrics["stopped"].startswith("over-optimised: at 2 reports in a row")
        assert metrics["stopped"] in events(tmp_path / "run", "log")[-1]["text"]
        seen = [metrics["heldout_watch_score_before"], *(event["values"]["heldout_watch_score"] for event in shown)]
        assert metrics["heldout_watch_score"] == max(seen) == seen[metrics["kept_step"]]
        assert shown[-1]["values"]["heldout_score"] > metrics["heldout_score"]

    def test_resumed_equals_uninterrupted(self, tmp_path, watched, prompts):
        straight = run_ppo(tmp_path / "straight", watched, prompts, self.CONFIG, even)
        last = events(tmp_path / "straight", "metrics")[-1]["step"]
        for at in (last - 1, last):  # once between the two reports that stop it, once when it is over
            with open_run(tmp_path / "broken") as run:
                step = run.step
                run.step = lambda done, *rest, step=step, run=run, at=at: (
                    run.cancel() if done == at else None,
                    step(done, *rest),
                )
                with pytest.raises(CancelledError):
                    ppo.train(self.CONFIG, watched, prompts, run, reward=even)
        resumed = run_ppo(tmp_path / "broken", watched, prompts, self.CONFIG, even)
        assert (resumed["sha256"], resumed["metrics"]) == (straight["sha256"], straight["metrics"])

    def test_by_a_reward_model_that_agrees_changes_nothing(self, tmp_path, starts, prompts):
        config = replace(QUICK, report_every=1)
        plain = run_ppo(tmp_path / "plain", starts, prompts, config)
        watched = run_ppo(tmp_path / "watched", replace(starts, watch=starts.reward), prompts, config)
        assert watched["sha256"] == plain["sha256"]
        assert watched["metrics"]["heldout_watch_score"] == watched["metrics"]["heldout_score"]
        assert "stopped" not in watched["metrics"]

    def test_needs_reports(self, tmp_path, starts, prompts):
        with pytest.raises(ValueError, match=r"watches at held-out reports; set report_every \(it is 0\)"):
            run_ppo(tmp_path / "run", replace(starts, watch=starts.reward), prompts)

    def test_of_another_format_is_refused(self, tmp_path, starts, prompts):
        other = make_reward(tmp_path / "other", make_sft(tmp_path / "chatml", template=True))
        with pytest.raises(CheckpointError, match="another format"):
            run_ppo(tmp_path / "run", replace(starts, watch=other), prompts)


def pairs():
    """Numbered pairs of words, for prompts."""
    return enumerate(product(WORDS, WORDS[:6]))
