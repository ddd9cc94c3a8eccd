"""Taking judgements out of training, for good reason and by name; they are kept."""

from datetime import UTC, datetime

from sqlalchemy.orm import Session

from app.models import Cohort, Judgement, JudgementStatus, Purpose, Task
from app.permissions import Access, Permission
from app.queries import accounts as account_queries
from app.queries import judgements as queries
from app.queries import tasks as task_queries
from app.services import accounts, agreements, counters, judgements


def exclude_of_task(session: Session, access: Access, task: Task, *, why: str) -> int:
    """Exclude every current judgement of a task, whose row is locked; gives how many."""
    access.demand(Permission.ANSWER)
    found = queries.list_current_of_task(session, task.id)
    for judgement, user_id in found:
        _uncount(session, task, judgement, user_id)
        judgement.status, judgement.excluded_why = JudgementStatus.EXCLUDED, why
        judgement.excluded_by_id, judgement.excluded_at = access.user.id, datetime.now(UTC)
        session.flush()
        agreements.forget(session, judgement)
    return len(found)


def _uncount(session: Session, task: Task, judgement: Judgement, user_id: int | None) -> None:
    """Take a person's judgement out of the counts that a submit added it to."""
    if task.purpose != Purpose.TRAIN or user_id is None:
        return
    membership = account_queries.find_membership(session, task.project_id, user_id)
    if (membership.cohort if membership else accounts.DEFAULT_COHORT) == Cohort.HELD_OUT:
        counters.add(session, task.project_id, counters.HELD_OUT_JUDGEMENTS, -1)
        return
    tiers = [place.tier for place in queries.list_places(session, judgement.id)]
    counters.add(session, task.project_id, counters.JUDGEMENTS, -1)
    counters.add(session, task.project_id, counters.COMPARISONS, -judgements.count_comparisons(tiers))
    if task.round_id is not None:
        number = task_queries.get_round_number(session, task.round_id)
        counters.add(session, task.project_id, counters.judgements_of_round(number), -1)
