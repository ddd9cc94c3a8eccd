"""A project's own home: what waits for this person, what they are told, how the project stands."""

import uuid
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from starlette.responses import HTMLResponse, RedirectResponse

from app.models import QuestionState, TaskKind
from app.permissions import Access, Permission
from app.queries import gold as gold_queries
from app.queries import leases as lease_queries
from app.queries import progress as progress_queries
from app.queries import projects as project_queries
from app.queries import questions as question_queries
from app.routers.tasks import PAGES
from app.services import answers, checkpoints, counters, guidelines, notices, progress, projects, questions, tasks
from app.web.deps import SessionDep, require
from app.web.redirects import see_other
from app.web.render import render

router = APIRouter(prefix="/p/{slug}")

Member = Annotated[Access, Depends(require(Permission.READ_GUIDELINES))]


@router.get("/")
def show_home(request: Request, session: SessionDep, access: Member) -> HTMLResponse:
    """What waits for this person, what is new to them, and how the project stands."""
    project = access.project
    can_label = access.may(Permission.LABEL)
    held = (
        {kind: lease_queries.find_held(session, project.id, access.user.id, kind) for kind in TaskKind}
        if can_label
        else {}
    )
    return render(
        request,
        "home/show.html",
        unread=guidelines.unread(session, access),
        read_before=guidelines.read_before(session, access),
        announcements=notices.list_announcements(session, access),
        notices=notices.list_unread(session, access),
        answers=questions.list_unread(session, access) if can_label else [],
        waiting=_count_open(session, access) if access.may(Permission.ANSWER) else None,
        appeals=gold_queries.count_open_appeals(session, project.id) if access.may(Permission.MANAGE_SCHOOL) else 0,
        held=held,
        nothing=tasks.find_nothing(session, access, TaskKind.RANK) if can_label else None,
        others=[kind for kind in answers.KINDS if held[kind] or tasks.find_nothing(session, access, kind) is None]
        if can_label
        else [],
        pages=PAGES,
        open_counts={kind: progress.count_open(session, access, kind) for kind in held},
        counted_open=progress.COUNTED_OPEN,
        progress=progress.find_progress(session, access) if can_label else None,
        counted=progress_queries.COUNTED,
        round=checkpoints.open_round(session, project.id),
        policy=checkpoints.active_policy(session, project.id),
        counts={
            name: counters.get(session, project.id, name) for name in (counters.JUDGEMENTS, counters.DEMONSTRATIONS)
        },
        automation=projects.find_automation(project),
        base=project_queries.get_base(session, project),
    )


@router.post("/notices/{uid}/read")
def put_notice_away(session: SessionDep, access: Member, uid: uuid.UUID) -> RedirectResponse:
    """Show one of this person's notices no more."""
    notices.put_away(session, access, uid)
    return see_other(f"/p/{access.project.slug}/")


def _count_open(session: SessionDep, access: Access) -> str:
    """Open questions as a number, or `100+`."""
    count = question_queries.count_by_state(session, access.project.id)[QuestionState.OPEN]
    return f"{question_queries.COUNTED}+" if count > question_queries.COUNTED else str(count)
