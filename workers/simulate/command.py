"""`preferable simulate`: the options, the stack to run against, what is printed, and the exit code."""

import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer


def simulate(
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of judging, learning and promoting.")] = 3,
    labellers: Annotated[int, typer.Option(min=1, max=64, help="Simulated people.")] = 4,
    seed: Annotated[int, typer.Option(help="Seed of the labellers' slips and of the measured samples.")] = 1,
    noise: Annotated[
        float, typer.Option(min=0, max=1, help="Probability of a slip between two neighbours of a ranking.")
    ] = 0.1,
    judgements: Annotated[int, typer.Option(min=1, help="Rankings per round.")] = 700,
    outputs: Annotated[
        int, typer.Option(min=0, max=9, help="Answers per ranking task, K; 0 leaves the project's.")
    ] = 8,
    url: Annotated[
        str, typer.Option(help="Address of a running installation; without it, one is started on PREFERABLE_HOME.")
    ] = "",
    owner_link: Annotated[
        str, typer.Option(help="With --url: a sign-in link of the owner, from `preferable login`.")
    ] = "",
    training_config: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="TOML to put into the project's settings first.")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check/--no-check", help="Exit code 1 unless the last round keeps every bound.")
    ] = True,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all numbers to this file.")] = None,
) -> None:
    """Run the loop with simulated labellers: they rank over HTTP by a hidden preference, the workers do the rest."""
    from workers.simulate import report
    from workers.simulate import rounds as loop
    from workers.simulate.browser import HTTP_ERRORS
    from workers.simulate.check import all_kept, bounds
    from workers.simulate.models import ModelError
    from workers.simulate.owner import LoopError
    from workers.simulate.page import PageError
    from workers.simulate.stack import StackError

    if bool(url) != bool(owner_link):
        raise typer.BadParameter("--url and --owner-link go together: `preferable login` prints a link")
    config = training_config.read_text(encoding="utf-8") if training_config else ""
    options = loop.Options(rounds, labellers, seed, noise, judgements, outputs, config)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the stack is stopped in order either way
    begun = time.monotonic()
    done = []
    try:
        with (
            tempfile.TemporaryDirectory(prefix="preferable-simulate-") as folder,
            _site(url, owner_link) as (site, link),
        ):
            for numbers in loop.simulate(site, link, options, Path(folder), typer.echo):
                done.append(numbers)
                typer.echo(f"\n{report.describe_round(numbers)}\n")
    except (LoopError, ModelError, PageError, StackError, *HTTP_ERRORS) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None
    seconds = time.monotonic() - begun
    found = bounds(done[-1])
    if json_file is not None:
        report.write_json(json_file, options, done, found, seconds)
    typer.echo("\n".join(map(str, found)))
    typer.echo(f"{rounds} rounds with {labellers} labellers and seed {seed} took {seconds:.0f} s")
    if check and not all_kept(found):
        raise typer.Exit(1)


@contextmanager
def _site(url: str, owner_link: str) -> Iterator[tuple[str, str]]:
    """The installation to run against and the owner's sign-in link."""
    if url:
        yield url.rstrip("/"), owner_link
        return
    from app.settings import get_settings
    from workers.simulate import stack

    settings = get_settings()
    with stack.running(settings, settings.home / "simulate.log") as link:
        yield link.partition("/enter/")[0], link
