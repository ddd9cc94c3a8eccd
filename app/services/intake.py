"""The paper's intake (§3.2, A.2): each prompt once, each source bounded and in one split, nothing alike, nothing private.

`place` takes prompts in the order of their file and decides by what is stored when their batch comes, so that a file read in
pieces, or again after a crash, ends in the same rows as one read in a go.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from sqlalchemy.orm import Session

from app.intake import likeness
from app.intake.likeness import Likeness
from app.intake.preparing import Incoming
from app.models import Json, Prompt, PromptStatus, Split
from app.queries import bulk
from app.queries import imports as import_queries
from app.queries import prompts as queries
from app.queries.imports import SourceRow
from app.services.alike import Finder
from app.services.splits import own_source, split_of

if TYPE_CHECKING:
    from numpy import uint64
    from numpy.typing import NDArray


class Outcome(StrEnum):
    """What became of a prompt that was to come in."""

    ADDED = "added"
    KNOWN = "known"
    """The project has this very prompt, from this file or from before."""
    NEAR = "near"
    """Stored as a duplicate: it says nearly what another does."""
    PREFIX = "prefix"
    """Stored as a duplicate: it begins like another, at length."""
    CAPPED = "capped"
    LANGUAGE = "language"
    PII = "pii"
    REFUSED = "refused"


_STATUS = {
    Outcome.ADDED: PromptStatus.ACTIVE,
    Outcome.NEAR: PromptStatus.DUPLICATE,
    Outcome.PREFIX: PromptStatus.DUPLICATE,
    Outcome.CAPPED: PromptStatus.CAPPED,
    Outcome.LANGUAGE: PromptStatus.LANGUAGE,
    Outcome.PII: PromptStatus.PII,
}


@dataclass(frozen=True)
class Rules:
    """What keeps a prompt out of the work. The default lets every one in."""

    leaves_out_near: bool = False
    leaves_out_prefixes: bool = False
    most_per_source: int | None = None
    languages: frozenset[str] = frozenset()
    """ISO 639-1 codes that are let in, with what could not be told; empty for all."""


@dataclass(frozen=True, slots=True)
class Placed:
    """Where a prompt is now; refused ones are nowhere."""

    outcome: Outcome
    prompt_id: int = 0
    source: str = ""
    split: Split = Split.TRAIN
    reason: str = ""
    """Why it was refused."""
    is_foreign: bool = False
    """Whether the project has it from another source than this row's."""

    @property
    def is_new(self) -> bool:
        """Whether this row brought the prompt."""
        return self.outcome not in (Outcome.KNOWN, Outcome.REFUSED)


@dataclass
class _Batch:
    """What is known while a batch is placed."""

    incoming: Sequence[Incoming]
    rules: Rules
    known: dict[bytes, queries.StoredRow]
    sources: dict[str, SourceRow]
    keys: dict[str, Placed]
    """Prompts by the names that their rows gave them."""
    numbers: Mapping[str, int]
    """The same of those of this batch, by number, placed or not."""
    alike: Mapping[int, Sequence["_Alike"]] = field(default_factory=dict)
    """Per prompt: the earlier ones that are alike, oldest first."""
    placed: dict[int, Placed] = field(default_factory=dict)
    duplicates: dict[int, int] = field(default_factory=dict)
    """Number of a duplicate -> id of what it is alike to."""
    parents: dict[int, int] = field(default_factory=dict)
    """Id of a new prompt -> id of its parent."""
    late_parents: dict[int, int] = field(default_factory=dict)
    """The same of prompts that were there, and may have none yet."""


def place(
    session: Session,
    project_id: int,
    pool_id: int,
    incoming: Sequence[Incoming],
    *,
    rules: Rules = Rules(),
    import_id: int | None = None,
    finder: Finder | None = None,
    keys: "NDArray[uint64] | None" = None,
) -> list[Placed]:
    """Store a batch of prompts; what became of each, in their order. Prompts lie in the batch before those that name them.

    `keys` are those of `likeness.sketch`, a row a prompt; without `finder` nothing is compared. Holds the project's lock of
    imports until the transaction ends.
    """
    queries.lock_imports(session, project_id)
    batch = _load(session, project_id, incoming, rules, import_id)
    if finder is not None and keys is not None:
        finder.refresh(session)
        if rules.leaves_out_near or rules.leaves_out_prefixes:
            batch.alike = _find_alike(session, batch, finder, keys)
    ids = iter(bulk.take_ids(session, Prompt, len(incoming)))
    is_indexed = finder is not None and keys is not None
    rest = (project_id, pool_id, import_id, is_indexed)
    bulk.copy_rows(session, Prompt, _COLUMNS, (_columns(batch, number, rest) for number in _place_all(batch, ids)))
    if finder is not None and keys is not None:
        kept = [number for number, placed in batch.placed.items() if placed.is_new and number not in batch.duplicates]
        finder.add(session, [batch.placed[number].prompt_id for number in kept], keys[kept])
    changed = {name: source for name, source in batch.sources.items() if source.added or not source.is_stored}
    import_queries.upsert_sources(session, project_id, changed)
    _set_late_parents(session, batch)
    if import_id is not None and batch.numbers:
        placed_keys = {key: batch.keys[key] for key in batch.numbers if key in batch.keys}
        named = {key: one.prompt_id for key, one in placed_keys.items() if one.outcome != Outcome.REFUSED}
        import_queries.insert_keys(session, project_id, import_id, named)
    return [batch.placed[number] for number in range(len(incoming))]


def _load(
    session: Session, project_id: int, incoming: Sequence[Incoming], rules: Rules, import_id: int | None
) -> _Batch:
    """What the database knows of this batch: the same prompts, their sources, and parents from earlier in the file."""
    known = queries.map_stored(session, project_id, [one.fingerprint for one in incoming])
    named = {key for one in incoming for key in (one.key, one.parent_key) if key is not None}
    keys: dict[str, Placed] = {}
    if named and import_id is not None:
        found = import_queries.map_keys(session, import_id, named)
        rows = queries.map_rows(session, list(found.values()))
        for key, prompt_id in found.items():
            row = rows[prompt_id]
            keys[key] = Placed(Outcome.KNOWN, row.id, row.source, row.split)
    names = {one.source for one in incoming if one.source is not None}
    names |= {row.source for row in known.values()} | {placed.source for placed in keys.values()}
    numbers: dict[str, int] = {}
    for number, one in enumerate(incoming):
        if one.key is not None:
            numbers.setdefault(one.key, number)
    return _Batch(incoming, rules, known, import_queries.map_sources(session, project_id, names), keys, numbers)


def _place_all(batch: _Batch, ids: Iterator[int]) -> Iterator[int]:
    """Place every prompt, and give the numbers of the new ones as it goes: the database takes one while the next is placed."""
    for number, one in enumerate(batch.incoming):
        if number in batch.placed:
            continue
        for each in (number,) if one.parent_key is None else _find_line(batch, number):
            key = batch.incoming[each].key
            if key is not None and key in batch.keys:
                reason = (
                    f"an earlier row has the key {key!r} too; a parent must be one row. Give each its own, or drop it."
                )
                batch.placed[each] = Placed(Outcome.REFUSED, reason=reason)
                continue
            placed = batch.placed[each] = _place_one(batch, each, ids)
            if key is not None:
                batch.keys[key] = placed
            if placed.is_new:
                yield each


def _find_line(batch: _Batch, number: int) -> Sequence[int]:
    """A prompt after those it continues that are still to be placed; none where they run in a circle."""
    line = [number]
    while (parent := batch.incoming[line[-1]].parent_key) is not None:
        before = batch.numbers.get(parent)
        if before is None or before in batch.placed:
            break
        if before in line:
            reason = (
                f"The parent {parent!r} of this row is, over others, the row itself. Drop the field in one of them."
            )
            batch.placed |= dict.fromkeys(line, Placed(Outcome.REFUSED, reason=reason))
            return ()
        line.append(before)
    return line[::-1]


def _place_one(batch: _Batch, number: int, ids: Iterator[int]) -> Placed:
    one = batch.incoming[number]
    known = batch.known.get(one.fingerprint)
    parent = batch.keys.get(one.parent_key) if one.parent_key is not None else None
    if one.parent_key is not None and (parent is None or parent.outcome == Outcome.REFUSED):
        return Placed(
            Outcome.REFUSED,
            reason=f"The parent {one.parent_key!r} of a prompt is not in the same import before it. "
            "Add it, or drop the field.",
        )
    source = one.source or (parent.source if parent else None) or (known.source if known else None)
    source = source or own_source(one.fingerprint)
    split, problem = _choose_split(batch, one, source, parent, known)
    if problem:
        return Placed(Outcome.REFUSED, reason=problem)
    if known is not None:
        placed = Placed(Outcome.KNOWN, known.id, known.source, known.split, is_foreign=known.source != source)
    else:
        outcome = _judge(batch, number, source)
        placed = Placed(outcome, next(ids), source, split)
        batch.known[one.fingerprint] = queries.StoredRow(placed.prompt_id, source, split)
        if (stored := batch.sources.get(source)) is not None:
            stored.added += outcome in (Outcome.ADDED, Outcome.PII)
        elif one.source is not None:
            batch.sources[source] = SourceRow(split, 0, int(outcome in (Outcome.ADDED, Outcome.PII)), is_stored=False)
    # A parent is older than what continues it, so that no chain ever comes round, however often its rows come.
    if parent is not None and parent.source == placed.source == source and parent.prompt_id < placed.prompt_id:
        (batch.parents if placed.is_new else batch.late_parents)[placed.prompt_id] = parent.prompt_id
    return placed


def _choose_split(
    batch: _Batch, one: Incoming, source: str, parent: Placed | None, known: queries.StoredRow | None
) -> tuple[Split, str]:
    """The split of a source: as stored, else its parent's, else as the row says, else by hash; or why that cannot be."""
    if (stored := batch.sources.get(source)) is not None:
        split: Split | None = stored.split
    elif parent is not None and parent.source == source:
        split = parent.split
    else:
        split = known.split if known is not None and known.source == source else None
    if split is not None and one.split is not None and one.split != split:
        return split, (
            f"The source {source!r} is in {split} already and a row puts it into {one.split}. A writer's prompts "
            "belong to one split, so that a model is never measured on a writer it learned from."
        )
    return split or one.split or split_of(source), ""


def _judge(batch: _Batch, number: int, source: str) -> Outcome:
    """What keeps a new prompt out of the work, if anything does."""
    one, rules = batch.incoming[number], batch.rules
    if one.findings != "[]":
        return Outcome.PII
    if original := _find_original(batch, number):
        return original
    if rules.languages and one.language is not None and one.language not in rules.languages:
        return Outcome.LANGUAGE
    stored = batch.sources.get(source)
    if rules.most_per_source is not None and stored and stored.prompts + stored.added >= rules.most_per_source:
        return Outcome.CAPPED
    return Outcome.ADDED


def _find_original(batch: _Batch, number: int) -> Outcome | None:
    """Whether a prompt is a duplicate by the rules, which is then noted. Of what, must itself be none."""
    for one in batch.alike.get(number, ()):
        is_rule = batch.rules.leaves_out_near if one.how == Likeness.NEAR else batch.rules.leaves_out_prefixes
        prompt_id = one.prompt_id
        if prompt_id is None:
            placed = batch.placed.get(one.number)
            prompt_id = placed.prompt_id if placed and placed.outcome == Outcome.ADDED else None
        if is_rule and prompt_id is not None:
            batch.duplicates[number] = prompt_id
            return Outcome.NEAR if one.how == Likeness.NEAR else Outcome.PREFIX
    return None


@dataclass(frozen=True, slots=True)
class _Alike:
    """An earlier prompt that one is alike: a stored one, or by its number in the batch."""

    how: Likeness
    prompt_id: int | None
    number: int = 0


def _find_alike(session: Session, batch: _Batch, finder: Finder, keys: "NDArray[uint64]") -> dict[int, list[_Alike]]:
    """Earlier prompts that each new one is alike, by the whole texts of those that share a key with it."""
    stored, within = finder.find(keys)
    fresh = [number for number, one in enumerate(batch.incoming) if one.fingerprint not in batch.known]
    texts = queries.map_messages(session, {prompt_id for number in fresh for prompt_id in stored[number]})
    pairs: list[tuple[Sequence[Json], Sequence[Json]]] = []
    places: list[tuple[int, int | None, int]] = []
    for number in fresh:
        if not stored[number] and not within[number]:
            continue
        mine = json.loads(batch.incoming[number].messages)
        known = [prompt_id for prompt_id in stored[number] if prompt_id in texts]
        pairs += [(texts[prompt_id], mine) for prompt_id in known]
        places += [(number, prompt_id, 0) for prompt_id in known]
        pairs += [(json.loads(batch.incoming[earlier].messages), mine) for earlier in within[number]]
        places += [(number, None, earlier) for earlier in within[number]]
    found: dict[int, list[_Alike]] = {}
    for (number, prompt_id, earlier), how in zip(places, likeness.compare(pairs), strict=True):
        if how is not None:
            found.setdefault(number, []).append(_Alike(how, prompt_id, earlier))
    return found


_COLUMNS = (
    "id",
    "project_id",
    "pool_id",
    "messages",
    "category",
    "source",
    "split",
    "fingerprint",
    "status",
    "reference",
    "verifier",
    "parent_id",
    "needs",
    "licence",
    "consent",
    "import_id",
    "language",
    "duplicate_of_id",
    "findings",
    "is_private",
    "is_indexed",
)


def _columns(batch: _Batch, number: int, rest: tuple[int, int, int | None, bool]) -> tuple[Any, ...]:
    """A new prompt's row; `rest` is the same for the whole batch."""
    project_id, pool_id, import_id, is_indexed = rest
    one, placed = batch.incoming[number], batch.placed[number]
    return (
        placed.prompt_id,
        project_id,
        pool_id,
        one.messages,
        one.category,
        placed.source,
        placed.split,
        one.fingerprint,
        _STATUS[placed.outcome],
        one.reference,
        one.verifier,
        batch.parents.get(placed.prompt_id),
        one.needs,
        one.licence,
        one.consent,
        import_id,
        one.language,
        batch.duplicates.get(number),
        one.findings,
        one.findings != "[]",
        is_indexed,
    )


def _set_late_parents(session: Session, batch: _Batch) -> None:
    """Parents of prompts that were stored before without one."""
    if late := [{"id": prompt_id, "parent_id": parent_id} for prompt_id, parent_id in batch.late_parents.items()]:
        queries.set_parents(session, late)
