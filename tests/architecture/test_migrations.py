"""Migrations: what they make is what the models say, and they go down and up again, on an empty database and on a filled one."""

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, inspect

from app import db
from app.models import Base


def test_the_models_say_what_the_migrations_make(database_url: str) -> None:
    engine = create_engine(db.normalise_url(database_url))
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": False})
        assert compare_metadata(context, Base.metadata) == []
    engine.dispose()


def test_down_and_up_on_an_empty_database(database_url: str) -> None:
    _down_and_up(database_url)


def test_down_and_up_on_a_filled_database(starter_database_url: str) -> None:
    _down_and_up(starter_database_url)


def _down_and_up(url: str) -> None:
    config = db.migration_config(url)
    command.downgrade(config, "base")
    engine = create_engine(db.normalise_url(url))
    assert set(inspect(engine).get_table_names()) <= {"alembic_version"}
    db.migrate(url)
    assert set(Base.metadata.tables) <= set(inspect(engine).get_table_names())
    engine.dispose()
