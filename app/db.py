"""The database edge: engine, session, and the only place that commits.

One transaction per request and per task. A request's session comes from `app.web.deps.SessionDep`, that of a task or
command from `transaction()`. What `after_commit` registers runs once the transaction is durable: messages leave so.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Literal

from alembic import command
from alembic.config import Config
from sqlalchemy import Engine, create_engine
from sqlalchemy.orm import Session

from app.errors import StartupError
from app.settings import get_settings, resource

_AFTER_COMMIT = "after_commit"


def normalise_url(url: str) -> str:
    """The SQLAlchemy form of a PostgreSQL URL: `postgres://` and `postgresql://` go through psycopg 3."""
    scheme, separator, rest = url.partition("://")
    if scheme in ("postgres", "postgresql", "postgresql+psycopg") and separator:
        return f"postgresql+psycopg://{rest}"
    raise StartupError(f"DATABASE_URL begins with {scheme!r}; expected postgresql://user:password@host:port/name.")


@lru_cache
def get_engine() -> Engine:
    """The connection pool of this process; its size equals the number of request threads."""
    settings = get_settings()
    return create_engine(
        normalise_url(settings.database_url),
        pool_size=settings.web_threads,
        max_overflow=2,
        pool_pre_ping=True,
        connect_args={"options": "-c lock_timeout=10s -c idle_in_transaction_session_timeout=60s -c timezone=UTC"},
    )


@contextmanager
def transaction(
    engine: Engine | None = None, *, isolation: Literal["READ COMMITTED", "REPEATABLE READ"] = "READ COMMITTED"
) -> Iterator[Session]:
    """A session that commits when the block ends well, then runs its after-commit callbacks; else rolls back.

    REPEATABLE READ shows every query of the block the same state of the database: what an export needs.
    """
    with Session(engine or get_engine(), expire_on_commit=False) as session:
        with session.begin():
            if isolation != "READ COMMITTED":
                session.connection(execution_options={"isolation_level": isolation})
            yield session
        for callback in session.info.pop(_AFTER_COMMIT, ()):
            callback()


def after_commit(session: Session, callback: Callable[[], object]) -> None:
    """Run `callback` once this session's transaction is committed; never if it rolls back."""
    session.info.setdefault(_AFTER_COMMIT, []).append(callback)


def migration_config(url: str) -> Config:
    """Alembic's configuration for `url`, without an ini file."""
    config = Config()
    config.set_main_option("script_location", str(resource("migrations")))
    config.attributes["url"] = normalise_url(url)
    return config


def migrate(url: str) -> None:
    """Bring the database at `url` to the newest revision. Safe to run from several processes at once."""
    command.upgrade(migration_config(url), "head")
