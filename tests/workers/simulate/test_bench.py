"""The reward model's two figures: over all models judged so far, and over the newest alone."""

from pathlib import Path

import pytest

from app.starter import load_starter
from workers.simulate import measure, models
from workers.simulate.bench import Bench, Judged
from workers.simulate.labellers import Labeller
from workers.simulate.measure import Answer, HeldOutPrompt, Said
from workers.simulate.models import Decoding, ToScore
from workers.simulate.owner import Model, Owner

FIRST, SECOND, REWARD = Model("/1", "SFT 1", "retired"), Model("/2", "P 1", "active"), Model("/3", "R 2", "active")


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """Two models whose answers are known, and a reward model that is taken in by a "No."."""
    starter = load_starter()
    demonstration = starter.demonstrations[0]
    prompt = next(prompt for prompt in starter.prompts if prompt.key == demonstration.prompt_key)
    prompts = [HeldOutPrompt(prompt.key, prompt.messages, prompt.category)]
    said: dict[Model, list[Said]] = {
        FIRST: [(demonstration.response, "stop"), (demonstration.response[:-4], "length")],
        SECOND: [(demonstration.response, "stop"), ("No.", "stop"), (demonstration.response[:-4], "stop")],
    }
    answers = {
        model.name: measure.judge(
            model.name, prompts, {prompt.key: tuple(Answer(text, str(reason), 5, None) for text, reason in given)}
        )
        for model, given in said.items()
    }

    def score(model: Path, texts: list[ToScore], folder: Path) -> dict[tuple[str, Said], float]:
        worth = {demonstration.response: 1.0, "No.": 2.0}
        return {(one.prompt, one.said): worth.get(one.said[0], 0.0 if one.said[1] == "stop" else -1.0) for one in texts}

    monkeypatch.setattr(models, "score", score)
    owner = Owner(None, "starter")  # type: ignore[arg-type]  # nothing is fetched
    return Bench(owner, Decoding(4, 1.0, 32, 1), tmp_path, prompts, {REWARD.name: tmp_path}, answers)


class TestRewardNumbers:
    def test_pool_the_models_judged_and_tell_the_newest_apart(self, bench: Bench) -> None:
        labeller = Labeller(bench.owner.browser, "starter", "bystander", "", 1, 0.0)
        everything, newest = bench.reward_numbers(REWARD, [Judged(FIRST, ()), Judged(SECOND, ())], labeller)
        # First model: right. Second: the good one before the cut one right, the "No." wrong against both.
        assert (newest.pairs, everything.pairs) == (3, 4)
        assert newest.accuracy.value == pytest.approx(1 / 3)
        assert everything.accuracy.value == pytest.approx(2 / 4)
        assert everything.noise_ceiling.value == newest.noise_ceiling.value == 1.0

    def test_score_an_answer_that_was_cut_apart_from_one_that_ended(self, bench: Bench) -> None:
        asked: list[ToScore] = []
        plain = models.score
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                models, "score", lambda model, texts, folder: asked.extend(texts) or plain(model, texts, folder)
            )
            labeller = Labeller(bench.owner.browser, "starter", "bystander", "", 1, 0.0)
            bench.reward_numbers(REWARD, [Judged(FIRST, ()), Judged(SECOND, ())], labeller)
        assert len({one.said[0] for one in asked}) == 3
        assert len({one.said for one in asked}) == 4
