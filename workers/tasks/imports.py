"""Jobs of the cpu worker: files that are brought in. While one batch is stored, the next is read."""

import gc
from collections.abc import Iterator
from contextlib import closing, contextmanager

from app.db import transaction
from app.errors import BadInput
from app.intake.preparing import UnreadableFile
from app.services import import_work
from app.services.jobs import Claim
from workers.celery_app import celery
from workers.tasks.perform import check, perform
from workers.tasks.reading import prepare_all


@celery.task(name="preferable.import_file")
def import_file(job_id: int) -> None:
    """Bring in a file."""
    perform(job_id, _bring_in)


def _bring_in(claim: Claim) -> None:
    with transaction() as session:
        work = import_work.load(session, claim)
    batches = prepare_all(
        work.recipe,
        work.position,
        work.total - work.position.read,
        rows=import_work.BATCH_ROWS,
        size=import_work.BATCH_BYTES,
    )
    with _uncollected(), closing(batches):
        try:
            for prepared in batches:
                check(claim)
                with transaction() as session:
                    import_work.store(session, claim, work, prepared)
        except UnreadableFile as error:
            raise BadInput(f"The file cannot be read on: {error}") from error
    with transaction() as session:
        import_work.finish(session, claim, work)
    import_work.forget_upload(work)


@contextmanager
def _uncollected() -> Iterator[None]:
    """Without the search for cycles, of which a batch makes none: it would look at each of its objects over and over."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
