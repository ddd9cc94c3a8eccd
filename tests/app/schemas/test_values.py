"""Single values from outside."""

import pytest

from app.schemas.values import storable


class TestStorable:
    @pytest.mark.parametrize("text", ["", "A gull.", "\u00e9\u4e2d\U0001f600"])
    def test_leaves_what_can_be_stored(self, text: str) -> None:
        assert storable(text) == text

    @pytest.mark.parametrize(("text", "stored"), [("a\0b", "a\ufffdb"), ("\ud800!", "?!")])
    def test_marks_the_place_of_what_cannot(self, text: str, stored: str) -> None:
        assert storable(text) == stored
