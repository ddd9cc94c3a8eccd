"""The ranking queue as pages: take a task, rank its outputs, skip it or give it back."""

import uuid
from collections.abc import Mapping
from functools import lru_cache
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Form, Request
from markupsafe import Markup
from sqlalchemy.orm import Session
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse

from app.errors import Conflict, Forbidden, NotFound
from app.markup import render_markdown
from app.models import LESSONS, Guideline, Json, LeaseState, Purpose, Task, TaskKind
from app.permissions import Access, Permission
from app.queries import judgements as judgement_queries
from app.queries import tasks as queries
from app.routers.content import show_gate
from app.schemas.judgements import RankingForm, WhySkipped, WhyUnrankable, read_ranking
from app.schemas.keys import Keys
from app.schemas.labels import Scope
from app.services import guidelines, improvements, judgements, qualifications, questions, references, tasks
from app.web.deps import SessionDep, require
from app.web.forms import Fields, FormRefused
from app.web.redirects import see_other
from app.web.render import render

router = APIRouter(prefix="/p/{slug}")

PAGES = {
    TaskKind.RANK: "tasks",
    TaskKind.DEMONSTRATE: "demonstrate",
    TaskKind.COMPARE: "compare",
    TaskKind.RATE: "rate",
    TaskKind.LABEL_PROMPT: "label",
}
"""Part of a project's address that the tasks of a kind are under."""

QUEUES = PAGES | {TaskKind.RANK: "rank"}
"""Likewise, their queue."""

Labeller = Annotated[Access, Depends(require(Permission.LABEL))]


@router.get("/rank", response_model=None)
def show_queue(
    request: Request,
    session: SessionDep,
    access: Labeller,
    skipped: uuid.UUID | None = None,
    block: Literal["queue"] | None = None,
) -> HTMLResponse | RedirectResponse:
    """The task this person holds, else a button to get one, else why there is none. Leases nothing.

    While there is none, the page asks for its block `queue` now and then.
    """
    held = tasks.find_held(session, access, TaskKind.RANK)
    if held and not block:
        return see_other(task_path(session, access, held.task_id))
    return render(
        request,
        "tasks/index.html",
        block=block,
        nothing=tasks.find_nothing(session, access, TaskKind.RANK),
        guideline=guidelines.unread(session, access),
        today=judgements.count_today(session, access),
        skipped=skipped_task(session, access, skipped),
    )


@router.post("/rank/next", response_model=None)
def take_next(request: Request, session: SessionDep, access: Labeller) -> HTMLResponse | RedirectResponse:
    """Lease the next task and show it."""
    return next_task(request, session, access)


@router.get("/tasks/{uid}", response_model=None)
def show_task(
    request: Request,
    session: SessionDep,
    access: Labeller,
    uid: uuid.UUID,
    skipped: uuid.UUID | None = None,
) -> HTMLResponse | RedirectResponse:
    """The outputs to rank with what was chosen so far; after the submit, what was stored."""
    work = tasks.find_work(session, access, uid)
    if work.task.kind != TaskKind.RANK:
        return see_other(f"/p/{access.project.slug}/{PAGES[work.task.kind]}/{uid}")
    if work.lease.state == LeaseState.SUBMITTED and work.task.purpose in LESSONS:
        home = f"/p/{access.project.slug}/qualification"
        return see_other(f"{home}/practice/{uid}" if work.task.purpose == Purpose.PRACTICE else home)
    if work.lease.state == LeaseState.SUBMITTED:
        return _show_stored(request, session, access, work)
    return _show_begun(request, session, access, work, skipped=skipped_task(session, access, skipped))


@router.post("/tasks/{uid}/submit", response_model=None)
def submit(
    request: Request, session: SessionDep, access: Labeller, uid: uuid.UUID, fields: Fields
) -> HTMLResponse | RedirectResponse:
    """Store the ranking and go on to the next task, or to improving the best output where the project asks for that.

    What does not fit comes back with its choices kept.
    """
    pairs = [(name, value) for name, values in fields.items() for value in values]
    read = read_ranking(pairs)
    try:
        if read.ranking is None:
            raise judgements.InvalidRanking(read.problems)
        guideline, is_unread = guidelines.look(session, access)
        followed = None if is_unread else guideline
        judgement = judgements.submit_ranking(session, access, uid, read.ranking, guideline=followed)
    except judgements.InvalidRanking as error:
        work = tasks.find_work(session, access, uid)
        form = RankingForm.from_fields(pairs)
        raise FormRefused(_show_form(request, session, access, work, form, problems=error.problems)) from error
    except Conflict as error:
        work = tasks.find_work(session, access, uid)
        form = RankingForm.from_fields(pairs)
        raise FormRefused(_show_stored(request, session, access, work, conflict=error, unsent=form)) from error
    if judgement.task.purpose in LESSONS:
        return _after_lesson(session, access, judgement.task)
    asks = access.project.asks_to_edit_best
    if asks and improvements.find_best(session, access, tasks.find_work(session, access, uid)):
        return see_other(f"/p/{access.project.slug}/tasks/{uid}/improve")
    return next_task(request, session, access, guideline=followed)


@router.get("/tasks/{uid}/revise", response_model=None)
def show_revision(
    request: Request, session: SessionDep, access: Labeller, uid: uuid.UUID
) -> HTMLResponse | RedirectResponse:
    """What was submitted, in the form it was said in, to be said otherwise."""
    work = tasks.find_work(session, access, uid, kind=TaskKind.RANK)
    judgement = judgements.find_stored(session, work)
    if judgement is None:
        return see_other(task_path(session, access, work.task.id))
    form = judgements.form_of(session, judgement)
    return _show_form(request, session, access, work, form, revision=judgement.revision)


@router.post("/tasks/{uid}/revise")
def revise(
    request: Request,
    session: SessionDep,
    access: Labeller,
    uid: uuid.UUID,
    fields: Fields,
    of_revision: Annotated[int, Form()],
) -> RedirectResponse:
    """Store a new version of the ranking, the former one kept; where that is no longer the newest, both are shown."""
    pairs = [(name, value) for name, values in fields.items() for value in values]
    read, form = read_ranking(pairs), RankingForm.from_fields(pairs)
    try:
        if read.ranking is None:
            raise judgements.InvalidRanking(read.problems)
        improvements.revise_ranking(session, access, uid, read.ranking, of_revision=of_revision)
    except judgements.InvalidRanking as error:
        work = tasks.find_work(session, access, uid)
        problems = error.problems
        raise FormRefused(
            _show_form(request, session, access, work, form, problems=problems, revision=of_revision)
        ) from error
    except Conflict as error:
        work = tasks.find_work(session, access, uid)
        raise FormRefused(_show_stored(request, session, access, work, conflict=error, unsent=form)) from error
    return see_other(f"/p/{access.project.slug}/history")


@router.post("/tasks/{uid}/skip", response_model=None)
def skip(
    request: Request, session: SessionDep, access: Labeller, uid: uuid.UUID, reason: Annotated[WhySkipped, Form()]
) -> HTMLResponse | RedirectResponse:
    """Pass the task on with a reason and go on to the next; the page that follows offers the way back."""
    lease = tasks.skip(session, access, uid, reason=reason)
    kind = tasks.find_work(session, access, uid).task.kind
    if kind != TaskKind.RANK:
        return see_other(f"/p/{access.project.slug}/{QUEUES[kind]}?skipped={uid}")
    return next_task(request, session, access, skipped=uid if lease.state == LeaseState.SKIPPED else None)


@router.post("/tasks/{uid}/release")
def release(session: SessionDep, access: Labeller, uid: uuid.UUID) -> RedirectResponse:
    """Give the task back and stop for now."""
    tasks.release(session, access, uid)
    work = tasks.find_work(session, access, uid)
    return see_other(f"/p/{access.project.slug}/{QUEUES[work.task.kind]}")


@router.post("/tasks/{uid}/draft")
def save_draft(session: SessionDep, access: Labeller, uid: uuid.UUID, fields: Fields) -> JSONResponse:
    """Keep what is chosen so far; `saved_at` is null where the task was answered meanwhile."""
    work = tasks.find_work(session, access, uid, kind=TaskKind.RANK)
    saved_at = tasks.save_draft(session, access, uid, draft_of(session, access, work, fields))
    return JSONResponse({"saved_at": saved_at.isoformat(timespec="seconds") if saved_at else None})


def draft_of(session: Session, access: Access, work: tasks.Work, fields: Mapping[str, list[str]]) -> Json:
    """What a draft keeps of the fields of a page that judges."""
    form = RankingForm.from_fields((name, value) for name, values in fields.items() for value in values)
    asked = judgements.find_questions(session, access, form.schema).for_kind(work.task.kind)
    keys = [field.key for field in asked.fields]
    return form.to_json((output.sample for output in work.outputs), keys)


def task_path(session: Session, access: Access, task_id: int) -> str:
    """Address of a task's page."""
    return f"/p/{access.project.slug}/tasks/{queries.get_uid(session, task_id)}"


@lru_cache(maxsize=512)
def _render_turn(text: str) -> str:
    """An assistant's turn as HTML; the same conversation is shown to many, and again after every draft."""
    return render_markdown(text)


def turns_of(work: tasks.Work | references.Referenced) -> list[dict[str, str]]:
    """The conversation to show: what the assistant said is Markdown, what people wrote is shown as they typed it."""
    return [
        {
            "role": message["role"],
            "text": message["content"],
            "html": _render_turn(message["content"]) if message["role"] == "assistant" else "",
        }
        for message in work.prompt.messages
    ]


def next_task(
    request: Request,
    session: Session,
    access: Access,
    *,
    skipped: uuid.UUID | None = None,
    guideline: Guideline | None = None,
) -> HTMLResponse | RedirectResponse:
    """To the next task; to the guidelines where those come first; to the queue's page where there is none.

    `guideline` is the version that holds, where it is known that this person has read it.
    A script (`HX-Request`) is given the next task's page at once, under its address: one exchange instead of two.
    """
    queue = f"/p/{access.project.slug}/rank"
    if guideline is None:
        guideline, is_unread = guidelines.look(session, access)
        if is_unread:
            return see_other(f"/p/{access.project.slug}/guidelines?next={queue}")
    query = f"?skipped={skipped}" if skipped else ""
    try:
        work = tasks.take_next(session, access, TaskKind.RANK)
    except (Forbidden, Conflict):  # the answer before stays stored; the queue's page says what is the matter
        work = None
    if work is None:
        return see_other(queue + query)
    path = f"/p/{access.project.slug}/tasks/{work.task.uid}"
    if "hx-request" not in request.headers:
        return see_other(path + query)
    page = _show_begun(request, session, access, work, skipped=skipped, guideline=guideline)
    page.headers["HX-Push-Url"] = path + query
    return page


def _after_lesson(session: Session, access: Access, task: Task) -> RedirectResponse:
    """From an answer of practice to its reference; of a test to the next task of it, and after the last to the result."""
    home = f"/p/{access.project.slug}/qualification"
    if task.purpose == Purpose.PRACTICE:
        return see_other(f"{home}/practice/{task.uid}")
    standing = qualifications.find_standing(session, access)
    if standing.open_attempt and (lease := qualifications.go_on(session, access)):
        return see_other(task_path(session, access, lease.task_id))
    return see_other(f"{home}/attempts/{standing.attempts[0].uid}" if standing.attempts else home)


def skipped_task(session: Session, access: Access, uid: uuid.UUID | None) -> uuid.UUID | None:
    """`uid` if it is a task this person skipped: the page then offers the way back."""
    if uid is None:
        return None
    try:
        return uid if tasks.find_work(session, access, uid).lease.state == LeaseState.SKIPPED else None
    except NotFound:
        return None


def _show_begun(
    request: Request,
    session: Session,
    access: Access,
    work: tasks.Work,
    *,
    skipped: uuid.UUID | None,
    guideline: Guideline | None = None,
) -> HTMLResponse:
    """A task with what was chosen so far."""
    form = RankingForm.from_json(work.draft) if work.draft else RankingForm()
    return _show_form(request, session, access, work, form, skipped=skipped, guideline=guideline)


def _show_form(
    request: Request,
    session: Session,
    access: Access,
    work: tasks.Work,
    form: RankingForm,
    *,
    problems: Mapping[str, str] | None = None,
    skipped: uuid.UUID | None = None,
    revision: int | None = None,
    guideline: Guideline | None = None,
) -> HTMLResponse:
    """The form; the step before it where its content is sensitive and not opened yet."""
    if gate := show_gate(request, work, 422 if problems else 200):
        return gate
    return render(
        request,
        "tasks/show.html",
        422 if problems else 200,
        work=work,
        turns=turns_of(work),
        form=form,
        problems=problems or {},
        idempotency_key=uuid.uuid4(),
        questions=judgements.find_questions(session, access, form.schema),
        asked=questions.look_at(session, access, work),
        scopes=Scope,
        why_unrankable=WhyUnrankable,
        why_skipped=WhySkipped,
        guideline=guideline or guidelines.current(session, access.project.id),
        today=judgements.count_today(session, access),
        skipped=skipped,
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
    asked = questions.look_at(session, access, work)
    places = judgement_queries.list_places(session, judgement.id) if judgement else []
    letters = work.letters
    return render(
        request,
        "tasks/stored.html",
        conflict.status if conflict else 200,
        work=work,
        asked=asked,
        idempotency_key=uuid.uuid4(),
        judgement=judgement,
        best=improvements.find_best(session, access, work),
        places=sorted(
            ((letters[place.sample], place) for place in places),
            key=lambda row: (row[1].tier is None, row[1].tier, row[0]),
        ),
        labels={field.key: field.label for field in judgements.questions_of(session, judgement).fields}
        if judgement
        else {},
        begins={output.sample: Markup(output.html).striptags() for output in work.outputs},
        conflict=conflict,
        sent=unsent,
        unsent={letters[sample]: unsent.choices.get(str(sample)) for sample in letters} if unsent else {},
    )
