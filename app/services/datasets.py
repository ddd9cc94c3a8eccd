"""Snapshots: what people said so far, frozen as the files of house.md §5, with a record of what went in.

A snapshot is taken in one short repeatable-read transaction, so that its files agree with each other however many labellers
are submitting meanwhile. Labellers are pseudonyms under a key that is thrown away: a person has one name within a snapshot
and another in the next.
"""

import hashlib
import secrets
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field

from sqlalchemy.orm import Session

from app import snapshot as files
from app import storage
from app.models import Cohort, Demonstration, JudgeKind, Project, Prompt, Purpose, Snapshot, SnapshotKind, Split
from app.queries import datasets as queries
from app.services.accounts import DEFAULT_COHORT
from app.settings import get_settings
from app.snapshot import Row


@dataclass(frozen=True)
class Filters:
    """Which judgements and demonstrations enter; the defaults are those of every training run (house.md §4).

    Always in force: status current, and no prompt that was found to hold personal data.
    """

    purposes: tuple[Purpose, ...] = (Purpose.TRAIN,)
    cohorts: tuple[Cohort, ...] = (Cohort.TRAINING,)
    judges: tuple[JudgeKind, ...] = (JudgeKind.HUMAN,)
    prompt_splits: tuple[Split, ...] = (Split.TRAIN, Split.VALID)
    """Splits in prompts.jsonl. The other files carry all splits, and every reader leaves `test` alone."""


TRAINING = Filters()


@dataclass
class _Contents:
    """What has gone into the snapshot so far, noted while its rows are streamed to disk."""

    judgements: list[int] = field(default_factory=list)
    demonstrations: list[int] = field(default_factory=list)


def take_snapshot(session: Session, project: Project, kind: SnapshotKind, filters: Filters = TRAINING) -> Snapshot:
    """Freeze the project's present state for one kind of training into the store.

    A `rankings` snapshot carries the demonstrations too: the reward model is normalised on them. Raises ValueError outside of
    a repeatable-read transaction, and for `text`, which is imported and never made from the tables.
    """
    isolation = session.connection().get_isolation_level()
    if isolation != "REPEATABLE READ":
        raise ValueError(f"a snapshot needs transaction(isolation='REPEATABLE READ'); this one is {isolation}")
    names = _Pseudonyms(secrets.token_bytes(32))
    contents = _Contents()
    demonstrations = {"demonstrations.jsonl": _demonstration_rows(session, project.id, filters, names, contents)}
    match kind:
        case SnapshotKind.DEMONSTRATIONS:
            rows = demonstrations
        case SnapshotKind.RANKINGS:
            rows = {"rankings.jsonl": _ranking_rows(session, project.id, filters, names, contents), **demonstrations}
        case SnapshotKind.PROMPTS:
            rows = {"prompts.jsonl": _prompt_rows(session, project.id, filters)}
        case SnapshotKind.TEXT:
            raise ValueError("a text snapshot is imported; it is not taken from the tables")
    uid = uuid.uuid4()
    folder = storage.snapshot_folder(get_settings(), uid)
    manifest = files.write(folder, kind, rows, {"project": project.slug, **asdict(filters)})
    try:
        snapshot = Snapshot(
            uid=uid, project_id=project.id, kind=kind, sha256=manifest.sha256, manifest=asdict(manifest)
        )
        queries.insert_snapshot(session, snapshot)
        queries.insert_members(
            session,
            project.id,
            snapshot.id,
            judgements=contents.judgements,
            demonstrations=contents.demonstrations,
        )
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return snapshot


class _Pseudonyms:
    """Names for people that mean nothing outside of one snapshot."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def of(self, identity: str | None) -> str | None:
        return hashlib.blake2b(identity.encode(), key=self._key, digest_size=8).hexdigest() if identity else None


def _demonstration_rows(
    session: Session, project_id: int, filters: Filters, names: _Pseudonyms, contents: _Contents
) -> Iterator[Row]:
    rows = queries.list_demonstrations(
        session, project_id, purposes=filters.purposes, cohorts=filters.cohorts, default_cohort=DEFAULT_COHORT
    )
    for demonstration, prompt, author in rows:
        contents.demonstrations.append(demonstration.id)
        yield _demonstration_row(demonstration, prompt, names.of(author))


def _demonstration_row(demonstration: Demonstration, prompt: Prompt, labeller: str | None) -> Row:
    return {
        "id": str(demonstration.uid),
        "prompt_id": str(prompt.uid),
        "prompt": prompt.messages,
        "response": demonstration.text,
        "split": prompt.split,
        "labeller": labeller,
        "origin": demonstration.origin,
    }


def _ranking_rows(
    session: Session, project_id: int, filters: Filters, names: _Pseudonyms, contents: _Contents
) -> Iterator[Row]:
    batches = queries.list_judgements(
        session,
        project_id,
        purposes=filters.purposes,
        cohorts=filters.cohorts,
        judge_kinds=filters.judges,
        default_cohort=DEFAULT_COHORT,
    )
    for batch in batches:
        ids = [row.judgement.id for row in batch]
        outputs, pairs = queries.list_outputs(session, ids), queries.list_pairs(session, ids)
        contents.judgements.extend(ids)
        for row in batch:
            yield _ranking_row(row, outputs[row.judgement.id], pairs[row.judgement.id], names.of(row.author))


def _ranking_row(
    row: queries.JudgementRow,
    outputs: list[queries.OutputRow],
    pairs: list[queries.PairRow],
    labeller: str | None,
) -> Row:
    judgement = row.judgement
    return {
        "id": str(judgement.uid),
        "prompt_id": str(row.prompt.uid),
        "prompt": row.prompt.messages,
        "responses": [_response(output) for output in outputs],
        "pairs": [_pair(pair) for pair in pairs] or None,
        "split": row.prompt.split,
        "labeller": labeller,
        "group": None,
        "round": row.round_number,
        "confidence": judgement.confidence,
        "answers": judgement.answers,
        "purpose": row.purpose,
        "judge": row.judge_kind,
        "weight": 1.0,
        "guideline": row.guideline_version,
        "schema": row.schema_version,
        "created": judgement.created_at.isoformat(),
    }


def _response(output: queries.OutputRow) -> Row:
    return {
        "sample": str(output.sample.uid),
        "text": output.sample.text,
        "tier": output.rank.tier,
        "quality": output.rank.quality,
        "flags": output.rank.answers | ({"not_rankable": output.rank.reason} if output.rank.reason else {}),
        "sampler": output.sampler,
        "finish_reason": output.sample.finish_reason,
    }


def _pair(row: queries.PairRow) -> Row:
    return {"left": row.left, "right": row.right, "p_left": row.pair.p_left, "strength": row.pair.strength}


def _prompt_rows(session: Session, project_id: int, filters: Filters) -> Iterator[Row]:
    for prompt in queries.list_prompts(session, project_id, filters.prompt_splits):
        yield {
            "id": str(prompt.uid),
            "prompt": prompt.messages,
            "split": prompt.split,
            "category": prompt.category,
            "reference": prompt.reference,
            "verifier": prompt.verifier,
        }
