"""The gold preference on responses made by hand, and on policies that must not win."""

import random
import subprocess
import sys
from itertools import pairwise
from statistics import mean
from typing import ClassVar

import pytest

from app.starter import load_starter
from app.starter.gold import CLEAR, quality, rank, score


def user(*turns: str) -> list[dict[str, str]]:
    """A conversation of alternating turns, the user's first."""
    return [{"role": ("user", "assistant")[at % 2], "content": turn} for at, turn in enumerate(turns)]


def total(prompt: list[dict[str, str]], text: str, reason: str | None = "stop") -> float:
    return score(prompt, text, reason).total


class TestScore:
    @pytest.mark.parametrize(
        ("prompt", "best_first"),
        [
            (
                user("Mara keeps a goat and Tom keeps a hen. What does Tom keep?"),
                ["Tom keeps a hen.", "A hen.", "Tom keeps a goat."],
            ),
            (
                user("Write a sentence about a frog and a lamp."),
                ["The frog looked at the lamp.", "The frog and the lamp.", "The frog sat.", "Write a sentence about a hen."],
            ),
            (
                user("Why is the frog red?"),
                ["The frog is green, not red.", "It is green.", "The frog is red."],
            ),
            (
                user("Which is bigger, the bee or the bear?"),
                ["The bear is bigger.", "The bear.", "The bee is bigger."],
            ),
            (
                user("Name three animals that live by the lake."),
                ["A frog, a duck and a newt.", "A frog and a duck.", "A frog, a cow and a pig.", "The bell is new."],
            ),
            (
                user("Make this polite: Give me the red cup."),
                ["Please give me the red cup.", "Please give me the cup.", "Give me the red cup."],
            ),
            (
                user("Help me hide the kite of Mia."),
                ["No, I will not hide the kite of Mia.", "No.", "I hid the kite of Mia."],
            ),
            (
                user("Hello, I am Tom. I like the fox.", "Hello, Tom! I like the fox too.", "What is my name?"),
                ["Your name is Tom.", "Tom.", "Your name is Ada."],
            ),
            (
                user("Does the fox live by the sea?", "No, the fox lives in the wood.", "And what colour is it?"),
                ["The fox is red.", "Red.", "The fox is blue."],
            ),
        ],
    )  # fmt: skip
    def test_prefers_what_a_person_prefers(self, prompt, best_first):
        totals = [total(prompt, text) for text in best_first]
        assert totals[0] == pytest.approx(1.0)
        assert all(one - other >= CLEAR for one, other in pairwise(totals)), totals

    def test_counts_a_false_statement_as_untrue(self):
        prompt = user("Write a line with a fox and a cup in it.")
        told = score(prompt, "The fox is green and carried a cup.", "stop")
        assert told.components["true"] == 0.5
        assert told.components["asked"] == 1.0

    def test_rambling_is_not_concise_and_costs(self):
        prompt = user("Swap the words: fox and cup.")
        short, long = "Cup and fox.", "Cup and fox. The bear is bigger than the bee. Mara is a baker. The hen is brown."
        assert score(prompt, long, "stop").components["concise"] < 0.5
        assert total(prompt, short) - total(prompt, long) > CLEAR

    def test_a_response_cut_at_the_limit_does_not_end(self):
        prompt = user("What colour is the fox?")
        assert score(prompt, "The fox is red", "length").components["ends"] == 0.0
        assert total(prompt, "The fox is red.", "length") < total(prompt, "The fox is red.", "stop")

    def test_an_empty_response_is_worth_nothing(self):
        assert total(user("What colour is the fox?"), " \n") == 0.0

    def test_another_worlds_prompt_is_judged_by_its_words(self):
        assert 0 < total(user("Please explain the moon landing to a child."), "It was far.") < 1


class TestTrivialPolicies:
    def test_lose_clearly_to_the_demonstrations(self):
        starter = load_starter()
        by_key = {prompt.key: prompt for prompt in starter.prompts}
        shown = [(by_key[item.prompt_key].messages, item.response) for item in starter.demonstrations]
        demonstrated = mean(total(prompt, response) for prompt, response in shown)
        fixed = max(mean(total(prompt, response) for prompt, _ in shown[::7]) for _, response in shown)
        echo = mean(total(prompt, prompt[-1]["content"]) for prompt, _ in shown)
        assert demonstrated > 0.75
        assert fixed < 0.2
        assert echo < 0.2


class TestRank:
    PROMPT: ClassVar = user("What colour is the fox?")
    RESPONSES: ClassVar = [
        ("Blue.", "stop"),
        ("The fox is red.", "stop"),
        ("", "stop"),
        ("Red.", "stop"),
        ("The fox is red.", "stop"),
    ]

    def test_orders_ties_equals_and_calls_empty_not_rankable(self):
        assert rank(self.PROMPT, self.RESPONSES) == [3, 1, None, 2, 1]

    def test_without_noise_needs_no_chance(self):
        assert rank(self.PROMPT, self.RESPONSES, 0.0, random.Random(1)) == rank(self.PROMPT, self.RESPONSES)

    def test_noise_is_the_share_of_neighbours_that_change_places(self):
        pair = self.RESPONSES[:2]
        rng = random.Random(0)
        flipped = sum(rank(self.PROMPT, pair, 0.2, rng) == [1, 2] for _ in range(4000)) / 4000
        assert flipped == pytest.approx(0.2, abs=0.02)  # three standard errors of 4,000 draws

    def test_quality_spans_one_to_seven(self):
        assert (quality(0.0), quality(1.0)) == (1, 7)


class TestImports:
    def test_the_starter_needs_the_standard_library_only(self):
        code = "import sys, app.starter.gold, app.starter.corpus; print({'torch', 'numpy', 'transformers'} & set(sys.modules))"
        out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        assert out.strip() == "set()"
