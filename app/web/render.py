"""Pages from templates: one environment, what every page knows, and a page or one of its blocks as the answer."""

import hashlib
import re
from ast import literal_eval
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from fastapi import Request
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from jinja2.ext import Extension
from markupsafe import Markup, escape
from starlette.responses import HTMLResponse

from app.permissions import Permission
from app.settings import get_settings, resource
from app.web import csrf, texts


def render(
    request: Request, template: str, status_code: int = 200, *, block: str | None = None, **context: Any
) -> HTMLResponse:
    """The page `template`, or only its `block` for htmx to swap in.

    Every template also knows: `user`, `access` (None outside of a project), `csrf_field()`, `csrf_token` (of a person signed
    in), `settings`, `request`, `Permission`, `asset(path)`, `_()`, `ngettext()`, and the filters of `app.web.texts`.
    """
    page = environment().get_template(template)
    values = {**_common(request), **context}
    body = page.render(values) if block is None else "".join(page.blocks[block](page.new_context(values)))
    response = HTMLResponse(body, status_code)
    csrf.remember_visitor(request, response)
    return response


class FixedWords(Extension):
    """Puts `{{ _("...") }}` into the text of the template as it is read: a page has hundreds, each a call and an escape."""

    def preprocess(self, source: str, name: str | None, filename: str | None = None) -> str:
        """The source with its fixed words filled in."""
        return _FIXED.sub(lambda found: str(escape(texts.gettext(literal_eval(found[1])))), source)


_FIXED = re.compile(r"""\{\{ _\(("[^"\\\n{]*"|'[^'\\\n{]*')\) \}\}""")


@lru_cache
def environment() -> Environment:
    """The templates, with autoescape on and undefined names an error."""
    made = Environment(
        loader=FileSystemLoader(resource("templates")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=["jinja2.ext.i18n", "jinja2.ext.do", FixedWords],
        auto_reload=not get_settings().production,
    )
    made.install_gettext_callables(texts.gettext, texts.ngettext, newstyle=False)  # type: ignore[attr-defined]
    made.globals.update(_=texts.gettext)  # the extension's own looks `gettext` up anew for every word of every page
    made.globals.update(Permission=Permission, asset=asset, ngettext=texts.ngettext, unanswered=_unanswered)
    made.filters.update(texts.FILTERS)
    return made


@lru_cache(maxsize=1024)
def _unanswered(field: object, name: str) -> Markup:
    """A question of a label schema before anybody has answered it: the same on every page that asks it."""
    macros: Any = environment().get_template("tasks/_fields.html").module
    return Markup(macros.ask(field, name))


def asset(path: str) -> str:
    """The address of a static file, with a hash of its content, so that browsers keep it until it changes."""
    return _kept_address(path) if get_settings().production else _address(path)


def _address(path: str) -> str:
    file = resource("static") / path
    return f"/static/{path}?v={_digest(path, file.stat().st_mtime_ns)}"


@lru_cache(maxsize=512)
def _kept_address(path: str) -> str:
    """In production files change with a new start alone, so none is looked at twice."""
    return _address(path)


@lru_cache(maxsize=512)
def _digest(path: str, changed_ns: int) -> str:
    return hashlib.sha256((resource("static") / path).read_bytes()).hexdigest()[:12]


def _common(request: Request) -> Mapping[str, Any]:
    sign_in = getattr(request.state, "sign_in", None)
    return {
        "request": request,
        "user": sign_in.user if sign_in else None,
        "is_visitor": sign_in is None and hasattr(request.state, "sign_in"),
        "access": getattr(request.state, "access", None),
        "settings": get_settings(),
        "csrf_token": sign_in.csrf_token if sign_in else "",
        "csrf_field": lambda: Markup('<input type="hidden" name="csrf_token" value="{}">').format(
            csrf.csrf_token(request)
        ),
    }
