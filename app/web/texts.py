"""Words, numbers and times as pages show them."""

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


def words(name: str) -> str:
    """A stored name as words: `open_qa` -> `open qa`."""
    return str(name).replace("_", " ")


FILTERS: dict[str, Callable[..., Any]] = {
    "ago": ago,
    "duration": duration,
    "number": number,
    "percent": percent,
    "words": words,
}
