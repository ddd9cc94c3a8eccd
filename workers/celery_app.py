"""The Celery application: which queues there are, how messages behave, and what beat does when.

Start a worker with `celery -A workers.celery_app worker -Q cpu|sample|train`. Messages are hints and carry a job's id only;
what is done, by whom, and whether it is over stands in Postgres (`app.jobs`). Hence: acknowledged early (an hour-long task
acknowledged late is redelivered after Redis' visibility timeout and starts a twin), nothing reserved ahead, no result store.
"""

import logging
from pathlib import Path
from typing import Any

from celery import Celery
from celery.signals import after_setup_logger, after_task_publish, worker_process_init
from celery.worker import state
from kombu import Exchange, Queue

from app import db
from app.settings import Settings, get_settings

QUEUES = ("cpu", "sample", "train")


def _schedule(settings: Settings) -> dict[str, Any]:
    """What beat sends how often. A message that nobody took before the next one is due expires."""
    entries = {
        "tick": {
            "task": "preferable.beat_tick",
            "schedule": settings.beat_seconds,
            "options": {"queue": "cpu", "expires": 4 * settings.beat_seconds},
        }
    }
    if settings.base_model and not Path(settings.base_model).is_dir():
        entries["fetch base"] = {
            "task": "preferable.fetch_base",
            "schedule": 60.0,
            "options": {"queue": "sample", "expires": 60.0},
        }
    return entries


celery = Celery(
    "preferable",
    broker=get_settings().redis_url,
    include=[f"workers.tasks.{name}" for name in ("bases", "beat", "endpoints", "imports", "plans", "sample", "train")],
)
celery.conf.update(
    accept_content=["json"],
    task_serializer="json",
    task_ignore_result=True,
    task_acks_late=False,
    worker_prefetch_multiplier=1,
    task_default_queue="cpu",
    task_queues=[Queue(name, Exchange(name), routing_key=name) for name in QUEUES],  # one exchange each: no copies
    task_create_missing_queues=False,
    broker_connection_retry=True,
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
    worker_hijack_root_logger=False,
    timezone="UTC",
    beat_scheduler="celery.beat:Scheduler",  # in memory: the schedule below is all there is to know
    beat_max_loop_interval=get_settings().beat_seconds,
    beat_schedule=_schedule(get_settings()),
)


@after_setup_logger.connect
def _quieten(**_: Any) -> None:
    """Two lines for every tick would be all there is in the log."""
    for name in ("celery.worker.strategy", "celery.app.trace"):
        logging.getLogger(name).addFilter(_is_worth_a_line)


def _is_worth_a_line(record: logging.LogRecord) -> bool:
    return record.levelno > logging.INFO or "preferable.beat_tick" not in record.getMessage()


@after_task_publish.connect(sender="preferable.beat_tick")
def _note_tick(**_: Any) -> None:
    """The age of this file tells a container's health check whether beat goes on and the broker takes its messages."""
    (get_settings().home / "beat").touch()


@worker_process_init.connect
def _forget_connections(**_: Any) -> None:
    """A forked worker opens connections of its own."""
    db.get_engine.cache_clear()


def is_stopping() -> bool:
    """Whether this worker was asked to end: what it holds is to be handed back soon."""
    return any(code is not None and code is not False for code in (state.should_stop, state.should_terminate))
