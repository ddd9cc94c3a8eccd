"""What a labeller makes of a page."""

import pytest

from workers.simulate.browser import Browser
from workers.simulate.labellers import Labeller, Shown, ShownTask, read_task
from workers.simulate.page import PageError, parse

PAGE = """
<main><form action="/submit">
<div class="turn" data-role="user"><div class="prose turn-text turn-typed">What colour
  is the fox?</div></div>
<div class="turn" data-role="assistant"><p>Assistant</p><div class="prose turn-text"><p>The fox is red.</p></div></div>
<div class="turn" data-role="user"><div class="prose turn-text turn-typed">And the duck?</div></div>
<article data-output="11" data-finish="stop"><h2>A</h2><div class="prose output-text"><p>One &amp;
two.</p></div></article>
<article data-output="22" data-finish="length"><h2>B</h2><div class="prose output-text"></div></article>
</form></main>
"""
ASK = ({"role": "user", "content": "What colour is the fox?"},)


def labeller(noise: float = 0.0) -> Labeller:
    return Labeller(Browser("http://nowhere.invalid"), "starter", "one@example.org", "", 1, noise)


class TestReadTask:
    def test_reads_the_conversation_and_the_outputs(self) -> None:
        task = read_task(parse(PAGE))
        assert [turn["role"] for turn in task.messages] == ["user", "assistant", "user"]
        assert [turn["content"] for turn in task.messages] == [
            "What colour\n  is the fox?",
            "The fox is red.",
            "And the duck?",
        ]
        assert task.outputs == (Shown("11", "One & two.", "stop"), Shown("22", "", "length"))

    def test_refuses_another_page(self) -> None:
        with pytest.raises(PageError, match="no ranking task"):
            read_task(parse("<main>Nothing to do</main>"))


class TestDecide:
    GOOD, BAD, EMPTY = Shown("g", "The fox is red.", "stop"), Shown("b", "The duck", "length"), Shown("e", "", "stop")

    def test_ranks_by_gold_with_ties_and_what_cannot_be_ranked(self) -> None:
        tiers, values = labeller().decide(ShownTask(ASK, (self.BAD, self.GOOD, self.EMPTY)))
        assert tiers == [2, 1, None]
        assert (values["tier-g"], values["tier-b"], values["tier-e"], values["reason-e"]) == ("1", "2", "x", "broken")
        assert int(values["quality-g"]) > int(values["quality-b"])

    def test_slips_do_not_depend_on_the_order_shown(self) -> None:
        outputs = (self.GOOD, self.BAD, Shown("c", "Red.", "stop"), Shown("d", "The fox sang.", "stop"))
        forth, _ = labeller(0.5).decide(ShownTask(ASK, outputs))
        back, _ = labeller(0.5).decide(ShownTask(ASK, outputs[::-1]))
        assert forth == back[::-1]

    def test_slips_with_the_probability_asked_for(self) -> None:
        asks = [({"role": "user", "content": f"What colour is the fox? {n}"},) for n in range(400)]
        person = labeller(0.25)
        tiers = [person.decide(ShownTask(ask, (self.GOOD, self.BAD)))[0] for ask in asks]
        assert 60 <= sum(given == [2, 1] for given in tiers) <= 140  # 100 of 400 on average, sd 8.7
