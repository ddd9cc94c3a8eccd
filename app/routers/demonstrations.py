"""Writing demonstrations: take a prompt, write the response one would want, submit it, revise it."""

import uuid
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Form, Request
from sqlalchemy.orm import Session
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse

from app.errors import BadInput, Conflict, Forbidden
from app.markup import render_markdown
from app.models import Demonstration, Json, JudgementStatus, LeaseState, TaskKind
from app.permissions import Access, Permission
from app.queries import demonstrations as queries
from app.queries import tasks as task_queries
from app.routers.content import show_gate
from app.routers.tasks import skipped_task, turns_of
from app.schemas.demonstrations import Writing
from app.schemas.judgements import WhySkipped
from app.schemas.keys import Keys
from app.services import demonstrations, guidelines, questions, tasks
from app.web.deps import SessionDep, require
from app.web.forms import Fields, FormRefused
from app.web.redirects import see_other
from app.web.render import render

router = APIRouter(prefix="/p/{slug}/demonstrate")

Labeller = Annotated[Access, Depends(require(Permission.LABEL))]
Key = Annotated[uuid.UUID, Form()]


@router.get("", response_model=None)
def show_queue(
    request: Request, session: SessionDep, access: Labeller, skipped: uuid.UUID | None = None
) -> HTMLResponse | RedirectResponse:
    """The prompt this person holds, else a button to get one, else why there is none. Leases nothing."""
    if held := tasks.find_held(session, access, TaskKind.DEMONSTRATE):
        return see_other(_path(session, access, held.task_id))
    has_prompt = demonstrations.can_lease(session, access)
    return render(
        request,
        "demonstrations/index.html",
        has_prompt=has_prompt,
        nothing=None if has_prompt else tasks.find_nothing(session, access, TaskKind.DEMONSTRATE),
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
        return _show_stored(request, session, access, work)
    return _show_form(request, session, access, work, Writing.from_json(work.draft or {}))


@router.post("/{uid}/submit")
def submit(
    request: Request, session: SessionDep, access: Labeller, uid: uuid.UUID, fields: Fields, idempotency_key: Key
) -> RedirectResponse:
    """Store the demonstration and go on to the next prompt; what does not fit comes back as it was written."""
    writing = Writing.from_fields(fields)
    try:
        demonstrations.submit(session, access, uid, writing, idempotency_key=idempotency_key)
    except BadInput as error:
        work = tasks.find_work(session, access, uid)
        raise FormRefused(_show_form(request, session, access, work, writing, error=error)) from error
    except Conflict as error:
        work = tasks.find_work(session, access, uid)
        raise FormRefused(_show_stored(request, session, access, work, conflict=error, unsent=writing)) from error
    return _next(session, access)


@router.post("/{uid}/preview")
def preview(
    request: Request,
    session: SessionDep,
    access: Labeller,
    uid: uuid.UUID,
    fields: Fields,
    of_revision: Annotated[int | None, Form()] = None,
    block: Literal["preview"] | None = None,
) -> HTMLResponse:
    """The form again, with the text as readers will see it beside; stores nothing. The page asks for its `block` alone."""
    work = tasks.find_work(session, access, uid, kind=TaskKind.DEMONSTRATE)
    sent = Writing.from_fields(fields)
    writing = replace(sent, text=sent.text[: 2 * demonstrations.LONGEST_CHARACTERS])
    return _show_form(request, session, access, work, writing, revision=of_revision, block=block)


@router.post("/{uid}/start")
def start(request: Request, session: SessionDep, access: Labeller, uid: uuid.UUID, fields: Fields) -> HTMLResponse:
    """The form with a model's response in it, to be edited; a text that was begun stays as it is."""
    work = tasks.find_work(session, access, uid, kind=TaskKind.DEMONSTRATE)
    writing = Writing.from_fields(fields)
    sample = demonstrations.find_start(session, access.project, work.prompt.id)
    if writing.text.strip() or sample is None:
        error = BadInput("You have begun to write. Empty the field first, then start from the model's response.")
        raise FormRefused(_show_form(request, session, access, work, writing, error=error))
    return _show_form(request, session, access, work, replace(writing, text=sample.text, parent=sample.uid))


@router.get("/{uid}/revise", response_model=None)
def show_revision(
    request: Request, session: SessionDep, access: Labeller, uid: uuid.UUID
) -> HTMLResponse | RedirectResponse:
    """What was submitted, in the form it was written in, to be written otherwise."""
    work = tasks.find_work(session, access, uid, kind=TaskKind.DEMONSTRATE)
    stored = queries.find_of_task(session, work.task.id, access.user.id)
    if stored is None or stored.status != JudgementStatus.CURRENT:
        return see_other(_path(session, access, work.task.id))
    return _show_form(request, session, access, work, _writing_of(session, stored), revision=stored.revision)


@router.post("/{uid}/revise")
def revise(
    request: Request,
    session: SessionDep,
    access: Labeller,
    uid: uuid.UUID,
    fields: Fields,
    idempotency_key: Key,
    of_revision: Annotated[int, Form()],
) -> RedirectResponse:
    """Store a new version of the text, the former one kept; where that is no longer the newest, both are shown."""
    writing = Writing.from_fields(fields)
    try:
        demonstrations.revise(session, access, uid, writing, idempotency_key=idempotency_key, of_revision=of_revision)
    except BadInput as error:
        work = tasks.find_work(session, access, uid)
        page = _show_form(request, session, access, work, writing, error=error, revision=of_revision)
        raise FormRefused(page) from error
    except Conflict as error:
        work = tasks.find_work(session, access, uid)
        raise FormRefused(_show_stored(request, session, access, work, conflict=error, unsent=writing)) from error
    return see_other(f"/p/{access.project.slug}/history")


@router.post("/{uid}/draft")
def save_draft(session: SessionDep, access: Labeller, uid: uuid.UUID, fields: Fields) -> JSONResponse:
    """Keep what is written so far; `saved_at` is null where the task was answered meanwhile."""
    tasks.find_work(session, access, uid, kind=TaskKind.DEMONSTRATE)
    saved_at = tasks.save_draft(session, access, uid, draft_of(fields))
    return JSONResponse({"saved_at": saved_at.isoformat(timespec="seconds") if saved_at else None})


def draft_of(fields: Mapping[str, list[str]]) -> Json:
    """What a draft keeps of the fields of a writing page."""
    return Writing.from_fields(fields).to_json(2 * demonstrations.LONGEST_CHARACTERS)


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


def _writing_of(session: Session, stored: Demonstration) -> Writing:
    parent = queries.get_parent(session, stored)
    return Writing(stored.text, parent.uid if parent else None)


def _show_form(
    request: Request,
    session: Session,
    access: Access,
    work: tasks.Work,
    writing: Writing,
    *,
    error: BadInput | None = None,
    revision: int | None = None,
    block: str | None = None,
) -> HTMLResponse:
    if gate := show_gate(request, work, error.status if error else 200):
        return gate
    return render(
        request,
        "demonstrations/show.html",
        error.status if error else 200,
        block=block,
        work=work,
        turns=turns_of(work),
        writing=writing,
        asked=questions.look_at(session, access, work),
        preview=render_markdown(writing.text),
        begin=demonstrations.find_start(session, access.project, work.prompt.id),
        usual=demonstrations.find_usual_length(session, access.project),
        error=error,
        revision=revision,
        idempotency_key=uuid.uuid4(),
        longest=demonstrations.LONGEST_CHARACTERS,
        why_skipped=WhySkipped,
        guideline=guidelines.current(session, access.project.id),
        keys=Keys.of(access.user.preferences),
    )


def _show_stored(
    request: Request,
    session: Session,
    access: Access,
    work: tasks.Work,
    *,
    conflict: Conflict | None = None,
    unsent: Writing | None = None,
) -> HTMLResponse:
    if conflict and (gate := show_gate(request, work, conflict.status)):
        return gate
    stored = queries.find_of_task(session, work.task.id, work.lease.user_id)
    return render(
        request,
        "demonstrations/stored.html",
        conflict.status if conflict else 200,
        work=work,
        turns=turns_of(work),
        asked=questions.look_at(session, access, work),
        idempotency_key=uuid.uuid4(),
        demonstration=stored,
        preview=render_markdown(stored.text) if stored else "",
        conflict=conflict,
        unsent=unsent,
    )
