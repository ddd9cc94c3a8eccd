"""Comparing two outputs, rating one, labelling a prompt: a queue, a page and a history each, through the same services."""

import uuid
from collections.abc import Mapping
from typing import Annotated

from fastapi import APIRouter, Depends, Form, Request
from sqlalchemy.orm import Session
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse

from app.errors import Conflict, Forbidden
from app.models import LeaseState, TaskKind
from app.permissions import Access, Permission
from app.queries import tasks as queries
from app.routers.content import show_gate
from app.routers.tasks import PAGES, draft_of, skipped_task, turns_of
from app.schemas.judgements import STRENGTHS, RankingForm, WhySkipped
from app.schemas.keys import Keys
from app.schemas.labels import Scope
from app.services import answers, guidelines, judgements, questions, tasks
from app.web.deps import SessionDep, require
from app.web.forms import Fields, FormRefused
from app.web.redirects import see_other
from app.web.render import render

Labeller = Annotated[Access, Depends(require(Permission.LABEL))]

TEMPLATES = {
    TaskKind.COMPARE: "answers/compare.html",
    TaskKind.RATE: "answers/rate.html",
    TaskKind.LABEL_PROMPT: "answers/label.html",
}


def _routes_of(kind: TaskKind) -> APIRouter:
    """The pages of one kind of task."""
    router = APIRouter(prefix=f"/p/{{slug}}/{PAGES[kind]}")
    _add_queue(router, kind)
    _add_task(router, kind)
    _add_revision(router, kind)
    return router


def _add_queue(router: APIRouter, kind: TaskKind) -> None:
    @router.get("", response_model=None)
    def show_queue(
        request: Request, session: SessionDep, access: Labeller, skipped: uuid.UUID | None = None
    ) -> HTMLResponse | RedirectResponse:
        """The task this person holds, else a button to get one, else why there is none. Leases nothing."""
        if held := tasks.find_held(session, access, kind):
            return see_other(_path(session, access, kind, held.task_id))
        return render(
            request,
            "answers/index.html",
            kind=kind,
            page=f"/p/{access.project.slug}/{PAGES[kind]}",
            nothing=tasks.find_nothing(session, access, kind),
            guideline=guidelines.unread(session, access),
            skipped=skipped_task(session, access, skipped),
        )

    @router.post("/next")
    def take_next(session: SessionDep, access: Labeller) -> RedirectResponse:
        """Lease the next task and show it."""
        return _next(session, access, kind)


def _add_task(router: APIRouter, kind: TaskKind) -> None:
    @router.get("/{uid}")
    def show_task(request: Request, session: SessionDep, access: Labeller, uid: uuid.UUID) -> HTMLResponse:
        """What is asked, with what was answered so far; after the submit, what was stored."""
        work = tasks.find_work(session, access, uid, kind=kind)
        if work.lease.state == LeaseState.SUBMITTED:
            return _show_stored(request, session, access, work)
        return _show_form(request, session, access, work, RankingForm.from_json(work.draft or {}))

    @router.post("/{uid}/submit")
    def submit(
        request: Request, session: SessionDep, access: Labeller, uid: uuid.UUID, fields: Fields
    ) -> RedirectResponse:
        """Store the answer and go on to the next task; what does not fit comes back with its choices kept."""
        pairs = [(name, value) for name, values in fields.items() for value in values]
        try:
            answers.submit(session, access, kind, uid, pairs)
        except (judgements.InvalidRanking, Conflict) as error:
            raise _refuse(request, session, access, uid, pairs, error) from error
        return _next(session, access, kind)

    @router.post("/{uid}/draft")
    def save_draft(session: SessionDep, access: Labeller, uid: uuid.UUID, fields: Fields) -> JSONResponse:
        """Keep what is chosen so far; `saved_at` is null where the task was answered meanwhile."""
        work = tasks.find_work(session, access, uid, kind=kind)
        saved_at = tasks.save_draft(session, access, uid, draft_of(session, access, work, fields))
        return JSONResponse({"saved_at": saved_at.isoformat(timespec="seconds") if saved_at else None})


def _add_revision(router: APIRouter, kind: TaskKind) -> None:
    @router.get("/{uid}/revise", response_model=None)
    def show_revision(
        request: Request, session: SessionDep, access: Labeller, uid: uuid.UUID
    ) -> HTMLResponse | RedirectResponse:
        """What was submitted, in the form it was said in, to be said otherwise."""
        work = tasks.find_work(session, access, uid, kind=kind)
        judgement = judgements.find_stored(session, work)
        if judgement is None:
            return see_other(_path(session, access, kind, work.task.id))
        form = judgements.form_of(session, judgement)
        return _show_form(request, session, access, work, form, revision=judgement.revision)

    @router.post("/{uid}/revise")
    def revise(
        request: Request,
        session: SessionDep,
        access: Labeller,
        uid: uuid.UUID,
        fields: Fields,
        of_revision: Annotated[int, Form()],
    ) -> RedirectResponse:
        """Store a new version of the answer, the former one kept; where that is no longer the newest, both are shown."""
        pairs = [(name, value) for name, values in fields.items() for value in values]
        try:
            answers.revise(session, access, kind, uid, pairs, of_revision=of_revision)
        except (judgements.InvalidRanking, Conflict) as error:
            raise _refuse(request, session, access, uid, pairs, error, revision=of_revision) from error
        return see_other(f"/p/{access.project.slug}/history")


def _next(session: Session, access: Access, kind: TaskKind) -> RedirectResponse:
    queue = f"/p/{access.project.slug}/{PAGES[kind]}"
    if guidelines.unread(session, access):
        return see_other(f"/p/{access.project.slug}/guidelines?next={queue}")
    try:
        lease = tasks.lease_next(session, access, kind)
    except (Forbidden, Conflict):  # the answer before stays stored; the queue's page says what is the matter
        lease = None
    return see_other(_path(session, access, kind, lease.task_id) if lease else queue)


def _path(session: Session, access: Access, kind: TaskKind, task_id: int) -> str:
    return f"/p/{access.project.slug}/{PAGES[kind]}/{queries.get_uid(session, task_id)}"


def _refuse(
    request: Request,
    session: Session,
    access: Access,
    uid: uuid.UUID,
    pairs: list[tuple[str, str]],
    error: judgements.InvalidRanking | Conflict,
    *,
    revision: int | None = None,
) -> FormRefused:
    """The page that shows what was sent again, beside what is wrong with it or what is stored instead."""
    work = tasks.find_work(session, access, uid)
    form = RankingForm.from_fields(pairs)
    if isinstance(error, Conflict):
        return FormRefused(_show_stored(request, session, access, work, conflict=error, unsent=form))
    page = _show_form(request, session, access, work, form, problems=error.problems, revision=revision)
    return FormRefused(page)


def _show_form(
    request: Request,
    session: Session,
    access: Access,
    work: tasks.Work,
    form: RankingForm,
    *,
    problems: Mapping[str, str] | None = None,
    revision: int | None = None,
) -> HTMLResponse:
    kind = work.task.kind
    if gate := show_gate(request, work, 422 if problems else 200):
        return gate
    return render(
        request,
        TEMPLATES[kind],
        422 if problems else 200,
        page=f"/p/{access.project.slug}/{PAGES[kind]}/{work.task.uid}",
        work=work,
        turns=turns_of(work),
        form=form,
        problems=problems or {},
        idempotency_key=uuid.uuid4(),
        questions=answers.find_questions(session, access, kind, form.schema),
        asked=questions.look_at(session, access, work),
        scopes=Scope,
        strengths=STRENGTHS,
        why_skipped=WhySkipped,
        guideline=guidelines.current(session, access.project.id),
        revision=revision,
        keys=Keys.of(access.user.preferences),
    )


def _show_stored(
    request: Request,
    session: Session,
    access: Access,
    work: tasks.Work,
    *,
    conflict: Conflict | None = None,
    unsent: RankingForm | None = None,
) -> HTMLResponse:
    if conflict and (gate := show_gate(request, work, conflict.status)):
        return gate
    judgement = judgements.find_newest(session, work)
    fields = judgements.questions_of(session, judgement).fields if judgement else ()
    return render(
        request,
        "answers/stored.html",
        conflict.status if conflict else 200,
        page=f"/p/{access.project.slug}/{PAGES[work.task.kind]}",
        work=work,
        turns=turns_of(work),
        asked=questions.look_at(session, access, work),
        idempotency_key=uuid.uuid4(),
        judgement=judgement,
        stored=judgements.form_of(session, judgement) if judgement else None,
        labels={field.key: field.label for field in fields},
        conflict=conflict,
        unsent=unsent,
    )


routers = tuple(_routes_of(kind) for kind in answers.KINDS)
