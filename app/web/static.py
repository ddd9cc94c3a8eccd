"""Static files: an address with the hash of its content is kept for a year, any other is asked for again."""

import os
from typing import Any

from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from app.settings import resource
from app.web.render import asset


class HashedFiles(StaticFiles):
    """`/static`, with cache headers that fit `asset()`."""

    def __init__(self) -> None:
        super().__init__(directory=resource("static"))

    def file_response(
        self, full_path: Any, stat_result: os.stat_result, scope: Scope, status_code: int = 200
    ) -> Response:
        """The file; immutable where the address carries the present hash."""
        response = super().file_response(full_path, stat_result, scope, status_code)
        path = os.path.relpath(full_path, os.path.realpath(resource("static")))
        wanted = asset(path).partition("?")[2]
        is_exact = scope["query_string"].decode("latin-1") == wanted
        response.headers["Cache-Control"] = "public, max-age=31536000, immutable" if is_exact else "no-cache"
        return response
