"""Gold tasks that a labeller missed, their appeal about one, and the admin who decides it."""

import uuid
from typing import Annotated

from fastapi import APIRouter, Depends, Form, Request
from sqlalchemy.orm import Session
from starlette.responses import HTMLResponse, RedirectResponse

from app.errors import AppError, BadInput, Conflict
from app.permissions import Access, Permission
from app.queries import gold as queries
from app.routers.tasks import turns_of
from app.schemas.references import ReferenceForm
from app.services import appeals, references
from app.web.deps import SessionDep, require
from app.web.forms import Fields, FormRefused
from app.web.redirects import see_other
from app.web.render import render

router = APIRouter(prefix="/p/{slug}")

Labeller = Annotated[Access, Depends(require(Permission.LABEL))]
Teacher = Annotated[Access, Depends(require(Permission.MANAGE_SCHOOL))]
Text = Annotated[str, Form()]


@router.get("/tasks/{uid}/miss")
def show_miss(request: Request, session: SessionDep, access: Labeller, uid: uuid.UUID) -> HTMLResponse:
    """One's answer to a gold task beside the reference, and what became of an appeal."""
    return _miss(request, session, access, uid)


@router.post("/tasks/{uid}/appeal")
def appeal(
    request: Request, session: SessionDep, access: Labeller, uid: uuid.UUID, body: Text = ""
) -> RedirectResponse:
    """Ask an admin to look at the reference again."""
    try:
        appeals.appeal(session, access, uid, body)
    except (BadInput, Conflict) as error:
        raise FormRefused(_miss(request, session, access, uid, body=body, error=error)) from error
    return see_other(f"/p/{access.project.slug}/tasks/{uid}/miss")


@router.get("/school/appeals")
def list_appeals(request: Request, session: SessionDep, access: Teacher) -> HTMLResponse:
    """What labellers say against references, the open ones first."""
    return render(request, "school/appeals.html", rows=queries.list_appeals(session, access.project.id))


@router.get("/school/appeals/{uid}")
def show_appeal(request: Request, session: SessionDep, access: Teacher, uid: uuid.UUID) -> HTMLResponse:
    """An appeal beside the answer it is about, and the two ways to decide it."""
    return _appeal(request, session, access, uid)


@router.post("/school/appeals/{uid}/uphold")
def uphold(
    request: Request,
    session: SessionDep,
    access: Teacher,
    uid: uuid.UUID,
    fields: Fields,
    of_version: Annotated[int, Form()] = 0,
    reply: Text = "",
) -> RedirectResponse:
    """Store another version of the reference; every answer is measured by it from now on."""
    form = ReferenceForm.from_fields(fields)
    try:
        appeals.uphold(session, access, uid, form, of_version=of_version, reply=reply)
    except (BadInput, Conflict) as error:
        raise FormRefused(_appeal(request, session, access, uid, form=form, reply=reply, error=error)) from error
    return see_other(f"/p/{access.project.slug}/school/appeals")


@router.post("/school/appeals/{uid}/decline")
def decline(
    request: Request, session: SessionDep, access: Teacher, uid: uuid.UUID, reply: Text = ""
) -> RedirectResponse:
    """Leave the reference as it is, in words that the labeller reads."""
    try:
        appeals.decline(session, access, uid, reply)
    except (BadInput, Conflict) as error:
        raise FormRefused(_appeal(request, session, access, uid, reply=reply, error=error)) from error
    return see_other(f"/p/{access.project.slug}/school/appeals")


def _miss(
    request: Request,
    session: Session,
    access: Access,
    uid: uuid.UUID,
    *,
    body: str = "",
    error: AppError | None = None,
) -> HTMLResponse:
    miss = appeals.find_miss(session, access, uid)
    return render(
        request,
        "history/miss.html",
        error.status if error else 200,
        miss=miss,
        turns=turns_of(miss.compared.work),
        body=body,
        error=error,
    )


def _appeal(
    request: Request,
    session: Session,
    access: Access,
    uid: uuid.UUID,
    *,
    form: ReferenceForm | None = None,
    reply: str = "",
    error: AppError | None = None,
) -> HTMLResponse:
    made, person, of, miss = appeals.find_appeal(session, access, uid)
    return render(
        request,
        "school/appeal.html",
        error.status if error else 200,
        made=made,
        person=person,
        of=of,
        miss=miss,
        turns=turns_of(of),
        form=form or of.form,
        problems=error.problems if isinstance(error, references.InvalidReference) else {},
        reply=reply,
        error=error,
    )
