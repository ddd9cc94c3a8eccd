"""What `/healthz` asks the database."""

from sqlalchemy import text
from sqlalchemy.orm import Session


def find_revision(session: Session) -> str | None:
    """The migration the database is at; None before the first."""
    if session.scalar(text("SELECT to_regclass('alembic_version')")) is None:
        return None
    revision: str | None = session.scalar(text("SELECT version_num FROM alembic_version"))
    return revision
