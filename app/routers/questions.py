"""Questions about tasks: asked from a task's page, answered in the admins' inbox."""

import uuid
from collections.abc import Mapping
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Form, Query, Request
from sqlalchemy.orm import Session
from starlette.responses import HTMLResponse, RedirectResponse, Response

from app.errors import BadInput, Conflict, TooMany
from app.models import QuestionKind, QuestionState, TaskKind
from app.permissions import Access, Permission
from app.queries import gold as gold_queries
from app.queries import questions as queries
from app.routers import demonstrations as demonstration_pages
from app.routers import improvements as improvement_pages
from app.routers import tasks as task_pages
from app.services import improvements, questions, tasks
from app.web.deps import SessionDep, require
from app.web.forms import Fields, FormRefused
from app.web.redirects import see_other
from app.web.render import render

router = APIRouter(prefix="/p/{slug}")

PAGE_LENGTH = 30

Labeller = Annotated[Access, Depends(require(Permission.LABEL))]
Admin = Annotated[Access, Depends(require(Permission.ANSWER))]
Cursor = Annotated[int | None, Query(ge=1, le=2**63 - 1)]


@router.post("/tasks/{uid}/ask", response_model=None)
def ask(request: Request, session: SessionDep, access: Labeller, uid: uuid.UUID, fields: Fields) -> Response:
    """Send a question to the admins and go on with the task: what the page says so far is kept as its draft."""
    work = tasks.find_work(session, access, uid)
    sent = {name: values[-1] for name, values in fields.items()}
    is_improving = work.task.kind == TaskKind.RANK and "text" in fields
    _keep_draft(session, access, work, fields)
    text, kind = sent.get("question", ""), sent.get("question_kind", "")
    try:
        if kind not in tuple(QuestionKind):
            raise BadInput("Say whether you ask something or the task is broken.", field="question_kind")
        key = uuid.uuid5(_page_key(sent), text)  # the same page may ask twice, but not the same
        questions.ask(session, access, uid, kind=QuestionKind(kind), text=text, key=key)
    except (BadInput, Conflict, TooMany) as error:  # the draft stays saved
        return render(
            request,
            "questions/new.html",
            error.status,
            work=work,
            error=error,
            text=text,
            kind=kind,
            idempotency_key=uuid.uuid4(),
        )
    page = f"/p/{access.project.slug}/tasks/{uid}"
    return see_other(f"{page}/improve#asked" if is_improving else f"{page}#asked")


@router.get("/questions")
def list_own(request: Request, session: SessionDep, access: Labeller, before: Cursor = None) -> HTMLResponse:
    """What this person asked, with the answers, which count as read from now on."""
    rows, has_more = questions.page_own(session, access, before=before, limit=PAGE_LENGTH)
    return render(request, "questions/index.html", rows=rows, has_more=has_more)


@router.get("/inbox")
def show_inbox(
    request: Request,
    session: SessionDep,
    access: Admin,
    state: QuestionState = QuestionState.OPEN,
    kind: QuestionKind | Literal[""] = "",
    after: Cursor = None,
) -> HTMLResponse:
    """Questions in one state, of one kind where given: the open ones from the oldest on, settled ones from the newest back."""
    rows = queries.page_inbox(
        session, access.project.id, state=state, kind=kind or None, after=after, limit=PAGE_LENGTH + 1
    )
    return render(
        request,
        "questions/inbox.html",
        rows=rows[:PAGE_LENGTH],
        has_more=len(rows) > PAGE_LENGTH,
        appeals=gold_queries.count_open_appeals(session, access.project.id)
        if access.may(Permission.MANAGE_SCHOOL)
        else None,
        counts=queries.count_by_state(session, access.project.id),
        counted=queries.COUNTED,
        states=tuple(QuestionState),
        kinds=tuple(QuestionKind),
        state=state,
        kind=kind,
    )


@router.get("/inbox/{uid}")
def show_question(
    request: Request, session: SessionDep, access: Admin, uid: uuid.UUID, excluded: int | None = None
) -> HTMLResponse:
    """The question, the task as its asker saw it, and what can be done."""
    return _show(request, session, access, uid, excluded=excluded)


@router.post("/inbox/{uid}/answer")
def answer(
    request: Request, session: SessionDep, access: Admin, uid: uuid.UUID, answer: Annotated[str, Form()] = ""
) -> RedirectResponse:
    """Answer a question; its asker is told."""
    try:
        questions.answer(session, access, uid, answer)
    except BadInput as error:
        raise FormRefused(_show(request, session, access, uid, error=error, text=answer)) from error
    return see_other(f"/p/{access.project.slug}/inbox/{uid}")


@router.post("/inbox/{uid}/close")
def close(session: SessionDep, access: Admin, uid: uuid.UUID) -> RedirectResponse:
    """Settle a question without an answer."""
    questions.close(session, access, uid)
    return see_other(f"/p/{access.project.slug}/inbox")


@router.post("/inbox/{uid}/retire")
def retire(
    session: SessionDep, access: Admin, uid: uuid.UUID, excludes_answers: Annotated[bool, Form()] = False
) -> RedirectResponse:
    """Give the task to nobody any more; who has begun it is told. With the box, what was said of it trains nothing."""
    excluded = questions.retire_task(session, access, uid, excludes_answers=excludes_answers)
    query = f"?excluded={excluded}" if excludes_answers else ""
    return see_other(f"/p/{access.project.slug}/inbox/{uid}{query}")


def _keep_draft(session: Session, access: Access, work: tasks.Work, fields: Mapping[str, list[str]]) -> None:
    """Keep what was in the page that a question was asked from; nothing where it came without the task's own fields."""
    uid, kind = work.task.uid, work.task.kind
    if "text" in fields and kind == TaskKind.RANK:
        improvements.save_draft(session, access, uid, improvement_pages.draft_of(fields))
    elif "text" in fields and kind == TaskKind.DEMONSTRATE:
        tasks.save_draft(session, access, uid, demonstration_pages.draft_of(fields))
    elif "schema" in fields and kind != TaskKind.DEMONSTRATE:
        tasks.save_draft(session, access, uid, task_pages.draft_of(session, access, work, fields))


def _page_key(sent: Mapping[str, str]) -> uuid.UUID:
    try:
        return uuid.UUID(sent.get("idempotency_key", ""))
    except ValueError as error:
        raise BadInput("The page sent no valid key. Ask again from here.", field="question") from error


def _show(
    request: Request,
    session: Session,
    access: Access,
    uid: uuid.UUID,
    *,
    error: BadInput | None = None,
    text: str | None = None,
    excluded: int | None = None,
) -> HTMLResponse:
    row = questions.get_row(session, access, uid)
    question = row.question
    work = questions.work_of(session, question)
    return render(
        request,
        "questions/show.html",
        error.status if error else 200,
        row=row,
        others=[other for other in queries.list_of_task(session, work.task.id) if other.id != question.id],
        work=work,
        turns=task_pages.turns_of(work),
        error=error,
        excluded=excluded,
        text=(question.answer or "") if text is None else text,
        longest=questions.LONGEST_ANSWER,
    )
