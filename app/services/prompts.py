"""Prompts that come in as a whole or not at all: the starter world's, a file of references', a few at a time."""

import json
from collections.abc import Iterable, Iterator
from typing import BinaryIO

from sqlalchemy.orm import Session

from app.errors import BadInput
from app.intake.preparing import Incoming
from app.models import BaseCheckpoint, Project
from app.queries import prompts as queries
from app.schemas.prompts import ImportReport, ParsedPrompts, PromptIn
from app.services import bases, intake
from app.services.intake import Outcome
from app.settings import Settings

LARGEST_FILE_BYTES = 20 * 1024 * 1024
"""Of a file that is read in its request."""

CHARACTERS_PER_TOKEN = 8
"""More than the tokenizers of language models pack into a token on average: a prompt longer than this times the context does
not fit. The exact count is the sampler's, which has the tokenizer."""


class RefusedFile(BadInput):
    """A file that is not imported; `parsed` has the lines at fault. Nothing was stored."""

    def __init__(self, message: str, parsed: ParsedPrompts) -> None:
        super().__init__(message, field="file")
        self.parsed = parsed


def import_prompts(session: Session, project: Project, *, pool: str, rows: Iterable[PromptIn]) -> ImportReport:
    """Store prompts in a pool; those the project has already, in any pool, are counted and left as they are.

    Raises BadInput where a source would be on two sides of the splits, or a parent is missing; then none is stored.
    """
    incoming = [Incoming.of(row) for row in rows]
    with session.begin_nested():
        queries.lock_imports(session, project.id)
        pool_id = queries.get_or_insert_pool(session, project.id, pool).id
        placed = intake.place(session, project.id, pool_id, incoming)
        if refused := next((one for one in placed if one.outcome == Outcome.REFUSED), None):
            raise BadInput(refused.reason, field="file")
    added = sum(one.is_new for one in placed)
    ids = {one.key: place.prompt_id for one, place in zip(incoming, placed, strict=True) if one.key is not None}
    return ImportReport(added, len(placed) - added, ids)


def longest_characters(settings: Settings, base: BaseCheckpoint) -> int | None:
    """Characters beyond which a prompt cannot fit the base model's context; None where its config names no context."""
    context = bases.read_context(settings, base.sha256)
    return context * CHARACTERS_PER_TOKEN if context else None


def read_lines(data: bytes | BinaryIO) -> Iterator[tuple[int, str]]:
    """Number and text of each line that is not blank. Raises BadInput where the file is too large or not UTF-8."""
    offset = 0
    for number, line in enumerate(data.splitlines(keepends=True) if isinstance(data, bytes) else data, start=1):
        if offset + len(line) > LARGEST_FILE_BYTES:
            raise BadInput(
                f"The file is larger than {LARGEST_FILE_BYTES // 1024**2} MB. Split the file and import the parts.",
                field="file",
            )
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise BadInput(
                f"The file is not UTF-8: byte {offset + error.start:,} (line {number:,}) is 0x{line[error.start]:02x}. "
                "Save it as UTF-8 and import it again.",
                field="file",
            ) from None
        offset += len(line)
        if text.strip():
            yield number, text


def read_json(line: str) -> object:
    """One line as JSON. Raises ValueError saying where it ends to be any."""
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg} at character {error.pos + 1}") from None
    except RecursionError:
        raise ValueError("not a prompt: the JSON is nested too deeply") from None
