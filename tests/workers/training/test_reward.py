import math
from dataclasses import replace

import pytest
import torch

from tests.workers.training.factories import (
    WORDS,
    demonstration,
    events,
    make_base,
    make_reward,
    make_sft,
    open_run,
    ranking,
    weights,
    write_rankings,
)
from workers.rlhf import schedules
from workers.rlhf.losses import preferences, ranking_loss
from workers.training import checkpoints, data, models, optimisers, rankings, reward
from workers.training.checkpoints import CheckpointError
from workers.training.events import CancelledError
from workers.training.kwise import SetScorer
from workers.training.reward import RewardConfig

QUICK = RewardConfig(epochs=2, lr=2e-3, batch_size=8)


def run_reward(folder, sft, snapshot, config=QUICK, incumbent=None, **options):
    with open_run(folder, **options) as run:
        return reward.train(config, sft, snapshot, run, incumbent=incumbent)


@pytest.fixture
def sft(tmp_path):
    return make_sft(tmp_path / "sft")


@pytest.fixture
def snapshot(tmp_path):
    return write_rankings(tmp_path / "rankings")


class TestTrain:
    @pytest.mark.parametrize("family", ["llama", "gpt2"])
    def test_recovers_a_planted_preference_on_held_out_prompts(self, tmp_path, snapshot, family):
        sft = make_sft(tmp_path / "sft", family, pad_is_end=True)
        metrics = run_reward(tmp_path / "run", sft, snapshot, RewardConfig(epochs=8, lr=2e-3, batch_size=8))["metrics"]
        assert metrics["accuracy"] > 0.95
        assert metrics["accuracy_low"] > metrics["longer_wins"]
        assert metrics["heldout_comparisons"] == 2 * metrics["heldout_prompts"] == 24
        assert metrics["by"]["labeller"]["l1"]["accuracy"] == pytest.approx(metrics["accuracy"], abs=1e-4)
        assert metrics["calibration"]["bins"][-1]["accuracy"] == 1.0

    def test_the_model_in_use_is_measured_on_the_same_comparisons(self, tmp_path, sft, snapshot):
        former = run_reward(tmp_path / "former", sft, snapshot)
        beside = run_reward(tmp_path / "run", sft, snapshot, incumbent=tmp_path / "former" / "checkpoint")
        assert beside["metrics"]["incumbent_accuracy"] == former["metrics"]["accuracy"]

    def test_a_model_in_use_of_another_format_is_passed_over_and_it_says_so(self, tmp_path, sft, snapshot):
        other = make_reward(tmp_path / "other", make_sft(tmp_path / "base", template=True))
        metrics = run_reward(tmp_path / "run", sft, snapshot, incumbent=other)["metrics"]
        assert "incumbent_accuracy" not in metrics
        assert "cannot be measured beside" in (tmp_path / "run" / "events.jsonl").read_text()

    def test_demonstrations_score_zero_on_average(self, tmp_path, sft):
        demonstrations = [
            demonstration(i, f"who {i}", text) for i, text in enumerate(("cat", "one hat", "the dog is red"))
        ]
        folder = write_rankings(tmp_path / "rankings", demonstrations=demonstrations)
        run_reward(tmp_path / "run", sft, folder)
        checkpoint = tmp_path / "run" / "checkpoint"
        tokenizer, model = checkpoints.load_tokenizer(checkpoint), checkpoints.load_reward_model(checkpoint)
        pairs = data.read_demonstrations(folder, tokenizer, 96).train
        scores = [score - model.config.reward_mean for score in reward.score_rows(model, tokenizer, pairs)]
        assert sum(scores) / 3 == pytest.approx(0.0, abs=1e-6)

    def test_without_demonstrations_the_outputs_are_the_measure_and_it_says_so(self, tmp_path, sft):
        demonstrations = [demonstration(0, "who", "cat", "valid")]
        run_reward(tmp_path / "run", sft, write_rankings(tmp_path / "rankings", demonstrations=demonstrations))
        assert "no demonstrations to normalise on" in events(tmp_path / "run", "log")[0]["text"]

    def test_same_seed_same_checkpoint(self, tmp_path, sft, snapshot):
        assert (
            run_reward(tmp_path / "one", sft, snapshot)["sha256"]
            == run_reward(tmp_path / "two", sft, snapshot)["sha256"]
        )

    def test_resumed_equals_uninterrupted_bit_for_bit(self, tmp_path, sft, snapshot):
        straight = run_reward(tmp_path / "straight", sft, snapshot)
        with open_run(tmp_path / "broken") as run:
            step = run.step
            run.step = lambda at, *rest: (run.cancel() if at == 4 else None, step(at, *rest))
            with pytest.raises(CancelledError):
                reward.train(QUICK, sft, snapshot, run)
        assert run_reward(tmp_path / "broken", sft, snapshot)["sha256"] == straight["sha256"]

    def test_each_output_is_scored_once_however_many_judged_it(self, tmp_path, sft, monkeypatch):
        rows = [ranking(i, "who", ["cat", "hat", "dog"], [1, 2, 3], samples=["a", "b", "c"]) for i in range(5)]
        seen = []
        plain = SetScorer.score
        monkeypatch.setattr(
            SetScorer, "score", lambda self, sets: (seen.append(len(scores := plain(self, sets))), scores)[1]
        )
        run_reward(tmp_path / "run", sft, write_rankings(tmp_path / "rankings", rows), RewardConfig(lr=1e-3))
        assert set(seen) == {3}

    def test_a_model_that_takes_no_sets_is_trained_on_single_rows_and_it_says_so(self, tmp_path):
        sft = make_sft(tmp_path / "sft", "sliding")
        config = RewardConfig(epochs=8, lr=2e-3, batch_size=8)
        metrics = run_reward(tmp_path / "run", sft, write_rankings(tmp_path / "rankings"), config)["metrics"]
        assert metrics["accuracy"] > 0.95
        _, line = [event["text"] for event in events(tmp_path / "run", "log")]
        assert "each response is encoded by itself" in line


class TestSchedule:
    def test_is_a_cosine_to_a_tenth_without_warm_up(self, tmp_path, sft, snapshot, monkeypatch):
        told, update = [], optimisers.update
        monkeypatch.setattr(optimisers, "update", lambda *args: (told.append(args[2]), update(*args))[1])
        run_reward(tmp_path / "run", sft, snapshot)
        assert told == [QUICK.lr * schedules.cosine(step, len(told)) for step in range(len(told))]
        assert told[0] == QUICK.lr


class TestCompute:
    @pytest.mark.parametrize("family", ["llama", "gpt2"])
    def test_bfloat16_learns_the_same_and_it_says_so(self, tmp_path, snapshot, family):
        sft, config = make_sft(tmp_path / "sft", family), RewardConfig(epochs=8, lr=2e-3, batch_size=8)
        plain = run_reward(tmp_path / "plain", sft, snapshot, config)["metrics"]
        former = tmp_path / "plain" / "checkpoint"
        half = run_reward(tmp_path / "half", sft, snapshot, replace(config, compute="bfloat16"), incumbent=former)[
            "metrics"
        ]
        assert half["accuracy"] > 0.95
        assert half["incumbent_accuracy"] == pytest.approx(
            plain["accuracy"], abs=0.05
        )  # one of 24 comparisons may turn
        folder = tmp_path / "half" / "checkpoint"
        tokenizer, model = checkpoints.load_tokenizer(folder), checkpoints.load_reward_model(folder)
        demonstrations = data.read_demonstrations(snapshot, tokenizer, 96).train
        scores = reward.score_rows(model, tokenizer, demonstrations)
        # The loss leaves a shift of all scores free, so the offset is held against its own model's scores in float32.
        assert half["reward_mean"] == pytest.approx(sum(scores) / len(scores), abs=0.05)  # bfloat16 keeps 8 bits
        assert all(tensor.dtype is torch.float32 for tensor in weights(folder).values())
        says = "on cpu, weights that learn and optimiser in float32, computing in bfloat16"
        assert says in [event["text"] for event in events(tmp_path / "half", "log")]
        assert says not in [event["text"] for event in events(tmp_path / "plain", "log")]

    def test_scores_of_rows_have_the_digits_of_float32(self, sft):
        model, tokenizer = checkpoints.reward_model_from(sft, seed=0), checkpoints.load_tokenizer(sft)
        rows = [data.Pair([5, 6, 7 + at], [9] * (1 + at)) for at in range(6)]
        scores = reward.score_rows(model, tokenizer, rows, compute=torch.bfloat16)
        assert scores == pytest.approx(reward.score_rows(model, tokenizer, rows), abs=0.05)  # bfloat16 keeps 8 bits
        assert any(score != torch.tensor(score).bfloat16().item() for score in scores)


@pytest.fixture
def exact(tmp_path, monkeypatch):
    """A float64 model on an architecture without casts of its own, its scores not rounded to float32 either."""
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    sft = make_sft(tmp_path / "exact", "gpt2")
    return checkpoints.reward_model_from(sft, seed=0).double(), checkpoints.load_tokenizer(sft)


def graded(tmp_path, tokenizer):
    """Sets of 2 to 5 outputs of ragged lengths: rankings with ties that are kept, soft and graded comparisons, weights."""
    rows = []
    for number in range(6):
        texts = [f"{WORDS[(number + at) % 15]} " * (1 + (number * at) % 7) for at in range(2 + number % 4)]
        names = [f"{number}-{at}" for at in range(len(texts))]
        pairs = [{"left": names[0], "right": names[1], "p_left": 0.8, "strength": 3}] if number % 3 == 0 else None
        tiers = [1 + at // 2 for at in range(len(texts))]
        rows.append(ranking(number, f"who {number}", texts, tiers, weight=1 + number / 2, samples=names, pairs=pairs))
    return rankings.read(write_rankings(tmp_path / "graded", rows), tokenizer, 96, tie=0.5).train


def gradient(model):
    """All of it, flat, and taken away."""
    parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in model.parameters()]
    model.zero_grad()
    return torch.cat([part.flatten() for part in parts])


class TestBackward:
    @pytest.mark.parametrize("why_alone", [None, "each by itself"])
    @pytest.mark.parametrize("tokens", [1, 40, 120])
    def test_micro_batch_of_any_size_gives_the_same_loss_and_gradient(self, tmp_path, exact, why_alone, tokens):
        model, tokenizer = exact
        sets = graded(tmp_path, tokenizer)
        whole = reward.backward(SetScorer(model, tokenizer, 100_000, why_alone), sets, margin=0.5)
        expected = gradient(model)
        scorer = SetScorer(model, tokenizer, tokens, why_alone)
        assert len(list(scorer.micro_batches(sets))) > 1
        assert reward.backward(scorer, sets, margin=0.5) == pytest.approx(whole, abs=1e-12)
        assert torch.allclose(gradient(model), expected, rtol=1e-9, atol=1e-12)
        assert expected.abs().max() > 1e-3

    def test_every_judgement_weighs_the_same_whatever_its_set(self, tmp_path, exact):
        """The loss is the weighted mean of each judgement's own."""
        model, tokenizer = exact
        sets, scorer = graded(tmp_path, tokenizer), SetScorer(model, tokenizer, 100_000, None)
        apart = [reward.backward(scorer, [element], margin=0.5) * element.weight for element in sets]
        together = reward.backward(scorer, sets, margin=0.5)
        assert together == pytest.approx(sum(apart) / sum(element.weight for element in sets), abs=1e-12)

    def test_margin_moves_graded_outputs_further_apart(self, tmp_path, sft):
        model, tokenizer = checkpoints.reward_model_from(sft, seed=0), checkpoints.load_tokenizer(sft)
        scorer, sets = SetScorer(model, tokenizer, 100_000, None), graded(tmp_path, tokenizer)[:1]
        with torch.no_grad():
            model.score.weight.zero_()
        # p = 0.8, strength 3 is two levels of 0.5: -0.8 log sigmoid(-1) - 0.2 log sigmoid(1)
        assert reward.backward(scorer, sets, margin=0.5) == pytest.approx(
            0.8 * math.log(1 + math.e) + 0.2 * math.log(1 + 1 / math.e), abs=1e-6
        )


def first_loss(folder):
    return events(folder, "metrics")[0]["values"]["loss"]


class TestFirstStep:
    """A fresh head knows nothing: log 2 for every comparison, of C(K, 2) pairs in a judgement."""

    SHARE = 2 / 3  # the planted rankings put one of three above two that are tied

    def test_first_step_of_a_head_of_zeros_costs_log_2_a_comparison(self, tmp_path, sft, snapshot, monkeypatch):
        fresh = checkpoints.reward_model_from

        def zeroed(*arguments):
            model = fresh(*arguments)
            torch.nn.init.zeros_(model.score.weight)
            return model

        monkeypatch.setattr(checkpoints, "reward_model_from", zeroed)
        run_reward(tmp_path / "run", sft, snapshot)
        assert first_loss(tmp_path / "run") == pytest.approx(self.SHARE * math.log(2), abs=1e-6)
        run_reward(tmp_path / "half", sft, snapshot, replace(QUICK, ties="half"))
        assert first_loss(tmp_path / "half") == pytest.approx(math.log(2), abs=1e-6)

    def test_first_step_of_a_fresh_head_costs_about_log_2_a_comparison(self, tmp_path, sft, snapshot):
        run_reward(tmp_path / "run", sft, snapshot)
        # N(0, 1/(d+1)) weights: two scores differ by a standard deviation d of about 1, which costs about d^2 / 8 more
        assert first_loss(tmp_path / "run") == pytest.approx(self.SHARE * math.log(2), abs=0.1)


class TestLabels:
    def test_half_trains_on_its_half_and_measures_on_all(self, tmp_path, sft, snapshot):
        counts = {}
        for half in (None, 0, 1):
            run_reward(tmp_path / f"run {half}", sft, snapshot, RewardConfig(lr=1e-3, half=half))
            counts[half] = events(tmp_path / f"run {half}", "start")[0]["counts"]
        whole = counts[None]
        assert (whole["sets"], whole["left_out_sets"], whole["heldout_sets"]) == (36, 0, 12)
        assert counts[0]["sets"] + counts[1]["sets"] == 36
        assert counts[0]["comparisons"] + counts[1]["comparisons"] == whole["comparisons"]
        assert counts[0]["left_out_sets"] == counts[1]["sets"] > 0
        assert counts[0]["heldout_sets"] == counts[1]["heldout_sets"] == 12
        line, _ = [event["text"] for event in events(tmp_path / "run 1", "log")]
        assert line == f"training on half 1 of the prompts: {counts[1]['sets']} of 36 sets of outputs"

    def test_judgements_of_labellers_may_be_left_out(self, tmp_path, sft):
        rows = [ranking(i, f"who {i}", ["cat", "hat"], [1, 2], labeller=f"l{i % 3}") for i in range(9)]
        with open_run(tmp_path / "run") as run:
            reward.train(RewardConfig(), sft, write_rankings(tmp_path / "rankings", rows), run, without={"l1"})
        counts = events(tmp_path / "run", "start")[0]["counts"]
        assert (counts["judgements"], counts["left_out_sets"]) == (6, 3)

    def test_ties_that_are_kept_pull_scores_together(self, tmp_path, sft):
        """Two answers that are tied in every ranking end up nearer to one another than they began."""
        rows = [ranking(i, f"who {i}", ["cat", "hat", "dog"], [1, 2, 2]) for i in range(24)]
        folder, config = write_rankings(tmp_path / "rankings", rows), RewardConfig(epochs=4, lr=2e-3, batch_size=8)
        gaps = {}
        for ties in ("dropped", "half"):
            run_reward(tmp_path / ties, sft, folder, replace(config, ties=ties))
            checkpoint = tmp_path / ties / "checkpoint"
            tokenizer, model = checkpoints.load_tokenizer(checkpoint), checkpoints.load_reward_model(checkpoint)
            sets = rankings.read(folder, tokenizer, 96).train
            scores = SetScorer(model, tokenizer, 4096, None).score_all(sets)
            gaps[ties] = sum(abs(of_set[1] - of_set[2]) for of_set in scores) / len(scores)
        assert gaps["half"] < 0.5 * gaps["dropped"]

    @pytest.mark.parametrize(
        ("setting", "words"),
        [({"ties": "kept"}, "dropped or half"), ({"margin": -1.0}, "0 or more"), ({"half": 2}, "0, 1 or none")],
    )
    def test_settings_out_of_range_are_refused(self, setting, words):
        with pytest.raises(ValueError, match=words):
            RewardConfig(**setting)


class TestLog:
    def test_says_what_was_left_out_or_cut_and_why(self, tmp_path, sft):
        rows = [
            ranking(0, "who", ["cat", "hat", "dog " * 200], [1, 2, 3]),
            ranking(1, "who", ["cat", "hat"], [1, 1]),
            ranking(2, "who", ["cat"], [1]),
            ranking(3, "who", ["cat", "hat"], [1, 2], weight=0.0),
            ranking(4, "who", ["cat", "", "dog"], [1, 2, 3]),
            ranking(5, "who", ["cat", "", "dog"], [1, 2, 3], finish="length"),
            ranking(6, "who", ["cat", "hat"], [1, None]),
        ]
        run_reward(tmp_path / "run", sft, write_rankings(tmp_path / "rankings", rows))
        assert [event["text"] for event in events(tmp_path / "run", "log")] == [
            "1 outputs are longer than the model's context of 96 tokens and were left out",
            "1 outputs have no token to score (empty, and cut at the length limit) and were left out",
            "1 outputs are empty and were kept: their end token is scored",
            "2 outputs were cut at the length limit and were kept: they carry no end token",
            "1 judgements were left out: fewer than two of their outputs can be scored",
            "1 judgements were left out: all their outputs are tied",
            "1 judgements were left out: they rank fewer than two outputs",
            "1 judgements were left out: their weight is 0",
            "on cpu, weights that learn and optimiser in float32, computing in float32",
        ]
        counts = events(tmp_path / "run", "start")[0]["counts"]
        assert (counts["sets"], counts["dropped_outputs"], counts["dropped_judgements"]) == (3, 2, 4)

    def test_a_run_that_diverged_is_no_model(self, tmp_path, sft, snapshot, monkeypatch):
        monkeypatch.setattr(reward, "score_rows", lambda *_: [float("nan")])
        with pytest.raises(ValueError, match="the mean score is nan after training"):
            run_reward(tmp_path / "run", sft, snapshot)
        assert not (tmp_path / "run" / "checkpoint").exists()


def alone(model, pair):
    """(1,) the score of one response, encoded by itself."""
    return models.end_scores(model, data.collate([pair], model.config.pad_token_id))


class TestLoss:
    def test_gradient_of_a_batch_equals_that_of_pairs_scored_one_by_one(self, tmp_path, sft):
        """K-wise in one element against the pair-by-pair form of the paper's Eq. 1."""
        model, tokenizer = checkpoints.reward_model_from(sft, seed=0).double(), checkpoints.load_tokenizer(sft)
        (element,) = rankings.read(
            write_rankings(tmp_path / "x", [ranking(0, "who", ["cat", "one hat", "dog"], [2, 1, 3])]), tokenizer, 96
        ).train
        scores = SetScorer(model, tokenizer, 1024, None).score([element])
        loss = ranking_loss(
            scores[None], preferences(torch.tensor([[2, 1, 3]]), torch.ones(1, 3, dtype=torch.bool)), torch.ones(1)
        )
        (together,) = torch.autograd.grad(loss, model.score.weight)
        pairs = [(1, 0), (1, 2), (0, 2)]
        apart = torch.zeros_like(together)
        for better, worse in pairs:
            gap = alone(model, element.outputs[better]) - alone(model, element.outputs[worse])
            (part,) = torch.autograd.grad(-torch.nn.functional.logsigmoid(gap).sum() / 3, model.score.weight)
            apart += part
        assert torch.allclose(together, apart, atol=1e-6)  # scores pass through float32


class TestBadInput:
    def test_all_judgements_tied(self, tmp_path, sft):
        folder = write_rankings(tmp_path / "rankings", [ranking(0, "who", ["cat", "hat"], [1, 1])])
        with pytest.raises(
            ValueError,
            match=r"no comparison in split 'train' to learn from: 1 judgements were left out \(tied throughout",
        ):
            run_reward(tmp_path / "run", sft, folder)

    def test_ties_that_are_kept_are_no_comparison_either(self, tmp_path, sft):
        folder = write_rankings(tmp_path / "rankings", [ranking(0, "who", ["cat", "hat"], [1, 1])])
        with pytest.raises(ValueError, match="1 of 1 ranked sets are this model's"):
            run_reward(tmp_path / "run", sft, folder, RewardConfig(ties="half"))

    def test_a_base_without_a_template(self, tmp_path, snapshot):
        with pytest.raises(CheckpointError, match="fine-tune it with `preferable train sft` first"):
            run_reward(tmp_path / "run", make_base(tmp_path / "base"), snapshot)
