"""The Celery application: a message reaches one queue, workers start without torch, and beat knows its one entry."""

import subprocess
import sys

import pytest
import redis
from kombu import Connection

from app.settings import Settings
from workers.celery_app import QUEUES, celery
from workers.tasks.trainer import CODE


@pytest.mark.parametrize("name", QUEUES)
def test_a_message_reaches_its_queue_and_no_other(settings: Settings, name: str) -> None:
    with Connection(settings.redis_url) as connection:
        for queue in celery.conf.task_queues:
            queue(connection.default_channel).declare()
        celery.send_task("preferable.beat_tick", queue=name, connection=connection)
    with redis.Redis.from_url(settings.redis_url) as broker:
        assert {queue: broker.llen(queue) for queue in QUEUES} == {queue: int(queue == name) for queue in QUEUES}


def test_every_job_kind_has_its_task_on_a_queue_that_exists() -> None:
    from app.jobs import KINDS

    celery.loader.import_default_modules()
    assert {f"preferable.{kind}" for kind in KINDS} <= set(celery.tasks)
    assert set(KINDS.values()) <= set(QUEUES)


def test_tasks_load_without_torch() -> None:
    code = (
        "import sys; from workers.celery_app import celery; celery.loader.import_default_modules();"
        "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=CODE, check=False).returncode == 0


def test_beat_ticks_on_the_cpu_queue_and_stale_ticks_expire() -> None:
    (tick,) = celery.conf.beat_schedule.values()
    assert tick["task"] == "preferable.beat_tick"
    assert tick["options"]["queue"] == "cpu"
    assert tick["options"]["expires"] >= tick["schedule"]


def test_a_tick_leaves_its_time_for_the_health_check(settings: Settings) -> None:
    with Connection(settings.redis_url) as connection:
        celery.send_task("preferable.fetch_base", queue="sample", connection=connection)
        assert not (settings.home / "beat").exists()
        celery.send_task("preferable.beat_tick", queue="cpu", connection=connection)
    assert (settings.home / "beat").exists()
