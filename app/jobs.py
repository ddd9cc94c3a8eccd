"""The outbox: work is a row in `jobs`, written in the caller's transaction; the broker's message is a hint sent after commit.

A lost message is sent again by beat, a lost worker's job is requeued when its heartbeat is old, and every write of a worker
carries the attempt it claimed, so that a superseded worker changes nothing.
"""

from functools import lru_cache
from typing import Any

import structlog
from celery import Celery
from kombu.exceptions import OperationalError
from sqlalchemy.orm import Session

from app.db import after_commit
from app.models import Job
from app.settings import get_settings

log = structlog.get_logger()

KINDS = {
    "import_file": "cpu",
    "sample_tasks": "sample",
    "showcase": "sample",
    "compare": "sample",
    "sample_plan": "sample",
    "test_endpoint": "cpu",
    "train": "train",
}
"""Job kind -> Celery queue. The task is named `preferable.<kind>` and takes the job's id."""

HEARTBEAT_SECONDS = 10
"""How often a worker writes its heartbeat."""

DEAD_AFTER_SECONDS = 60
"""A running job whose heartbeat is older than this is requeued."""


def enqueue(
    session: Session,
    *,
    project_id: int,
    kind: str,
    arguments: dict[str, Any] | None = None,
    dedupe_key: str | None = None,
    requested_by_id: int | None = None,
) -> Job:
    """Add a queued job; its message leaves once the transaction is committed.

    With `dedupe_key`, a second live job of the same project and key violates a unique index: callers look before they ask.
    """
    if kind not in KINDS:
        raise ValueError(f"job kind is {kind!r}; expected one of {', '.join(KINDS)}")
    job = Job(
        project_id=project_id,
        kind=kind,
        arguments=arguments or {},
        dedupe_key=dedupe_key,
        requested_by_id=requested_by_id,
    )
    session.add(job)
    session.flush()
    after_commit(session, lambda: send(job.id, kind))
    return job


def send(job_id: int, kind: str) -> None:
    """Tell the broker that a job waits. A broker that is down loses nothing: beat sends again."""
    try:
        _messenger(get_settings().redis_url).send_task(
            f"preferable.{kind}", args=[job_id], queue=KINDS[kind], retry=False
        )
    except OperationalError:
        log.warning("the broker is unreachable; beat will send the job again", job_id=job_id, kind=kind)


@lru_cache(maxsize=4)
def _messenger(url: str) -> Celery:
    """A Celery application that only sends. It gives up at once: no page waits for a broker."""
    messenger = Celery(broker=url, set_as_current=False)
    messenger.conf.broker_transport_options = {"max_retries": 0, "socket_connect_timeout": 2, "socket_timeout": 2}
    return messenger
