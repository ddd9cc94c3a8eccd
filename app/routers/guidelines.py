"""The guidelines of a project: read, acknowledge, publish."""

from typing import Annotated

from fastapi import APIRouter, Depends, Form, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from app.errors import BadInput, Conflict
from app.models import Phase
from app.permissions import Access, Permission
from app.queries import guidelines as queries
from app.services import guidelines
from app.web.deps import SessionDep, require
from app.web.forms import FormRefused
from app.web.redirects import local_path, see_other
from app.web.render import render

router = APIRouter(prefix="/p/{slug}/guidelines")

Reader = Annotated[Access, Depends(require(Permission.READ_GUIDELINES))]
Editor = Annotated[Access, Depends(require(Permission.MANAGE_GUIDELINES))]
Text = Annotated[str, Form()]


@router.get("")
def show_guidelines(
    request: Request, session: SessionDep, access: Reader, version: int | None = None, next: str = ""
) -> HTMLResponse:
    """The current version, or an earlier one, with what this person still has to acknowledge."""
    current = guidelines.current(session, access.project.id)
    shown = guidelines.get_version(session, access.project, version) if version is not None else current
    ack = queries.find_ack(session, shown.id, access.user.id) if shown else None
    return render(
        request,
        "guidelines/show.html",
        guideline=shown,
        current=current,
        ack=ack,
        versions=queries.list_versions(session, access.project.id),
        acks=queries.count_acks(session, access.project.id),
        next=local_path(next, default=""),
    )


@router.post("/{version}/acknowledge")
def acknowledge(session: SessionDep, access: Reader, version: int, next: Text = "") -> RedirectResponse:
    """Note that this person has read a version, and go on to what they came for."""
    guidelines.acknowledge(session, access, guidelines.get_version(session, access.project, version))
    return see_other(local_path(next, default=f"/p/{access.project.slug}/"))


@router.get("/edit")
def edit_guidelines(request: Request, session: SessionDep, access: Editor) -> HTMLResponse:
    """The text of the current version, to write the next one from."""
    current = guidelines.current(session, access.project.id)
    body = current.body if current else ""
    return render(request, "guidelines/edit.html", current=current, body=body, preview=None, error=None)


@router.post("")
def publish(request: Request, session: SessionDep, access: Editor, body: Text = "", act: Text = "publish") -> Response:
    """Publish the next version, or show what it would look like."""
    current = guidelines.current(session, access.project.id)
    if act == "preview":
        preview = guidelines.preview(body)
        return render(request, "guidelines/edit.html", current=current, body=body, preview=preview, error=None)
    try:
        guidelines.publish(session, access.project, body=body, phase=Phase.TRAIN, author=access.user)
    except (BadInput, Conflict) as error:
        page = render(
            request, "guidelines/edit.html", error.status, current=current, body=body, preview=None, error=error
        )
        raise FormRefused(page) from error
    return see_other(f"/p/{access.project.slug}/guidelines")
