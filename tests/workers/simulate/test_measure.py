"""The definitions, on hand-made answers of the starter world."""

import pytest

from app.starter import gold
from app.starter.gold import GoldScore
from workers.simulate.measure import (
    Answer,
    Answers,
    HeldOutPrompt,
    LabelledPair,
    change_by_category,
    comparisons,
    describe,
    judge,
    kl,
    labelled_pairs,
    reward_numbers,
    win_rate,
)

ASK = ({"role": "user", "content": "What colour is the fox?"},)


def score(total: float) -> GoldScore:
    return GoldScore(total, {"asked": total})


def answers(name: str, *totals: list[float], kls: tuple[float | None, ...] = ()) -> Answers:
    """Prompt p0, p1, ... with one answer per total."""
    return Answers(
        name,
        {
            f"p{at}": tuple(
                Answer(f"{name} {number}", "stop", 5, kls[number] if kls else None) for number in range(len(of_prompt))
            )
            for at, of_prompt in enumerate(totals)
        },
        {f"p{at}": tuple(map(score, of_prompt)) for at, of_prompt in enumerate(totals)},
    )


class TestWinRate:
    def test_takes_the_mean_per_prompt_before_that_over_prompts(self) -> None:
        # p0: one answer against one, won; p1: 1 of 2 x 2 pairs won, 2 tied, 1 lost -> 1/2; mean 3/4
        rate = win_rate(answers("a", [0.9], [0.9, 0.1]), answers("b", [0.1], [0.9, 0.1]))
        assert rate.value == pytest.approx(0.75)

    def test_is_a_half_against_itself(self) -> None:
        same = answers("a", [0.9, 0.1], [0.3, 0.2])
        assert win_rate(same, same).value == pytest.approx(0.5)


class TestKl:
    def test_is_the_mean_over_responses(self) -> None:
        assert kl(answers("a", [0.5, 0.5], kls=(2.0, 4.0))).value == pytest.approx(3.0)

    def test_refuses_samples_without_a_reference(self) -> None:
        with pytest.raises(ValueError, match="--reference"):
            kl(answers("a", [0.5, 0.5], kls=(2.0, None)))


class TestDescribe:
    def test_measures_each_category_and_what_differs(self) -> None:
        prompts = [HeldOutPrompt("p0", ASK, "closed_qa"), HeldOutPrompt("p1", ASK, "chat")]
        texts = {"p0": ("same", "same"), "p1": ("one", "other")}
        model = Answers(
            "a",
            {key: tuple(Answer(text, "stop", 4) for text in pair) for key, pair in texts.items()},
            {"p0": (score(0.2), score(0.4)), "p1": (score(1.0), score(1.0))},
        )
        numbers = describe(model, prompts)
        assert numbers.gold.value == pytest.approx(0.65)
        assert {name: one.value for name, one in numbers.by_category.items()} == pytest.approx(
            {"chat": 1.0, "closed_qa": 0.3}
        )
        assert (numbers.distinct, numbers.length_tokens, numbers.ended) == (0.75, 4.0, 1.0)
        assert numbers.components == pytest.approx({"asked": 0.65})

    def test_pairs_the_change_of_a_category_by_prompt(self) -> None:
        prompts = [HeldOutPrompt("p0", ASK, "chat"), HeldOutPrompt("p1", ASK, "chat")]
        change = change_by_category(answers("a", [0.3], [0.9]), answers("b", [0.1], [0.7]), prompts)["chat"]
        assert (change.value, change.low, change.high) == pytest.approx((0.2, 0.2, 0.2))  # both prompts rose by 0.2


class TestJudge:
    def test_scores_by_the_gold_preference(self) -> None:
        good, bad = Answer("The fox is red.", "stop", 6), Answer("", "stop", 1)
        scores = judge("a", [HeldOutPrompt("p", ASK, "open_qa")], {"p": (good, bad)}).gold["p"]
        assert scores[0].total > scores[1].total == 0.0

    def test_refuses_a_prompt_without_answers(self) -> None:
        with pytest.raises(ValueError, match="held-out prompt p"):
            judge("a", [HeldOutPrompt("p", ASK, "open_qa")], {})


class TestLabelledPairs:
    GOOD, BAD = ("The fox is red.", "stop"), ("The duck sang", "length")

    def test_keeps_the_labeller_s_order_and_says_by_how_much_gold_agrees(self) -> None:
        (right,) = labelled_pairs("p", ASK, [self.GOOD, self.BAD], [1, 2])
        (slip,) = labelled_pairs("p", ASK, [self.GOOD, self.BAD], [2, 1])
        margin = gold.score(ASK, *self.GOOD).total - gold.score(ASK, *self.BAD).total
        assert margin > 0.5
        assert right == LabelledPair("p", self.GOOD, self.BAD, margin)
        assert slip == LabelledPair("p", self.BAD, self.GOOD, -margin)

    def test_keeps_what_the_labeller_ordered_though_gold_ties_it(self) -> None:
        (tied,) = labelled_pairs("p", ASK, [("", "stop"), ("?", "stop")], [1, 2])
        assert tied.gold_margin == 0.0

    @pytest.mark.parametrize("tiers", [[1, 1], [1, None]])
    def test_leaves_out_what_the_labeller_did_not_order(self, tiers: list[int | None]) -> None:
        assert labelled_pairs("p", ASK, [self.GOOD, self.BAD], tiers) == []


class TestComparisons:
    def test_counts_pairs_that_are_not_tied(self) -> None:
        assert comparisons([1, 1, 2, None]) == 2


class TestRewardNumbers:
    PAIRS = (
        LabelledPair("p", ("long good answer", "stop"), ("bad", "stop"), 0.4),
        LabelledPair("p", ("bad", "stop"), ("long good answer", "stop"), -0.4),
        LabelledPair("q", ("good", "stop"), ("evil", "stop"), 0.2),
    )

    def test_compares_the_model_the_ceiling_and_length_on_the_same_pairs(self) -> None:
        numbers = reward_numbers(self.PAIRS, lambda prompt, said: float("good" in said[0]))
        # p: right on one of two; q: right. Lengths: p one of two, q equal -> 1/2.
        assert numbers.accuracy.value == pytest.approx(0.75)
        assert numbers.noise_ceiling.value == pytest.approx(0.75)
        assert numbers.longer_wins.value == pytest.approx(0.5)
        assert (numbers.pairs, numbers.prompts) == (3, 2)

    def test_refuses_an_empty_set(self) -> None:
        with pytest.raises(ValueError, match="no labelled pair"):
            reward_numbers([], lambda prompt, said: 0.0)
