"""Commands of the web half. `workers.cli` mounts them beside those that learn, as `preferable`."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated

import typer

from app import db, embedded
from app.errors import AppError, NotFound, StartupError
from app.models import CheckpointKind
from app.queries import health
from app.settings import Settings, adopt, get_settings

app = typer.Typer(no_args_is_help=True, help="Turns human rankings into a model people prefer.")
user_app = typer.Typer(no_args_is_help=True, help="People who sign in.")
app.add_typer(user_app, name="user")
checkpoint_app = typer.Typer(no_args_is_help=True, help="Models of a project.")
app.add_typer(checkpoint_app, name="checkpoint")


@contextmanager
def plain_errors() -> Iterator[None]:
    """Print an expected failure as the one sentence it is, and exit with code 1."""
    try:
        yield
    except AppError as error:
        typer.echo(error.message, err=True)
        raise typer.Exit(1) from None


@contextmanager
def database(*, is_new: bool = False) -> Iterator[Settings]:
    """Settings with a database that answers: the user's own, the one that runs, or the embedded one for this command.

    Raises StartupError for an empty one, unless `is_new`.
    """
    settings = get_settings()
    with ExitStack() as stack:
        if not settings.database_url:
            url = stack.enter_context(embedded.running_postgres(settings.home.resolve()))
            settings = adopt(DATABASE_URL=url)
            stack.callback(lambda: db.get_engine().dispose())
        if not is_new:
            _check_begun()
        yield settings


def _check_begun() -> None:
    with db.transaction() as session:
        if health.find_revision(session) is None:
            raise StartupError(
                "The database is empty: start `make run` once first, and wait until it has printed its sign-in link."
            )


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

    with plain_errors(), database(is_new=True) as settings:
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


@app.command()
def doctor() -> None:
    """Look at everything that must hold, and say how to mend what does not; exit code 1 if something does not."""
    from app.doctor import examine

    is_well = True
    for finding in examine(get_settings()):
        mark = "ok  " if finding.is_good else "FAIL" if finding.is_fatal else "-   "
        is_well &= finding.is_good or not finding.is_fatal
        typer.echo(f"{mark} {finding.name:<11} {finding.message}")
    raise typer.Exit(0 if is_well else 1)


@user_app.command("list")
def list_users() -> None:
    """Everybody who is known: e-mail and name."""
    from app.queries import accounts

    with plain_errors(), database(), db.transaction() as session:
        for user in accounts.list_users(session):
            notes = [note for note, holds in (("owner", user.is_owner), ("switched off", not user.is_active)) if holds]
            typer.echo("  ".join([user.email, user.name, *notes]))


@user_app.command("link")
def link_user(email: Annotated[str, typer.Argument(help="E-mail of a person who is known already.")]) -> None:
    """Print a one-time sign-in link for a person, as for one who forgot the password."""
    from app.queries import accounts as queries
    from app.services import accounts
    from app.supervisor import running_url

    with plain_errors(), database() as settings, db.transaction() as session:
        user = queries.find_user(session, email.strip().lower())
        if user is None:
            raise NotFound(f"Nobody signs in as {email!r}: `preferable user list` shows who does.")
        typer.echo(running_url(settings) + accounts.create_login_link(session, user))


@checkpoint_app.command("register")
def register_checkpoint(
    folder: Annotated[Path, typer.Argument(help="Model folder in Hugging Face layout, saved as safetensors.")],
    kind: Annotated[CheckpointKind, typer.Option(help="What the model is: sft, reward or policy.")],
    project: Annotated[str, typer.Option(help="Slug of the project, as in its address /p/<slug>/.")],
) -> None:
    """Let a model trained anywhere join a project as a candidate; print its name and identity."""
    from app.queries.projects import find_project
    from app.services import checkpoints

    with plain_errors(), database(), db.transaction() as session:
        found = find_project(session, project)
        if found is None:
            raise NotFound(f"There is no project {project!r}.")
        made = checkpoints.register_folder(session, found, folder, kind=kind, actor=None)
    typer.echo(f"{made.name} {made.sha256}")
