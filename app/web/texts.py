"""Words, numbers and times as pages show them."""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from markupsafe import Markup, escape

_UNITS = (
    (60, "second"),
    (60, "minute"),
    (24, "hour"),
    (7, "day"),
    (4.35, "week"),
    (12, "month"),
    (float("inf"), "year"),
)

CONTROLS = {
    0x00AD: "SHY",
    0x061C: "ALM",
    0x180E: "MVS",
    0x200B: "ZWSP",
    0x200E: "LRM",
    0x200F: "RLM",
    0x202A: "LRE",
    0x202B: "RLE",
    0x202C: "PDF",
    0x202D: "LRO",
    0x202E: "RLO",
    0x2060: "WJ",
    0x2066: "LRI",
    0x2067: "RLI",
    0x2068: "FSI",
    0x2069: "PDI",
    0xFEFF: "BOM",
}
"""Characters without a shape that change how others are read. Joiners (U+200C, U+200D) are none: scripts and emoji need them."""

_UNSEEN = re.compile(f"[{''.join(map(chr, CONTROLS))}\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\U000e0000-\U000e007f]")


def gettext(message: str, /, **variables: object) -> str:
    """`_()` of the templates. Text and variables are escaped; `%(name)s` is filled in where variables are given."""
    return escape(message) % variables if variables else message


def ngettext(singular: str, plural: str, count: int, /, **variables: object) -> str:
    """The form for `count`, which is also the variable `num`."""
    message = singular if count == 1 else plural
    return gettext(message, **{"num": number(count), **variables}) if "%(" in message else message


def number(value: float | None, digits: int = 0) -> str:
    """A number for people: thousands apart, so many digits after the point; a dash for none."""
    return "–" if value is None else f"{value:,.{digits}f}"


def percent(value: float | None, digits: int = 0) -> str:
    """A share between 0 and 1 in percent."""
    return "–" if value is None else f"{100 * value:.{digits}f} %"


def duration(seconds: float | None) -> str:
    """A span of time in its two largest units: `1 h 5 min`, `12 s`."""
    if seconds is None:
        return "–"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [f"{value} {unit}" for value, unit in ((days, "d"), (hours, "h"), (minutes, "min"), (rest, "s")) if value]
    return " ".join(parts[:2]) or "0 s"


def ago(moment: datetime | None) -> str:
    """A moment relative to now, with the exact one on hover."""
    if moment is None:
        return "–"
    exact = moment.astimezone(UTC)
    return Markup('<time datetime="{}" title="{}">{}</time>').format(
        exact.isoformat(timespec="seconds"), f"{exact:%Y-%m-%d %H:%M:%S} UTC", relative(exact)
    )


def relative(moment: datetime, *, now: datetime | None = None) -> str:
    """`just now`, `5 minutes ago`, `in 3 days`."""
    seconds = ((now or datetime.now(UTC)) - moment).total_seconds()
    amount = abs(seconds)
    if amount < 30:
        return "just now"
    for size, unit in _UNITS:
        if amount < size:
            count = max(1, round(amount))
            words = f"{count} {unit}{'' if count == 1 else 's'}"
            return f"{words} ago" if seconds > 0 else f"in {words}"
        amount /= size
    raise AssertionError("the last unit has no end")


def bdi(text: str) -> str:
    """What somebody wrote, within a sentence of ours: its direction, and what it does to the direction, ends where it ends."""
    return Markup("<bdi>{}</bdi>").format(text)


def raw(text: str) -> str:
    """A text as it was written, with every unseen character marked by name and without effect on its neighbours."""
    return Markup("").join(
        Markup('<bdi class="unseen" data-name="{}">{}</bdi>').format(_name_of(part), part)
        if _UNSEEN.fullmatch(part)
        else escape(part)
        for part in re.split(f"({_UNSEEN.pattern})", text)
    )


def _name_of(character: str) -> str:
    return CONTROLS.get(ord(character), f"U+{ord(character):04X}")


def words(name: str) -> str:
    """A stored name as words: `open_qa` -> `open qa`."""
    return str(name).replace("_", " ")


FILTERS: dict[str, Callable[..., Any]] = {
    "ago": ago,
    "bdi": bdi,
    "duration": duration,
    "number": number,
    "percent": percent,
    "raw": raw,
    "words": words,
}
