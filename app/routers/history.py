"""A labeller's last answers: to look at again, and to revise."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from starlette.responses import HTMLResponse

from app.permissions import Access, Permission
from app.routers.tasks import PAGES
from app.services import appeals, history
from app.web.deps import SessionDep, require
from app.web.render import render

router = APIRouter(prefix="/p/{slug}")


@router.get("/history")
def show_history(
    request: Request, session: SessionDep, access: Annotated[Access, Depends(require(Permission.LABEL))]
) -> HTMLResponse:
    """The last ten answers of this person, the newest first."""
    return render(
        request,
        "history/index.html",
        pages=PAGES,
        recent=history.list_recent(session, access),
        misses=appeals.list_misses(session, access),
    )
