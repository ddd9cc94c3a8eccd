"""Contrast of the tokens in both schemes, by WCAG 2.2's own formula: 4.5 for text (1.4.3), 3 for controls and marks (1.4.11)."""

import re
from pathlib import Path

import pytest

TOKENS = Path(__file__).parents[3] / "static" / "css" / "tokens.css"
PAIRS = re.compile(r"--([\w-]+): light-dark\((#[0-9a-f]{6}), (#[0-9a-f]{6})\);")

TEXTS = ("ink", "ink-soft", "accent", "good", "warn", "bad", "info")
GROUNDS = ("paper", "paper-sunk", "paper-raised")
SERIES = tuple(f"series-{number}" for number in range(1, 7))

TEXT_ON = [(text, ground) for text in TEXTS for ground in GROUNDS]
TEXT_ON += [(name, f"{name}-wash") for name in ("good", "warn", "bad", "info")]
TEXT_ON += [("ink", f"{name}-wash") for name in ("accent", "good", "warn", "bad", "info")]
TEXT_ON += [("on-accent", "accent"), ("on-accent", "accent-strong")]
MARK_ON = [(mark, ground) for mark in ("rule-strong", "accent", *SERIES) for ground in GROUNDS]


def colours(scheme: int) -> dict[str, str]:
    """Every colour by its token: scheme 0 is light, 1 dark."""
    found = {name: pair[scheme] for name, *pair in PAIRS.findall(TOKENS.read_text())}
    assert len(found) > 20
    return found


def luminance(colour: str) -> float:
    """Relative luminance of `#rrggbb`, 0 for black to 1 for white."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    """1 for the same colour to 21 for black on white."""
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_the_formula_gives_the_known_extremes() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.005)  # the grey that famously just fails


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize(("pairs", "least"), [(TEXT_ON, 4.5), (MARK_ON, 3.0)], ids=["text", "marks"])
def test_tokens_are_told_apart(scheme: int, pairs: list[tuple[str, str]], least: float) -> None:
    tokens = colours(scheme)
    faint = {pair: round(contrast(*(tokens[name] for name in pair)), 2) for pair in pairs}
    assert {pair: ratio for pair, ratio in faint.items() if ratio < least} == {}
