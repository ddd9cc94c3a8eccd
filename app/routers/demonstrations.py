"""Writing demonstrations: take a prompt, write the response one would want, submit it."""

import uuid
from typing import Annotated

from fastapi import APIRouter, Depends, Form, Request
from sqlalchemy.orm import Session
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse

from app.errors import BadInput, Conflict, Forbidden
from app.models import LeaseState, TaskKind
from app.permissions import Access, Permission
from app.queries import demonstrations as queries
from app.queries import tasks as task_queries
from app.routers.tasks import skipped_task, turns_of
from app.schemas.judgements import WhySkipped
from app.services import demonstrations, guidelines, tasks
from app.web.deps import SessionDep, require
from app.web.forms import FormRefused
from app.web.redirects import see_other
from app.web.render import render

router = APIRouter(prefix="/p/{slug}/demonstrate")

Labeller = Annotated[Access, Depends(require(Permission.LABEL))]
Text = Annotated[str, Form()]


@router.get("", response_model=None)
def show_queue(
    request: Request, session: SessionDep, access: Labeller, skipped: uuid.UUID | None = None
) -> HTMLResponse | RedirectResponse:
    """The prompt this person holds, else a button to get one. Leases nothing."""
    if held := tasks.find_held(session, access, TaskKind.DEMONSTRATE):
        return see_other(_path(session, access, held.task_id))
    return render(
        request,
        "demonstrations/index.html",
        has_prompt=demonstrations.can_lease(session, access),
        guideline=guidelines.unread(session, access),
        skipped=skipped_task(session, access, skipped),
    )


@router.post("/next")
def take_next(session: SessionDep, access: Labeller) -> RedirectResponse:
    """Lease the next prompt and show it."""
    return _next(session, access)


@router.get("/{uid}")
def show_task(request: Request, session: SessionDep, access: Labeller, uid: uuid.UUID) -> HTMLResponse:
    """The prompt with what was written so far; after the submit, what was stored."""
    work = tasks.find_work(session, access, uid, kind=TaskKind.DEMONSTRATE)
    if work.lease.state == LeaseState.SUBMITTED:
        return _show_stored(request, session, work)
    draft = tasks.find_draft(session, work) or {}
    return _show_form(request, session, access, work, text=str(draft.get("text", "")))


@router.post("/{uid}/submit")
def submit(
    request: Request,
    session: SessionDep,
    access: Labeller,
    uid: uuid.UUID,
    idempotency_key: Annotated[uuid.UUID, Form()],
    text: Text = "",
) -> RedirectResponse:
    """Store the demonstration and go on to the next prompt; what does not fit comes back as it was written."""
    try:
        demonstrations.submit(session, access, uid, text=text, idempotency_key=idempotency_key)
    except BadInput as error:
        work = tasks.find_work(session, access, uid)
        raise FormRefused(_show_form(request, session, access, work, text=text, error=error)) from error
    except Conflict as error:
        work = tasks.find_work(session, access, uid)
        raise FormRefused(_show_stored(request, session, work, conflict=error)) from error
    return _next(session, access)


@router.post("/{uid}/draft")
def save_draft(session: SessionDep, access: Labeller, uid: uuid.UUID, text: Text = "") -> JSONResponse:
    """Keep what is written so far; `saved_at` is null where the task was answered meanwhile."""
    tasks.find_work(session, access, uid, kind=TaskKind.DEMONSTRATE)
    content = {"text": text[: 2 * demonstrations.LONGEST_CHARACTERS].replace("\x00", "")}
    saved_at = tasks.save_draft(session, access, uid, content)
    return JSONResponse({"saved_at": saved_at.isoformat(timespec="seconds") if saved_at else None})


def _next(session: Session, access: Access) -> RedirectResponse:
    queue = f"/p/{access.project.slug}/demonstrate"
    if guidelines.unread(session, access):
        return see_other(f"/p/{access.project.slug}/guidelines?next={queue}")
    try:
        lease = demonstrations.lease_next(session, access)
    except (Forbidden, Conflict):  # the text before stays stored; the queue's page says what is the matter
        lease = None
    return see_other(_path(session, access, lease.task_id) if lease else queue)


def _path(session: Session, access: Access, task_id: int) -> str:
    return f"/p/{access.project.slug}/demonstrate/{task_queries.get_uid(session, task_id)}"


def _show_form(
    request: Request, session: Session, access: Access, work: tasks.Work, *, text: str, error: BadInput | None = None
) -> HTMLResponse:
    return render(
        request,
        "demonstrations/show.html",
        error.status if error else 200,
        work=work,
        turns=turns_of(work),
        text=text,
        error=error,
        idempotency_key=uuid.uuid4(),
        longest=demonstrations.LONGEST_CHARACTERS,
        why_skipped=WhySkipped,
        guideline=guidelines.current(session, access.project.id),
    )


def _show_stored(
    request: Request, session: Session, work: tasks.Work, *, conflict: Conflict | None = None
) -> HTMLResponse:
    return render(
        request,
        "demonstrations/stored.html",
        conflict.status if conflict else 200,
        turns=turns_of(work),
        demonstration=queries.find_of_task(session, work.task.id, work.lease.user_id),
        conflict=conflict,
    )
