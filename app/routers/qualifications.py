"""A labeller's way into the work: practice with explained answers, the qualification test and its result."""

import uuid
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from sqlalchemy.orm import Session
from starlette.responses import HTMLResponse, RedirectResponse

from app.errors import Conflict
from app.models import Lease
from app.permissions import Access, Permission
from app.routers.tasks import task_path, turns_of
from app.services import qualifications
from app.web.deps import SessionDep, require
from app.web.forms import FormRefused
from app.web.redirects import see_other
from app.web.render import render

router = APIRouter(prefix="/p/{slug}/qualification")

Labeller = Annotated[Access, Depends(require(Permission.LABEL))]


@router.get("")
def show_standing(request: Request, session: SessionDep, access: Labeller) -> HTMLResponse:
    """The practice tasks, the test, and how far this person is."""
    return _show(request, session, access)


@router.post("/practice")
def practise(session: SessionDep, access: Labeller) -> RedirectResponse:
    """The first practice task not done yet; once all are, back to the list."""
    return _to(session, access, qualifications.practise(session, access))


@router.post("/practice/{uid}")
def practise_again(session: SessionDep, access: Labeller, uid: uuid.UUID) -> RedirectResponse:
    """This practice task, whether it was done or not."""
    return _to(session, access, qualifications.practise(session, access, uid))


@router.get("/practice/{uid}")
def show_practised(request: Request, session: SessionDep, access: Labeller, uid: uuid.UUID) -> HTMLResponse:
    """One's answer to a practice task beside the reference, pair by pair."""
    compared = qualifications.find_practised(session, access, uid)
    return render(
        request,
        "qualifications/practised.html",
        compared=compared,
        turns=turns_of(compared.work),
        standing=qualifications.find_standing(session, access),
    )


@router.post("/test")
def take_test(request: Request, session: SessionDep, access: Labeller) -> RedirectResponse:
    """Begin the test, or go on with it."""
    try:
        return _to(session, access, qualifications.go_on(session, access))
    except Conflict as error:
        raise FormRefused(_show(request, session, access, error=error)) from error


@router.get("/attempts/{uid}")
def show_result(request: Request, session: SessionDep, access: Labeller, uid: uuid.UUID) -> HTMLResponse:
    """What a test that is over came to, and which pairs differed."""
    attempt, compared = qualifications.find_result(session, access, uid)
    return render(
        request,
        "qualifications/result.html",
        attempt=attempt,
        compared=[(item, turns_of(item.work)) for item in compared],
        standing=qualifications.find_standing(session, access),
    )


def _to(session: Session, access: Access, lease: Lease | None) -> RedirectResponse:
    if lease is None:
        return see_other(f"/p/{access.project.slug}/qualification")
    return see_other(task_path(session, access, lease.task_id))


def _show(request: Request, session: Session, access: Access, *, error: Conflict | None = None) -> HTMLResponse:
    return render(
        request,
        "qualifications/index.html",
        error.status if error else 200,
        standing=qualifications.find_standing(session, access),
        error=error,
    )
