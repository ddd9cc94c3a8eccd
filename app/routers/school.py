"""The admin's page of who has practised, passed and agrees with the references, and what an admin decides there."""

import uuid
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from starlette.responses import HTMLResponse, RedirectResponse

from app.permissions import Access, Permission
from app.services import appeals, projects, qualifications
from app.web.deps import SessionDep, require
from app.web.redirects import see_other
from app.web.render import render

router = APIRouter(prefix="/p/{slug}/school")

Teacher = Annotated[Access, Depends(require(Permission.MANAGE_SCHOOL))]


@router.get("/people")
def list_people(request: Request, session: SessionDep, access: Teacher) -> HTMLResponse:
    """Everybody who labels, with how far they are."""
    return render(
        request,
        "school/people.html",
        people=qualifications.list_people(session, access),
        gold=appeals.measure(session, access),
        school=projects.find_school(access.project),
    )


@router.post("/people/{uid}/pass")
def pass_by_hand(session: SessionDep, access: Teacher, uid: uuid.UUID) -> RedirectResponse:
    """Open the work to a person without a test."""
    qualifications.pass_by_hand(session, access, uid)
    return see_other(f"/p/{access.project.slug}/school/people")


@router.post("/people/{uid}/reset")
def reset(session: SessionDep, access: Teacher, uid: uuid.UUID) -> RedirectResponse:
    """Make a person's attempts count for nothing."""
    qualifications.reset(session, access, uid)
    return see_other(f"/p/{access.project.slug}/school/people")
