"""The parts of the study on small made-up data; the data it is for are no part of the project."""

import gzip
import json
import random
from dataclasses import replace

import numpy as np
import pytest

from studies import hh_harmless
from studies.hh_harmless import SETTINGS, Choice, RewardModels
from tests.workers.training.factories import WORDS, make_sft
from workers.training import lora
from workers.training.conversation import Message


def write(path, rows):
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps({"chosen": chosen, "rejected": rejected}) + "\n" for chosen, rejected in rows)
    return path


def made_up(count):
    """Answers that say "cat" are taken."""
    rng = random.Random(0)
    prompts = [[Message(role="user", content=f"who {rng.choice(WORDS)} {at}")] for at in range(count)]
    return [Choice(prompt, f"{rng.choice(WORDS)} cat", f"{rng.choice(WORDS)} hat") for prompt in prompts]


class TestRead:
    def test_turns_and_answers(self, tmp_path):
        start = "\n\nHuman: one\n\nhat\n\nAssistant: two\n\nHuman: red"
        (choice,) = hh_harmless.read(write(tmp_path / "a", [(f"{start}\n\nAssistant: a", f"{start}\n\nAssistant:")]))
        assert choice.prompt == [
            {"role": "user", "content": "one\n\nhat"},
            {"role": "assistant", "content": "two"},
            {"role": "user", "content": "red"},
        ]
        assert (choice.chosen, choice.rejected) == ("a", "")

    def test_turns_of_one_speaker_in_a_row_are_one(self, tmp_path):
        rows = [
            ("\n\nHuman: a\n\nHuman: b\n\nAssistant: c\n\nAssistant: d", "\n\nHuman: a\n\nHuman: b\n\nAssistant: e")
        ]
        (choice,) = hh_harmless.read(write(tmp_path / "a", rows))
        assert choice.prompt == [{"role": "user", "content": "a\n\nb"}]
        assert (choice.chosen, choice.rejected) == ("c\n\nd", "e")

    @pytest.mark.parametrize("other", ["\n\nHuman: b\n\nAssistant: d", "\n\nHuman: a"])
    def test_answers_to_different_conversations_are_refused(self, tmp_path, other):
        with pytest.raises(ValueError, match="line 1: expected two answers to one conversation"):
            hh_harmless.read(write(tmp_path / "a", [("\n\nHuman: a\n\nAssistant: c", other)]))


class TestSplit:
    def test_choices_of_one_conversation_fall_together_and_parts_are_even(self):
        choices = made_up(50)
        part = hh_harmless.split([*choices, *choices])
        assert (part[:50] == part[50:]).all()
        assert np.bincount(part).tolist() == [20] * 5


class TestRight:
    def test_a_tie_is_half(self):
        assert hh_harmless.right(np.array([2.0, -1.0, 0.0])).tolist() == [1.0, 0.0, 0.5]


class TestBootstrap:
    def test_by_hand(self):
        """Two prompts, one of two choices: means of 1/2 and 1, so that every resampled mean is 1/2, 3/4 or 1."""
        found = hh_harmless.bootstrap(np.array([1.0, 0.0, 1.0]), np.zeros(3), ["a", "a", "b"])
        assert found == {"difference": 0.75, "low": 0.5, "high": 1.0}

    def test_width_is_that_of_a_normal_mean(self):
        outcomes = np.random.default_rng(1).normal(size=(2, 2000))
        found = hh_harmless.bootstrap(*outcomes, [str(at) for at in range(2000)])
        error = (outcomes[0] - outcomes[1]).std() / 2000**0.5
        assert found["high"] - found["low"] == pytest.approx(2 * 1.96 * error, rel=0.05)  # 10,000 draws


class TestWords:
    def test_find_the_word_that_decides(self):
        choices = made_up(60)
        margins, chosen = hh_harmless.words(choices[:40], choices[40:])
        assert (margins > 0).all()
        assert chosen["C"] in hh_harmless.REGULARISATION

    def test_of_swapped_answers_are_the_opposite(self):
        choices = made_up(60)
        swapped = [Choice(each.prompt, each.rejected, each.chosen) for each in choices[40:]]
        one, other = (hh_harmless.words(choices[:40], asked)[0] for asked in (choices[40:], swapped))
        assert np.allclose(one, -other)


class TestCompare:
    def test_every_fold_begins_anew_and_learns(self, tmp_path):
        choices, sft = made_up(60), make_sft(tmp_path / "sft")
        config = replace(SETTINGS, frozen_blocks=1, epochs=12, lr=5e-3, batch_size=8)
        models = RewardModels.load(sft, choices, config)
        train, test = np.arange(40), np.arange(40, 60)
        first = models.margins(config, train, test, "quietly")
        assert (models.margins(config, train, test, "quietly") == first).all()
        found = hh_harmless.compare(models, choices, config)
        assert found["reward_model"] > 0.9
        assert found["tfidf"] > 0.9
        assert found["reward_model_less_tfidf"]["difference"] == pytest.approx(found["reward_model"] - found["tfidf"])
        assert sum(fold["test"] for fold in found["folds"]) == found["choices"] == 60
        assert set(models.start) == set(lora.state(models.scorer.model))

    def test_choosing_never_asks_about_the_first_fold(self, tmp_path, monkeypatch):
        choices, asked = made_up(50), []
        monkeypatch.setattr(
            RewardModels,
            "margins",
            lambda self, config, train, test, name: asked.extend([*train, *test]) or np.ones(len(test)),
        )
        models = RewardModels(None, [], {})
        hh_harmless.choose(models, choices, [SETTINGS])
        assert sorted(asked) == np.flatnonzero(hh_harmless.split(choices) != 0).tolist()
