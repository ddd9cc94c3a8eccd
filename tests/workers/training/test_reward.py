import pytest
import torch

from tests.workers.training.factories import (
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
from workers.rlhf.losses import preferences, ranking_loss
from workers.training import checkpoints, data, models, rankings, reward
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

    def test_does_not_depend_on_micro_batches(self, tmp_path, sft, snapshot):
        run_reward(tmp_path / "whole", sft, snapshot, RewardConfig(lr=1e-3, batch_size=8))
        run_reward(tmp_path / "cut", sft, snapshot, RewardConfig(lr=1e-3, batch_size=8, micro_batch_tokens=1))
        whole, cut = weights(tmp_path / "whole" / "checkpoint"), weights(tmp_path / "cut" / "checkpoint")
        # Adam divides by the gradient's size, so that rounding of tiny gradients shows at up to the learning rate
        assert max((whole[name] - cut[name]).abs().max().item() for name in whole) < 1e-3

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
        (line,) = [event["text"] for event in events(tmp_path / "run", "log")]
        assert "each response is encoded by itself" in line


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
            ValueError, match=r"no comparison in split 'train' \(1 judgements are tied throughout or not rankable\)"
        ):
            run_reward(tmp_path / "run", sft, folder)

    def test_a_base_without_a_template(self, tmp_path, snapshot):
        with pytest.raises(CheckpointError, match="fine-tune it with `preferable train sft` first"):
            run_reward(tmp_path / "run", make_base(tmp_path / "base"), snapshot)
