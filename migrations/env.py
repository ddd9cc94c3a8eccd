"""Runs migrations on a live connection, one process at a time, in one transaction."""

from alembic import context
from sqlalchemy import create_engine, text

from app.models import Base

MIGRATION_LOCK = 7_203_117  # pg_advisory_xact_lock: two processes that start together migrate one after the other


def run() -> None:
    engine = create_engine(context.config.attributes["url"])
    try:
        with engine.begin() as connection:
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
            context.configure(connection=connection, target_metadata=Base.metadata, compare_type=True)
            with context.begin_transaction():
                context.run_migrations()
    finally:
        engine.dispose()


run()
