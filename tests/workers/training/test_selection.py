import pytest
import torch

from tests.workers.training.factories import make_model, make_reward, make_sft, make_tokenizer
from workers.training import checkpoints, conversation, data, models, selection
from workers.training.data import Pair
from workers.training.engine import Decoding, Engine
from workers.training.selection import Judge, Kept


class TestRule:
    @pytest.mark.parametrize(
        ("choose", "has_reward", "validation", "expected"),
        [
            ("auto", False, 3, "valid_loss"),
            ("auto", True, 3, "reward"),
            ("valid_loss", True, 3, "valid_loss"),
            ("last", True, 3, "last"),
            ("reward", True, 3, "reward"),
        ],
    )
    def test_is_the_one_asked_for(self, choose, has_reward, validation, expected):
        assert selection.rule(choose, has_reward=has_reward, validation=validation) == (expected, None)

    @pytest.mark.parametrize("choose", ["auto", "valid_loss", "reward"])
    def test_is_the_last_and_says_so_without_validation_demonstrations(self, choose):
        by, why = selection.rule(choose, has_reward=True, validation=0)
        assert by == "last"
        assert "no demonstrations in split 'valid'" in why

    def test_needs_a_reward_model_to_choose_by_reward(self):
        with pytest.raises(ValueError, match="name one with --reward"):
            selection.rule("reward", has_reward=False, validation=3)


class TestKept:
    @pytest.mark.parametrize(("by", "epoch"), [("valid_loss", 2), ("reward", 3)])
    def test_is_the_best_under_its_rule_the_earlier_of_equals(self, by, epoch):
        model, kept = torch.nn.Linear(1, 1), Kept(by)
        for at, value in enumerate([2.0, 1.0, 3.0, 3.0, 1.0], start=1):
            torch.nn.init.constant_(model.weight, at)
            kept.take(at, value, model)
        kept.restore(model)
        assert (kept.epoch, kept.last, model.weight.item()) == (epoch, 1.0, epoch)
        assert f"epoch {epoch} of 5" in kept.sentence(5)

    def test_a_value_that_is_no_number_wins_over_nothing(self):
        model, kept = torch.nn.Linear(1, 1), Kept("valid_loss")
        for at, value in enumerate([2.0, float("nan")], start=1):
            kept.take(at, value, model)
        assert kept.epoch == 1

    def test_restores_nothing_where_nothing_is_kept(self):
        model = torch.nn.Linear(1, 1)
        before = model.weight.item()
        Kept("last").restore(model)
        assert model.weight.item() == before


class TestJudge:
    ROWS = (Pair([5, 6, 7], [8, 2]), Pair([5, 6, 7], [9, 2]), Pair([11, 12], [13, 2]), Pair([7] * 90, [3, 2]))

    def load(self, tmp_path, **options):
        sft = make_sft(tmp_path / "sft", **options)
        tokenizer, policy = checkpoints.load_tokenizer(sft), checkpoints.load_language_model(sft)
        reward = make_reward(tmp_path / "reward", sft)
        decoding = Decoding(max_new_tokens=8, seed=4)
        return Judge.load(reward, tokenizer, self.ROWS, 96, decoding, 1000, "cpu"), policy, tokenizer

    def test_asks_each_prompt_once_and_leaves_out_those_without_room(self, tmp_path):
        judge, _, _ = self.load(tmp_path)
        assert judge.prompts == [[5, 6, 7], [11, 12]]

    def test_score_is_the_mean_reward_of_the_policys_answers(self, tmp_path):
        judge, policy, tokenizer = self.load(tmp_path)
        answers = Engine(policy, tokenizer).sample_ids(judge.prompts, judge.decoding)
        scores = []
        for prompt, (answer,) in zip(judge.prompts, answers, strict=True):
            ended = answer.finish_reason == "stop"
            row = Pair(prompt, conversation.encode_response(tokenizer, answer.text, ended=ended))
            with torch.no_grad():
                scores.append(models.end_scores(judge.model, data.collate([row], 0)).item() - 0.25)
        assert judge.score(policy) == pytest.approx(sum(scores) / 2, abs=1e-5)
        assert judge.score(policy) == judge.score(policy)

    def test_refuses_a_reward_model_of_another_format(self, tmp_path):
        reward = make_reward(tmp_path / "reward", make_sft(tmp_path / "sft", template=True))
        tokenizer = make_tokenizer()
        conversation.write_template(tokenizer)
        checkpoints.prepare(make_model(tokenizer), tokenizer)
        with pytest.raises(checkpoints.CheckpointError, match="another format"):
            Judge.load(reward, tokenizer, self.ROWS, 96, Decoding(max_new_tokens=8), 1000, "cpu")

    def test_refuses_answers_that_no_prompt_leaves_room_for(self, tmp_path):
        sft = make_sft(tmp_path / "sft")
        tokenizer = checkpoints.load_tokenizer(sft)
        with pytest.raises(ValueError, match="lower max_new_tokens"):
            Judge.load(
                make_reward(tmp_path / "r", sft), tokenizer, self.ROWS, 96, Decoding(max_new_tokens=95), 1000, "cpu"
            )
