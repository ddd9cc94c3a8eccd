"""The audit log of a project."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import HTMLResponse

from app.permissions import Access, Permission
from app.queries import audit as queries
from app.web.deps import SessionDep, require
from app.web.render import render

router = APIRouter(prefix="/p/{slug}/audit")

PAGE_LENGTH = 50


@router.get("")
def show_audit(
    request: Request,
    session: SessionDep,
    access: Annotated[Access, Depends(require(Permission.READ_AUDIT))],
    before: Annotated[int | None, Query(ge=1, le=2**63 - 1)] = None,
    action: Annotated[str, Query(max_length=100)] = "",
) -> HTMLResponse:
    """Who did what, newest first; `before` pages back, `action` filters."""
    entries = queries.page_entries(session, access.project.id, before=before, action=action, limit=PAGE_LENGTH + 1)
    return render(
        request,
        "audit/index.html",
        entries=entries[:PAGE_LENGTH],
        has_more=len(entries) > PAGE_LENGTH,
        actions=queries.list_actions(session, access.project.id),
        action=action,
        before=before,
    )
