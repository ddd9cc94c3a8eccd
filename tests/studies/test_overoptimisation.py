import argparse
import json
import sys
from dataclasses import replace
from itertools import combinations

import pytest
import torch

from app.starter import StarterPrompt, gold, load_starter
from studies import overoptimisation as study
from workers.rlhf import kl
from workers.training import config
from workers.training.data import Prompt
from workers.training.engine import Response
from workers.training.ppo import PPOConfig

FOX = [{"role": "user", "content": "What colour is the fox?"}]


def response(text, reason="stop"):
    return Response(text, [], [], reason, 0)


def point(iteration, proxy, second, truth, divergence=None):
    """A policy whose answers to four prompts spread evenly around these means."""
    around = torch.tensor([-0.03, -0.01, 0.01, 0.03], dtype=torch.float64)
    scores = {"proxy": proxy + around, "second": second + around, "gold": truth + around}
    return study.Point(iteration if divergence is None else divergence, scores, iteration)


class TestPoint:
    def test_mean_and_standard_error_by_hand(self):
        """1 and 3: mean 2, deviation sqrt(2), error 1."""
        found = study.Point(0.0, {"gold": torch.tensor([1.0, 3.0], dtype=torch.float64)})
        assert (found.mean("gold"), found.error("gold")) == (2, pytest.approx(1, abs=1e-12))


class TestClimbed:
    def climbed(self):
        return study.Climbed(
            {
                "proxy": lambda prompts, responses: {"score": [1.0] * len(responses)},
                "second": lambda prompts, responses: {"score": [2.0] * len(responses)},
                "twin": lambda prompts, responses: {"score": [3.0] * len(responses)},
                "gold": study.gold_reward,
            }
        )

    def test_of_held_out_answers_all_scores_are_told_and_kept(self):
        climbed = self.climbed()
        found = climbed([Prompt("p", FOX, [1], "valid")], [response("The fox is red.")])
        assert {name: each.item() for name, each in found.items()} == {"score": 1, "second": 2, "twin": 3, "gold": 1}
        assert [set(kept) for kept in climbed.kept] == [set(study.SCORES)]

    def test_what_is_learned_from_is_never_shown_to_gold(self):
        climbed = self.climbed()
        assert set(climbed([Prompt("p", FOX, [1], "train")], [response("The fox is red.")])) == {"score"}
        assert not climbed.kept


class TestGoldReward:
    def test_knows_that_an_answer_was_cut(self):
        prompts = [Prompt("p", FOX, [1], "valid")] * 2
        whole, cut = study.gold_reward(prompts, [response("The fox is red."), response("The fox is red.", "length")])[
            "score"
        ]
        assert whole == 1 and cut == gold.score(FOX, "The fox is red.", "length").total < 1


class TestJudge:
    PROMPT = StarterPrompt("k", tuple(FOX), "closed_qa", "train", "w")

    def test_gives_the_tiers_of_gold_in_the_order_of_the_answers(self):
        said = [response("The fox is blue."), response("The fox is red."), response("", "length")]
        found = study.judge(self.PROMPT, said, 0.0, 0)
        assert (found.prompt, list(found.tiers)) == ("What colour is the fox?", [2, 1, None])
        assert list(found.finish_reasons) == ["stop", "stop", "length"]

    def test_slips_belong_to_seed_and_prompt(self):
        said = [response("The fox is blue."), response("The fox is red.")]
        slipped = [study.judge(self.PROMPT, said, 0.5, seed).tiers for seed in range(20)]
        assert slipped == [study.judge(self.PROMPT, said, 0.5, seed).tiers for seed in range(20)]
        assert [1, 2] in slipped and [2, 1] in slipped


class TestBestOf:
    def test_is_the_mean_over_all_sets_of_n(self):
        generator = torch.Generator().manual_seed(0)
        scores = {name: torch.rand(3, 5, generator=generator, dtype=torch.float64) for name in study.SCORES}
        for n in (1, 2, 3, 5):
            found = study.best_of(scores, n)
            assert found.kl == kl.best_of_n_kl(n)
            for name in study.SCORES:
                for row in range(3):
                    proxy = scores["proxy"][row].tolist()
                    best = [max(chosen, key=lambda at: proxy[at]) for chosen in combinations(range(5), n)]
                    naive = sum(scores[name][row, at].item() for at in best) / len(best)
                    assert found.scores[name][row].item() == pytest.approx(naive, abs=1e-12)


class TestAgreement:
    def test_by_hand(self):
        """Gold 1 > 0.5 > 0.46, the last two too close to tell: of two clear pairs the model ties one and turns the other."""
        scores = {"gold": torch.tensor([[1.0, 0.5, 0.46]]), "proxy": torch.tensor([[2.0, 2.0, 3.0]])}
        assert study.agreement(scores, "proxy") == 0.25

    def test_gold_agrees_with_itself(self):
        scores = {"gold": torch.rand(4, 6, generator=torch.Generator().manual_seed(0))}
        assert study.agreement(scores, "gold") == 1


class TestFindTurn:
    def test_tells_top_and_fall(self):
        path = [point(0, 0, 0, 0.5), point(2, 1, 1, 0.8), point(4, 2, 2, 0.7)]
        found = study.find_turn(path)
        assert (found["best_iteration"], found["best_kl"], found["turned"]) == (2, 2, True)
        assert found["fell"] == pytest.approx(0.1, abs=1e-12)

    def test_a_path_that_ends_at_its_top_has_not_turned(self):
        assert not study.find_turn([point(0, 0, 0, 0.5), point(2, 1, 1, 0.8)])["turned"]

    def test_a_fall_within_its_error_is_none(self):
        top = study.Point(1.0, {"gold": torch.tensor([0.0, 1.0, 0.0, 1.0])}, 1)
        last = study.Point(2.0, {"gold": torch.tensor([1.0, 0.0, 0.0, 0.8])}, 2)
        found = study.find_turn([top, last])
        assert found["fell"] > 0 and not found["turned"]


class TestWatch:
    PATH = (
        point(0, 0, 0, 0.5),
        point(1, 1, 1, 0.8),
        point(2, 2, 2, 0.75),
        point(3, 3, 1.5, 0.7),
        point(4, 4, 1.0, 0.6),
        point(5, 5, 0.5, 0.5),
        point(6, 6, 9, 0.4),
    )

    def test_keeps_the_best_by_the_second_model_and_tells_its_gold(self):
        found = study.watch(self.PATH, 3)
        assert (found["stopped_at"], found["kept"], found["kept_kl"]) == (5, 2, 2)
        assert found["gold"] == pytest.approx(0.75, abs=1e-12)
        assert found["of_best"] == pytest.approx(0.75 / 0.8, abs=1e-12)
        assert found["share_of_gain"] == pytest.approx(0.25 / 0.3, abs=1e-12)

    def test_by_the_divergence(self):
        found = study.watch(self.PATH, 3, kl_max=1.5)
        assert (found["stopped_at"], found["kept"]) == (2, 1) and "kl_max" in found["reason"]

    def test_a_patient_guard_lets_it_run(self):
        found = study.watch(self.PATH, 4)
        assert (found["stopped_at"], found["reason"], found["kept"]) == (None, "", 6)


SETTINGS = """
[sft]
epochs = 1
lr = 5e-4
batch_size = 32
choose = "last"
[reward]
epochs = 1
lr = 4e-4
batch_size = 4
[ppo]
batch_size = 8
minibatch_size = 4
lr = 3e-3
value_lr = 1e-3
warmup = 0
max_new_tokens = 12
"""


@pytest.fixture
def brief(tmp_path, monkeypatch):
    """The starter world with settings for seconds."""
    (tmp_path / "brief.toml").write_text(SETTINGS)
    world = load_starter()
    some = replace(world, config_path=tmp_path / "brief.toml", demonstrations=world.demonstrations[:64])
    monkeypatch.setattr(study, "load_starter", lambda: some)
    monkeypatch.setattr(study.workload, "load_starter", lambda: some)
    return some


class TestClimb:
    def test_what_is_told_of_the_guard_is_what_it_does_in_force(self, brief, tmp_path):
        options = argparse.Namespace(seed=0, rankings=40, outputs=4, base_outputs=2, noise=0.1)
        prompts = [prompt for prompt in brief.prompts if len(prompt.messages) == 1][:400]
        begun, learned = study.make_models(options, tmp_path, prompts)
        assert learned["proxy"]["asked"] + learned["second"]["asked"] == 40
        asked = ((prompt.messages[0]["content"], prompt.split) for prompt in prompts)
        folder = study.workload.write_prompts(tmp_path / "prompts", asked)
        settings = config.load(PPOConfig, "ppo", brief.config_path)
        settings = replace(settings, episodes=48, heldout_prompts=8, report_every=1, guard_reports=1, kl_max=0.5)
        path, _ = study.climb(replace(settings, kl_max=None), begun, folder, tmp_path / "free")
        watched = replace(begun, watch=tmp_path / "second" / "checkpoint")
        seen, metrics = study.climb(settings, watched, folder, tmp_path / "guarded")
        told = study.watch(path, 1, kl_max=0.5)
        assert [point.iteration for point in path] == list(range(7))
        assert metrics["stopped"] == told["reason"] != ""
        assert (seen[-1].iteration, metrics["kept_step"]) == (told["stopped_at"], told["kept"])
        assert metrics["heldout_gold_score"] == pytest.approx(told["gold"], abs=1e-6)


class TestMain:
    def test_goes_from_the_command_to_the_picture(self, brief, tmp_path, monkeypatch, capsys):
        pytest.importorskip("matplotlib", reason="2026-11-25: who only trains has no matplotlib")
        options = "--rankings 40 --episodes 8 --kl-coefs 1 0 --heldout 8 --draws 4"
        files = ["--json", str(tmp_path / "found.json"), "--plot", str(tmp_path / "plot.svg")]
        monkeypatch.setattr(sys, "argv", ["studies/overoptimisation.py", *options.split(), *files])
        study.main()
        found = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert json.loads((tmp_path / "found.json").read_text()) == found
        assert [best["n"] for best in found["best_of_n"]] == [1, 2, 4]
        assert [run["kl_coef"] for run in found["ppo"]] == [0, 1]
        for run in found["ppo"]:
            assert [at["iteration"] for at in run["path"]] == [0, 1]
            assert run["path"][0]["kl"] == pytest.approx(0, abs=1e-4)
        assert "KL coef. 1, gold" in (tmp_path / "plot.svg").read_text()
