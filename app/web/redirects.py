"""Redirects that stay on this site."""

from urllib.parse import quote, urlsplit

from fastapi import Request
from starlette.responses import RedirectResponse


def local_path(target: str | None, *, default: str = "/") -> str:
    """`target` if it is a path on this site, else `default`.

    Browsers drop tabs and newlines, read a backslash as a slash, and take `//host` as another site; so does a value that was
    percent-encoded twice once it is decoded. Anything of that kind is refused, not repaired.
    """
    if not target or not target.startswith("/") or len(target) > 2000:
        return default
    if target[1:2] in ("/", "\\") or "\\" in target or any(ord(letter) < 33 or ord(letter) == 127 for letter in target):
        return default
    if target[1:4].lower() in ("%2f", "%5c") or target[1:2] == "%":
        return default
    parts = urlsplit(target)
    return default if parts.scheme or parts.netloc else target


def see_other(path: str) -> RedirectResponse:
    """Answer a form: the browser gets `path` next, and a reload repeats nothing."""
    return RedirectResponse(path, status_code=303)


def sign_in_path(request: Request) -> str:
    """Where a visitor signs in, coming back afterwards to this page, or to the one the form or the fragment stands on."""
    is_page = request.method in ("GET", "HEAD") and "hx-request" not in request.headers
    parts = urlsplit(str(request.url) if is_page else request.headers.get("referer", ""))
    is_ours = parts.netloc == request.headers.get("host")
    target = local_path(parts.path + (f"?{parts.query}" if parts.query else "")) if is_ours else "/"
    return "/login" if target == "/" else f"/login?next={quote(target, safe='/')}"
