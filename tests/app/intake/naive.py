"""Likeness written the slow way, letter by letter and set by set, for the tests to compare with."""

import unicodedata
from collections.abc import Sequence

SCRIPTS_WITHOUT_SPACES = ("CJK UNIFIED", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR")


def words(text: str) -> list[str]:
    found: list[str] = []
    is_open = False
    for letter in unicodedata.normalize("NFKC", text).casefold():
        category = unicodedata.category(letter)
        if category == "Cf" or "\ufe00" <= letter <= "\ufe0f":
            continue
        if letter == "`" or category == "Cc" or (category[0] in "PZ" and letter not in "#%&*/"):
            is_open = False
        elif unicodedata.name(letter, "").startswith(SCRIPTS_WITHOUT_SPACES):
            found.append(letter)
            is_open = False
        elif is_open:
            found[-1] += letter
        else:
            found.append(letter)
            is_open = True
    return found


def shingles(text: str) -> set[tuple[str, ...]]:
    said = words(text)
    return {tuple(said[at : at + 3]) for at in range(max(len(said) - 2, min(len(said), 1)))}


def jaccard(first: str, second: str) -> float:
    one, other = shingles(first), shingles(second)
    return len(one & other) / len(one | other) if one | other else 0.0


def candidates(
    stored: Sequence[tuple[int, Sequence[int]]], keys: Sequence[int], before: int | None, most: int
) -> list[int]:
    """Each key has its `most` oldest prompts; of those, the ones that share most keys, then the oldest, in order of age."""
    shared: dict[int, int] = {}
    for key in keys:
        owners = sorted(id_ for id_, own in stored if key and key in own)[:most]
        for id_ in owners:
            if before is None or id_ < before:
                shared[id_] = shared.get(id_, 0) + 1
    return sorted(sorted(shared, key=lambda id_: (-shared[id_], id_))[:most])
