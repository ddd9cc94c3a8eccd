"""The trivial policies."""

import pytest

from workers.simulate.measure import HeldOutPrompt
from workers.simulate.trivial import best_fixed, echo, empty

PROMPTS = [HeldOutPrompt("p", ({"role": "user", "content": "What colour is the fox?"},), "open_qa")]


def test_empty_says_nothing() -> None:
    assert empty(PROMPTS).by_prompt["p"][0].text == ""


def test_echo_repeats_the_last_turn() -> None:
    assert echo(PROMPTS).by_prompt["p"][0].text == "What colour is the fox?"


def test_the_best_fixed_answer_is_the_best_of_those_given() -> None:
    text, answers = best_fixed(PROMPTS, ["The duck is green.", "The fox is red.", ""])
    assert text == "The fox is red." == answers.by_prompt["p"][0].text


def test_a_fixed_answer_needs_a_choice() -> None:
    with pytest.raises(ValueError, match="demonstrations"):
        best_fixed(PROMPTS, [])
