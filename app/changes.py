"""What changed between two versions of a text: paragraph by paragraph, and word by word inside those that were rewritten."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from enum import StrEnum

_LEAST_ALIKE = 0.3
"""Paragraphs less alike than this are shown one after the other: word by word they would be a tangle."""

_MOST_WORDS = 4_000
"""Words of a paragraph that are compared; the time grows with their square."""


class Change(StrEnum):
    """What became of a run of words."""

    KEPT = "kept"
    ADDED = "added"
    REMOVED = "removed"


@dataclass(frozen=True)
class Part:
    """A run of words."""

    change: Change
    text: str


@dataclass(frozen=True)
class Paragraph:
    """A paragraph of either version, its parts in reading order."""

    parts: tuple[Part, ...]

    @property
    def is_changed(self) -> bool:
        """Whether anything was added or removed."""
        return any(part.change != Change.KEPT for part in self.parts)


def compare(former: str, present: str) -> list[Paragraph]:
    """The paragraphs of both versions, in the order of the present one with what was removed in its place."""
    old, new = _paragraphs(former), _paragraphs(present)
    found: list[Paragraph] = []
    for change, i, j, k, m in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if change == "equal":
            found += [Paragraph((Part(Change.KEPT, text),)) for text in new[k:m]]
            continue
        pairs = min(j - i, m - k)
        for before, after in zip(old[i : i + pairs], new[k : k + pairs], strict=True):
            found += _rewritten(before, after)
        found += [Paragraph((Part(Change.REMOVED, text),)) for text in old[i + pairs : j]]
        found += [Paragraph((Part(Change.ADDED, text),)) for text in new[k + pairs : m]]
    return found


def _rewritten(before: str, after: str) -> list[Paragraph]:
    old, new = _words(before), _words(after)
    matcher = SequenceMatcher(None, old, new, autojunk=False)
    if max(len(old), len(new)) > _MOST_WORDS or matcher.ratio() < _LEAST_ALIKE:
        return [Paragraph((Part(Change.REMOVED, before),)), Paragraph((Part(Change.ADDED, after),))]
    parts: list[Part] = []
    for change, i, j, k, m in matcher.get_opcodes():
        if change == "equal":
            parts.append(Part(Change.KEPT, "".join(new[k:m])))
            continue
        parts += [Part(Change.REMOVED, "".join(old[i:j]))] if j > i else []
        parts += [Part(Change.ADDED, "".join(new[k:m]))] if m > k else []
    return [Paragraph(tuple(parts))]


def _paragraphs(text: str) -> Sequence[str]:
    return [part.strip("\n") for part in re.split(r"\n\s*\n", text.strip()) if part.strip()]


def _words(text: str) -> Sequence[str]:
    """Words with the white space behind them."""
    return re.findall(r"\s*\S+\s*", text)
