"""The single keys of the ranking screen: what each does, which a person has changed, whether they are on at all (WCAG 2.1.4)."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

Json = dict[str, Any]

KEY = re.compile(r"[A-Za-z?=\[\].,;/-]")
"""What may be a key: one character without digits, which are tiers, and without what pages take for markup."""


class Act(StrEnum):
    """What a key does. Digits are tiers, and the letters beside open questions answer them: neither can be changed."""

    NEXT = "next"
    PREVIOUS = "previous"
    UP = "up"
    DOWN = "down"
    TIE = "tie"
    UNRANKABLE = "unrankable"
    GO = "go"
    COMPARE = "compare"
    DIFFERENCE = "difference"
    SORT = "sort"
    FLAGS = "flags"
    PROMPT = "prompt"
    UNDO = "undo"
    REDO = "redo"
    RAW = "raw"
    PEEK = "peek"
    FOLD = "fold"
    COLUMNS = "columns"
    GUIDELINES = "guidelines"
    NOTE = "note"
    ASK = "ask"
    HISTORY = "history"
    SKIP = "skip"
    HELP = "help"


STANDARD = {
    Act.NEXT: "j",
    Act.PREVIOUS: "k",
    Act.UP: "[",
    Act.DOWN: "]",
    Act.TIE: "=",
    Act.UNRANKABLE: "x",
    Act.GO: "o",
    Act.COMPARE: "c",
    Act.DIFFERENCE: "d",
    Act.SORT: "t",
    Act.FLAGS: "f",
    Act.PROMPT: "l",
    Act.UNDO: "u",
    Act.REDO: "U",
    Act.RAW: "m",
    Act.PEEK: "p",
    Act.FOLD: ".",
    Act.COLUMNS: ",",
    Act.GUIDELINES: "g",
    Act.NOTE: "n",
    Act.ASK: "A",
    Act.HISTORY: "h",
    Act.SKIP: "s",
    Act.HELP: "?",
}


SPARE = "qwertyuiopasdfghjklzxcvbnm?=[].,;/-QWERTYUIOP"
"""Keys for acts whose own is taken, in the order in which they are tried."""


@dataclass(frozen=True)
class Keys:
    """A person's keys."""

    are_on: bool = True
    by_act: Mapping[Act, str] = field(default_factory=lambda: STANDARD)

    @classmethod
    def of(cls, preferences: Json) -> "Keys":
        """Those a person has chosen; the standard ones where what is stored is none of today's.

        An act whose standard key they gave to another, perhaps before there was this act, has the first key that is free.
        """
        stored = preferences.get("keys")
        if not isinstance(stored, dict):
            return cls()
        own = {act: stored[act] for act in Act if act in stored}
        kept = {act: key for act, key in STANDARD.items() if act not in own and key not in own.values()}
        taken = {*own.values(), *kept.values()} if all(isinstance(key, str) for key in own.values()) else set()
        free = (key for key in SPARE if key not in taken)
        chosen = {act: own.get(act) or kept.get(act) or next(free) for act in Act}
        keys = cls(stored.get("are_on") is not False, chosen)
        return cls(keys.are_on) if keys.problems() else keys

    @classmethod
    def from_form(cls, fields: Mapping[str, str]) -> "Keys":
        """From `key-<act>` and `are_on`; an empty key is the standard one."""
        chosen = {act: fields.get(f"key-{act}", "").strip() or key for act, key in STANDARD.items()}
        return cls(fields.get("are_on") == "yes", chosen)

    def problems(self) -> dict[Act, str]:
        """What keeps keys from being used, by act."""
        taken = list(self.by_act.values())
        return {
            act: f"{str(key)[:10]!r} is no key for this; choose one letter, or one of ? = [ ] . , ; / -"
            if not isinstance(key, str) or not KEY.fullmatch(key)
            else f"{key!r} is there twice; give every act a key of its own."
            for act, key in self.by_act.items()
            if not isinstance(key, str) or not KEY.fullmatch(key) or taken.count(key) > 1
        }

    def as_json(self) -> Json:
        """As it is stored: what differs from the standard."""
        changed = {act.value: key for act, key in self.by_act.items() if key != STANDARD[act]}
        return {"are_on": self.are_on, **changed}
