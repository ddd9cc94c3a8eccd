"""The session cookie: the only thing that says who a browser is."""

from starlette.responses import Response

from app.settings import get_settings
from app.web.deps import SESSION_COOKIE


def set_session_cookie(response: Response, token: str) -> None:
    """Sign the browser in. Scripts cannot read the cookie, other sites' forms do not send it."""
    settings = get_settings()
    response.set_cookie(
        SESSION_COOKIE,
        token,
        max_age=settings.session_hours * 3600,
        httponly=True,
        samesite="lax",
        secure=settings.uses_secure_cookies,
        path="/",
    )


def clear_session_cookie(response: Response) -> None:
    """Sign the browser out."""
    response.delete_cookie(SESSION_COOKIE, path="/", httponly=True, samesite="lax")
