"""`preferable import`: a file of this machine, or a dataset of the hub by its name, brought in as the page does."""

import time
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli import database, plain_errors
from app.db import transaction
from app.errors import BadInput, NotFound
from app.models import ImportKind, JobState

if TYPE_CHECKING:
    from app.models import Import
    from app.permissions import Access
    from app.schemas.imports import ImportSettings

_DATA = ("*.parquet", "*.jsonl", "*.jsonl.gz", "*.json.gz", "*.json", "*.csv", "*.csv.gz", "*.tsv", "*.txt")
_LOOK_SECONDS = 0.5
_SHOWN = 10


def import_file(
    source: Annotated[
        str, typer.Argument(help="A file; or the name of a dataset on the Hugging Face hub, owner/name.")
    ],
    project: Annotated[str, typer.Option(help="Slug of the project, as in its address /p/<slug>/.")],
    kind: Annotated[ImportKind, typer.Option(help="What the file holds.")] = ImportKind.PROMPTS,
    pool: Annotated[str, typer.Option(help="Pool of the prompts; by default named like the file.")] = "",
    shape: Annotated[str, typer.Option(help="Shape of a row, where the guess is wrong; `columns` for a table.")] = "",
    column: Annotated[
        list[str] | None, typer.Option(help="field=column, such as prompt=question; again for each field.")
    ] = None,
    every_turn: Annotated[bool, typer.Option(help="Each user turn is a prompt of its own.")] = False,
    chosen: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="name=value: licence, consent, source, most_per_source, languages, looks_for_pii, …"
        ),
    ] = None,
    files: Annotated[str, typer.Option(help="Of a hub dataset: which of its files, as in data/train-*.")] = "*",
    look: Annotated[bool, typer.Option(help="Show how the first rows would come in, and import nothing.")] = False,
) -> None:
    """Bring prompts, responses, rankings, demonstrations or texts into a project; print what became of the rows."""
    with plain_errors(), database():
        for path in [Path(source)] if Path(source).is_file() else _download(source, files):
            access, row = _upload(path, project, kind)
            try:
                told = _read_settings(row, pool, shape, column or [], every_turn, chosen or [])
                if look:
                    _show(row, told)
                else:
                    _bring_in(access, row, told)
            finally:
                _discard_draft(access, row)


def _upload(path: Path, slug: str, kind: ImportKind) -> "tuple[Access, Import]":
    from app.models import Role
    from app.permissions import Access
    from app.queries.projects import find_project
    from app.services import accounts, imports

    with transaction() as session, path.open("rb") as data:
        found = find_project(session, slug)
        if found is None:
            raise NotFound(f"There is no project {slug!r}.")
        access = Access(accounts.ensure_owner(session), found, frozenset(Role), accounts.DEFAULT_COHORT)
        return access, imports.upload(session, access, kind=kind, name=path.name, data=data)


def _read_settings(
    row: "Import", pool: str, shape: str, columns: list[str], every_turn: bool, chosen: list[str]
) -> "ImportSettings":
    """What the upload guessed, with what the options say in its place. Raises BadInput."""
    from pydantic import ValidationError

    from app.schemas.imports import ImportSettings
    from app.services import projects

    guessed = {} if shape else row.settings["mapping"]["columns"]
    mapping: dict[str, Any] = {
        "shape": shape or row.settings["mapping"]["shape"],
        "columns": guessed | dict(_parse(pair, "--column") for pair in columns),
        "every_turn": every_turn,
    }
    changes: dict[str, Any] = {"mapping": mapping} | ({"pool": pool} if pool else {})
    changes |= dict(_parse(pair, "--set") for pair in chosen)
    try:
        return ImportSettings.model_validate(row.settings | changes)
    except ValidationError as error:
        wrong = "; ".join(f"{name}: {sentence}" for name, sentence in projects.describe(error).items())
        raise BadInput(f"These settings do not hold. {wrong}") from None


def _discard_draft(access: "Access", row: "Import") -> None:
    from app.services import imports

    with transaction() as session:
        if imports.find(session, access, row.uid).job is None:
            imports.discard(session, access, row.uid)


def _parse(pair: str, option: str) -> tuple[str, str]:
    name, separator, value = pair.partition("=")
    if not separator or not name:
        raise BadInput(f"{option} is {pair!r}; expected name=value.")
    return name, value


def _show(row: "Import", told: "ImportSettings") -> None:
    from app.services import imports

    for one in imports.preview(row, told).rows:
        if one.problem:
            typer.echo(f"line {one.line}: refused, {one.problem}")
        for record in one.records:
            text = record.prompt.messages[-1]["content"] if record.prompt else record.text or ""
            typer.echo(f"line {one.line}: {_short(text)}")
            for response in record.responses:
                typer.echo(f"    {'' if response.tier is None else f'{response.tier} '}{_short(response.text)}")


def _short(text: str) -> str:
    return " ".join(text.split())[:120]


def _bring_in(access: "Access", row: "Import", told: "ImportSettings") -> None:
    """Start the import and do it here, unless a worker was quicker; then wait for it."""
    from app.queries import imports as queries
    from app.schemas.imports import Counts
    from app.services import imports
    from workers.tasks.imports import import_file as bring_in

    with transaction() as session:
        job_id = imports.start(session, access, row.uid, told).job_id
    bring_in(job_id)
    while True:
        with transaction() as session:
            found = imports.find(session, access, row.uid)
            refusals = queries.page_refusals(session, found.id, after=0, limit=_SHOWN)
        if found.job is not None and found.job.state in (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED):
            break
        time.sleep(_LOOK_SECONDS)
    counts = {name: count for name, count in Counts.from_json(found.counts).to_json().items() if count}
    typer.echo(f"{row.name}: " + ", ".join(f"{name} {count:,}" for name, count in counts.items()))
    for refusal in refusals:
        typer.echo(f"  line {refusal.line}: {refusal.reason}")
    if counts.get("refused", 0) > len(refusals):
        typer.echo(f"  and {counts['refused'] - len(refusals):,} more; all of them are on the page of the import")
    if found.job.state != JobState.SUCCEEDED:
        raise BadInput(found.job.error or f"The import is {found.job.state.value}; it can be continued on its page.")


def _download(name: str, wanted: str) -> list[Path]:
    """The data files of a hub dataset, from the hub's cache where they are there. Raises BadInput."""
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
    except ModuleNotFoundError:
        raise BadInput(
            f"There is no file {name!r}, and a dataset of the hub can be fetched only once the worker half is installed."
        ) from None
    try:
        folder = Path(
            snapshot_download(name, repo_type="dataset", allow_patterns=wanted if wanted != "*" else list(_DATA))
        )
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise BadInput(f"There is no file {name!r}, and the hub did not give such a dataset ({reason}).") from error
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and _is_data(path, folder, wanted))
    if not paths:
        raise BadInput(f"The dataset {name!r} has no file of rows that matches {wanted!r}.")
    return paths


def _is_data(path: Path, folder: Path, wanted: str) -> bool:
    name = path.relative_to(folder).as_posix()
    return fnmatch(name, wanted) and any(fnmatch(path.name, pattern) for pattern in _DATA)
