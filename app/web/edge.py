"""The outermost layer: security headers on every answer, requests from other sites refused, bodies limited in size and time."""

import asyncio
import re
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import AppError, Forbidden
from app.settings import get_settings
from app.web.csrf import IMPORT_PATH, SAFE_METHODS
from app.web.errors import TooLarge, respond
from app.web.headers import HEADERS

MIB = 1024 * 1024
BODY_BYTES = MIB
IMPORT_BYTES = 2049 * MIB
SMALL_IMPORT_BYTES = 21 * MIB
SMALL_IMPORT_PATH = re.compile(r"/p/[^/]+/school/import")
BODY_SECONDS = 30.0
IMPORT_SECONDS = 600.0


class Edge:
    """ASGI middleware around everything else, error pages included."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check the request's origin and size, then pass it on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("Cache-Control", "no-store")
                if get_settings().uses_secure_cookies:
                    headers.setdefault("Strict-Transport-Security", "max-age=31536000")
            await send(message)

        request = Request(scope)
        try:
            check_origin(request)
            bounded = bound_body(request, receive)
        except AppError as error:
            await respond(request, error)(scope, receive, send_with_headers)
            return
        await self.app(scope, bounded, send_with_headers)


def check_origin(request: Request) -> None:
    """Raise Forbidden for an unsafe request that a page of another site sent. Programs send neither header and pass."""
    if request.method in SAFE_METHODS:
        return
    origin = request.headers.get("origin")
    is_foreign = request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none")
    if origin is not None and urlsplit(origin).netloc not in (
        request.headers.get("host"),
        urlsplit(get_settings().url).netloc,
    ):
        is_foreign = True
    if is_foreign:
        raise Forbidden("Another site sent this form. Nothing was done: open the page here and send it again.")


def bound_body(request: Request, receive: Receive) -> Receive:
    """`receive` with a limit on the bytes and the seconds of the body.

    Raises TooLarge at once where the length is declared; what is only found while reading is raised there.
    """
    limit_bytes, limit_seconds = BODY_BYTES, BODY_SECONDS
    if IMPORT_PATH.fullmatch(request.url.path):
        limit_bytes, limit_seconds = IMPORT_BYTES, IMPORT_SECONDS
    elif SMALL_IMPORT_PATH.fullmatch(request.url.path):
        limit_bytes, limit_seconds = SMALL_IMPORT_BYTES, IMPORT_SECONDS
    too_large = TooLarge(f"This request is larger than {limit_bytes // MIB} MB. Nothing was stored: send it in parts.")
    if _declared_length(request.headers) > limit_bytes:
        raise too_large
    received, deadline, is_complete = 0, asyncio.get_running_loop().time() + limit_seconds, False

    async def bounded() -> Message:
        nonlocal received, is_complete
        if is_complete:
            return await receive()
        try:
            async with asyncio.timeout_at(deadline):
                message = await receive()
        except TimeoutError:
            slow = f"The request took longer than {limit_seconds:.0f} s to arrive. Nothing was stored."
            raise HTTPException(408, slow) from None
        received += len(message.get("body", b""))
        is_complete = not message.get("more_body", False)
        if received > limit_bytes:
            raise HTTPException(TooLarge.status, too_large.message)
        return message

    return bounded


def _declared_length(headers: Headers) -> int:
    length = headers.get("content-length", "0")
    return int(length) if length.isdecimal() else 0
