"""Prompts come in as a whole or not at all, once each, with every writer on one side of the splits."""

import hashlib
import json
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import BinaryIO, TypeVar

from sqlalchemy.orm import Session

from app.errors import BadInput
from app.markup import render_markdown
from app.models import BaseCheckpoint, Json, Project, Sample, SampleOrigin, Split
from app.queries import prompts as queries
from app.schemas.prompts import ImportReport, LineError, ParsedPrompts, PromptIn, read_conversation, read_prompt
from app.services import bases
from app.settings import Settings

_Item = TypeVar("_Item")

LARGEST_FILE_BYTES = 20 * 1024 * 1024

MOST_PROMPTS = 50_000
"""Prompts in one file. An import is one request and one transaction: that many take seconds, and some hundred MB of memory."""

CHARACTERS_PER_TOKEN = 8
"""More than the tokenizers of language models pack into a token on average: a prompt longer than this times the context does
not fit. The exact count is the sampler's, which has the tokenizer."""

SHARES = {Split.VALID: 0.1, Split.TEST: 0.1}
"""Part of the sources that a split gets where rows name none; the rest trains."""

_ERRORS_KEPT = 50
_BATCH = 1000


class RefusedFile(BadInput):
    """A file that is not imported; `parsed` has the lines at fault. Nothing was stored."""

    def __init__(self, message: str, parsed: ParsedPrompts) -> None:
        super().__init__(message, field="file")
        self.parsed = parsed


def parse_jsonl(
    data: bytes | BinaryIO, *, longest_characters: int | None = None, every_turn: bool = False
) -> ParsedPrompts:
    """Read prompts from JSON lines, line by line; blank lines are passed over.

    `every_turn`: each turn of a user is a prompt of its own, and what was answered in the file is kept. `longest_characters`
    is the limit of all turns of a prompt together. Raises BadInput where the file is empty, too large, not UTF-8 (naming the
    byte) or has too many prompts; what is wrong with single lines is in the result.
    """
    rows: list[PromptIn] = []
    answers: dict[str, str] = {}
    errors: list[LineError] = []
    error_count = line_count = 0
    for number, line in read_lines(data):
        line_count += 1
        try:
            value = read_json(line)
            found, given = read_conversation(value, f"line {number}") if every_turn else ([read_prompt(value)], {})
            _check_length(found[-1], longest_characters)
        except ValueError as error:
            error_count += 1
            errors += [LineError(number, str(error))] if len(errors) < _ERRORS_KEPT else []
        else:
            rows += found
            answers |= given
        if len(rows) + error_count > MOST_PROMPTS:
            raise BadInput(
                f"The file has more than {MOST_PROMPTS:,} prompts. Split the file and import the parts.", field="file"
            )
    if not rows and not errors:
        raise BadInput('The file is empty. Each line should hold one prompt, such as {"prompt": "…"}.', field="file")
    return ParsedPrompts(rows, errors, error_count, line_count, answers)


def import_file(
    session: Session,
    project: Project,
    *,
    pool: str,
    data: BinaryIO,
    longest: int | None,
    every_turn: bool = False,
) -> ImportReport:
    """Import a JSONL file into a pool; with `every_turn`, each turn of a user as a prompt with the answers it was given.

    Raises BadInput, or RefusedFile with its lines; then nothing is stored."""
    if not pool.strip() or len(pool) > 80:
        raise BadInput("Name the pool these prompts go to, in 1 to 80 characters.", field="pool")
    parsed = parse_jsonl(data, longest_characters=longest, every_turn=every_turn)
    if parsed.error_count:
        raise RefusedFile(
            f"{parsed.error_count:,} of {parsed.line_count:,} lines cannot be imported, so none was. "
            "Mend the lines below and import the file again.",
            parsed,
        )
    return import_prompts(session, project, pool=pool.strip(), rows=parsed.rows, answers=parsed.answers)


def import_prompts(
    session: Session,
    project: Project,
    *,
    pool: str,
    rows: Iterable[PromptIn],
    answers: Mapping[str, str] | None = None,
) -> ImportReport:
    """Store prompts in a pool; those the project has already, in any pool, are counted and left as they are.

    `answers`, by a row's key, become imported samples of their prompts, each text once. A prompt that is here from another
    source is no part of a row's conversation: it may be on another side of the splits. Raises BadInput where a source would be
    on two sides of the splits, or a parent is missing; then the caller's transaction must not be committed.
    """
    queries.lock_imports(session, project.id)
    rows = list(rows)
    keys = {row.key: row for row in rows if row.key is not None}
    prints = [fingerprint(row.messages) for row in rows]
    known = _known_sources(session, project, rows, prints)
    sources = [_source(row, print_, keys, known) for row, print_ in zip(rows, prints, strict=True)]
    splits = _choose_splits(session, project, rows, sources)
    pool_id = queries.get_or_insert_pool(session, project.id, pool).id
    added = 0
    for batch in _batches(zip(rows, prints, sources, strict=True)):
        columns = [_columns(project, pool_id, row, print_, source, splits[source]) for row, print_, source in batch]
        added += queries.insert_prompts(session, columns)
    by_print: dict[bytes, queries.StoredRow] = {}
    for prints_of_batch in _batches(prints):
        by_print |= queries.map_stored(session, project.id, prints_of_batch)
    ids = {row.key: by_print[print_].id for row, print_ in zip(rows, prints, strict=True) if row.key is not None}
    of_key = {row.key: by_print[print_].source for row, print_ in zip(rows, prints, strict=True)}
    parents: list[Json] = []
    foreign: set[str] = set()
    for row, print_, source in zip(rows, prints, sources, strict=True):
        if row.parent_key is not None and of_key[row.parent_key] != source:
            foreign.add(row.parent_key)
        elif row.parent_key is not None and by_print[print_].source == source:
            parents.append({"id": by_print[print_].id, "parent_id": ids[row.parent_key]})
    if parents:
        queries.set_parents(session, parents)
    mine = {row.key for row, source in zip(rows, sources, strict=True) if of_key[row.key] == source}
    given = answers or {}
    samples = _keep_answers(session, project, [(ids[key], text) for key, text in given.items() if key in mine])
    return ImportReport(added, len(rows) - added, samples, len(foreign | (given.keys() - mine)), ids)


def fingerprint(messages: Sequence[Mapping[str, str]]) -> bytes:
    """sha256 of the turns, Unicode composed (NFC) and runs of white space made one blank."""
    turns = [
        [message["role"], " ".join(unicodedata.normalize("NFC", message["content"]).split())] for message in messages
    ]
    return hashlib.sha256(json.dumps(turns, ensure_ascii=False).encode()).digest()


def split_of(source: str) -> Split:
    """The split of a source that names none: by hash, so that it is the same in every import."""
    point = int.from_bytes(hashlib.sha256(source.encode()).digest()[:8]) / 2**64
    for split, share in SHARES.items():
        if point < share:
            return split
        point -= share
    return Split.TRAIN


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


def _check_length(row: PromptIn, longest: int | None) -> None:
    length = sum(len(message["content"]) for message in row.messages)
    if longest is not None and length > longest:
        raise ValueError(
            f"the prompt has {length:,} characters; the context of the project's base model holds {longest:,} at most"
        )


def _keep_answers(session: Session, project: Project, given: Sequence[tuple[int, str]]) -> int:
    """Store answers, each with its prompt's id, as imported samples, those already there left out; how many were new."""
    added = 0
    for batch in _batches(dict.fromkeys(given)):
        stored = queries.list_imported(session, project.id, [prompt_id for prompt_id, _ in batch])
        samples = [
            Sample(
                project_id=project.id,
                prompt_id=prompt_id,
                origin=SampleOrigin.IMPORTED,
                text=text,
                html=render_markdown(text),
            )
            for prompt_id, text in batch
            if (prompt_id, text) not in stored
        ]
        queries.insert_samples(session, samples)
        added += len(samples)
    return added


def _known_sources(
    session: Session, project: Project, rows: Sequence[PromptIn], prints: Sequence[bytes]
) -> Mapping[bytes, str]:
    """Sources of first turns that the project has already, for conversations that name none."""
    known: dict[bytes, str] = {}
    firsts = (print_ for row, print_ in zip(rows, prints, strict=True) if row.source is None and row.parent_key is None)
    for batch in _batches(firsts):
        known |= {print_: row.source for print_, row in queries.map_stored(session, project.id, batch).items()}
    return known


def _source(row: PromptIn, print_: bytes, keys: Mapping[str, PromptIn], known: Mapping[bytes, str]) -> str:
    """The row's source, else that of the conversation it continues, else one of its own; `known` by first fingerprint."""
    first, seen = row, {row.key}
    while first.source is None and first.parent_key is not None:
        if first.parent_key not in keys or first.parent_key in seen:
            raise BadInput(
                f"The parent {first.parent_key!r} of a prompt is not in the same import, or is its own parent."
            )
        first = keys[first.parent_key]
        seen.add(first.key)
    if row.parent_key is not None and row.parent_key not in keys:
        raise BadInput(
            f"The parent {row.parent_key!r} of a prompt is not in the same import. Add it, or drop the field."
        )
    if first is not row:
        print_ = fingerprint(first.messages)
    return first.source or known.get(print_) or f"prompt-{print_.hex()[:16]}"


def _choose_splits(
    session: Session, project: Project, rows: Sequence[PromptIn], sources: Sequence[str]
) -> Mapping[str, Split]:
    """One split per source: as stored, else as a row says, else by hash. Raises BadInput where two of these differ."""
    chosen: dict[str, Split] = {}
    for batch in _batches(sorted(set(sources))):
        chosen |= queries.map_splits(session, project.id, batch)
    for row, source in zip(rows, sources, strict=True):
        if row.split is not None and chosen.setdefault(source, row.split) != row.split:
            raise BadInput(
                f"The source {source!r} is in {chosen[source]} already and a row puts it into {row.split}. A writer's prompts "
                "belong to one split, so that a model is never measured on a writer it learned from.",
                field="file",
            )
    return {source: chosen.get(source) or split_of(source) for source in set(sources)}


def _columns(project: Project, pool_id: int, row: PromptIn, print_: bytes, source: str, split: Split) -> Json:
    return {
        "project_id": project.id,
        "pool_id": pool_id,
        "messages": list(row.messages),
        "category": row.category,
        "source": source,
        "split": split,
        "fingerprint": print_,
        "reference": row.reference,
        "verifier": row.verifier,
        "licence": row.licence,
        "consent": row.consent,
        "needs": list(row.needs),
    }


def _batches(items: Iterable[_Item]) -> Iterator[list[_Item]]:
    remaining = iter(items)
    while batch := list(islice(remaining, _BATCH)):
        yield batch
