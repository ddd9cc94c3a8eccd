"""`/healthz`: whether this process can serve pages."""

from functools import lru_cache

from alembic.script import ScriptDirectory
from fastapi import APIRouter, Request
from sqlalchemy.exc import SQLAlchemyError
from starlette.responses import JSONResponse

from app.db import migration_config
from app.queries import health
from app.settings import get_settings
from app.web.deps import SessionDep
from app.web.render import render

router = APIRouter()


@router.get("/healthz")
def show_health(request: Request, session: SessionDep) -> JSONResponse:
    """200 once the database is at this version's last migration and a page can be rendered; else 503 with the reason."""
    try:
        revision = health.find_revision(session)
    except SQLAlchemyError:
        return JSONResponse({"status": "starting", "detail": "the database does not answer"}, 503)
    if revision != newest_revision():
        detail = f"the database is at revision {revision}, this version needs {newest_revision()}"
        return JSONResponse({"status": "starting", "detail": detail}, 503)
    render(request, "errors/show.html", title="", message="", status=200)
    return JSONResponse({"status": "ok", "revision": revision})


@lru_cache
def newest_revision() -> str | None:
    """The last migration that ships with this version."""
    return ScriptDirectory.from_config(migration_config(get_settings().database_url)).get_current_head()
