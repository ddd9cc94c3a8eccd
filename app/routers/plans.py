"""Sampling plans: the list, the form, what a plan will cost, and how far it is."""

import uuid
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from sqlalchemy.orm import Session
from starlette.responses import HTMLResponse, RedirectResponse

from app.errors import BadInput, Conflict
from app.models import Category, Checkpoint, Endpoint, SamplingPlan
from app.permissions import Access, Permission
from app.queries import plans as queries
from app.schemas.plans import LEAST_CONTROL, MOST_TASKS, PARTS, Order, PlanSettings, read_plan
from app.services import plan_estimates, plans
from app.web.deps import SessionDep, require
from app.web.forms import Fields, FormRefused
from app.web.redirects import see_other
from app.web.render import render

PAGE_SIZE = 50
PASSED_SHOWN = 100

router = APIRouter(prefix="/p/{slug}/sampling")

Reader = Annotated[Access, Depends(require(Permission.READ_PIPELINE))]
Planner = Annotated[Access, Depends(require(Permission.TRAIN))]


@router.get("")
def index(
    request: Request,
    session: SessionDep,
    access: Reader,
    before: Annotated[int | None, Query(ge=0, lt=2**63)] = None,
    block: str | None = None,
) -> HTMLResponse:
    """Every plan, newest first, with how far it is."""
    rows = queries.page(session, access.project.id, before=before, limit=PAGE_SIZE + 1)
    sources = plans.map_sources(session, access.project)
    reports = [plans.report(row, sources) for row in rows[:PAGE_SIZE]]
    return render(
        request,
        "plans/index.html",
        block="live" if block == "live" else None,
        reports=reports,
        is_live=any(report.is_live for report in reports),
        before=before,
        next_before=rows[PAGE_SIZE - 1].id if len(rows) > PAGE_SIZE else None,
    )


@router.get("/new")
def show_new(
    request: Request,
    session: SessionDep,
    access: Planner,
    like: uuid.UUID | None = None,
) -> HTMLResponse:
    """The form, filled with the project's ways or with those of another plan; a draft is changed by it."""
    if like is None:
        return _form(request, session, access, "", _values(plans.suggest(session, access.project)))
    plan = plans.find(session, access, like)
    values = _values(PlanSettings.model_validate(plan.settings))
    draft = plan.uid if plan.job_id is None else None
    return _form(request, session, access, plan.name, values, draft=draft)


@router.post("")
def save(request: Request, session: SessionDep, access: Planner, fields: Fields) -> RedirectResponse:
    """Keep a plan and show what it will cost; nothing is started."""
    name, draft = (fields.get("name") or [""])[-1], _uid(fields, "draft")
    read = read_plan(fields)
    problems = dict(read.problems)
    try:
        if read.settings is not None:
            plan = plans.save_draft(
                session, access, name, read.settings, replaces=draft, key=_uid(fields, "idempotency_key")
            )
            return see_other(f"/p/{access.project.slug}/sampling/{plan.uid}")
    except BadInput as error:
        problems[_of_form(error.field or "parts", fields)] = error.message
    raise FormRefused(_form(request, session, access, name, fields, draft=draft, problems=problems))


def _uid(fields: Mapping[str, Sequence[str]], name: str) -> uuid.UUID | None:
    try:
        return uuid.UUID((fields.get(name) or [""])[-1])
    except ValueError:
        return None


def _of_form(field: str, fields: Mapping[str, Sequence[str]]) -> str:
    """The name in the form of a part's field: parts that were left empty are counted there."""
    pieces = field.split("-")
    if len(pieces) != 3:
        return field
    places = [at for at in range(PARTS) if (fields.get(f"parts-{at}-source") or [""])[-1].strip()]
    return f"parts-{places[int(pieces[1])]}-{pieces[2]}"


@router.get("/{uid}")
def show(
    request: Request, session: SessionDep, access: Reader, uid: uuid.UUID, block: str | None = None
) -> HTMLResponse:
    """A draft with its cost, or how far a plan is and what it made."""
    plan = plans.find(session, access, uid)
    if plan.job is None:
        return _draft(request, session, access, plan)
    report = plans.report(plan, sources := plans.map_sources(session, access.project))
    return render(
        request,
        "plans/show.html",
        block="live" if block == "live" else None,
        lines=plans.list_lines(session, report),
        passed=queries.list_passed_over(session, plan.id, limit=PASSED_SHOWN),
        disagreements=queries.mean_disagreements(session, plan.id),
        **_told(session, access, report, sources),
    )


def _draft(
    request: Request, session: Session, access: Access, plan: SamplingPlan, *, problem: str = ""
) -> HTMLResponse:
    """A plan that was not started, with its cost."""
    report = plans.report(plan, sources := plans.map_sources(session, access.project))
    return render(
        request,
        "plans/draft.html",
        409 if problem else 200,
        cost=plan_estimates.estimate(session, access.project, report.settings, sources),
        problem=problem,
        **_told(session, access, report, sources),
    )


def _told(
    session: Session, access: Access, report: plans.Report, sources: Mapping[uuid.UUID, Checkpoint | Endpoint]
) -> dict[str, Any]:
    """What both pages of a plan say of its settings."""
    return {
        "report": report,
        "plan": report.plan,
        "pools": {pool.uid: pool.name for pool in queries.list_pools(session, access.project.id)},
        "outside": {uid for uid, source in sources.items() if isinstance(source, Endpoint)},
    }


@router.post("/{uid}/start")
def start(request: Request, session: SessionDep, access: Planner, uid: uuid.UUID, fields: Fields) -> RedirectResponse:
    """Have a worker draw; where the plan was changed since its cost was shown, show the new figures instead."""
    try:
        plans.start(session, access, uid, seen=(fields.get("seen") or [""])[-1])
    except Conflict as error:
        plan = plans.find(session, access, uid)
        raise FormRefused(_draft(request, session, access, plan, problem=error.message)) from error
    return see_other(f"/p/{access.project.slug}/sampling/{uid}")


@router.post("/{uid}/cancel")
def cancel(session: SessionDep, access: Planner, uid: uuid.UUID) -> RedirectResponse:
    """Stop drawing."""
    plans.cancel(session, access, uid)
    return see_other(f"/p/{access.project.slug}/sampling/{uid}")


@router.post("/{uid}/retry")
def retry(session: SessionDep, access: Planner, uid: uuid.UUID) -> RedirectResponse:
    """Go on from where it ended."""
    plans.retry(session, access, uid)
    return see_other(f"/p/{access.project.slug}/sampling/{uid}")


@router.post("/{uid}/withdraw")
def withdraw(session: SessionDep, access: Planner, uid: uuid.UUID) -> RedirectResponse:
    """Retire the open tasks of a plan."""
    plans.withdraw(session, access, uid)
    return see_other(f"/p/{access.project.slug}/sampling/{uid}")


@router.post("/{uid}/discard")
def discard(session: SessionDep, access: Planner, uid: uuid.UUID) -> RedirectResponse:
    """Throw a draft away."""
    plans.discard(session, access, uid)
    return see_other(f"/p/{access.project.slug}/sampling")


def _values(settings: PlanSettings) -> dict[str, list[str]]:
    """Settings as the form's fields."""
    found = {
        "tasks": [str(settings.tasks)],
        "judgements_wanted": [str(settings.judgements_wanted)],
        "priority": [str(settings.priority)],
        "valid_share": [f"{100 * settings.valid_share:g}"],
        "control_share": [f"{100 * settings.control_share:g}"],
        "order": [settings.order.value],
        "first_judge": [str(settings.first_judge or "")],
        "second_judge": [str(settings.second_judge or "")],
        "pools": [str(pool) for pool in settings.pools],
        "categories": [category.value for category in settings.categories],
    }
    for at, part in enumerate(settings.parts):
        told = {
            "source": f"{part.kind}:{part.source}",
            "responses": part.responses,
            "temperature": f"{part.temperature:g}",
            "top_p": f"{part.top_p:g}",
            "max_new_tokens": part.max_new_tokens,
            "best_of": part.best_of,
            "reward": part.reward or "",
            "prefix": part.prefix,
        }
        found |= {f"parts-{at}-{name}": [str(value)] for name, value in told.items()}
    return found


def _form(
    request: Request,
    session: Session,
    access: Access,
    name: str,
    fields: Mapping[str, Sequence[str]],
    *,
    draft: uuid.UUID | None = None,
    problems: Mapping[str, str] | None = None,
) -> HTMLResponse:
    suggested = plans.suggest(session, access.project).parts[0]
    return render(
        request,
        "plans/new.html",
        422 if problems else 200,
        name=name,
        given=lambda field, otherwise="": (fields.get(field) or [str(otherwise)])[-1],
        given_all=lambda field: list(fields.get(field) or ()),
        draft=draft,
        idempotency_key=uuid.uuid4(),
        problems=problems or {},
        choices=plans.list_choices(session, access.project),
        suggested=suggested,
        parts=range(PARTS),
        orders=list(Order),
        categories=list(Category),
        most_tasks=MOST_TASKS,
        least_control=LEAST_CONTROL,
    )
