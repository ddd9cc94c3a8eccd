"""The prompts of a project: the list with its filters, and the import of a JSONL file."""

import uuid
from typing import Annotated

from fastapi import APIRouter, Depends, Form, Query, Request, UploadFile
from starlette.responses import HTMLResponse, RedirectResponse

from app.errors import BadInput
from app.models import Category, Split
from app.permissions import Access, Permission
from app.queries import projects as project_queries
from app.queries import prompts as queries
from app.services import audit, prompt_labels, prompts
from app.settings import get_settings
from app.web.deps import SessionDep, require
from app.web.forms import FormRefused
from app.web.redirects import see_other
from app.web.render import render

PAGE_SIZE = 50

router = APIRouter(prefix="/p/{slug}/prompts")

Reader = Annotated[Access, Depends(require(Permission.READ_DATA))]
Importer = Annotated[Access, Depends(require(Permission.MANAGE_PROMPTS))]


@router.get("")
def list_prompts(
    request: Request,
    session: SessionDep,
    access: Reader,
    category: str = "",
    split: str = "",
    pool: str = "",
    q: str = "",
    before: Annotated[int | None, Query(ge=0, lt=2**63)] = None,
    added: int | None = None,
    duplicates: int = 0,
    samples: int = 0,
    foreign: int = 0,
) -> HTMLResponse:
    """Prompts, newest first, narrowed by category, split, pool and words; the address holds the filter."""
    wanted = queries.PromptFilter(
        category=Category(category) if category in [item.value for item in Category] else None,
        split=Split(split) if split in [item.value for item in Split] else None,
        pool=pool.replace("\x00", "") or None,
        words=q.replace("\x00", "").strip() or None,
    )
    rows = queries.page_prompts(session, access.project.id, wanted, before=before, limit=PAGE_SIZE + 1)
    return render(
        request,
        "prompts/index.html",
        rows=rows[:PAGE_SIZE],
        next_before=rows[PAGE_SIZE - 1].prompt.id if len(rows) > PAGE_SIZE else None,
        wanted=wanted,
        is_first=before is None,
        counts=queries.count_by_split(session, access.project.id),
        pools=queries.list_pools(session, access.project.id),
        categories=list(Category),
        splits=list(Split),
        added=added,
        duplicates=duplicates,
        samples=samples,
        foreign=foreign,
    )


@router.get("/import")
def show_import(request: Request, session: SessionDep, access: Importer) -> HTMLResponse:
    """The form to import a file, with what a line may hold."""
    return _show_import(request, access)


@router.post("/import")
def import_file(
    request: Request,
    session: SessionDep,
    access: Importer,
    file: UploadFile,
    pool: Annotated[str, Form()] = "",
    every_turn: Annotated[bool, Form()] = False,
) -> RedirectResponse:
    """Import a JSONL file as a whole, or show which lines keep it from that; then nothing is stored."""
    base = project_queries.get_base(session, access.project)
    try:
        report = prompts.import_file(
            session,
            access.project,
            pool=pool,
            data=file.file,
            longest=prompts.longest_characters(get_settings(), base),
            every_turn=every_turn,
        )
    except BadInput as error:
        page = _show_import(request, access, pool=pool, every_turn=every_turn, name=file.filename or "", error=error)
        raise FormRefused(page) from error
    audit.record(
        session,
        actor=access.user,
        project=access.project,
        action="import prompts",
        subject_kind="prompt_pool",
        pool=pool.strip(),
        file=file.filename,
        added=report.added,
        duplicates=report.duplicates,
        samples=report.samples,
        foreign=report.foreign,
    )
    counts = f"added={report.added}&duplicates={report.duplicates}&samples={report.samples}&foreign={report.foreign}"
    return see_other(f"/p/{access.project.slug}/prompts?{counts}")


@router.post("/{uid}/release")
def release(session: SessionDep, access: Importer, uid: uuid.UUID) -> RedirectResponse:
    """Make a prompt that was said to hold personal data active again."""
    prompt_labels.release(session, access, uid)
    return see_other(f"/p/{access.project.slug}/prompts")


def _show_import(
    request: Request,
    access: Access,
    *,
    pool: str = "",
    every_turn: bool = False,
    name: str = "",
    error: BadInput | None = None,
) -> HTMLResponse:
    lines = error.parsed if isinstance(error, prompts.RefusedFile) else None
    return render(
        request,
        "prompts/import.html",
        error.status if error else 200,
        pool=pool,
        every_turn=every_turn,
        name=name,
        error=error,
        lines=lines,
        categories=list(Category),
        splits=list(Split),
    )
