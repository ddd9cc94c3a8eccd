"""What a page tells of how a ranking was made: kept as far as it can be read."""

import json
from typing import Any

import pytest

from app.schemas.effort import read_effort

TOLD: dict[str, Any] = {
    "cards": {"a": {"ms": 1500, "depth": 1}, "b": {"ms": 0, "depth": 0.25}},
    "moves": 4,
    "undos": 1,
    "window": "wide",
}


def test_is_kept_as_told() -> None:
    assert read_effort(json.dumps(TOLD), ["a", "b"]) == TOLD


def test_tells_of_the_task_s_own_outputs_alone() -> None:
    assert read_effort(json.dumps(TOLD), ["b", "c"])["cards"] == {"b": {"ms": 0, "depth": 0.25}}


@pytest.mark.parametrize("text", ["", "{", "[]", "7", "null", '"cards"'])
def test_what_cannot_be_read_is_nothing(text: str) -> None:
    assert not read_effort(text, ["a"]).get("cards")


@pytest.mark.parametrize(
    "card",
    [
        None,
        [],
        {"ms": 1},
        {"ms": -1, "depth": 1},
        {"ms": True, "depth": 1},
        {"ms": 1, "depth": 2},
        {"ms": 1, "depth": "x"},
    ],
)
def test_a_card_that_makes_no_sense_is_left_out_by_itself(card: Any) -> None:
    found = read_effort(json.dumps(TOLD | {"cards": {"a": card, "b": {"ms": 7, "depth": 0.5}}}), ["a", "b"])
    assert found["cards"] == {"b": {"ms": 7, "depth": 0.5}}
    assert found["moves"] == 4


@pytest.mark.parametrize("changes", [{"moves": -1}, {"moves": 1.5}, {"moves": 10**9}])
def test_a_count_that_makes_no_sense_is_left_out(changes: dict[str, Any]) -> None:
    assert "moves" not in read_effort(json.dumps(TOLD | changes), ["a"])
    assert "window" not in read_effort(json.dumps(TOLD | {"window": "<script>"}), ["a"])
