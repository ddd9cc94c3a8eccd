import pytest
import torch

from app.snapshot import SnapshotError
from tests.workers.training.factories import make_tokenizer, ranking, write_rankings
from workers.training import rankings
from workers.training.rankings import RankedSet


def read(tmp_path, rows, context=64, **options):
    return rankings.read(write_rankings(tmp_path / "rankings", rows), make_tokenizer(), context, **options)


class TestRead:
    def test_judgements_of_one_set_of_outputs_are_one_row_whatever_their_order(self, tmp_path):
        one = ranking(0, "who", ["cat", "hat", "dog"], [1, 2, 3], samples=["a", "b", "c"])
        other = ranking(1, "who", ["dog", "cat", "hat"], [2, 1, 1], samples=["c", "a", "b"], weight=0.5)
        (element,) = read(tmp_path, [one, other]).train
        assert len(element.outputs) == 3
        first, second = element.judgements
        assert (first.weight, second.weight, element.weight) == (1.0, 0.5, 1.5)
        assert first.preferred.tolist() == [[0, 1, 1], [0, 0, 1], [0, 0, 0]]
        assert second.preferred.tolist() == [[0, 0, 1], [0, 0, 1], [0, 0, 0]]  # a and b tied above c

    def test_keeps_who_judged_how(self, tmp_path):
        row = ranking(0, "who", ["cat", "hat"], [1, 2]) | {"group": "g", "confidence": 3, "round": 2, "labeller": None}
        (judgement,) = read(tmp_path, [row]).train[0].judgements
        assert (judgement.labeller, judgement.group, judgement.confidence, judgement.round) == (None, "g", 3, 2)

    def test_judgements_without_comparison_are_counted(self, tmp_path):
        found = read(
            tmp_path, [ranking(0, "who", ["cat", "hat"], [1, 1]), ranking(1, "who", ["cat", "hat"], [1, None])]
        )
        assert (found.train, found.dropped_judgements) == ([], 2)
        assert found.judgements == {"tied": 1, "unranked": 1}

    def test_judgements_of_one_output_or_no_weight_are_counted(self, tmp_path):
        rows = [
            ranking(0, "who", ["cat"], [1]),
            ranking(1, "who", ["cat", "dog " * 90], [1, 2]),
            ranking(2, "who", ["cat", "hat"], [1, 2], weight=0.0),
            ranking(3, "who", [], []),
        ]
        found = read(tmp_path, rows)
        assert found.train == []
        assert found.judgements == {"one_output": 3, "no_weight": 1}

    def test_a_held_out_judgement_of_no_weight_is_measured(self, tmp_path):
        rows = [ranking(0, "who", ["cat", "hat"], [1, 2], weight=0.0, split="valid")]
        assert len(read(tmp_path, rows).valid) == 1

    def test_outputs_that_are_too_long_leave_the_ranking_and_are_counted(self, tmp_path):
        found = read(tmp_path, [ranking(0, "who", ["cat", "hat", "dog " * 90], [1, 2, 3])])
        assert found.dropped_outputs == 1
        assert len(found.train[0].outputs) == 2

    def test_direct_comparisons_go_before_tiers(self, tmp_path):
        pairs = [{"left": "a", "right": "b", "p_left": 0.75, "strength": 2}]
        found = read(tmp_path, [ranking(0, "who", ["cat", "hat"], [None, None], samples=["a", "b"], pairs=pairs)])
        (judgement,) = found.train[0].judgements
        assert judgement.preferred.tolist() == [[0, 0.75], [0.25, 0]]
        assert judgement.strength.tolist() == [[0, 1], [-1, 0]]

    @pytest.mark.parametrize(
        ("p_left", "strength", "levels"), [(1.0, 1, 0), (1.0, 4, 3), (0.0, 4, -3), (1.0, None, 0), (0.2, 2, -1)]
    )
    def test_strength_is_in_levels_above_the_slightest_and_towards_the_better(self, tmp_path, p_left, strength, levels):
        pairs = [{"left": "a", "right": "b", "p_left": p_left, "strength": strength}]
        found = read(tmp_path, [ranking(0, "who", ["cat", "hat"], [None, None], samples=["a", "b"], pairs=pairs)])
        assert found.train[0].judgements[0].strength.tolist() == [[0, levels], [-levels, 0]]

    def test_a_direct_comparison_stands_in_the_place_of_what_the_tiers_say_of_its_pair(self, tmp_path):
        pairs = [{"left": "c", "right": "a", "p_left": 1.0, "strength": 3}]
        row = ranking(0, "who", ["cat", "hat", "dog"], [2, 2, 1], samples=["a", "b", "c"], pairs=pairs)
        (judgement,) = read(tmp_path, [row]).train[0].judgements
        assert judgement.preferred.tolist() == [[0, 0, 0], [0, 0, 0], [1, 1, 0]]
        assert judgement.strength.tolist() == [[0, 0, -2], [0, 0, 0], [2, 0, 0]]

    def test_ties_are_dropped_unless_they_are_asked_for_and_in_held_out_data_always(self, tmp_path):
        tied = {"left": "a", "right": "b", "p_left": 0.5, "strength": 3}
        rows = [
            ranking(0, "who", ["cat", "hat", "dog"], [1, 1, 2]),
            ranking(1, "who", ["cat", "hat"], [None, None], samples=["a", "b"], pairs=[tied]),
            ranking(2, "who", ["cat", "hat", "dog"], [1, 1, 2], split="valid"),
        ]
        dropped = read(tmp_path / "dropped", rows)
        assert [one.preferred.tolist() for element in dropped.train for one in element.judgements] == [
            [[0, 0, 1], [0, 0, 1], [0, 0, 0]]
        ]
        assert dropped.judgements == {"tied": 1}
        kept = read(tmp_path / "kept", rows, tie=0.5)
        assert [one.preferred.tolist() for element in kept.train for one in element.judgements] == [
            [[0, 0.5, 1], [0.5, 0, 1], [0, 0, 0]],
            [[0, 0.5], [0.5, 0]],
        ]
        assert not kept.train[1].judgements[0].strength.any()
        assert kept.valid[0].judgements[0].preferred.tolist() == [[0, 0, 1], [0, 0, 1], [0, 0, 0]]

    def test_an_output_cut_at_the_limit_carries_no_end_token(self, tmp_path):
        tokenizer = make_tokenizer()
        found = read(tmp_path, [ranking(0, "who", ["cat", "hat"], [1, 2], finish="length")])
        assert all(output.response[-1] != tokenizer.eos_token_id for output in found.train[0].outputs)

    def test_an_empty_output_that_ended_is_ranked_by_its_end_token(self, tmp_path):
        found = read(tmp_path, [ranking(0, "who", ["cat", ""], [1, 2])])
        assert [output.response[-1:] for output in found.train[0].outputs] == [[make_tokenizer().eos_token_id]] * 2
        assert len(found.train[0].outputs[1].response) == 1
        assert found.outputs["empty"] == 1

    def test_an_output_without_any_token_leaves_the_ranking_and_is_counted(self, tmp_path):
        found = read(tmp_path, [ranking(0, "who", ["cat", "", "hat"], [1, 2, 3], finish="length")])
        assert len(found.train[0].outputs) == 2
        assert (found.outputs["without_tokens"], found.outputs["cut"], found.dropped_outputs) == (1, 2, 1)

    def test_splits(self, tmp_path):
        rows = [
            ranking(i, f"who {i}", ["cat", "hat"], [1, 2], split=split)
            for i, split in enumerate(("train", "valid", "test"))
        ]
        found = read(tmp_path, rows)
        assert (len(found.train), len(found.valid)) == (1, 1)


def broken(**changes):
    return ranking(7, "who", ["cat", "hat"], [1, 2], samples=["a", "b"]) | changes


def with_response(**changes):
    row = broken()
    row["responses"][1] |= changes
    return row


def with_pair(**changes):
    return broken(pairs=[{"left": "a", "right": "b", "p_left": 1.0, "strength": None} | changes])


class TestBadRows:
    @pytest.mark.parametrize(
        ("row", "words"),
        [
            (with_response(text=None), "the text of sample 'b' is None; expected a string"),
            (with_response(text=["cat"]), "expected a string"),
            (with_response(tier=0), "the tier of sample 'b' is 0; expected 1"),
            (with_response(tier="2"), "the tier of sample 'b' is '2'"),
            (with_response(sample="a"), "lists one sample twice"),
            (with_pair(right="c"), "compares sample 'c', which is not among its responses"),
            (with_pair(p_left=1.5), "p_left is 1.5; expected a probability"),
            (with_pair(strength=5), "strength is 5; expected 1"),
            (broken(weight=-1.0), "weight is -1.0; expected a number of 0 or more"),
            (broken(weight=float("nan")), "weight is nan"),
            (broken(prompt=[]), "the conversation is empty"),
            (broken(prompt=[{"role": "assistant", "content": "hi"}]), "ends in a assistant turn"),
            (broken(prompt=[{"content": "who"}]), "lacks the key 'role'"),
            (broken(responses=None), "not iterable"),
        ],
    )
    def test_are_refused_by_file_and_id(self, tmp_path, row, words):
        with pytest.raises(SnapshotError, match=rf"rankings\.jsonl, row 'r7'.*{words}"):
            read(tmp_path, [ranking(0, "who", ["cat", "hat"], [1, 2]), row])

    @pytest.mark.parametrize("key", ["split", "prompt_id", "prompt", "responses", "pairs", "labeller", "weight"])
    def test_a_missing_key_is_named(self, tmp_path, key):
        row = broken()
        del row[key]
        with pytest.raises(SnapshotError, match=rf"row 'r7' lacks the key '{key}'"):
            read(tmp_path, [row])

    def test_a_missing_key_of_a_response_is_named(self, tmp_path):
        row = broken()
        del row["responses"][0]["tier"]
        with pytest.raises(SnapshotError, match="row 'r7' lacks the key 'tier'"):
            read(tmp_path, [row])

    def test_a_row_without_an_id_is_named_by_its_number(self, tmp_path):
        row = broken(weight=-1.0)
        del row["id"]
        with pytest.raises(SnapshotError, match=r"rankings\.jsonl, line 2: weight"):
            read(tmp_path, [broken(), row])


class TestHalves:
    def test_are_disjoint_cover_all_and_are_about_equal(self):
        sets = [RankedSet(f"prompt {at}", []) for at in range(1000)]
        zero, one = rankings.of_half(sets, 0), rankings.of_half(sets, 1)
        assert {element.prompt_id for element in zero}.isdisjoint(element.prompt_id for element in one)
        assert len(zero) + len(one) == 1000
        assert 400 < len(zero) < 600

    def test_keep_every_set_of_a_prompt_together_and_do_not_change(self):
        assert [rankings.half(name) for name in ("p0", "p1", "p2", "p3")] == [0, 0, 1, 1]


class TestWithout:
    def test_takes_out_judgements_and_sets_without_any_left(self, tmp_path):
        shared = ["a", "b"]
        rows = [
            ranking(0, "who", ["cat", "hat"], [1, 2], samples=shared, labeller="x"),
            ranking(1, "who", ["cat", "hat"], [2, 1], samples=shared, labeller="y"),
            ranking(2, "what", ["cat", "hat"], [1, 2], labeller="x"),
        ]
        sets = read(tmp_path, rows).train
        (rest,) = rankings.without(sets, {"x"})
        assert [judgement.labeller for judgement in rest.judgements] == ["y"]
        assert [len(element.judgements) for element in sets] == [2, 1]


class TestTargets:
    def test_lay_sets_of_different_sizes_end_to_end(self, tmp_path):
        pairs = [{"left": "a", "right": "b", "p_left": 0.0, "strength": 3}]
        rows = [
            ranking(0, "who", ["cat", "hat"], [None, None], samples=["a", "b"], pairs=pairs),
            ranking(1, "what", ["cat", "hat", "dog"], [1, 2, 3], weight=0.5),
        ]
        places, preferred, strength, weights = rankings.targets(read(tmp_path, rows).train)
        assert places.tolist() == [[0, 1, 0], [2, 3, 4]]
        assert preferred.sum((1, 2)).tolist() == [1, 3]
        assert torch.equal(preferred[0, 2], torch.zeros(3))
        assert strength.tolist() == [[[0, -2, 0], [2, 0, 0], [0, 0, 0]], [[0.0] * 3] * 3]
        assert weights.tolist() == [1, 0.5]


class TestComparisons:
    def test_pairs_the_numbers_of_preferred_and_other(self, tmp_path):
        found = rankings.comparisons(
            read(tmp_path, [ranking(0, "who", ["cat", "hat", "dog"], [2, 1, 2])]).train, [[10.0, 20.0, 30.0]]
        )
        assert [(pair.prompt, pair.better, pair.worse) for _, pair in found] == [
            ("who", 20.0, 10.0),
            ("who", 20.0, 30.0),
        ]

    @pytest.mark.parametrize(("p_left", "better"), [(0.9, 1.0), (0.1, 2.0)])
    def test_a_soft_judge_prefers_the_likelier(self, tmp_path, p_left, better):
        pairs = [{"left": "a", "right": "b", "p_left": p_left, "strength": None}]
        sets = read(tmp_path, [ranking(0, "who", ["cat", "hat"], [None, None], samples=["a", "b"], pairs=pairs)]).train
        ((judgement, pair),) = rankings.comparisons(sets, [[1.0, 2.0]])
        assert pair.better == better
        assert judgement is sets[0].judgements[0]

    def test_a_tie_is_none(self, tmp_path):
        rows = [ranking(0, "who", ["cat", "hat", "dog"], [1, 1, 2])]
        found = rankings.comparisons(read(tmp_path, rows, tie=0.5).train, [[1.0, 2.0, 3.0]])
        assert [(pair.better, pair.worse) for _, pair in found] == [(1.0, 3.0), (2.0, 3.0)]
