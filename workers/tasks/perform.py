"""The frame of every job: claim it, keep its heart beating, do the work, and write how it ended."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import structlog
from sqlalchemy.exc import OperationalError

from app.db import transaction
from app.errors import AppError, StaleAttempt
from app.jobs import HEARTBEAT_SECONDS
from app.models import JobState
from app.schemas.values import storable
from app.services import jobs
from app.services.jobs import Claim
from workers.celery_app import is_stopping

log = structlog.get_logger()


class CancelledError(Exception):
    """Someone asked for the job to stop, and it has."""


class StoppingError(Exception):
    """This worker cannot go on in the middle of the job, and another can."""


def perform(job_id: int, work: Callable[[Claim], None]) -> None:
    """Do `work` if the job can still be claimed. `work` ends the job itself where it succeeds, in its last transaction.

    An error is written on the job for people to read. Two are not: a database that is away (nothing can be written; beat
    requeues the job when its heartbeat is old), and a newer attempt (the job is no longer ours).
    """
    with transaction() as session:
        claim = jobs.claim(session, job_id)
    if claim is None:
        return
    try:
        with pulse(claim):
            work(claim)
    except StaleAttempt as error:
        log.warning("job lost to a newer attempt", job_id=job_id, attempt=claim.attempt, error=error.message)
    except CancelledError:
        with transaction() as session:
            jobs.mark_cancelled(session, claim)
    except StoppingError:
        with transaction() as session:
            jobs.hand_back(session, claim)
    except OperationalError:
        raise
    except Exception as error:
        sentence = error.message if isinstance(error, AppError) else f"{type(error).__name__}: {error}"
        with transaction() as session:
            jobs.fail(session, claim, storable(" ".join(sentence.split())))  # never lost for what it quotes
        if not isinstance(error, AppError):
            raise


def check(claim: Claim, *, progress: int | None = None, total: int | None = None) -> None:
    """A heartbeat between two pieces of work. Raises CancelledError, StoppingError or StaleAttempt where the work must end."""
    with transaction() as session:
        state = jobs.heartbeat(session, claim, progress=progress, total=total)
    if state == JobState.CANCELLING:
        raise CancelledError
    if is_stopping():
        raise StoppingError


@contextmanager
def pulse(claim: Claim) -> Iterator[None]:
    """Heartbeats from a thread, for work that is inside one long call (a batch of samples, a large copy).

    A superseded attempt is left to the next write of the work itself, which raises StaleAttempt.
    """
    over = threading.Event()

    def beat() -> None:
        while not over.wait(HEARTBEAT_SECONDS):
            try:
                with transaction() as session:
                    jobs.heartbeat(session, claim)
            except StaleAttempt:
                return
            except OperationalError as error:  # the next beat may get through
                log.warning("heartbeat not written", job_id=claim.job_id, error=str(error))

    thread = threading.Thread(target=beat, name=f"pulse of job {claim.job_id}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
