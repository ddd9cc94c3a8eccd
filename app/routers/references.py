"""The admin's page of practice, test and gold tasks: the list, and how one is made, changed, imported, retired."""

import uuid
from collections.abc import Mapping
from typing import Annotated

from fastapi import APIRouter, Depends, Form, Query, Request, UploadFile
from starlette.responses import HTMLResponse, RedirectResponse

from app.errors import BadInput, Conflict
from app.models import Purpose
from app.permissions import Access, Permission
from app.queries import qualifications as qualification_queries
from app.queries import references as queries
from app.routers.tasks import turns_of
from app.schemas.references import ReferenceForm
from app.services import projects, prompts, references
from app.web.deps import SessionDep, require
from app.web.forms import Fields, FormRefused
from app.web.redirects import see_other
from app.web.render import render

router = APIRouter(prefix="/p/{slug}/school")

PAGE_SIZE = 50
PURPOSES = (Purpose.PRACTICE, Purpose.QUALIFY, Purpose.GOLD)

Teacher = Annotated[Access, Depends(require(Permission.MANAGE_SCHOOL))]


@router.get("")
def list_references(
    request: Request, session: SessionDep, access: Teacher, purpose: str = "", added: int | None = None
) -> HTMLResponse:
    """Every task with a reference answer, narrowed by purpose; the address holds the filter."""
    rows = queries.list_references(session, access.project.id)
    wanted = _purpose(purpose)
    counts = {item: sum(row.purpose == item and row.state != "retired" for row in rows) for item in PURPOSES}
    school = projects.find_school(access.project)
    return render(
        request,
        "references/index.html",
        rows=[row for row in rows if wanted in (None, row.purpose)],
        counts=counts,
        unexplained=qualification_queries.count_unexplained(session, access.project.id),
        school=school,
        purposes=PURPOSES,
        wanted=wanted,
        added=added,
    )


@router.get("/choose")
def choose_task(
    request: Request,
    session: SessionDep,
    access: Teacher,
    q: str = "",
    before: Annotated[int | None, Query(ge=0, lt=2**63)] = None,
) -> HTMLResponse:
    """Ranked tasks that a reference may be made of, the newest first."""
    words = q.replace("\x00", "").strip()
    rows = queries.page_ranked(session, access.project.id, words=words or None, before=before, limit=PAGE_SIZE + 1)
    return render(
        request,
        "references/choose.html",
        rows=rows[:PAGE_SIZE],
        next_before=rows[PAGE_SIZE - 1].task_id if len(rows) > PAGE_SIZE else None,
        is_first=before is None,
        words=words,
    )


@router.get("/from/{uid}")
def show_new(request: Request, session: SessionDep, access: Teacher, uid: uuid.UUID) -> HTMLResponse:
    """A ranked task, to be ranked by an admin for labellers to be measured by."""
    return _edit(request, access, references.find_ranked(session, access, uid), ReferenceForm())


@router.post("/from/{uid}")
def create(request: Request, session: SessionDep, access: Teacher, uid: uuid.UUID, fields: Fields) -> RedirectResponse:
    """Copy its outputs into a task of their own with this reference."""
    form = ReferenceForm.from_fields(fields)
    purpose = _purpose(fields.get("purpose", [""])[-1])
    of = references.find_ranked(session, access, uid)
    try:
        task = references.create_of_task(session, access, uid, purpose or Purpose.TRAIN, form)
    except (BadInput, Conflict) as error:
        raise FormRefused(_edit(request, access, of, form, purpose=purpose, error=error)) from error
    return see_other(f"/p/{access.project.slug}/school?purpose={task.purpose}&added=1")


@router.get("/references/{uid}")
def show_reference(
    request: Request, session: SessionDep, access: Teacher, uid: uuid.UUID, saved: int | None = None
) -> HTMLResponse:
    """The reference of a task, in the form that changes it."""
    found = references.find_referenced(session, access, uid)
    return _edit(request, access, found, found.form, saved=saved)


@router.post("/references/{uid}")
def revise(
    request: Request,
    session: SessionDep,
    access: Teacher,
    uid: uuid.UUID,
    fields: Fields,
    of_version: Annotated[int, Form()] = 0,
) -> RedirectResponse:
    """Store the next version."""
    form = ReferenceForm.from_fields(fields)
    try:
        reference = references.revise(session, access, uid, form, of_version=of_version)
    except (BadInput, Conflict) as error:
        found = references.find_referenced(session, access, uid)
        raise FormRefused(_edit(request, access, found, form, error=error)) from error
    return see_other(f"/p/{access.project.slug}/school/references/{uid}?saved={reference.version}")


@router.post("/references/{uid}/use")
def set_use(
    session: SessionDep, access: Teacher, uid: uuid.UUID, is_used: Annotated[bool, Form()] = False
) -> RedirectResponse:
    """Retire the task, or use it again."""
    references.set_use(session, access, uid, is_used=is_used)
    return see_other(f"/p/{access.project.slug}/school/references/{uid}")


@router.get("/import")
def show_import(request: Request, session: SessionDep, access: Teacher) -> HTMLResponse:
    """The form to import a file, with what a line holds."""
    return _import(request)


@router.post("/import")
def import_file(
    request: Request, session: SessionDep, access: Teacher, file: UploadFile, purpose: Annotated[str, Form()] = ""
) -> RedirectResponse:
    """Make tasks of a JSONL file as a whole, or show which lines keep it from that; then nothing is stored."""
    wanted = _purpose(purpose)
    try:
        count = references.import_file(session, access, purpose=wanted or Purpose.TRAIN, data=file.file)
    except BadInput as error:
        raise FormRefused(_import(request, purpose=wanted, name=file.filename or "", error=error)) from error
    return see_other(f"/p/{access.project.slug}/school?purpose={wanted}&added={count}")


def _purpose(value: str) -> Purpose | None:
    return next((purpose for purpose in PURPOSES if purpose == value), None)


def _edit(
    request: Request,
    access: Access,
    of: references.Referenced,
    form: ReferenceForm,
    *,
    purpose: Purpose | None = None,
    saved: int | None = None,
    error: BadInput | Conflict | None = None,
) -> HTMLResponse:
    problems: Mapping[str, str] = error.problems if isinstance(error, references.InvalidReference) else {}
    return render(
        request,
        "references/edit.html",
        error.status if error else 200,
        of=of,
        turns=turns_of(of),
        form=form,
        purposes=PURPOSES,
        purpose=of.task.purpose if of.reference else purpose,
        size_differs=len(of.outputs) != access.project.outputs_per_task,
        saved=saved,
        error=error,
        same=error.task if isinstance(error, references.AlreadyMade) else None,
        problems=problems,
    )


def _import(
    request: Request, *, purpose: Purpose | None = None, name: str = "", error: BadInput | None = None
) -> HTMLResponse:
    return render(
        request,
        "references/import.html",
        error.status if error else 200,
        purposes=PURPOSES,
        purpose=purpose,
        name=name,
        error=error,
        lines=error.parsed if isinstance(error, prompts.RefusedFile) else None,
    )
