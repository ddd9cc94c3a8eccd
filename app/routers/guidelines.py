"""The guidelines of a project: read, acknowledge, publish."""

import uuid
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Form, Request
from sqlalchemy.orm import Session
from starlette.responses import HTMLResponse, RedirectResponse, Response

from app.changes import compare
from app.errors import BadInput, Conflict
from app.models import Phase
from app.permissions import Access, Permission
from app.queries import guidelines as queries
from app.services import guidelines, questions
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
    request: Request,
    session: SessionDep,
    access: Reader,
    version: int | None = None,
    since: int | None = None,
    next: str = "",
) -> HTMLResponse:
    """The current version, or an earlier one, with what this person still has to acknowledge.

    What changed since a version is shown if that is named, and else since the one they read last.
    """
    current = guidelines.current(session, access.project.id)
    shown = guidelines.get_version(session, access.project, version) if version is not None else current
    ack = queries.find_ack(session, shown.id, access.user.id) if shown else None
    former = guidelines.get_version(session, access.project, since) if since is not None else None
    if former is None and ack is None and shown is current:
        former = guidelines.read_before(session, access)
    return render(
        request,
        "guidelines/show.html",
        guideline=shown,
        former=former,
        changes=compare(former.body, shown.body) if former and shown else [],
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
def edit_guidelines(
    request: Request, session: SessionDep, access: Editor, example: uuid.UUID | None = None
) -> HTMLResponse:
    """The text of the current version, to write the next one from; an answered question of the inbox at its end, if named."""
    current = guidelines.current(session, access.project.id)
    parts = [current.body] if current else []
    if example is not None:
        parts.append(questions.as_example(session, access, example))
    return _edit(request, session, access, body="\n\n".join(parts), example=example)


@router.post("")
def publish(
    request: Request,
    session: SessionDep,
    access: Editor,
    body: Text = "",
    act: Text = "publish",
    example: Annotated[uuid.UUID | Literal[""], Form()] = "",
) -> Response:
    """Publish the next version, or show what it would look like."""
    if act == "preview":
        preview = guidelines.preview(body)
        return _edit(request, session, access, body=body, example=example or None, preview=preview)
    try:
        published = guidelines.publish(session, access.project, body=body, phase=Phase.TRAIN, author=access.user)
        if example:
            questions.take_in(session, access, example, published)
    except (BadInput, Conflict) as error:
        raise FormRefused(_edit(request, session, access, body=body, example=example or None, error=error)) from error
    return see_other(f"/p/{access.project.slug}/guidelines")


def _edit(
    request: Request,
    session: Session,
    access: Access,
    *,
    body: str,
    example: uuid.UUID | None,
    preview: str | None = None,
    error: BadInput | Conflict | None = None,
) -> HTMLResponse:
    return render(
        request,
        "guidelines/edit.html",
        error.status if error else 200,
        current=guidelines.current(session, access.project.id),
        body=body,
        example=example,
        preview=preview,
        error=error,
    )
