"""Brings texts into the plain form in which their likeness is judged, many at once: words, shingles of three, and hashes.

Plain text is composed (NFKC) and casefolded, without punctuation and invisible characters, its words one blank apart. A letter
of a script that is written without spaces (Chinese, Japanese, Thai) is a word of its own. Hashes are explicit arithmetic modulo
2**64, the same on every machine and every version of Python and numpy, because keys made of them are stored.
"""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

    Hashes = NDArray[numpy.uint64]
    Places = NDArray[numpy.int64]

ALGORITHM = 1
"""Number of the way from a text to its keys. Raise it with any change here or in `sketch`: keys of two numbers never match."""

LONGEST_CHARACTERS = 2**20
"""Characters of a text that are looked at; of a longer one the beginning stands for the whole."""

_CHUNK_CHARACTERS = 2**16
"""Characters taken at once, so that the arrays stay within the processor's caches."""

_LONG_RUN = 300
"""Marks upon one letter that are too many to be left to Unicode's own sort of them. No language needs more than thirty."""

_SPACE, _WORD, _ALONE, _IGNORED, _END = range(5)

_KEPT_PUNCTUATION = "#%&*/"
"""Marks that carry sense, as in 12 * 7 or C#, and so are letters here, as all symbols (+, <, =, $) are."""

_ALONE_RANGES = (
    (0x0E00, 0x0FFF),  # Thai, Lao, Tibetan
    (0x1000, 0x109F),  # Myanmar
    (0x1780, 0x17FF),  # Khmer
    (0x1950, 0x19FF),  # Tai Le, New Tai Lue, Khmer symbols
    (0x1A20, 0x1AAF),  # Tai Tham
    (0x3005, 0x3007),  # ideographic iteration marks and zero
    (0x3040, 0x30FF),  # Hiragana, Katakana
    (0x31F0, 0x31FF),  # Katakana extensions
    (0x3400, 0x4DBF),  # Han
    (0x4E00, 0x9FFF),  # Han
    (0xA980, 0xA9FF),  # Javanese, Myanmar
    (0xAA60, 0xAA7F),  # Myanmar
    (0xF900, 0xFAFF),  # Han
    (0x1B000, 0x1B16F),  # Kana
    (0x20000, 0x3FFFF),  # Han
)

_IGNORED_RANGES = (
    (0x034F, 0x034F),  # combining grapheme joiner
    (0x115F, 0x1160),  # Hangul fillers
    (0x17B4, 0x17B5),  # Khmer inherent vowels
    (0x180B, 0x180F),  # Mongolian variation selectors
    (0xFE00, 0xFE0F),  # variation selectors
    (0xE0000, 0xE0FFF),  # tags, variation selectors
)

_BASE = 0x9E3779B97F4A7C15
_BASE_INVERSE = pow(_BASE, -1, 2**64)
_PLACE_IN_SHINGLE = (0xD1342543DE82EF95, 0xAF251AF3B0F025B5, 0xB564EF22EC7AECE5)


@dataclass(frozen=True, slots=True)
class Words:
    """A batch of N texts in plain form. Arrays that belong to a text are (N,), offsets (N + 1,)."""

    points: "NDArray[numpy.uint32]"
    """Code points of all texts, one text behind the other, each with a NUL at its end."""
    sums: "Hashes"
    """Running sum of code point times `_BASE` to the power of its place; the hash of any span is a difference of two."""
    begins: "Places"
    """Where in `points` a text begins."""
    lengths: "Places"
    """Characters of the plain text."""
    shingles: "Hashes"
    """Hashes of three words on end, text by text; a text of one or two words has one shingle, a text without words none."""
    shingle_offsets: "Places"


def chunks(texts: Sequence[str]) -> Iterator[slice]:
    """Slices of the texts that are each taken at once."""
    begin = size = 0
    for at, text in enumerate(texts):
        size += len(text)
        if size >= _CHUNK_CHARACTERS:
            yield slice(begin, at + 1)
            begin, size = at + 1, 0
    if begin < len(texts):
        yield slice(begin, len(texts))


def read_words(texts: Sequence[str]) -> Words:
    """Words of the texts, which must not be none. Memory is some 100 bytes a character."""
    import numpy as np

    points, kinds = _plain(texts)
    is_alone, is_letter = kinds == _ALONE, kinds == _WORD
    is_first, is_last = is_alone.copy(), is_alone
    is_first[1:] |= is_letter[1:] & ~is_letter[:-1]
    is_first[0] |= is_letter[0]
    is_last[:-1] |= is_letter[:-1] & ~is_letter[1:]  # the last is always a NUL
    firsts, word_ends = np.flatnonzero(is_first), np.flatnonzero(is_last) + 1

    ends = np.flatnonzero(kinds == _END)
    begins = np.concatenate(([0], ends[:-1] + 1))
    sums = np.zeros(len(points) + 1, dtype=np.uint64)
    np.cumsum(points * _powers(len(points))[0][: len(points)], out=sums[1:])
    hashes = mix(_sum_spans(sums, firsts, word_ends))
    shingles, shingle_offsets = _shingle(hashes, np.searchsorted(firsts, np.concatenate((begins, [len(points)]))))
    is_blank_ended = (kinds[ends - 1] == _SPACE) & (ends > begins)
    return Words(points, sums, begins, ends - begins - is_blank_ended, shingles, shingle_offsets)


def sum_span(words: Words, begins: "Places", ends: "Places") -> "Hashes":
    """Hashes of spans of the plain text, equal for equal characters wherever they stand; not mixed yet."""
    return _sum_spans(words.sums, begins, ends)


def mix(values: "Hashes") -> "Hashes":
    """Spread every bit over all 64, each value to another one (splitmix64's finaliser, Steele et al. 2014)."""
    import numpy as np

    mixed = values ^ (values >> np.uint64(30))
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> np.uint64(27)
    mixed *= np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    return mixed


def compose(text: str, form: Literal["NFC", "NFKC"]) -> str:
    """The text in a normal form of Unicode, as `unicodedata.normalize`, which takes minutes for a megabyte of accents.

    Its sort of marks upon one letter is quadratic, and linear where they are in order: long runs are brought in order first.
    """
    if text.isascii():
        return text
    if len(text) >= _LONG_RUN and _marks_in_a_row(3).search(
        text[:: _LONG_RUN // 3]
    ):  # a look at each hundredth is quick
        text = _marks_in_a_row(_LONG_RUN).sub(_order_marks, text)
    return unicodedata.normalize(form, text)


def _order_marks(run: re.Match[str]) -> str:
    marks = "".join(unicodedata.normalize("NFD", mark) for mark in run[0])
    return "".join(sorted(marks, key=unicodedata.combining))


@cache
def _marks_in_a_row(least: int) -> re.Pattern[str]:
    """Runs of what is, or is composed of, marks upon the letter before."""
    marks = (
        chr(point) for point in range(0x20000) if unicodedata.combining(unicodedata.normalize("NFD", chr(point))[0])
    )
    return re.compile(f"[{''.join(marks)}]{{{least},}}")


def _plain(texts: Sequence[str]) -> "tuple[NDArray[numpy.uint32], NDArray[numpy.uint8]]":
    """Code points of all texts in plain form and what each is: `_WORD`, `_ALONE`, `_SPACE`, or `_END` after each text."""
    import numpy as np

    joined = "\0".join([*(_read_letters(text) for text in texts), ""])
    if joined.count("\0") != len(texts):
        joined = "\0".join([*(_read_letters(text).replace("\0", " ") for text in texts), ""])
    joined = joined.casefold()
    points = (
        np.frombuffer(joined.encode(), dtype=np.uint8)
        if joined.isascii()
        else np.frombuffer(joined.encode("utf-32-le", "surrogatepass"), dtype="<u4")
    )
    kinds = _kinds()[points]
    is_kept = kinds != _IGNORED
    if not is_kept.all():
        points, kinds = points[is_kept], kinds[is_kept]
    is_kept = kinds != _SPACE
    is_kept[1:] |= (kinds[:-1] == _WORD) | (
        kinds[:-1] == _ALONE
    )  # of white space and punctuation, the first after a word
    points, kinds = points[is_kept].astype(np.uint32), kinds[is_kept]
    points[kinds == _SPACE] = ord(" ")
    return points, kinds


def _read_letters(text: str) -> str:
    return compose(text[:LONGEST_CHARACTERS], "NFKC")[:LONGEST_CHARACTERS]


def _shingle(words: "Hashes", offsets: "Places") -> "tuple[Hashes, Places]":
    """Hashes of three words on end within each text, and their offsets by text, (N + 1,)."""
    import numpy as np

    counts = np.diff(offsets)
    ends = np.repeat(offsets[1:], counts)
    places = np.arange(len(words))
    hashes = words * np.uint64(_PLACE_IN_SHINGLE[0])
    for step in (1, 2):
        following = np.zeros_like(words)
        following[:-step] = words[step:]
        hashes += np.where(places + step < ends, following, np.uint64(0)) * np.uint64(_PLACE_IN_SHINGLE[step])
    is_whole = places + 2 < ends
    is_whole[offsets[:-1][counts > 0]] = True  # the only shingle of a text of one or two words
    sizes = np.maximum(counts - 2, np.minimum(counts, 1))
    return mix(hashes[is_whole]), np.concatenate(([0], np.cumsum(sizes)))


def _sum_spans(sums: "Hashes", begins: "Places", ends: "Places") -> "Hashes":
    spans: Hashes = (sums[ends] - sums[begins]) * _powers(len(sums))[1][begins]
    return spans


def _powers(size: int) -> "tuple[Hashes, Hashes]":
    """At least as many powers of the base and of its inverse modulo 2**64."""
    return _powers_of_two_to(max(size, _CHUNK_CHARACTERS * 2).bit_length())


@cache
def _powers_of_two_to(bits: int) -> "tuple[Hashes, Hashes]":
    import numpy as np

    powers = [np.full(2**bits, base, dtype=np.uint64) for base in (_BASE, _BASE_INVERSE)]
    for each in powers:
        each[0] = 1
        np.multiply.accumulate(each, out=each)
    return powers[0], powers[1]


@cache
def _kinds() -> "NDArray[numpy.uint8]":
    """What each code point is. Unassigned ones are letters, as most are once they are assigned."""
    import numpy as np

    kinds = np.full(0x110000, _WORD, dtype=np.uint8)
    for first, last in _ALONE_RANGES:
        kinds[first : last + 1] = _ALONE
    for point in range(0x20000):
        letter = chr(point)
        category = unicodedata.category(letter)
        if category == "Cf":
            kinds[point] = _IGNORED
        elif letter == "`" or category == "Cc" or (category[0] in "PZ" and letter not in _KEPT_PUNCTUATION):
            kinds[point] = _SPACE
    for first, last in _IGNORED_RANGES:
        kinds[first : last + 1] = _IGNORED
    kinds[0] = _END
    return kinds
