"""What changed between two texts: nothing is lost, and either version can be read off."""

import random
import re

import pytest

from app.changes import Change, compare


def read_off(former: str, present: str, gone: Change) -> list[str]:
    """The words of one version, from the comparison of both."""
    return [
        word
        for paragraph in compare(former, present)
        for part in paragraph.parts
        if part.change != gone
        for word in part.text.split()
    ]


def test_marks_the_words_that_were_added_and_removed() -> None:
    paragraphs = compare("Be kind.\n\nPrefer the short answer.", "Be kind.\n\nPrefer the true answer.\n\nSay why.")
    assert [[(part.change.value, part.text) for part in paragraph.parts] for paragraph in paragraphs] == [
        [("kept", "Be kind.")],
        [("kept", "Prefer the "), ("removed", "short "), ("added", "true "), ("kept", "answer.")],
        [("added", "Say why.")],
    ]


def test_paragraphs_with_little_in_common_follow_one_another() -> None:
    (first, second) = compare("Be kind and brief.", "Truth comes before anything else here.")
    assert [part.change for part in (*first.parts, *second.parts)] == [Change.REMOVED, Change.ADDED]


def test_the_same_text_has_no_change() -> None:
    assert not any(paragraph.is_changed for paragraph in compare("a\n\nb", "a\n \n\nb\n"))
    assert compare("", "") == []


@pytest.mark.parametrize("seed", range(20))
def test_either_version_can_be_read_off(seed: int) -> None:
    draw = random.Random(seed)
    former, present = (
        re.sub(r" (?=\S*7)", "\n\n", " ".join(str(draw.randrange(12)) for _ in range(draw.randrange(60)))) for _ in "ab"
    )
    assert sorted(read_off(former, present, Change.ADDED)) == sorted(former.split())
    assert read_off(former, present, Change.REMOVED) == present.split()


def test_a_long_rewrite_stays_quick() -> None:
    draw = random.Random(1)
    former, present = (" ".join(str(draw.randrange(500)) for _ in range(20_000)) for _ in "ab")
    assert len(compare(former, present)) == 2
