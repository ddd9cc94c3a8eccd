"""The ways in and out: sign-in, one-time links, and a person's own account."""

from typing import Annotated

from fastapi import APIRouter, Form, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from app.errors import AppError, BadInput, TooMany
from app.models import User
from app.schemas.keys import STANDARD, Keys
from app.services import accounts
from app.web.cookies import clear_session_cookie, set_session_cookie
from app.web.deps import SESSION_COOKIE, CurrentUser, SessionDep, SignIn
from app.web.forms import Fields, FormRefused
from app.web.redirects import local_path, see_other
from app.web.render import render

router = APIRouter()

Text = Annotated[str, Form()]


@router.get("/login")
def show_login(request: Request, sign_in: SignIn, next: str = "/") -> Response:
    """The sign-in page; who is signed in already goes where they wanted."""
    if sign_in is not None:
        return see_other(local_path(next))
    return render(request, "accounts/login.html", next=local_path(next), email="", error=None)


@router.post("/login")
def log_in(
    request: Request, session: SessionDep, email: Text = "", password: Text = "", next: Text = "/"
) -> RedirectResponse:
    """Open a session by e-mail and password."""
    try:
        token = accounts.sign_in_with_password(
            session, email=email, password=password, address=client_address(request), former_token=cookie_token(request)
        )
    except (BadInput, TooMany) as error:
        page = render(request, "accounts/login.html", error.status, next=local_path(next), email=email, error=error)
        if isinstance(error, TooMany):
            page.headers["Retry-After"] = str(error.retry_after_seconds)
        raise FormRefused(page) from error
    return signed_in(token, local_path(next))


@router.post("/logout")
def log_out(session: SessionDep, user: CurrentUser, request: Request) -> RedirectResponse:
    """End this browser's session."""
    accounts.sign_out(session, request.cookies[SESSION_COOKIE])
    response = see_other("/login")
    clear_session_cookie(response)
    return response


@router.get("/enter/{token}")
def show_enter(request: Request, session: SessionDep, token: str) -> HTMLResponse:
    """A page with one button: mail scanners and previews follow links, and must not use this one up."""
    accounts.check_login_link(session, token)
    return render(request, "accounts/enter.html", token=token)


@router.post("/enter/{token}")
def enter(request: Request, session: SessionDep, token: str) -> RedirectResponse:
    """Use a sign-in link up."""
    return signed_in(accounts.use_login_link(session, token, former_token=cookie_token(request)), "/")


@router.get("/account")
def show_account(request: Request, user: CurrentUser, saved: str = "") -> HTMLResponse:
    """One's own name, theme, password and keys."""
    return _show_account(request, user, saved=saved)


@router.post("/account/profile")
def change_profile(
    request: Request, session: SessionDep, user: CurrentUser, name: Text = "", theme: Text = "system"
) -> RedirectResponse:
    """Set one's own name and theme."""
    try:
        accounts.change_profile(session, user, name=name, theme=theme)
    except BadInput as error:
        raise FormRefused(_show_account(request, user, error=error)) from error
    return see_other("/account?saved=profile")


@router.post("/account/keys")
def change_keys(request: Request, session: SessionDep, user: CurrentUser, fields: Fields) -> RedirectResponse:
    """Set the keys of one's own ranking screen, or switch them off; `standard` puts them all back."""
    sent = {name: values[-1] for name, values in fields.items()}
    try:
        accounts.change_keys(session, user, Keys() if "standard" in sent else Keys.from_form(sent))
    except accounts.InvalidKeys as error:
        raise FormRefused(_show_account(request, user, error=error, keys=error.keys)) from error
    return see_other("/account?saved=keys")


@router.post("/account/password")
def change_password(
    request: Request,
    session: SessionDep,
    user: CurrentUser,
    sign_in: SignIn,
    password: Text = "",
    current: Text = "",
) -> RedirectResponse:
    """Set one's own password; every other session ends, this one gets a new token."""
    try:
        accounts.set_password(session, user, password=password, current=current, address=client_address(request))
    except (BadInput, TooMany) as error:
        raise FormRefused(_show_account(request, user, error=error)) from error
    return signed_in(accounts.sign_in(session, user), "/account?saved=password")


def _show_account(
    request: Request, user: User, *, saved: str = "", error: AppError | None = None, keys: Keys | None = None
) -> HTMLResponse:
    status = error.status if error else 200
    keys = keys or Keys.of(user.preferences)
    return render(request, "accounts/edit.html", status, saved=saved, error=error, keys=keys, standard=STANDARD)


def signed_in(token: str, path: str) -> RedirectResponse:
    """Go to `path` as the person behind `token`."""
    response = see_other(path)
    set_session_cookie(response, token)
    return response


def cookie_token(request: Request) -> str | None:
    """The session token the browser came with."""
    return request.cookies.get(SESSION_COOKIE)


def client_address(request: Request) -> str:
    """Where the request came from; behind a proxy, what uvicorn was told to trust."""
    return request.client.host if request.client else "unknown"
