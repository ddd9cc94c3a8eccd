"""After a ranking: improving the output put first, where the project asks for it."""

import uuid
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Form, Request
from sqlalchemy.orm import Session
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse

from app.errors import BadInput, Conflict
from app.markup import render_markdown
from app.models import Json, TaskKind
from app.permissions import Access, Permission
from app.routers.tasks import next_task, turns_of
from app.schemas.demonstrations import Writing
from app.schemas.keys import Keys
from app.schemas.values import read_uuid
from app.services import demonstrations, guidelines, improvements, questions, tasks
from app.web.deps import SessionDep, require
from app.web.forms import Fields, FormRefused
from app.web.redirects import see_other
from app.web.render import render

router = APIRouter(prefix="/p/{slug}/tasks/{uid}/improve")

Labeller = Annotated[Access, Depends(require(Permission.LABEL))]
Improved = Annotated[uuid.UUID | None, Form()]
"""The sample that a page shows as the best."""


@router.get("", response_model=None)
def show_best(
    request: Request, session: SessionDep, access: Labeller, uid: uuid.UUID
) -> HTMLResponse | RedirectResponse:
    """The output put first, in a field, with what was written so far; else the ranking's own page."""
    work = tasks.find_work(session, access, uid, kind=TaskKind.RANK)
    best = improvements.find_best(session, access, work)
    if best is None:
        return see_other(f"/p/{access.project.slug}/tasks/{uid}")
    draft = work.draft or {}
    if "text" not in draft:
        return _show(request, session, access, work, Writing(best.text))
    try:
        improvements.check_best(best, read_uuid(str(draft.get("improved", ""))))
    except Conflict as error:
        return _show(request, session, access, work, Writing.from_json(draft), error=error)
    return _show(request, session, access, work, Writing.from_json(draft))


@router.post("", response_model=None)
def submit(
    request: Request,
    session: SessionDep,
    access: Labeller,
    uid: uuid.UUID,
    fields: Fields,
    idempotency_key: Annotated[uuid.UUID, Form()],
    improved: Improved = None,
) -> HTMLResponse | RedirectResponse:
    """Store the improved text and go on to the next task; what does not fit comes back as it was written."""
    writing = Writing.from_fields(fields)
    try:
        improvements.submit(session, access, uid, writing, improved=improved, idempotency_key=idempotency_key)
    except (BadInput, Conflict) as error:
        work = tasks.find_work(session, access, uid)
        raise FormRefused(_show(request, session, access, work, writing, improved=improved, error=error)) from error
    return next_task(request, session, access)


@router.post("/preview")
def preview(
    request: Request,
    session: SessionDep,
    access: Labeller,
    uid: uuid.UUID,
    fields: Fields,
    improved: Improved = None,
    block: Literal["preview"] | None = None,
) -> HTMLResponse:
    """The form again, with the text as readers will see it beside; stores nothing."""
    work = tasks.find_work(session, access, uid, kind=TaskKind.RANK)
    sent = Writing.from_fields(fields)
    writing = replace(sent, text=sent.text[: 2 * demonstrations.LONGEST_CHARACTERS])
    return _show(request, session, access, work, writing, improved=improved, block=block)


@router.post("/draft")
def save_draft(session: SessionDep, access: Labeller, uid: uuid.UUID, fields: Fields) -> JSONResponse:
    """Keep what is written so far; `saved_at` is null where it is not asked for any more."""
    saved_at = improvements.save_draft(session, access, uid, draft_of(fields))
    return JSONResponse({"saved_at": saved_at.isoformat(timespec="seconds") if saved_at else None})


def draft_of(fields: Mapping[str, list[str]]) -> Json:
    """What a draft keeps of the page's fields: the text, and the output that it improves."""
    improved = read_uuid(fields.get("improved", [""])[-1])
    return Writing.from_fields(fields).to_json(2 * demonstrations.LONGEST_CHARACTERS) | {"improved": str(improved)}


def _show(
    request: Request,
    session: Session,
    access: Access,
    work: tasks.Work,
    writing: Writing,
    *,
    improved: uuid.UUID | None = None,
    error: BadInput | Conflict | None = None,
    block: str | None = None,
) -> HTMLResponse:
    """The form. After a Conflict what is sent next is about the output that is the best now, else about `improved`."""
    best = improvements.find_best(session, access, work)
    if best and (improved is None or isinstance(error, Conflict)):
        improved = best.sample
    return render(
        request,
        "improvements/show.html",
        error.status if error else 200,
        block=block,
        work=work,
        turns=turns_of(work),
        asked=questions.look_at(session, access, work),
        improved=improved,
        letter=work.letters[best.sample] if best else "",
        writing=writing,
        preview=render_markdown(writing.text),
        usual=demonstrations.find_usual_length(session, access.project),
        error=error,
        idempotency_key=uuid.uuid4(),
        longest=demonstrations.LONGEST_CHARACTERS,
        guideline=guidelines.current(session, access.project.id),
        keys=Keys.of(access.user.preferences),
    )
