import pytest
import torch

from tests.workers.training.factories import make_reward, make_sft, user
from tests.workers.training.ppo_runs import even
from workers.training import checkpoints, data, reward
from workers.training.engine import Response
from workers.training.rewards import Mix, RewardModel, measure

PROMPTS = [data.Prompt("q1", user("who"), [5, 6], "train", "chat", "red", "exact"), data.Prompt("q2", [], [7], "train")]
RESPONSES = [Response("red", [8, 9], [-1.0, -1.0], "stop", 0), Response("blue", [11, 12, 14], [-1.0] * 3, "length", 0)]


def exact(prompts, responses):
    """1 where the response is the prompt's reference."""
    return {"score": [float(p.reference == r.text) for p, r in zip(prompts, responses, strict=True)]}


class TestMeasure:
    def test_a_function_sees_the_row_of_each_prompt_and_its_response(self):
        assert measure(exact, PROMPTS, RESPONSES)["score"].tolist() == [1.0, 0.0]

    def test_keeps_further_components(self):
        found = measure(even, PROMPTS, RESPONSES)
        assert found["length"].tolist() == [2.0, 3.0]
        assert found["score"].dtype == torch.float32

    @pytest.mark.parametrize(
        ("components", "message"),
        [
            ({"value": [1.0, 2.0]}, "the reward returned value; expected a component named `score`"),
            ({"score": [1.0]}, r"the reward's score has the shape \(1,\); expected one number for each of 2 responses"),
            ({"score": [[1.0, 2.0]]}, r"the reward's score has the shape \(1, 2\)"),
            (
                {"score": [1.0, float("nan")]},
                "the reward's score is nan for a response to prompt q2; expected a finite",
            ),
        ],
    )
    def test_refuses_what_is_not_one_finite_number_a_response(self, components, message):
        with pytest.raises(ValueError, match=message):
            measure(lambda prompts, responses: components, PROMPTS, RESPONSES)


class TestMix:
    def test_by_hand(self):
        mix = Mix({"right": (2.0, exact), "even": (-0.5, even)})
        found = measure(mix, PROMPTS, RESPONSES)
        # even tokens: 1 of 2, so 2; 2 of 3, so 8/3
        assert found["score"].tolist() == pytest.approx([2 * 1 - 0.5 * 2, 2 * 0 - 0.5 * 8 / 3], abs=1e-6)
        assert found["right"].tolist() == [1.0, 0.0]
        assert found["even"].tolist() == pytest.approx([2.0, 8 / 3], abs=1e-6)
        assert found["even_length"].tolist() == [2.0, 3.0]

    def test_of_a_reward_model_and_a_function(self, tmp_path):
        sft = make_sft(tmp_path / "sft")
        model = RewardModel.load(make_reward(tmp_path / "reward", sft), checkpoints.load_tokenizer(sft))
        alone, found = (
            model(PROMPTS, RESPONSES)["score"],
            Mix({"model": (1.0, model), "right": (3.0, exact)})(PROMPTS, RESPONSES),
        )
        assert torch.equal(found["model"], alone)
        assert found["score"].tolist() == pytest.approx([alone[0].item() + 3, alone[1].item()], abs=1e-6)

    @pytest.mark.parametrize("parts", [{}, {"score": (1.0, exact)}])
    def test_refuses_no_parts_and_a_part_named_like_their_sum(self, parts):
        with pytest.raises(ValueError, match="name at least one, and none `score`"):
            Mix(parts)


class TestRewardModel:
    @pytest.fixture
    def model(self, tmp_path):
        sft = make_sft(tmp_path / "sft", "gpt2")  # learned positions: one too many would be out of range
        return RewardModel.load(make_reward(tmp_path / "reward", sft), checkpoints.load_tokenizer(sft))

    def test_reads_the_text_and_is_0_at_the_mean_of_the_demonstrations(self, model):
        rows = [
            data.Pair(
                [5, 6], [*model.tokenizer("red", add_special_tokens=False)["input_ids"], model.tokenizer.eos_token_id]
            ),
            data.Pair([7], model.tokenizer("blue", add_special_tokens=False)["input_ids"]),  # cut: no end token
        ]
        expected = [raw - 0.25 for raw in reward.score_rows(model.model, model.tokenizer, rows)]
        assert model(PROMPTS, RESPONSES)["score"].tolist() == pytest.approx(expected, abs=1e-5)

    def test_learns_nothing(self, model):
        assert not any(parameter.requires_grad for parameter in model.model.parameters())

    def test_of_a_text_that_is_longer_spelled_anew_than_the_context_has_room_for(self, model):
        broken = Response("\N{REPLACEMENT CHARACTER}" * 40, [7] * 40, [-1.0] * 40, "stop", 0)  # three bytes each
        assert model([data.Prompt("q", [], [5] * 50, "train")], [broken])["score"].isfinite().all()
