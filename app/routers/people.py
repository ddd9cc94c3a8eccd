"""Who belongs to a project, and the links that bring people in."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Form, Request
from sqlalchemy.orm import Session
from starlette.responses import HTMLResponse, RedirectResponse, Response

from app.errors import AppError, BadInput, Conflict, Forbidden
from app.models import Cohort, Role
from app.permissions import Access, Permission
from app.queries import people as queries
from app.routers.accounts import cookie_token, signed_in
from app.schemas.needs import SKILL, name_tags
from app.services import accounts, notices, people
from app.settings import get_settings
from app.web.deps import SessionDep, SignIn, require
from app.web.forms import FormRefused
from app.web.redirects import see_other
from app.web.render import render

router = APIRouter()

Manager = Annotated[Access, Depends(require(Permission.MANAGE_PEOPLE))]
Text = Annotated[str, Form()]
Roles = Annotated[list[str] | None, Form()]


@router.get("/p/{slug}/people")
def show_people(request: Request, session: SessionDep, access: Manager) -> HTMLResponse:
    """Members and open invitations."""
    return _page(request, session, access)


@router.post("/p/{slug}/people/invite")
def invite(
    request: Request,
    session: SessionDep,
    access: Manager,
    email: Text = "",
    roles: Roles = None,
    cohort: Annotated[Cohort, Form()] = accounts.DEFAULT_COHORT,
) -> HTMLResponse:
    """Make an invitation; the answer is the only page that ever shows its link."""
    try:
        _, path = people.invite(session, access, email=email, roles=roles or [], cohort=cohort)
    except (BadInput, Forbidden) as error:
        raise FormRefused(_page(request, session, access, error=error)) from error
    return _page(request, session, access, link=_address(request, path), link_kind="invitation")


@router.post("/p/{slug}/people/invitations/{uid}/revoke")
def revoke(session: SessionDep, access: Manager, uid: UUID) -> RedirectResponse:
    """Make an open invitation worthless."""
    people.revoke(session, access, uid)
    return see_other(f"/p/{access.project.slug}/people")


@router.post("/p/{slug}/people/{uid}")
def change_member(
    request: Request,
    session: SessionDep,
    access: Manager,
    uid: UUID,
    roles: Roles = None,
    cohort: Annotated[Cohort, Form()] = accounts.DEFAULT_COHORT,
    is_paused: Annotated[bool, Form()] = False,
    skills: Text = "",
    daily_cap: Text = "",
) -> RedirectResponse:
    """Set a member's roles, cohort and pause, their skills and daily cap."""
    try:
        has_new_roles = people.change_member(
            session, access, uid, roles=roles or [], cohort=cohort, is_paused=is_paused
        )
        people.change_work(session, access, uid, skills=skills, daily_cap=daily_cap)
    except (BadInput, Conflict, Forbidden) as error:
        raise FormRefused(_page(request, session, access, error=error)) from error
    path = f"/p/{access.project.slug}/people"
    if has_new_roles and uid == access.user.uid:
        return signed_in(accounts.sign_in(session, access.user, former_token=cookie_token(request)), path)
    return see_other(path)


@router.post("/p/{slug}/people/{uid}/link")
def make_member_link(request: Request, session: SessionDep, access: Manager, uid: UUID) -> HTMLResponse:
    """Make a one-time sign-in link for a member who cannot get in."""
    user, path = people.create_member_link(session, access, uid)
    return _page(request, session, access, link=_address(request, path), link_kind="sign-in", link_for=user.name)


@router.post("/p/{slug}/announcements")
def announce(
    request: Request, session: SessionDep, access: Manager, announcement: Text = "", last_day: Text = ""
) -> RedirectResponse:
    """Tell everybody in the project something on their home page until the end of a day."""
    try:
        notices.announce(session, access, text=announcement, last_day=last_day)
    except BadInput as error:
        values = {"announcement": announcement, "last_day": last_day}
        raise FormRefused(_page(request, session, access, error=error, values=values)) from error
    return see_other(f"/p/{access.project.slug}/people#announcements")


@router.post("/p/{slug}/announcements/{uid}/end")
def end_announcement(session: SessionDep, access: Manager, uid: UUID) -> RedirectResponse:
    """Show an announcement no more."""
    notices.end_announcement(session, access, uid)
    return see_other(f"/p/{access.project.slug}/people#announcements")


@router.get("/invite/{token}")
def show_invitation(request: Request, session: SessionDep, sign_in: SignIn, token: str) -> HTMLResponse:
    """What one is invited to, and the form that accepts."""
    invitation, project = people.find_invitation(session, token)
    return render(
        request, "accounts/invite.html", invitation=invitation, project=project, token=token, error=None, values={}
    )


@router.post("/invite/{token}")
def accept_invitation(
    request: Request,
    session: SessionDep,
    sign_in: SignIn,
    token: str,
    name: Text = "",
    email: Text = "",
    password: Text = "",
) -> Response:
    """Join as the person signed in, or with a new account."""
    try:
        if sign_in is not None:
            joined = people.join(session, token, sign_in.user)
        else:
            joined = people.join_as_new(session, token, name=name, email=email, password=password)
    except (BadInput, Conflict) as error:
        invitation, project = people.find_invitation(session, token)
        page = render(
            request,
            "accounts/invite.html",
            error.status,
            invitation=invitation,
            project=project,
            token=token,
            error=error,
            values={"name": name, "email": email},
        )
        raise FormRefused(page) from error
    cookie = accounts.sign_in(session, joined.user, former_token=cookie_token(request))
    return signed_in(cookie, f"/p/{joined.project.slug}/")


def _address(request: Request, path: str) -> str:
    """A link to hand out: below the public address, or below the one this page was asked for at."""
    return (get_settings().public_url or str(request.base_url)).rstrip("/") + path


def _page(
    request: Request,
    session: Session,
    access: Access,
    *,
    error: AppError | None = None,
    link: str = "",
    link_kind: str = "",
    link_for: str = "",
    values: dict[str, str] | None = None,
) -> HTMLResponse:
    return render(
        request,
        "people/index.html",
        error.status if error else 200,
        members=queries.list_members(session, access.project.id),
        invitations=queries.list_invitations(session, access.project.id),
        grantable=people.grantable(access),
        all_roles=tuple(Role),
        cohorts=tuple(Cohort),
        skills_of=lambda membership: name_tags(membership.skills, SKILL),
        highest_cap=people.HIGHEST_CAP,
        error=error,
        link=link,
        link_kind=link_kind,
        link_for=link_for,
        announcements=notices.list_announcements(session, access),
        longest=notices.LONGEST_CHARACTERS,
        values=values or {},
    )
