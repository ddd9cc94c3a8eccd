"""Taking answers out of training, for good reason and by name; they are kept."""

from datetime import UTC, datetime

from sqlalchemy.orm import Session

from app.models import ORDERING, Cohort, Judgement, JudgementStatus, Purpose, Task
from app.permissions import Access, Permission
from app.queries import accounts as account_queries
from app.queries import demonstrations as demonstration_queries
from app.queries import judgements as queries
from app.queries import tasks as task_queries
from app.services import accounts, agreements, counters, judgements


def exclude_of_task(session: Session, access: Access, task: Task, *, why: str) -> int:
    """Exclude every current answer to a task, whose row is locked, and every one that is still to come; gives how many.

    So are the demonstrations that improved its best output, and the rankings made with them.
    """
    access.demand(Permission.ANSWER)
    count = 0
    for excluded in (task, *task_queries.lock_derived(session, task.id)):
        excluded.excluded_by_id, excluded.excluded_why = access.user.id, why
        for judgement, user_id in queries.list_current_of_task(session, excluded.id):
            uncount(session, excluded, judgement, user_id)
            judgement.status, judgement.excluded_why = JudgementStatus.EXCLUDED, why
            judgement.excluded_by_id, judgement.excluded_at = access.user.id, datetime.now(UTC)
            session.flush()
            agreements.forget(session, judgement)
            count += 1
    for demonstration in demonstration_queries.list_current_of_task(session, task.id):
        demonstration.status = JudgementStatus.EXCLUDED
        if task.purpose == Purpose.TRAIN and _cohort_of(session, task, demonstration.author_id) == Cohort.TRAINING:
            counters.add(session, task.project_id, counters.DEMONSTRATIONS, -1)
        count += 1
    session.flush()
    return count


def uncount(session: Session, task: Task, judgement: Judgement, user_id: int | None) -> None:
    """Take a person's judgement out of the counts that a submit added it to."""
    if task.purpose != Purpose.TRAIN or task.kind not in ORDERING or user_id is None:
        return
    if _cohort_of(session, task, user_id) == Cohort.HELD_OUT:
        counters.add(session, task.project_id, counters.HELD_OUT_JUDGEMENTS, -1)
        return
    tiers = [place.tier for place in queries.list_places(session, judgement.id)]
    counters.add(session, task.project_id, counters.JUDGEMENTS, -1)
    counters.add(session, task.project_id, counters.COMPARISONS, -judgements.count_comparisons(tiers))
    if (number := task_queries.find_round_number(session, task)) is not None:
        counters.add(session, task.project_id, counters.judgements_of_round(number), -1)


def _cohort_of(session: Session, task: Task, user_id: int | None) -> Cohort:
    membership = account_queries.find_membership(session, task.project_id, user_id) if user_id else None
    return membership.cohort if membership else accounts.DEFAULT_COHORT
