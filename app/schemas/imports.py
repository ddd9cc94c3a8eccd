"""What an import is told, and what it counts; both live as JSON in its row."""

import collections.abc
import re
from dataclasses import asdict, dataclass, fields
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from app.intake.mapping import Mapping, Shape
from app.models import Category, Json, Split


class ImportSettings(BaseModel):
    """How a file's rows are read, what every row without a value of its own gets, and what is kept out of the work."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    pool: str = Field("", max_length=80)
    """Where the prompts go; not asked for plain text."""
    mapping: dict[str, Any] = Field(default_factory=lambda: dict(Mapping(Shape.PREFERABLE).to_json()))
    """`app.intake.shapes.Mapping`."""
    source: str = Field("", max_length=200)
    licence: str = Field("", max_length=200)
    consent: str = Field("", max_length=500)
    category: Category | None = None
    split: Split | None = None
    leaves_out_near: bool = True
    leaves_out_prefixes: bool = True
    most_per_source: int = Field(200, ge=0, le=1_000_000)
    """The paper's cap of about 200 prompts a user; 0 for none."""
    languages: str = Field("", max_length=500, pattern=r"^\s*([A-Za-z]{2}([\s,;]+[A-Za-z]{2})*)?\s*$")
    """ISO 639-1 codes to let in; empty for all."""
    looks_for_pii: bool = True
    judgements_wanted: int = Field(1, ge=1, le=100)
    """How many people rank each set of outputs."""

    @field_validator("mapping")
    @classmethod
    def _check_mapping(cls, value: dict[str, Any]) -> dict[str, Any]:
        return dict(Mapping.from_json(value).to_json())

    @field_validator("pool", "source", "licence", "consent")
    @classmethod
    def _strip(cls, value: str) -> str:
        if "\x00" in value:
            raise ValueError("it holds a NUL character, which cannot be stored; remove it")
        return value.strip()

    @property
    def language_codes(self) -> frozenset[str]:
        """The codes of `languages`."""
        return frozenset(re.findall(r"[a-z]{2}", self.languages.lower()))


def read_settings(fields: collections.abc.Mapping[str, list[str]]) -> ImportSettings:
    """What a form says; a box that is not ticked is not sent, and means no. Raises pydantic's ValidationError."""
    given: dict[str, Any] = {name: values[-1] for name, values in fields.items() if name in ImportSettings.model_fields}
    given |= {name: None for name in ("category", "split") if not given.get(name)}
    for name, field in ImportSettings.model_fields.items():
        if field.annotation is bool:
            given[name] = name in fields
    columns = {
        name.removeprefix("column-"): values[-1]
        for name, values in fields.items()
        if name.startswith("column-") and values[-1]
    }
    shape = fields.get("shape", [""])[-1]
    if shape != fields.get("former_shape", [shape])[-1] and shape != Shape.COLUMNS:
        columns = {}  # they were those of another shape
    given["mapping"] = {
        "shape": shape,
        "columns": columns,
        "every_turn": "every_turn" in fields,
    }
    return ImportSettings.model_validate(given)


@dataclass
class Counts:
    """What became of a file's rows so far. A row may hold several prompts, as a conversation does."""

    rows: int = 0
    refused: int = 0
    """Rows; the report has each with its reason."""
    added: int = 0
    """Prompts that are ready for the work."""
    known: int = 0
    """Prompts the project had."""
    near: int = 0
    prefix: int = 0
    capped: int = 0
    language: int = 0
    pii: int = 0
    samples: int = 0
    """Responses that were new."""
    foreign: int = 0
    """Turns of conversations that the project has from another source; of prompts, their answers were left out."""
    tasks: int = 0
    judgements: int = 0
    demonstrations: int = 0
    texts: int = 0
    text_bytes: int = 0
    """Length of the text file written so far: what a crash left beyond it is cut off."""
    doubled: int = 0
    """Tasks, judgements or demonstrations that were there already."""

    @classmethod
    def from_json(cls, value: Json) -> "Counts":
        """As stored; a count that this version does not know is left aside."""
        names = {field.name for field in fields(cls)}
        return cls(**{name: count for name, count in value.items() if name in names})

    def to_json(self) -> Json:
        """To be stored."""
        return asdict(self)
