"""The web application: routers, the edge around them, and nothing else. `uvicorn app.main:create_app --factory`."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio.to_thread
from fastapi import Depends, FastAPI

from app.fetch import allowed_hosts
from app.routers import (
    accounts,
    answers,
    appeals,
    audit,
    checkpoints,
    content,
    demonstrations,
    endpoints,
    evaluations,
    guidelines,
    health,
    history,
    home,
    imports,
    improvements,
    people,
    pipeline,
    plans,
    projects,
    prompts,
    qualifications,
    questions,
    references,
    runs,
    school,
    tasks,
)
from app.security import check_production, secret_key
from app.settings import get_settings
from app.web import errors
from app.web.csrf import check_csrf
from app.web.edge import Edge
from app.web.static import HashedFiles

ROUTERS = (
    health.router,
    accounts.router,
    projects.router,
    home.router,
    guidelines.router,
    people.router,
    audit.router,
    tasks.router,
    *answers.routers,
    history.router,
    improvements.router,
    qualifications.router,
    references.router,
    school.router,
    appeals.router,
    demonstrations.router,
    questions.router,
    content.router,
    evaluations.router,
    plans.router,
    endpoints.router,
    prompts.router,
    imports.router,
    pipeline.router,
    checkpoints.router,
    runs.router,
)


def create_app() -> FastAPI:
    """A new application over the settings of this process. Raises StartupError for settings that cannot be."""
    check_production(get_settings())
    secret_key(get_settings())
    allowed_hosts(get_settings())
    app = FastAPI(
        title="Preferable",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=True,
        dependencies=[Depends(check_csrf)],
        lifespan=_run,
    )
    app.state.turns = asyncio.Semaphore(get_settings().web_threads)
    for router in ROUTERS:
        app.include_router(router)
    app.mount("/static", HashedFiles(), name="static")
    errors.install(app)
    app.add_middleware(Edge)
    return app


@asynccontextmanager
async def _run(app: FastAPI) -> AsyncIterator[None]:
    """As many request threads as database connections, and as many requests at a time that have one (`deps.take_turn`)."""
    anyio.to_thread.current_default_thread_limiter().total_tokens = get_settings().web_threads
    yield
