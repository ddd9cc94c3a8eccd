"""Sensitive content as pages: what a person agrees to see, and the step before a task that holds it."""

import uuid
from typing import Annotated

from fastapi import APIRouter, Depends, Form, Query, Request
from sqlalchemy.orm import Session
from starlette.responses import HTMLResponse, RedirectResponse

from app.errors import BadInput, Conflict
from app.permissions import Access, Permission
from app.schemas.needs import CONTENT, Content
from app.services import content, exposure, tasks
from app.web.deps import SessionDep, require
from app.web.forms import FormRefused
from app.web.redirects import see_other
from app.web.render import render

router = APIRouter(prefix="/p/{slug}")

Labeller = Annotated[Access, Depends(require(Permission.LABEL))]


@router.get("/content")
def edit_content(
    request: Request,
    session: SessionDep,
    access: Labeller,
    left: Annotated[list[Content] | None, Query(max_length=10)] = None,
    saved: bool = False,
) -> HTMLResponse:
    """What this person agrees to see, and how much of it a day; `left` names what they have just stopped seeing."""
    return _edit(request, session, access, left=left or [], saved=saved)


@router.post("/content")
def choose_content(
    request: Request,
    session: SessionDep,
    access: Labeller,
    kinds: Annotated[list[str] | None, Form()] = None,
    daily_limit: Annotated[str, Form()] = "",
) -> RedirectResponse:
    """Agree to see kinds of content, or no longer."""
    try:
        content.choose(session, access, kinds or [], daily_limit=daily_limit)
    except (BadInput, Conflict) as error:
        page = _edit(request, session, access, error=error, chosen=kinds or [], daily_limit=daily_limit)
        raise FormRefused(page) from error
    return see_other(f"/p/{access.project.slug}/content?saved=true")


@router.post("/tasks/{uid}/open")
def open_task(session: SessionDep, access: Labeller, uid: uuid.UUID) -> RedirectResponse:
    """Show a task with sensitive content, from now on."""
    content.open_task(session, access, uid)
    return see_other(f"/p/{access.project.slug}/tasks/{uid}")


@router.post("/tasks/{uid}/leave")
def leave_content(session: SessionDep, access: Labeller, uid: uuid.UUID) -> RedirectResponse:
    """Skip the task and see no more of what it holds."""
    left = content.leave(session, access, uid)
    return see_other(f"/p/{access.project.slug}/content?{'&'.join(f'left={kind}' for kind in left)}")


def show_gate(request: Request, work: tasks.Work, status: int = 200) -> HTMLResponse | None:
    """The step before a task whose content this person has not opened; None where the task may be shown."""
    hidden = content.find_hidden(work)
    return render(request, "content/gate.html", status, work=work, hidden=hidden) if hidden else None


def _edit(
    request: Request,
    session: Session,
    access: Access,
    *,
    left: list[Content] | None = None,
    saved: bool = False,
    error: BadInput | Conflict | None = None,
    chosen: list[str] | None = None,
    daily_limit: str | None = None,
) -> HTMLResponse:
    membership = tasks.find_membership(session, access)
    opted_in = [tag.removeprefix(CONTENT) for tag in membership.opted_in] if membership else []
    own_limit = "" if membership is None or membership.content_cap is None else str(membership.content_cap)
    return render(
        request,
        "content/edit.html",
        error.status if error else 200,
        all_kinds=tuple(Content),
        chosen=opted_in if chosen is None else chosen,
        daily_limit=own_limit if daily_limit is None else daily_limit,
        highest=content.HIGHEST_CAP,
        of_day=exposure.find_limit(access.project, membership),
        ends=exposure.find_end(session, membership),
        left=left or [],
        saved=saved,
        error=error,
    )
