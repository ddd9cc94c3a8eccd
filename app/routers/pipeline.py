"""The loop in one picture, with live figures."""

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Request
from starlette.responses import HTMLResponse

from app.permissions import Access, Permission
from app.services import pipeline, rounds, stack
from app.settings import get_settings
from app.web import glossary
from app.web.deps import SessionDep, require
from app.web.render import render

router = APIRouter(prefix="/p/{slug}/pipeline")

CanRead = Annotated[Access, Depends(require(Permission.READ_PIPELINE))]


@router.get("")
def show(
    request: Request, access: CanRead, session: SessionDep, block: Literal["live", "record"] | None = None
) -> HTMLResponse:
    """The page, or the block that htmx asks for every few seconds."""
    project = access.project
    models = [] if block == "live" else pipeline.compared_models(session, project.id)
    return render(
        request,
        "pipeline/show.html",
        block=block,
        state=pipeline.read_loop(session, project),
        workers=stack.read_worker_half(get_settings()),
        models=models,
        answers=pipeline.read_answers(session, project.id, models),
        history=[] if block == "live" else rounds.history(session, project.id),
        glossary=glossary,
    )
