"""The draw that says when a gold task comes among the work, and which.

It is a keyed hash over who asks and how far they are: it comes out the same when one asks twice, and nobody without the
installation's key can tell it beforehand. A gold task is like any other in its page, its address and its time; its purpose
keeps the answer out of training.
"""

import hashlib
import hmac
import random
from datetime import timedelta

from sqlalchemy.orm import Session

from app.models import Project, TaskKind
from app.queries import gold as queries
from app.queries import leases
from app.queries import qualifications as qualification_queries
from app.queries import tasks as task_queries
from app.schemas.projects import SchoolSettings
from app.security import secret_key
from app.settings import get_settings


def lease_task(session: Session, project: Project, seeker: leases.Seeker, *, length: timedelta) -> int | None:
    """Lend a gold task this person never had where the draw says so; gives the lease's id, else None.

    None too where no work waits: a task that came alone would be known for what it is.
    """
    rate = SchoolSettings.model_validate(project.school).gold_rate
    if not rate or seeker.kind != TaskKind.RANK:
        return None
    key = _key(session, seeker)
    if draw(key) >= rate or not leases.has_new(session, seeker):
        return None
    task = queries.draw_task(session, seeker.project_id, seeker.user_id, seeker.granted, key)
    if task is None:
        return None
    seed = random.getrandbits(62)
    order = [output.position for output in task_queries.list_outputs(session, task.id)]
    random.Random(seed).shuffle(order)
    return qualification_queries.lease_task(session, task, seeker.user_id, length=length, order=order, seed=seed)


def draw(key: str) -> float:
    """At least 0 and below 1, evenly over keys."""
    return int(key[:13], 16) / 16**13


def _key(session: Session, seeker: leases.Seeker) -> str:
    """How far this person is, hashed: another one after each answer and each gold task."""
    last = leases.find_answered_at(session, seeker.project_id, seeker.user_id, nth=1)
    had = queries.count_had(session, seeker.project_id, seeker.user_id)
    stage = f"gold/{seeker.project_id}/{seeker.user_id}/{last.timestamp() if last else 0}/{had}"
    return hmac.new(secret_key(get_settings()), stage.encode(), hashlib.sha256).hexdigest()
