import argparse
import json

import pytest
import torch

from app.starter.prompts import StarterPrompt
from benchmarks import ppo_vs_trl, workload
from workers.training import ppo
from workers.training.engine import Decoding, Engine, Response

TEXTS = ["the red cat likes the blue dog and the green hat"] * 20
SMALL = workload.Shape(layers=1, width=8, heads=2, intermediate=8, vocabulary=320)


def path(*points):
    return [{"iteration": at, "kl": kl, "score": score} for at, (kl, score) in enumerate(points)]


class TestScoreAt:
    def test_is_linear_between_two_reports(self):
        assert ppo_vs_trl.score_at(path((0, 1), (2, 3), (4, 4)), 3) == 3.5

    def test_is_the_final_score_at_the_final_kl(self):
        assert ppo_vs_trl.score_at(path((0, 1), (2, 3), (1, 5)), 1) == 5

    def test_takes_the_last_of_several(self):
        assert ppo_vs_trl.score_at(path((0, 0), (2, 2), (1, 3), (2, 4)), 1.5) == 3.5

    def test_of_equal_kls_is_the_later_score(self):
        assert ppo_vs_trl.score_at(path((0, 1), (0, 2)), 0) == 2

    def test_names_the_path_that_does_not_reach_there(self):
        with pytest.raises(ValueError, match="from 0 to 2"):
            ppo_vs_trl.score_at(path((0, 1), (2, 3)), 2.5)


class TestCompare:
    def test_by_hand(self):
        """At KL 2, ours 3 and 4, TRL's 2.5 (between 1 and 4) and 4: differences 0.5 and 0, deviation 0.35, error 0.25.

        At the end, score - 0.5 KL: ours 2 and 3, TRL's 2 and 3.
        """
        ours, theirs = [path((0, 1), (2, 3)), path((0, 1), (2, 4))], [path((0, 1), (4, 4)), path((0, 1), (2, 4))]
        found = ppo_vs_trl.compare(ours, theirs, kl_coef=0.5)
        assert [seed["difference"] for seed in found["at_equal_kl"]] == [0.5, 0]
        assert found["difference"] == {"mean": 0.25, "standard_error": pytest.approx(0.25)}
        assert found["objective_difference"] == {"mean": 0, "standard_error": 0}

    def test_one_seed_has_no_error(self):
        found = ppo_vs_trl.compare([path((0, 1), (2, 3))], [path((0, 1), (2, 4))], kl_coef=0.5)
        assert found["difference"] == found["objective_difference"] == {"mean": -1, "standard_error": None}


class TestRank:
    def test_best_first_without_equals_and_cut_ones(self):
        prompt = StarterPrompt(
            "k", ({"role": "user", "content": "What colour is the fox?"},), "closed_qa", "train", "w"
        )
        said = [("The fox is blue.", "stop"), ("The fox is red.", "stop"), ("The fox is red.", "stop"), ("", "stop")]
        responses = [Response(text, [], [], reason, 0) for text, reason in [*said, ("The fox is red. It", "length")]]
        found = ppo_vs_trl.rank(prompt, responses)
        assert found == workload.Ranking("What colour is the fox?", ["The fox is red.", "The fox is blue."])


class TestReadQaFeedback:
    def test_prompts_are_those_of_the_rankings(self, tmp_path):
        row = {"question": "Who?", "passages": [["A", "B."], ["C."]], "preference": [1] * 6}
        row |= {f"prediction {at}": f"answer {at}" for at in range(1, 5)}
        tied = row | {"question": "When?", "preference": [1, 1, 0, 1, 1, 1]}
        (tmp_path / "rows.json").write_text(json.dumps([tied, row]))
        prompts, responses = ppo_vs_trl.read_qa_feedback(tmp_path / "rows.json")
        assert prompts == ["Who?\n\nA B.\nC."]
        assert responses == ["answer 1", "answer 2", "answer 3", "answer 4"]


class TestMeasureSpeed:
    @pytest.mark.parametrize(("prompts", "several", "episodes"), [(255, 1, 255), (63, 4, 252)])
    def test_too_few_prompts_for_the_iterations(self, tmp_path, prompts, several, episodes):
        row = {"instruction": "Name a cat.", "input": "", "output": "Tom."}
        (tmp_path / "rasbt_instructions").mkdir()
        (tmp_path / "rasbt_instructions" / "instruction-data.json").write_text(json.dumps([row] * prompts))
        options = argparse.Namespace(
            prompts_of="rasbt", data=tmp_path, batch=None, iterations=2, responses_per_prompt=several
        )
        with pytest.raises(
            SystemExit, match=f"take 256 episodes, one batch kept back; {prompts} prompts give {episodes}"
        ):
            ppo_vs_trl.measure_speed(options, tmp_path)


class TestMakeModels:
    def test_no_response_ends(self, tmp_path, monkeypatch):
        monkeypatch.setattr(ppo_vs_trl.workload, "Shape", lambda: SMALL)
        begun = ppo_vs_trl.make_models(tmp_path, TEXTS)
        engine = Engine.load(begun.policy)
        (responses,) = engine.sample_ids([[1, 20, 21]], Decoding(50, max_new_tokens=40))
        assert {len(response.token_ids) for response in responses} == {40}
        with torch.no_grad():
            logprobs = engine.model(torch.tensor([[1, 20, 21]])).logits.log_softmax(-1)
        assert logprobs[..., [engine.tokenizer.eos_token_id, engine.tokenizer.pad_token_id]].max() < -20

    def test_are_what_ppo_takes(self, tmp_path, monkeypatch):
        """Three iterations, of which two are timed; every response is as long as any other."""
        monkeypatch.setattr(ppo_vs_trl.workload, "Shape", lambda: SMALL)
        begun = ppo_vs_trl.make_models(tmp_path, TEXTS)
        prompts = workload.write_prompts(tmp_path / "prompts", [("the cat", "train"), ("the dog", "train")])
        settings = ppo.PPOConfig(episodes=12, batch_size=4, minibatch_size=4, max_new_tokens=5, **ppo_vs_trl.MATCHED)
        assert len(ppo_vs_trl.time_ours(settings, begun, prompts, tmp_path / "run")) == 2


class TestLearning:
    def test_reports_of_a_run_and_of_policies_that_were_kept_are_alike(self, tmp_path, monkeypatch):
        monkeypatch.setattr(ppo_vs_trl.workload, "Shape", lambda: SMALL)
        begun = ppo_vs_trl.make_models(tmp_path, TEXTS)
        prompts = workload.write_prompts(tmp_path / "prompts", [("the cat", "train"), ("the dog", "valid")])
        settings = ppo.PPOConfig(
            episodes=8, batch_size=4, minibatch_size=2, max_new_tokens=5, lr=1e-2, report_every=1, **ppo_vs_trl.MATCHED
        )
        found = ppo_vs_trl.learn_ours(settings, begun, prompts, tmp_path / "run")
        assert [report["iteration"] for report in found] == [0, 1, 2]
        assert found[0]["kl"] == 0 and found[2]["kl"] != 0
        (tmp_path / "run" / "checkpoint").rename(tmp_path / "kept")
        (tmp_path / "kept").rename(tmp_path / "run" / "2")
        for other in (tmp_path / "run").iterdir():
            if other.name != "2":
                other.unlink()
        assert ppo_vs_trl.measure_kept(settings, begun, prompts, tmp_path / "run") == found[2:]
