"""Everything of an import that needs no database: rows become prompts with what was seen in their texts, ready to be placed.

Kept apart, and flat in what it gives, so that another process can do it ahead of the one that stores.
"""

import json
from collections.abc import Generator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from app.intake import containers, language, likeness, pii, shapes
from app.intake.containers import Batch, Container, Position
from app.intake.records import Record
from app.markup import render_markdown
from app.models import Category, ImportKind, Split
from app.schemas.prompts import PromptIn

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray


class Incoming(NamedTuple):
    """A prompt that is to be stored: its columns as text, and what its place depends on."""

    fingerprint: bytes
    messages: str
    """JSON."""
    source: str | None = None
    split: Split | None = None
    key: str | None = None
    parent_key: str | None = None
    language: str | None = None
    findings: str = "[]"
    """JSON, as `Prompt.findings`."""
    category: Category | None = None
    reference: str | None = None
    verifier: str | None = None
    licence: str | None = None
    consent: str | None = None
    needs: list[str] | str = "{}"
    """`{}` for none: a list takes as long to be written as all the rest of the row."""

    @classmethod
    def of(cls, row: PromptIn, *, language: str | None = None, findings: Sequence[pii.Finding] = ()) -> "Incoming":
        """A prompt with what was seen in it."""
        return cls(
            likeness.fingerprint(row.messages),
            _encode_turns(row.messages),
            row.source,
            row.split,
            row.key,
            row.parent_key,
            language,
            json.dumps([asdict(finding) for finding in findings]) if findings else "[]",
            row.category,
            row.reference,
            row.verifier,
            row.licence,
            row.consent,
            list(row.needs) or "{}",
        )


class Rendered(NamedTuple):
    """A response with its HTML."""

    text: str
    html: str
    tier: int | None = None


@dataclass(frozen=True)
class Recipe:
    """How a file is read and looked at."""

    path: Path
    container: Container
    kind: ImportKind
    mapping: shapes.Mapping
    looks_for_pii: bool = True
    longest: int | None = None
    """Characters that a prompt may have."""
    source: str | None = None
    """This and the following: what a row gets that says nothing itself."""
    licence: str | None = None
    consent: str | None = None
    category: Category | None = None
    split: Split | None = None

    @property
    def has_defaults(self) -> bool:
        """Whether any row may get something."""
        return any((self.source, self.licence, self.consent, self.category, self.split))


@dataclass
class Prepared:
    """A batch of rows. Lists of one length but `refused` and `texts`: an entry a prompt."""

    end: Position
    rows: int = 0
    refused: list[tuple[int, str]] = field(default_factory=list)
    """(line, reason)."""
    lines: list[int] = field(default_factory=list)
    incoming: list[Incoming] = field(default_factory=list)
    responses: list[tuple[Rendered, ...]] = field(default_factory=list)
    annotators: list[str | None] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    """Of an import of plain text."""
    keys: "NDArray[numpy.uint64] | None" = None
    """`likeness.sketch` of the last turns."""


class UnreadableFile(ValueError):
    """A file that cannot be read on: a damaged archive, one that is gone. What is wrong with a row is with the row."""


def read_batches(recipe: Recipe, start: Position, *, batch_rows: int, batch_bytes: int) -> Generator[Batch, None, None]:
    """The rows of the file from a place on. Raises UnreadableFile."""
    try:
        yield from containers.open_rows(
            recipe.path, recipe.container, start, batch_rows=batch_rows, batch_bytes=batch_bytes
        )
    except (OSError, EOFError, ValueError) as error:
        raise UnreadableFile(str(error)) from error


def prepare(recipe: Recipe, batch: Batch) -> Prepared:
    """Read a batch's rows, and look at their texts."""
    prepared = Prepared(batch.end, len(batch.rows))
    last_turns: list[str] = []
    for raw in batch.rows:
        if raw.error is not None or raw.value is None:
            prepared.refused.append((raw.line, raw.error or "the row is empty"))
            continue
        try:
            records = _read(recipe, raw.value, raw.line)
        except ValueError as error:
            prepared.refused.append((raw.line, str(error)))
            continue
        for record in records:
            if record.prompt is None:
                prepared.texts.append(record.text or "")
                continue
            row = _with_defaults(recipe, record.prompt) if recipe.has_defaults else record.prompt
            last_turns.append(row.messages[-1]["content"])
            prepared.lines.append(raw.line)
            prepared.incoming.append(_look_at(recipe, row))
            prepared.responses.append(
                tuple(Rendered(one.text, render_markdown(one.text), one.tier) for one in record.responses)
            )
            prepared.annotators.append(record.annotator)
    if recipe.kind != ImportKind.TEXT:
        prepared.keys = likeness.sketch(last_turns)
    return prepared


def _read(recipe: Recipe, value: Mapping[str, object] | str, line: int) -> Sequence[Record]:
    """The records of a row. Raises ValueError for what is wrong with any of them."""
    records = shapes.read_records(value, recipe.kind, recipe.mapping, line=line)
    for record in records:
        if record.prompt is not None and recipe.longest is not None:
            _check_length(record.prompt, recipe.longest)
        if recipe.looks_for_pii:
            if record.text is not None:
                _check_text(record.text, "the text")
            for response in record.responses:
                _check_text(response.text, "a response")
    return records


def _check_length(row: PromptIn, longest: int) -> None:
    length = sum(len(message["content"]) for message in row.messages)
    if length > longest:
        raise ValueError(
            f"the prompt has {length:,} characters; the context of the project's base model holds {longest:,} at most"
        )


def _check_text(text: str, name: str) -> None:
    if found := pii.find_pii([{"role": "user", "content": text}]):
        kinds = ", ".join(sorted({finding.kind.value for finding in found}))
        raise ValueError(f"{name} holds personal data ({kinds}); mask it, or import without looking for any")


def _with_defaults(recipe: Recipe, row: PromptIn) -> PromptIn:
    return replace(
        row,
        source=row.source or recipe.source,
        licence=row.licence or recipe.licence,
        consent=row.consent or recipe.consent,
        category=row.category or recipe.category,
        split=row.split or recipe.split,
    )


def _look_at(recipe: Recipe, row: PromptIn) -> Incoming:
    return Incoming.of(
        row,
        language=language.detect_language(row.messages[-1]["content"]),
        findings=pii.find_pii(row.messages) if recipe.looks_for_pii else (),
    )


_encode = json.JSONEncoder(ensure_ascii=False).encode


def _encode_turns(messages: Sequence[Mapping[str, str]]) -> str:
    """As JSON, of a single turn at four times the speed."""
    if len(messages) == 1 and messages[0]["role"] == "user":
        return f'[{{"role": "user", "content": {_encode(messages[0]["content"])}}}]'
    return _encode(messages)
