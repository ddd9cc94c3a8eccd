"""Says which prompts are the same, nearly the same, or begin alike: fingerprints, sketch keys, and the exact comparison.

A sketch finds pairs that may be near without comparing all with all: MinHash over shingles of three words, folded into bands
(Broder 1997; Leskovec, Rajaraman, Ullman, "Mining of Massive Datasets", section 3.4). What it finds is then compared exactly.
The common long prefix is the paper's own filter (InstructGPT, section 3.2), which names no length.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from typing import TYPE_CHECKING

from app.intake.words import chunks, compose, mix, read_words, sum_span

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

    Keys = NDArray[numpy.uint64]

Messages = Sequence[Mapping[str, str]]

BANDS = 6
ROWS_PER_BAND = 4
"""Six bands of four: a pair of Jaccard s shares a band with 1 - (1 - s**4)**6, which is 0.96 at 0.8 and 0.99 at 0.85."""

KEYS_PER_PROMPT = BANDS + 1
"""One key a band, and the last for the long prefix."""

PREFIX_CHARACTERS = 200
"""Characters of the plain text (see `words`) that two prompts must have in common at their beginning."""

THRESHOLD = 0.8
"""Jaccard of the sets of shingles from which two texts are near."""

_PART_CHARACTERS = 4_000_000
"""Compared at once: the shingles of a text take some ten times its memory."""

_encode = json.JSONEncoder(ensure_ascii=False).encode


class Likeness(StrEnum):
    """How a prompt is like an earlier one."""

    NEAR = "near"
    """At least `THRESHOLD` of their shingles are shared."""
    PREFIX = "prefix"
    """Their first `PREFIX_CHARACTERS` characters are the same, and what follows is not near."""


@dataclass(frozen=True, slots=True)
class _Text:
    """What the comparison looks at."""

    shingles: Set[int]
    prefix: bytes | None
    """The first `PREFIX_CHARACTERS` characters of the plain text, as code points; None where it has fewer."""


def fingerprint(messages: Messages) -> bytes:
    """sha256 of the turns, Unicode composed (NFC) and runs of white space made one blank. Stored rows depend on every byte."""
    turns = [f"[{_encode(message['role'])}, {_encode(_join_blanks(message['content']))}]" for message in messages]
    return hashlib.sha256(f"[{', '.join(turns)}]".encode()).digest()


def sketch(texts: Sequence[str]) -> "Keys":
    """Keys (N, KEYS_PER_PROMPT) of last user turns; texts that are near or begin alike share one. 0 is no key."""
    import numpy as np

    keys = np.zeros((len(texts), KEYS_PER_PROMPT), dtype=np.uint64)
    for rows in chunks(texts):
        words = read_words(texts[rows])
        part = keys[rows]
        filled = np.flatnonzero(np.diff(words.shingle_offsets))
        if filled.size:
            part[filled, :BANDS] = _fold(_min_hashes(words.shingles, words.shingle_offsets[filled]))
        long = np.flatnonzero(words.lengths >= PREFIX_CHARACTERS)
        begins = words.begins[long]
        part[long, BANDS] = _never_zero(mix(sum_span(words, begins, begins + PREFIX_CHARACTERS)))
    return keys


def is_near(first: str, second: str, threshold: float = THRESHOLD) -> bool:
    """Whether two texts have such a part of their shingles in common; a text without a word is near to none."""
    one, other = _read([first, second])
    return _reaches(one.shingles, other.shingles, threshold)


def shares_prefix(first: str, second: str) -> bool:
    """Whether two texts begin with the same `PREFIX_CHARACTERS` characters of plain text; shorter ones never do."""
    one, other = _read([first, second])
    return _begin_alike(one, other)


def are_alike(first: Messages, second: Messages) -> Likeness | None:
    """How one prompt is like another, or None; `compare` is quicker for many."""
    return compare([(first, second)])[0]


def compare(pairs: Sequence[tuple[Messages, Messages]]) -> list[Likeness | None]:
    """How the prompts of each pair are alike, system turns left aside.

    The last user turns decide. Conversations are near only where the whole is near as well: many end with "continue", and
    siblings share all but their end. They begin alike only where all that went before is the same.
    """
    return [like for part in _parts(pairs) for like in _compare(part)]


def _parts(pairs: Sequence[tuple[Messages, Messages]]) -> Iterator[Sequence[tuple[Messages, Messages]]]:
    """The pairs in parts of some `_PART_CHARACTERS`, a prompt counted once however often it is there."""
    begin = size = 0
    seen: set[int] = set()
    for at, pair in enumerate(pairs):
        for messages in pair:
            if id(messages) not in seen:
                seen.add(id(messages))
                size += sum(len(message["content"]) for message in messages)
        if size >= _PART_CHARACTERS:
            yield pairs[begin : at + 1]
            begin, size = at + 1, 0
            seen.clear()
    if begin < len(pairs):
        yield pairs[begin:]


def _compare(pairs: Sequence[tuple[Messages, Messages]]) -> list[Likeness | None]:
    turns = [(_without_system(first), _without_system(second)) for first, second in pairs]
    lasts = _read_pairs([(first[-1]["content"], second[-1]["content"]) for first, second in turns])
    found = [_relate(first, second) for first, second in lasts]
    talks = [at for at, pair in enumerate(turns) if found[at] and max(map(len, pair)) > 1]
    wholes = _read_pairs([(_join(turns[at][0]), _join(turns[at][1])) for at in talks])
    for at, (first, second) in zip(talks, wholes, strict=True):
        if found[at] is Likeness.NEAR and _reaches(first.shingles, second.shingles, THRESHOLD):
            continue
        begin_alike = _begin_alike(*lasts[at]) and _have_one_history(*turns[at])
        found[at] = Likeness.PREFIX if begin_alike else None
    return found


def _join_blanks(text: str) -> str:
    text = compose(text, "NFC")
    if text.isprintable() and "  " not in text and text[:1] != " " != text[-1:]:
        return text  # of white space, only the blank is printable: there is nothing to mend, as in most texts
    return " ".join(text.split())


def _without_system(messages: Messages) -> Messages:
    said = [message for message in messages if message["role"] != "system"]
    if not said:
        raise ValueError(
            f"a prompt of {len(messages)} turns has none by a user; expected one at its end that is to be answered. Add it."
        )
    return said


def _join(messages: Messages) -> str:
    return "\n".join(message["content"] for message in messages)


def _have_one_history(first: Messages, second: Messages) -> bool:
    return len(first) == len(second) and fingerprint(first[:-1]) == fingerprint(second[:-1])


def _relate(first: _Text, second: _Text) -> Likeness | None:
    if _reaches(first.shingles, second.shingles, THRESHOLD):
        return Likeness.NEAR
    return Likeness.PREFIX if _begin_alike(first, second) else None


def _reaches(first: Set[int], second: Set[int], threshold: float) -> bool:
    """Whether the Jaccard of two sets, neither of them empty, is at least the threshold."""
    fewer, more = sorted((len(first), len(second)))
    if fewer == 0 or fewer < threshold * more:
        return False
    shared = len(first & second)
    return shared / (fewer + more - shared) >= threshold


def _begin_alike(first: _Text, second: _Text) -> bool:
    return first.prefix is not None and first.prefix == second.prefix


def _read_pairs(pairs: Sequence[tuple[str, str]]) -> list[tuple[_Text, _Text]]:
    """Both texts of each pair, each read once in however many pairs it is."""
    texts = list(dict.fromkeys(text for pair in pairs for text in pair))
    read = dict(zip(texts, _read(texts), strict=True))
    return [(read[first], read[second]) for first, second in pairs]


def _read(texts: Sequence[str]) -> list[_Text]:
    read: list[_Text] = []
    for rows in chunks(texts):
        words = read_words(texts[rows])
        shingles, offsets = words.shingles.tolist(), words.shingle_offsets.tolist()
        read += [
            _Text(
                shingles=frozenset(shingles[offsets[at] : offsets[at + 1]]),
                prefix=words.points[begin : begin + PREFIX_CHARACTERS].tobytes()
                if length >= PREFIX_CHARACTERS
                else None,
            )
            for at, (begin, length) in enumerate(zip(words.begins.tolist(), words.lengths.tolist(), strict=True))
        ]
    return read


def _min_hashes(shingles: "Keys", begins: "NDArray[numpy.int64]") -> "Keys":
    """MinHash (N, BANDS * ROWS_PER_BAND) of the texts whose shingles begin there, none of them empty."""
    import numpy as np

    factors, terms = _permutations()
    least = np.empty((BANDS * ROWS_PER_BAND, len(begins)), dtype=np.uint64)
    for factor, term, row in zip(factors, terms, least, strict=True):
        np.minimum.reduceat(shingles * factor + term, begins, out=row)
    return least.T


@cache
def _permutations() -> "tuple[Keys, Keys]":
    """Odd factors and terms, a pair for each permutation of the numbers below 2**64."""
    import numpy as np

    numbers = mix(np.arange(1, 2 * BANDS * ROWS_PER_BAND + 1, dtype=np.uint64))
    return numbers[::2] | np.uint64(1), numbers[1::2]


def _fold(least: "Keys") -> "Keys":
    """One key (N, BANDS) of each band's values, its number mixed in, so that two bands never match."""
    import numpy as np

    bands = least.reshape(len(least), BANDS, ROWS_PER_BAND)
    keys = mix(np.arange(1, BANDS + 1, dtype=np.uint64))[np.newaxis, :]
    for row in range(ROWS_PER_BAND):
        keys = mix(keys ^ bands[:, :, row])
    return _never_zero(keys)


def _never_zero(keys: "Keys") -> "Keys":
    import numpy as np

    return np.maximum(keys, np.uint64(1))
