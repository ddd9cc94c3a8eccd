"""Models outside: the list, a form to add one, a try, removal. A key that was given is never shown again."""

import uuid
from collections.abc import Mapping
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from pydantic import ValidationError
from sqlalchemy.orm import Session
from starlette.responses import HTMLResponse, RedirectResponse

from app.errors import BadInput
from app.permissions import Access, Permission
from app.schemas.plans import EndpointForm
from app.services import endpoints, projects
from app.web.deps import SessionDep, require
from app.web.forms import Fields, FormRefused
from app.web.redirects import see_other
from app.web.render import render

router = APIRouter(prefix="/p/{slug}/endpoints")

Manager = Annotated[Access, Depends(require(Permission.MANAGE_SETTINGS))]


@router.get("")
def index(request: Request, session: SessionDep, access: Manager, block: str | None = None) -> HTMLResponse:
    """Every endpoint in use, how the newest try of it ended, and the form to add one."""
    return _show(request, session, access, block="live" if block == "live" else None)


@router.post("")
def add(request: Request, session: SessionDep, access: Manager, fields: Fields) -> RedirectResponse:
    """Describe a model outside; nothing is called."""
    values = {name: fields[name][-1] for name in EndpointForm.model_fields if fields.get(name)}
    try:
        endpoints.add(session, access, EndpointForm.model_validate(values))
    except ValidationError as error:
        found = {name: text.removeprefix("Value error, ") for name, text in projects.describe(error).items()}
        found |= {name: f"Give it a {name}." for name in ("name", "model") if not values.get(name, "").strip()}
        raise FormRefused(_show(request, session, access, values=values, problems=found)) from None
    except BadInput as error:
        problems = {error.field or "url": error.message}
        raise FormRefused(_show(request, session, access, values=values, problems=problems)) from error
    return see_other(f"/p/{access.project.slug}/endpoints")


@router.post("/{uid}/test")
def test(session: SessionDep, access: Manager, uid: uuid.UUID) -> RedirectResponse:
    """Have a worker ask it one short question."""
    endpoints.request_test(session, access, uid)
    return see_other(f"/p/{access.project.slug}/endpoints")


@router.post("/{uid}/remove")
def remove(session: SessionDep, access: Manager, uid: uuid.UUID) -> RedirectResponse:
    """Take an endpoint out of use and forget its key."""
    endpoints.remove(session, access, uid)
    return see_other(f"/p/{access.project.slug}/endpoints")


def _show(
    request: Request,
    session: Session,
    access: Access,
    *,
    block: str | None = None,
    values: Mapping[str, str] | None = None,
    problems: Mapping[str, str] | None = None,
) -> HTMLResponse:
    listed = endpoints.list_with_tests(session, access.project)
    return render(
        request,
        "endpoints/index.html",
        422 if problems else 200,
        block=block,
        listed=listed,
        is_live=any(one.test and one.test.state in ("queued", "running") for one in listed),
        values={name: value for name, value in (values or {}).items() if name != "key"},
        problems=problems or {},
    )
