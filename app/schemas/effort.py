"""How a ranking was made, by the page's own account: what was in view for how long and how far, and how often minds changed.

It is told by a script on the person's machine, and so a hint at care, never a proof: what cannot be read is left out, and a
submit is never refused for it.
"""

import json
from collections.abc import Iterable
from typing import Any

LONGEST_MS = 1000 * 60 * 60 * 24 * 30
MOST = 1_000_000
WINDOWS = ("wide", "tablet", "phone")


def read_effort(text: str, samples: Iterable[str]) -> dict[str, Any]:
    """{cards: {sample: {ms, depth}}, moves, undos, window} as far as the text says so.

    `ms` in view while the person was active; `depth`, the share of the card that was ever in view, from 0 to 1.
    """
    try:
        told = json.loads(text or "{}")
    except ValueError:
        return {}
    if not isinstance(told, dict):
        return {}
    cards = told.get("cards")
    told_of = cards if isinstance(cards, dict) else {}
    known = {sample: told_of[sample] for sample in samples if _is_card(told_of.get(sample))}
    found: dict[str, Any] = {
        "cards": {sample: {"ms": card["ms"], "depth": card["depth"]} for sample, card in known.items()}
    }
    found |= {name: told[name] for name in ("moves", "undos") if _is_count(told.get(name), MOST)}
    return found | ({"window": told["window"]} if told.get("window") in WINDOWS else {})


def _is_card(card: Any) -> bool:
    if not isinstance(card, dict) or not _is_count(card.get("ms"), LONGEST_MS):
        return False
    depth = card.get("depth")
    return isinstance(depth, int | float) and not isinstance(depth, bool) and 0 <= depth <= 1


def _is_count(value: Any, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= most
