"""Training runs: the list, one run with its curves and words, and starting, cancelling and retrying by hand."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Form, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from app.errors import Conflict, NotFound
from app.models import Checkpoint, Run, RunKind
from app.permissions import Access, Permission
from app.queries import pipeline as pipeline_queries
from app.queries import runs as queries
from app.schemas.runs import Curves
from app.services import lineage, runs
from app.web import glossary
from app.web.curves import read_curves
from app.web.deps import SessionDep, require
from app.web.redirects import local_path, see_other
from app.web.render import render

router = APIRouter(prefix="/p/{slug}/runs")

CanRead = Annotated[Access, Depends(require(Permission.READ_PIPELINE))]
CanTrain = Annotated[Access, Depends(require(Permission.TRAIN))]


@router.get("")
def index(request: Request, access: CanRead, session: SessionDep) -> HTMLResponse:
    """All runs, newest first, and what can be started."""
    return _index(request, access, session)


@router.post("")
def start(request: Request, access: CanTrain, session: SessionDep, kind: Annotated[RunKind, Form()]) -> Response:
    """Start a run by hand on all data so far; the page again, with the reason, where it cannot start."""
    try:
        reason = f"{access.user.name} asked for it."
        run = runs.request_run(session, access.project, kind=kind, reason=reason, requested_by=access.user)
    except Conflict as refusal:
        return _index(request, access, session, refusal=refusal.message, status_code=refusal.status)
    return see_other(f"/p/{access.project.slug}/runs/{run.uid}")


@router.get("/{uid}")
def show(request: Request, uid: UUID, access: CanRead, session: SessionDep, block: str | None = None) -> HTMLResponse:
    """One run, or the block of it that changes while it goes on."""
    run = _find(session, access, uid)
    checkpoints = _checkpoints(session, access)
    return render(
        request,
        "runs/show.html",
        block="live" if block == "live" else None,
        run=run,
        init=checkpoints[run.init_id],
        reward=checkpoints.get(run.reward_id),
        result=checkpoints.get(run.result_id),
        snapshot=pipeline_queries.find_snapshot(session, access.project.id, run.snapshot_id),
        curves=read_curves(session, run),
        log=queries.list_logs(session, access.project.id, run.id),
        glossary=glossary,
    )


@router.get("/{uid}/metrics.json")
def metrics(uid: UUID, access: CanRead, session: SessionDep) -> Curves:
    """The curves of a run so far."""
    return read_curves(session, _find(session, access, uid))


@router.post("/{uid}/cancel")
def cancel(
    uid: UUID, access: CanTrain, session: SessionDep, back: Annotated[str, Form(max_length=500)] = ""
) -> RedirectResponse:
    """Stop a run after its current step."""
    run = _find(session, access, uid)
    runs.request_cancel(session, access, run)
    return see_other(local_path(back, default=f"/p/{access.project.slug}/runs/{uid}"))


@router.post("/{uid}/retry")
def retry(uid: UUID, access: CanTrain, session: SessionDep) -> RedirectResponse:
    """Queue a failed or cancelled run once more; it goes on from what it saved."""
    run = _find(session, access, uid)
    runs.retry(session, access, run)
    return see_other(f"/p/{access.project.slug}/runs/{uid}")


def _index(
    request: Request, access: Access, session: SessionDep, *, refusal: str = "", status_code: int = 200
) -> HTMLResponse:
    found = queries.list_runs(session, access.project.id)
    return render(
        request,
        "runs/index.html",
        status_code=status_code,
        runs=found,
        checkpoints=_checkpoints(session, access),
        refusal=refusal,
        kinds=tuple(RunKind),
        glossary=glossary,
    )


def _find(session: SessionDep, access: Access, uid: UUID) -> Run:
    run = queries.find_run(session, access.project.id, uid)
    if run is None:
        raise NotFound("There is no such run in this project.")
    return run


def _checkpoints(session: SessionDep, access: Access) -> dict[int | None, Checkpoint]:
    return {node.checkpoint.id: node.checkpoint for node in lineage.lineage(session, access.project.id)}
