"""Single values from outside: what they say, None where they say nothing that can be used, and texts that can be stored."""

import re
import uuid

from app.schemas.effort import LONGEST_MS


def read_uuid(value: str) -> uuid.UUID | None:
    """An identifier."""
    try:
        return uuid.UUID(value)
    except ValueError:
        return None


def read_whole(value: str) -> int | None:
    """A whole number of nine digits at most."""
    return int(value) if re.fullmatch(r"-?[0-9]{1,9}", value) else None


def read_milliseconds(value: str) -> int | None:
    """A page's clock; None where it has none or says what no clock can."""
    number = read_whole(value)
    return number if number is not None and 0 <= number <= LONGEST_MS else None


def storable(text: str) -> str:
    """A text without what PostgreSQL refuses: NUL, and halves of characters."""
    return text.encode("utf-8", "replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")
