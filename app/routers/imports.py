"""Bringing files in: upload, what the first rows would become, progress, and the report of what was refused."""

import collections.abc
import csv
import io
from collections.abc import Iterator
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request
from pydantic import ValidationError
from sqlalchemy.orm import Session
from starlette.datastructures import FormData, UploadFile
from starlette.responses import HTMLResponse, RedirectResponse, StreamingResponse

from app.db import transaction
from app.errors import BadInput
from app.intake.shapes import FIELDS, Mapping, Shape
from app.models import Category, Import, ImportKind, Split
from app.permissions import Access, Permission
from app.queries import imports as queries
from app.queries import prompts as prompt_queries
from app.schemas.imports import Counts, ImportSettings, read_settings
from app.services import imports, projects
from app.web.csrf import read_form
from app.web.deps import SessionDep, require
from app.web.forms import Fields, FormRefused
from app.web.redirects import see_other
from app.web.render import render
from app.web.tables import csv_cell

PAGE_SIZE = 50
REPORT_ROWS = 100

router = APIRouter(prefix="/p/{slug}/imports")

Importer = Annotated[Access, Depends(require(Permission.MANAGE_PROMPTS))]
Reader = Annotated[Access, Depends(require(Permission.READ_DATA))]


@router.get("")
def index(
    request: Request,
    session: SessionDep,
    access: Reader,
    before: Annotated[int | None, Query(ge=0, lt=2**63)] = None,
) -> HTMLResponse:
    """Every import, newest first, with what became of it."""
    rows = queries.page_imports(session, access.project.id, before=before, limit=PAGE_SIZE + 1)
    return render(
        request,
        "imports/index.html",
        rows=rows[:PAGE_SIZE],
        next_before=rows[PAGE_SIZE - 1].id if len(rows) > PAGE_SIZE else None,
        is_first=before is None,
        counts={row.id: Counts.from_json(row.counts) for row in rows},
    )


@router.get("/new")
def show_new(request: Request, access: Importer, kind: str = "") -> HTMLResponse:
    """The form to upload a file, with what each kind of it may hold."""
    return _new(request, kind)


@router.post("")
def upload(
    request: Request, session: SessionDep, access: Importer, form: Annotated[FormData, Depends(read_form)]
) -> RedirectResponse:
    """Keep a file; its first rows are looked at next."""
    file, kind = form.get("file"), str(form.get("kind", ""))
    try:
        if kind not in list(ImportKind):
            raise BadInput("Say what the file holds.", field="kind")
        if not isinstance(file, UploadFile) or not file.filename:
            raise BadInput("Choose a file.", field="file")
        row = imports.upload(session, access, kind=ImportKind(kind), name=file.filename, data=file.file)
    except BadInput as error:
        raise FormRefused(_new(request, kind, error=error)) from error
    return see_other(f"/p/{access.project.slug}/imports/{row.uid}")


@router.get("/{uid}")
def show(
    request: Request,
    session: SessionDep,
    access: Importer,
    uid: UUID,
    block: str | None = None,
    after: Annotated[int, Query(ge=0, lt=2**63)] = 0,
) -> HTMLResponse:
    """A draft with its first rows, or how far an import is and what was refused."""
    row = imports.find(session, access, uid)
    if row.job is None:
        return _draft(request, session, access, row, ImportSettings.model_validate(row.settings))
    refusals = queries.page_refusals(session, row.id, after=after, limit=REPORT_ROWS + 1)
    return render(
        request,
        "imports/show.html",
        block="live" if block == "live" else None,
        row=row,
        counts=Counts.from_json(row.counts),
        told=ImportSettings.model_validate(row.settings),
        progress=imports.find_progress(row),
        refusals=refusals[:REPORT_ROWS],
        next_after=refusals[REPORT_ROWS - 1].id if len(refusals) > REPORT_ROWS else None,
        is_first=after == 0,
    )


@router.post("/{uid}/preview")
def preview(request: Request, session: SessionDep, access: Importer, uid: UUID, fields: Fields) -> HTMLResponse:
    """Keep what the form says, and show the first rows anew by it."""
    row = imports.find(session, access, uid)
    told = _read(request, session, access, row, fields)
    imports.configure(session, access, uid, told)
    return _draft(request, session, access, row, told)


@router.post("/{uid}/start")
def start(request: Request, session: SessionDep, access: Importer, uid: UUID, fields: Fields) -> RedirectResponse:
    """Have a worker bring the file in."""
    row = imports.find(session, access, uid)
    told = _read(request, session, access, row, fields) if row.job is None else ImportSettings()
    try:
        imports.start(session, access, uid, told)
    except BadInput as error:
        problems = {error.field or "": error.message}
        raise FormRefused(_draft(request, session, access, row, told, problems=problems)) from error
    return see_other(f"/p/{access.project.slug}/imports/{uid}")


@router.post("/{uid}/cancel")
def cancel(session: SessionDep, access: Importer, uid: UUID) -> RedirectResponse:
    """Stop after the batch that is under way."""
    imports.cancel(session, access, uid)
    return see_other(f"/p/{access.project.slug}/imports/{uid}")


@router.post("/{uid}/retry")
def retry(session: SessionDep, access: Importer, uid: UUID) -> RedirectResponse:
    """Go on from where it ended."""
    imports.retry(session, access, uid)
    return see_other(f"/p/{access.project.slug}/imports/{uid}")


@router.post("/{uid}/discard")
def discard(session: SessionDep, access: Importer, uid: UUID) -> RedirectResponse:
    """Throw a draft away."""
    imports.discard(session, access, uid)
    return see_other(f"/p/{access.project.slug}/imports")


@router.get("/{uid}/refused.csv")
def download_refused(session: SessionDep, access: Importer, uid: UUID) -> StreamingResponse:
    """Every refused row with its line and reason."""
    row = imports.find(session, access, uid)
    headers = {"Content-Disposition": f'attachment; filename="refused-{row.uid}.csv"'}
    return StreamingResponse(_refused_lines(row.id), media_type="text/csv; charset=utf-8", headers=headers)


def _refused_lines(import_id: int) -> Iterator[str]:
    yield "line,reason\r\n"
    with transaction() as session:
        after = 0
        while rows := queries.page_refusals(session, import_id, after=after, limit=1000):
            out = io.StringIO()
            csv.writer(out).writerows((row.line, csv_cell(row.reason)) for row in rows)
            yield out.getvalue()
            after = rows[-1].id


def _read(
    request: Request, session: Session, access: Access, row: Import, fields: collections.abc.Mapping[str, list[str]]
) -> ImportSettings:
    """The form's settings; shows it again where they do not hold."""
    try:
        return read_settings(fields)
    except ValidationError as error:
        told = ImportSettings.model_validate(row.settings)
        problems = projects.describe(error)
        raise FormRefused(_draft(request, session, access, row, told, problems=problems, given=fields)) from error


def _new(request: Request, kind: str, *, error: BadInput | None = None) -> HTMLResponse:
    return render(
        request,
        "imports/new.html",
        error.status if error else 200,
        kind=kind if kind in list(ImportKind) else ImportKind.PROMPTS,
        kinds=list(ImportKind),
        categories=list(Category),
        error=error,
    )


def _draft(
    request: Request,
    session: Session,
    access: Access,
    row: Import,
    told: ImportSettings,
    *,
    problems: collections.abc.Mapping[str, str] | None = None,
    given: collections.abc.Mapping[str, list[str]] | None = None,
) -> HTMLResponse:
    values = told.model_dump(mode="json") | {name: texts[-1] for name, texts in (given or {}).items()}
    return render(
        request,
        "imports/draft.html",
        422 if problems else 200,
        row=row,
        values=values,
        mapping=told.mapping,
        names=Mapping.from_json(told.mapping).names,
        problems=problems or {},
        preview=imports.preview(row, told),
        shapes=list(Shape),
        fields=FIELDS[row.kind],
        pools=prompt_queries.list_pools(session, access.project.id),
        categories=list(Category),
        splits=list(Split),
    )
