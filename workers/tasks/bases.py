"""A base model named on the hub: fetched by a worker, since only the worker half can download one."""

from app.db import transaction
from app.queries import automation as queries
from app.services import bootstrap
from app.settings import get_settings
from workers.celery_app import celery


@celery.task(name="preferable.fetch_base")
def fetch_base() -> None:
    """Download `PREFERABLE_BASE_MODEL` and begin its project; nothing is left to do once it is registered."""
    settings = get_settings()
    with transaction() as session:
        is_there = queries.has_base(session, settings.base_model)
    if not is_there:
        with transaction() as session:
            bootstrap.ensure_base(session, settings)
