"""Experiment settings: a frozen dataclass per stage, filled from a TOML table and `name=value` overrides."""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

T = TypeVar("T")

TABLES = ("base", "sft", "reward", "ppo", "sample")
"""The tables a file of settings may hold; a misspelt one would leave its stage at the defaults in silence."""


def load(kind: type[T], table: str, path: Path | None = None, overrides: Sequence[str] = ()) -> T:
    """The settings of one stage: the defaults of dataclass `kind`, then table `[table]` of a TOML file, then overrides.

    Raises ValueError for an unknown table or name, listing the known ones, and for a value of another type.
    """
    values = _read(path).get(table, {}) if path is not None else {}
    for override in overrides:
        name, separator, text = override.partition("=")
        if not separator:
            raise ValueError(f"--set {override!r}: expected name=value")
        values[name.strip()] = _parse(text.strip())
    return build(kind, table, values)


def build(kind: type[T], table: str, values: Mapping[str, Any]) -> T:
    """A `kind` of `values`, each checked against the field's type."""
    hints = get_type_hints(kind)
    known = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    if unknown := sorted(set(values) - set(known)):
        raise ValueError(f"unknown setting {unknown[0]!r} in [{table}]; known are {', '.join(known)}")
    return kind(**{name: _checked(name, value, hints[name]) for name, value in values.items()})


def _read(path: Path) -> dict[str, dict[str, Any]]:
    """The tables of a TOML file."""
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ValueError(f"{path} cannot be read as TOML: {error}") from error
    for name, content in tables.items():
        if name not in TABLES or not isinstance(content, dict):
            raise ValueError(f"{path} holds {name!r} at its top; expected tables, known are {', '.join(TABLES)}")
    return tables


def _parse(text: str) -> Any:
    """A value as TOML would read it; what is no TOML value is a string."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _checked(name: str, value: Any, hint: Any) -> Any:
    allowed = getattr(hint, "__args__", None) or (hint,)
    if type(value) is int and float in allowed:
        return float(value)
    if value in ("none", "None", "") and type(None) in allowed:
        return None
    if type(value) in allowed:
        return value
    names = " or ".join(getattr(kind, "__name__", str(kind)) for kind in allowed)
    raise ValueError(f"setting {name} is {value!r}; expected {names}")
