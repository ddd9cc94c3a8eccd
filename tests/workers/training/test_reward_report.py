import json
from types import SimpleNamespace

import pytest
import torch

from app import statistics
from workers.training import rankings, reward_report
from workers.training.data import Pair
from workers.training.rankings import Judgement, RankedSet
from workers.training.reward_report import LISTED, evaluate


def judgement(tiers, **who):
    levels = torch.tensor(tiers)
    return Judgement((levels[:, None] < levels[None, :]).float(), torch.zeros(len(tiers), len(tiers)), **who)


def ranked(prompt, *judgements, lengths=(3, 2, 1)):
    outputs = len(judgements[0].preferred)
    return RankedSet(prompt, [Pair([1], [2] * lengths[at]) for at in range(outputs)], list(judgements))


def scorer(scores):
    return SimpleNamespace(score_all=lambda sets: scores)


class TestEvaluate:
    def test_parts_by_who_judged_how_and_when(self):
        sets = [
            ranked("p", judgement([1, 2], labeller="x", group="g", confidence=10, round=1)),
            ranked(
                "q", judgement([2, 1], labeller="y", group="g", confidence=9, round=2), judgement([1, 2], labeller="y")
            ),
        ]
        found = evaluate(scorer([[1.0, 0.0], [1.0, 0.0]]), sets)["by"]
        assert {part: report["accuracy"] for part, report in found["labeller"].items()} == {"x": 1.0, "y": 0.5}
        assert {part: report["accuracy"] for part, report in found["group"].items()} == {"g": 0.5, "unknown": 1.0}
        # by size, not by first digit
        assert [(part, report["accuracy"]) for part, report in found["confidence"].items()] == [
            ("9", 0.0),
            ("10", 1.0),
            ("unknown", 1.0),
        ]
        assert list(found["round"]) == ["1", "2", "unknown"]

    def test_a_part_is_counted_and_has_longer_wins_beside_it(self):
        sets = [ranked("p", judgement([1, 2, 3], labeller="x")), ranked("q", judgement([3, 2, 1], labeller="x"))]
        found = evaluate(scorer([[3.0, 2.0, 1.0], [1.0, 2.0, 3.0]]), sets)
        report = found["by"]["labeller"]["x"]
        assert (report["accuracy"], report["longer_wins"], report["prompts"], report["comparisons"]) == (1.0, 0.5, 2, 6)
        assert (found["accuracy"], found["longer_wins"], found["heldout_comparisons"]) == (1.0, 0.5, 6)
        assert report["low"] == report["high"] == 1.0

    def test_what_nobody_said_is_no_part(self):
        found = evaluate(scorer([[1.0, 0.0]]), [ranked("p", judgement([1, 2], labeller="x"))])
        assert set(found["by"]) == {"labeller"}

    def test_lists_so_many_labellers_and_puts_the_others_together(self):
        sets = [
            ranked(f"p{at}", *[judgement([1, 2], labeller=f"l{at:02}")] * (1 if at < 5 else 2))
            for at in range(LISTED + 5)
        ]
        found = evaluate(scorer([[1.0, 0.0]] * len(sets)), sets)["by"]["labeller"]
        assert list(found) == [f"l{at:02}" for at in range(5, LISTED + 5)] + ["others"]
        assert found["others"]["comparisons"] == 5

    def test_calibration_is_that_of_the_scores(self):
        sets = [ranked("p", judgement([1, 2, 3])), ranked("q", judgement([2, 1, 3]))]
        scores = [[2.0, 1.7, 0.0], [0.1, 0.0, -3.0]]
        report = evaluate(scorer(scores), sets)["calibration"]
        expected = statistics.calibration(pair for _, pair in rankings.comparisons(sets, scores))
        assert report["error"] == pytest.approx(expected.error, abs=1e-4)
        assert [bin["accuracy"] for bin in report["bins"]] == [
            pytest.approx(bin.accuracy, abs=1e-4) for bin in expected.bins
        ]
        assert sum(bin["share"] for bin in report["bins"]) == pytest.approx(1.0, abs=1e-3)

    def test_is_small_and_strictly_json(self):
        sets = [ranked(f"p{at}", judgement([1, 2, 3], labeller=f"l{at}", round=at, confidence=at)) for at in range(200)]
        text = json.dumps(evaluate(scorer([[9.0, 5.0, -900.0]] * 200), sets), allow_nan=False)
        assert len(text) < 10_000

    def test_of_nothing_is_nothing(self):
        assert evaluate(scorer([]), []) == {}
        assert reward_report.accuracy(scorer([]), []) is None
