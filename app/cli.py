"""Commands of the web half. `workers.cli` mounts them beside those that learn, as `preferable`."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from app import db, embedded
from app.errors import AppError
from app.settings import Settings, adopt, get_settings

app = typer.Typer(no_args_is_help=True, help="Turns human rankings into a model people prefer.")
user_app = typer.Typer(no_args_is_help=True, help="People who sign in.")
app.add_typer(user_app, name="user")


@contextmanager
def plain_errors() -> Iterator[None]:
    """Print an expected failure as the one sentence it is, and exit with code 1."""
    try:
        yield
    except AppError as error:
        typer.echo(error.message, err=True)
        raise typer.Exit(1) from None


@contextmanager
def database() -> Iterator[Settings]:
    """Settings with a database that answers: the user's own, the one that runs, or the embedded one for this command."""
    settings = get_settings()
    if settings.database_url:
        yield settings
        return
    with embedded.running_postgres(settings.home.resolve()) as url:
        yield adopt(DATABASE_URL=url)
        db.get_engine().dispose()


@app.command()
def up(
    port: Annotated[
        int | None, typer.Option(help="Port of the pages; 0 picks a free one. Default: PORT, or 8000.")
    ] = None,
    workers: Annotated[
        bool, typer.Option(help="Run workers here; without them only database, broker and pages.")
    ] = True,
    follow_parent: Annotated[bool, typer.Option(help="Stop when the process that started this one is gone.")] = False,
) -> None:
    """Run everything on this machine until Ctrl-C: database, broker, pages, workers."""
    from app import supervisor

    if port is not None:
        adopt(PORT=str(port))
    with plain_errors():
        supervisor.up(has_workers=workers, follows_parent=follow_parent, say=typer.echo)


@app.command()
def migrate() -> None:
    """Bring the database to the newest revision and create the owner and the starter project where they are missing."""
    from app.services import bootstrap

    with plain_errors(), database() as settings:
        db.migrate(settings.database_url)
        with db.transaction() as session:
            bootstrap.ensure(session)
    typer.echo("The database is up to date.")


@app.command()
def login() -> None:
    """Print a one-time sign-in link for the owner."""
    from app.supervisor import running_url, sign_in_url

    with plain_errors(), database() as settings:
        typer.echo(sign_in_url(running_url(settings)))
