"""What beat sets off every few seconds: recover lost work, then look at each project's rules."""

from app.db import transaction
from app.services import automation, imports, jobs
from workers.celery_app import celery


@celery.task(name="preferable.beat_tick")
def beat_tick() -> None:
    """Recover lost jobs and messages, forget old ones, and tick every project, each in a transaction of its own."""
    with transaction() as session:
        jobs.requeue_dead(session)
    with transaction() as session:
        jobs.resend_queued(session)
        jobs.forget_finished(session)
        imports.sweep(session)
    with transaction() as session:
        project_ids = automation.list_projects(session)
    errors: list[Exception] = []
    for project_id in project_ids:
        try:
            with transaction() as session:
                automation.tick(session, project_id)
        except Exception as error:  # one project's trouble must not stop the others'; raised below
            errors.append(error)
    if errors:
        raise ExceptionGroup("the automation of some projects failed", errors)
