"""Jobs of the cpu worker: files that are brought in. While one batch is stored, the next is read."""

import gc
from collections.abc import Iterator
from contextlib import closing, contextmanager

from app.db import transaction
from app.errors import BadInput
from app.intake.preparing import UnreadableFile
from app.services import import_work
from app.services.import_work import Work
from app.services.jobs import Claim
from workers.celery_app import celery
from workers.tasks.perform import check, perform
from workers.tasks.reading import prepare_all

MULTIPLIED = 16
"""Where every turn is a prompt, a row becomes many times its length: a batch is read so much smaller."""


@celery.task(name="preferable.import_file")
def import_file(job_id: int) -> None:
    """Bring in a file."""
    perform(job_id, _bring_in)


def _bring_in(claim: Claim) -> None:
    with transaction() as session:
        work = import_work.load(session, claim)
    while _catch_up(work):
        check(claim)
    batches = prepare_all(
        work.recipe,
        work.position,
        work.left_bytes,
        rows=import_work.BATCH_ROWS,
        size=import_work.BATCH_BYTES // (MULTIPLIED if work.recipe.mapping.every_turn else 1),
    )
    with _uncollected(), closing(batches):
        try:
            for prepared in batches:
                check(claim)
                with transaction() as session:
                    import_work.store(session, claim, work, prepared)
        except UnreadableFile as error:
            raise BadInput(f"The file cannot be read on: {error}") from error
    texts = import_work.write_texts(work)
    try:
        with transaction() as session:
            import_work.finish(session, claim, work, texts)
    finally:
        if texts is not None:
            with transaction() as session:
                import_work.forget_texts(session, work, texts)
    import_work.forget_upload(work)


def _catch_up(work: Work) -> bool:
    with transaction() as session:
        return import_work.catch_up(session, work)


@contextmanager
def _uncollected() -> Iterator[None]:
    """Without the search for cycles, of which a batch makes none: it would look at each of its objects over and over."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
