"""Errors as people and programs get them: a page with what happened and what to do, or problem JSON (RFC 9457)."""

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from sqlalchemy.exc import DataError, DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, RedirectResponse, Response

from app.errors import AppError, NotSignedIn, TooMany
from app.web.deps import keep_after_rollback
from app.web.forms import FormRefused
from app.web.headers import HEADERS
from app.web.redirects import sign_in_path
from app.web.render import render

log = structlog.get_logger()

TITLES = {
    400: "This request cannot be read",
    401: "Sign in first",
    403: "You may not do this",
    404: "There is nothing here",
    405: "This address takes no such request",
    408: "The request took too long",
    409: "This no longer fits",
    413: "This is too large",
    422: "Something is not filled in right",
    429: "Too many tries",
    500: "Something broke on our side",
    503: "Not ready",
}

FRAMEWORK_SENTENCES = {
    404: "The address is wrong, or the thing is gone. Check the link.",
    405: "Go back and use the buttons of the page.",
}


class TooLarge(AppError):
    """A request body above the limit."""

    status = 413


def wants_json(request: Request) -> bool:
    """Whether the caller is a program: it asks for JSON before HTML, sends a bearer token, or speaks to the API."""
    accept = request.headers.get("accept", "")
    prefers_json = "json" in accept and "text/html" not in accept
    return prefers_json or request.url.path.startswith("/api/") or "authorization" in request.headers


def respond(request: Request, error: AppError) -> Response:
    """The answer to an expected failure."""
    if isinstance(error, NotSignedIn) and not wants_json(request):
        return _to_sign_in(request)
    headers = {"Retry-After": str(error.retry_after_seconds)} if isinstance(error, TooMany) else {}
    return _answer(request, error.status, error.message, field=getattr(error, "field", None), headers=headers)


def install(app: FastAPI) -> None:
    """Answer every failure of `app` through this module."""

    @app.exception_handler(AppError)
    def expected(request: Request, error: AppError) -> Response:
        return respond(request, error)

    @app.exception_handler(FormRefused)
    def form_again(request: Request, error: FormRefused) -> Response:
        return error.page

    @app.exception_handler(HTTPException)
    def from_framework(request: Request, error: HTTPException) -> Response:
        message = FRAMEWORK_SENTENCES.get(error.status_code, error.detail)
        return _answer(request, error.status_code, message, headers=dict(error.headers or {}))

    @app.exception_handler(RequestValidationError)
    def invalid(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"][1:]) or None
        return _answer(request, 422, f"{field or 'The request'}: {first['msg']}.", field=field)

    @app.exception_handler(DataError)
    @app.exception_handler(UnicodeEncodeError)  # half a surrogate pair, as an odd charset brings
    def unstorable(request: Request, error: DataError | UnicodeEncodeError) -> Response:
        log.warning("a value cannot be stored", error=_cause(error), path=request.url.path)
        return _answer(
            request,
            422,
            "This holds something that cannot be stored, such as a NUL character or a number beyond all bounds. "
            "Nothing was stored: go back, take it out and send it again.",
        )

    @app.exception_handler(DBAPIError)
    @app.exception_handler(PoolTimeoutError)
    def database(request: Request, error: DBAPIError | PoolTimeoutError) -> Response:
        if isinstance(error, DBAPIError) and not _is_passing(error):
            raise error
        log.error("the database did not answer", error=_cause(error), path=request.url.path)
        return _answer(
            request,
            503,
            # Whether a commit that was under way is durable is not known here.
            "The database does not answer just now. Try again in a moment: an answer to a task is stored once, however often "
            "it is sent.",
            headers={"Retry-After": "5"},
        )

    @app.exception_handler(Exception)
    def unexpected(request: Request, error: Exception) -> Response:
        response = _answer(
            request, 500, "Nothing was stored. Try again; if it happens once more, tell an admin what you did and when."
        )
        response.headers.update(HEADERS)  # this answer is made outside of the edge
        return response


def _answer(
    request: Request, status: int, message: str, *, field: str | None = None, headers: dict[str, str] | None = None
) -> Response:
    title = TITLES.get(status, TITLES[500] if status >= 500 else TITLES[400])
    if wants_json(request):
        problem = {"type": "about:blank", "title": title, "status": status, "detail": message}
        if field:
            problem["field"] = field
        return JSONResponse(problem, status, headers, media_type="application/problem+json")
    keep_after_rollback(request)
    is_fragment = "hx-request" in request.headers
    response = render(
        request,
        "errors/show.html",
        status_code=status,
        block="content" if is_fragment else None,
        title=title,
        message=message,
        status=status,
    )
    response.headers.update(headers or {})
    return response


def _to_sign_in(request: Request) -> Response:
    path = sign_in_path(request)
    if "hx-request" in request.headers:
        return Response(status_code=401, headers={"HX-Redirect": path})
    return RedirectResponse(path, status_code=303)


def _cause(error: Exception) -> str:
    """What the driver said: without the statement and its values, which are nobody's business in a log."""
    return str(getattr(error, "orig", error))


def _is_passing(error: DBAPIError) -> bool:
    """Whether the same request may go well in a moment: the database was away, or others stood in its way."""
    text = str(error.orig).lower()
    return error.connection_invalidated or any(
        sign in text
        for sign in (
            "connection failed",
            "could not connect",
            "connection refused",
            "shutting down",
            "lock timeout",
            "deadlock detected",
            "could not serialize",
            "uq_leases_slot",
        )
    )
