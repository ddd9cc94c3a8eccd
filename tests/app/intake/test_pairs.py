import pytest

from app.intake.pairs import read_pairs


def pair(left: str, right: str, p_left: float) -> dict:
    return {"left": left, "right": right, "p_left": p_left, "strength": None}


class TestReadPairs:
    def test_order_with_a_tie_and_one_left_out(self):
        pairs = [pair("a", "b", 0.5), pair("c", "a", 0.9), pair("b", "c", 0.1)]
        assert read_pairs(pairs, ["a", "b", "c", "d"]) == [2, 2, 1, None]

    @pytest.mark.parametrize(
        "pairs",
        [
            [pair("a", "b", 1), pair("b", "c", 1), pair("c", "a", 1)],
            [pair("a", "b", 1), pair("c", "d", 1)],
            [pair("a", "b", 1), pair("b", "c", 1)],
            [pair("a", "b", 0.5), pair("b", "c", 0.5), pair("a", "c", 1)],
        ],
    )
    def test_what_is_no_order(self, pairs):
        with pytest.raises(ValueError, match="uncompared or contradict"):
            read_pairs(pairs, ["a", "b", "c", "d"])

    @pytest.mark.parametrize(
        "pairs", ["x", [1], [pair("a", "z", 1)], [pair("a", "b", 2)], [pair("a", "b", True)], [{"left": []}]]
    )
    def test_what_is_no_pair(self, pairs):
        with pytest.raises(ValueError, match="pair"):
            read_pairs(pairs, ["a", "b"])
