"""A worker's part of an import: a batch is read and looked at, then stored with where the file is to be read on.

What a batch brings, the place in the file, and what was counted are written in one transaction. So a worker that is killed loses
nothing and doubles nothing: the next goes on where the last batch ended.
"""

import os
import shutil
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path

from sqlalchemy.orm import Session

from app import snapshot as files
from app import storage
from app.errors import BadInput
from app.intake import containers, shapes
from app.intake.containers import START, Container, Position
from app.intake.preparing import Prepared, Recipe
from app.models import Import, ImportKind, Json, Project, Snapshot, SnapshotKind
from app.queries import datasets as dataset_queries
from app.queries import imports as queries
from app.queries import projects as project_queries
from app.queries import prompts as prompt_queries
from app.queries import runs as run_queries
from app.schemas.imports import Counts, ImportSettings
from app.services import alike, audit, imported, intake, jobs, prompts
from app.services.intake import Outcome, Rules
from app.services.jobs import Claim
from app.settings import get_settings

BATCH_ROWS = 10_000
BATCH_BYTES = 16 * 1024**2


@dataclass
class Work:
    """An import in a worker's hands: how it is read, where it is, what it is told of the rest."""

    row_id: int
    uid: uuid.UUID
    project: Project
    recipe: Recipe
    settings: ImportSettings
    position: Position
    total: int
    """End of the file, in units of `Position.read`."""
    left_bytes: int
    """Of the file as it was uploaded, from `position` on."""
    finder: alike.Finder

    @property
    def text_path(self) -> Path:
        """Texts that were read so far, as rows of a snapshot."""
        return self.recipe.path.with_name("text.jsonl")


def load(session: Session, claim: Claim) -> Work:
    """What there is to do. Raises BadInput where the file is gone or cannot be opened."""
    row = queries.get_import(session, claim.arguments["import_id"])
    project = run_queries.get_project(session, claim.project_id)
    path = storage.import_file(get_settings(), row.uid)
    if not path.exists():
        raise BadInput("The uploaded file is no longer in the store. Upload it again.", field="file")
    told = ImportSettings.model_validate(row.settings)
    base = project_queries.get_base(session, project)
    container = Container(row.container)
    try:
        total = containers.size(path, container)
    except ValueError as error:
        raise BadInput(str(error), field="file") from None
    recipe = Recipe(
        path=path,
        container=container,
        kind=row.kind,
        mapping=shapes.Mapping.from_json(told.mapping),
        looks_for_pii=told.looks_for_pii,
        longest=prompts.longest_characters(get_settings(), base),
        source=told.source or None,
        licence=told.licence or None,
        consent=told.consent or None,
        category=told.category,
        split=told.split,
    )
    return Work(
        row_id=row.id,
        uid=row.uid,
        project=project,
        recipe=recipe,
        settings=told,
        position=Position.from_json(row.position) if row.position else START,
        total=total,
        left_bytes=row.size_bytes - row.size_bytes * int(row.position.get("read", 0)) // max(total, 1),
        finder=alike.Finder(project.id),
    )


def store(session: Session, claim: Claim, work: Work, prepared: Prepared) -> None:
    """Store a batch, with where the file is to be read on. Raises StaleAttempt where another worker has the import."""
    row = queries.lock_import(session, work.row_id)
    counts = Counts.from_json(row.counts)
    refused = list(prepared.refused)
    if work.recipe.kind == ImportKind.TEXT:
        _store_texts(work, prepared, counts)
    elif prepared.incoming:
        refused += _store_prompts(session, work, row, prepared, counts)
    counts.rows += prepared.rows
    counts.refused += len({line for line, _ in refused})
    queries.insert_refusals(session, row, sorted(refused))
    row.counts = counts.to_json()
    row.position = asdict(prepared.end)
    session.flush()
    # Last, since it locks the job, which whoever stops the import waits for.
    jobs.heartbeat(session, claim, progress=prepared.end.read, total=work.total)


def _store_prompts(
    session: Session, work: Work, row: Import, prepared: Prepared, counts: Counts
) -> list[tuple[int, str]]:
    """Place the prompts and keep what came with them; rows that cannot be, as (line, reason)."""
    told = work.settings
    pool = prompt_queries.get_or_insert_pool(session, work.project.id, told.pool)
    placed = intake.place(
        session,
        work.project.id,
        pool.id,
        prepared.incoming,
        rules=Rules(
            leaves_out_near=told.leaves_out_near,
            leaves_out_prefixes=told.leaves_out_prefixes,
            most_per_source=told.most_per_source or None,
            languages=told.language_codes,
        ),
        import_id=work.row_id,
        finder=work.finder,
        keys=prepared.keys,
    )
    if new := [place.prompt_id for place in placed if place.is_new]:
        row.first_prompt_id, row.last_prompt_id = row.first_prompt_id or min(new), max(new)
    refused = []
    given = []
    for line, place, responses, annotator in zip(
        prepared.lines, placed, prepared.responses, prepared.annotators, strict=True
    ):
        if place.outcome == Outcome.REFUSED:
            refused.append((line, place.reason))
            continue
        setattr(counts, place.outcome, getattr(counts, place.outcome) + 1)
        is_left_out = place.is_foreign and work.recipe.kind == ImportKind.PROMPTS
        counts.foreign += is_left_out
        if responses and not is_left_out:
            given.append(imported.Given(line, place, responses, annotator))
    into = imported.Into(work.project.id, work.row_id, work.recipe.kind)
    match work.recipe.kind:
        case ImportKind.PROMPTS:
            imported.keep_answers(session, work.project.id, given, counts)
        case ImportKind.DEMONSTRATIONS:
            imported.keep_demonstrations(session, work.project.id, given, counts)
        case ImportKind.OUTPUTS:
            imported.keep_outputs(session, into, given, counts, judgements_wanted=told.judgements_wanted)
        case ImportKind.RANKINGS:
            refused += imported.keep_rankings(session, into, given, counts, pool=told.pool)
    return refused


def _store_texts(work: Work, prepared: Prepared, counts: Counts) -> None:
    """Add texts to the file of a snapshot to be; what a killed worker wrote beyond the last commit is cut off first."""
    lines = [files.encode_row({"text": text}) for text in prepared.texts]
    with work.text_path.open("ab") as out:
        out.truncate(counts.text_bytes)
        out.seek(counts.text_bytes)
        out.writelines(lines)
        out.flush()
        os.fsync(out.fileno())  # the commit says that they are there
    counts.texts += len(lines)
    counts.text_bytes += sum(map(len, lines))


@dataclass(frozen=True)
class Texts:
    """A snapshot of texts whose folder is written."""

    uid: uuid.UUID
    manifest: files.Manifest


def write_texts(work: Work) -> Texts | None:
    """The texts as the folder of a snapshot, written without a transaction: it may take minutes. None where there are none."""
    if work.recipe.kind != ImportKind.TEXT or not work.text_path.exists():
        return None
    uid = uuid.uuid4()
    rows = files.read_rows(work.text_path.parent, work.text_path.name)
    folder = storage.snapshot_folder(get_settings(), uid)
    return Texts(uid, files.write(folder, SnapshotKind.TEXT, {"text.jsonl": rows}, {"import": str(work.uid)}))


def finish(session: Session, claim: Claim, work: Work, texts: Texts | None) -> None:
    """The file is at its end: texts become a snapshot, the job has succeeded. Raises StaleAttempt."""
    row = queries.lock_import(session, work.row_id)
    counts = Counts.from_json(row.counts)
    result: Json = {}
    if texts is not None:
        result["snapshot"] = str(_register(session, work, texts).uid)
    prompt_queries.lock_imports(session, work.project.id)
    alike.pack_segments(session, work.project.id)
    queries.delete_keys(session, work.row_id)
    row.has_upload = False
    jobs.succeed(session, claim, result | counts.to_json())
    audit.record(
        session,
        actor=None,
        project=work.project,
        action="finish import",
        subject_kind="import",
        subject_uid=row.uid,
        file=row.name,
        kind=row.kind.value,
        **{name: count for name, count in counts.to_json().items() if count},
    )


def _register(session: Session, work: Work, texts: Texts) -> Snapshot:
    """The snapshot of these texts; the one that is there, where there is one of the same."""
    kind, sha256 = SnapshotKind.TEXT, texts.manifest.sha256
    if (same := dataset_queries.find_same(session, work.project.id, kind, sha256)) is not None:
        return same
    snapshot = Snapshot(
        uid=texts.uid, project_id=work.project.id, kind=kind, sha256=sha256, manifest=asdict(texts.manifest)
    )
    dataset_queries.insert_snapshot(session, snapshot)
    return snapshot


def forget_texts(session: Session, work: Work, texts: Texts) -> None:
    """Remove a snapshot's folder that no row speaks of."""
    if dataset_queries.find_by_uid(session, work.project.id, texts.uid) is None:
        shutil.rmtree(storage.snapshot_folder(get_settings(), texts.uid), ignore_errors=True)


def catch_up(session: Session, work: Work) -> bool:
    """Give some prompts that came otherwise the keys they are found by; whether there were any."""
    prompt_queries.lock_imports(session, work.project.id)
    return work.recipe.kind != ImportKind.TEXT and alike.catch_up(session, work.project.id)


def forget_upload(work: Work) -> None:
    """Remove the uploaded file of an import that has come to its end."""
    shutil.rmtree(work.recipe.path.parent, ignore_errors=True)
