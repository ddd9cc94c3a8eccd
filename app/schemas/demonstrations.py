"""A response as the form of a demonstration sends it, and how long responses are."""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.schemas.values import read_milliseconds, read_uuid


@dataclass(frozen=True)
class Writing:
    """What a person has written so far, or submits."""

    text: str = ""
    parent: uuid.UUID | None = None
    """The sample it began as; None where it began empty."""
    active_ms: int | None = None
    idle_ms: int | None = None

    @classmethod
    def from_fields(cls, fields: Mapping[str, Sequence[str]]) -> "Writing":
        """From the fields `text`, `parent`, `active_ms` and `idle_ms`; what cannot be read is left out."""
        last = {name: values[-1] for name, values in fields.items()}
        return cls(
            last.get("text", ""),
            read_uuid(last.get("parent", "")),
            read_milliseconds(last.get("active_ms", "")),
            read_milliseconds(last.get("idle_ms", "")),
        )

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Writing":
        """From what `to_json` gave."""
        return cls(
            str(content.get("text", "")),
            read_uuid(str(content.get("parent", ""))),
            content.get("active_ms"),
            content.get("idle_ms"),
        )

    def to_json(self, longest: int) -> dict[str, Any]:
        """As a draft keeps it, of the text so many characters."""
        return {
            "text": self.text[:longest].replace("\x00", ""),
            "parent": str(self.parent) if self.parent else "",
            "active_ms": self.active_ms,
            "idle_ms": self.idle_ms,
        }


@dataclass(frozen=True)
class UsualLength:
    """Words of the middle half of a project's newest demonstrations, and how many were looked at."""

    low: int
    high: int
    count: int
