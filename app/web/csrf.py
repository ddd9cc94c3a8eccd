"""A form counts only if the page it came from was ours: every unsafe request carries a token.

Signed in: the token of the session row. Visitors (sign-in, links, invitations): a random value in a cookie and, signed, in
the form. It is read from the field `csrf_token` or from the header `X-CSRF-Token`.
"""

import hmac
import re
from typing import Annotated

from anyio import to_thread
from fastapi import Depends, Request
from starlette.datastructures import FormData
from starlette.responses import Response

from app.db import transaction
from app.errors import Forbidden, NotSignedIn
from app.permissions import Permission
from app.security import new_token, read_signed, secret_key, sign
from app.services import accounts
from app.settings import get_settings
from app.web.deps import SESSION_COOKIE, SignIn, find_access

VISITOR_COOKIE = "preferable_visitor"
FIELD = "csrf_token"
HEADER = "X-CSRF-Token"
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
IMPORT_PATH = re.compile(r"/p/[^/]+/imports")
"""Where files are uploaded."""
_PURPOSE = "visitor form"


async def read_form(request: Request) -> FormData:
    """The form of an unsafe request, read to its end before anything takes a database connection: a body may trickle in.

    A path that takes gigabytes takes them only of somebody who may import there. Raises NotSignedIn, NotFound, Forbidden.
    """
    if request.method in SAFE_METHODS:
        return FormData()
    if IMPORT_PATH.fullmatch(request.url.path):
        await to_thread.run_sync(_check_uploader, request)
    return await request.form()


def _check_uploader(request: Request) -> None:
    slug = request.path_params["slug"]
    with transaction() as session:
        token = request.cookies.get(SESSION_COOKIE)
        found = accounts.find_sign_in(session, token, slug) if token else None
        if found is None:
            raise NotSignedIn("Sign in to upload a file.")
        sign_in, place = found
        find_access(sign_in.user, slug, place).demand(Permission.MANAGE_PROMPTS)


async def check_csrf(request: Request, form: Annotated[FormData, Depends(read_form)], sign_in: SignIn) -> None:
    """Dependency of the whole app: raise Forbidden for an unsafe request without the token of its page.

    Raises NotSignedIn where the page was opened in a session that has ended since.
    """
    if request.method in SAFE_METHODS:
        return
    given = request.headers.get(HEADER) or _field(form)
    visitor = request.cookies.get(VISITOR_COOKIE, "")
    expected = sign_in.csrf_token if sign_in else visitor
    value = given if sign_in else read_signed(given, purpose=_PURPOSE, key=secret_key(get_settings()))
    if not (value and expected and hmac.compare_digest(value.encode(), expected.encode())):
        if sign_in is None and SESSION_COOKIE in request.cookies:
            raise NotSignedIn("Your sign-in has ended. Sign in again, then send the form once more.")
        raise Forbidden(
            "This form is from an earlier sign-in or from another page. Nothing was done: reload and send it again."
        )


def csrf_token(request: Request) -> str:
    """The token for a page's forms; a visitor's is made on first use and leaves with `remember_visitor`."""
    sign_in = getattr(request.state, "sign_in", None)
    if sign_in is not None:
        return str(sign_in.csrf_token)
    value = request.cookies.get(VISITOR_COOKIE) or getattr(request.state, "new_visitor", None)
    if not value:
        value = request.state.new_visitor = new_token()
    return sign(value, purpose=_PURPOSE, key=secret_key(get_settings()))


def remember_visitor(request: Request, response: Response) -> None:
    """Send the visitor's cookie with the page whose form needs it."""
    if value := getattr(request.state, "new_visitor", None):
        response.set_cookie(
            VISITOR_COOKIE, value, httponly=True, samesite="lax", secure=get_settings().uses_secure_cookies, path="/"
        )


def _field(form: FormData) -> str:
    value = form.get(FIELD, "")
    return value if isinstance(value, str) else ""
