"""Whose work trains models and whose only measures them: a change of cohort takes a person's former work along.

Snapshots go by the cohort a person is in now, so the counts that pages and triggers read must, too.
"""

from sqlalchemy.orm import Session

from app.models import Cohort
from app.queries import demonstrations as demonstration_queries
from app.queries import judgements as judgement_queries
from app.services import counters


def move(session: Session, project_id: int, user_id: int, *, to: Cohort) -> None:
    """Count a person's work on the side of cohort `to`, after it was counted on the other."""
    sign = 1 if to == Cohort.TRAINING else -1
    for number, (judgements, comparisons) in judgement_queries.count_training(session, project_id, user_id).items():
        counters.add(session, project_id, counters.JUDGEMENTS, sign * judgements)
        counters.add(session, project_id, counters.HELD_OUT_JUDGEMENTS, -sign * judgements)
        counters.add(session, project_id, counters.COMPARISONS, sign * comparisons)
        if number is not None:
            counters.add(session, project_id, counters.judgements_of_round(number), sign * judgements)
    demonstrations = demonstration_queries.count_of_author(session, project_id, user_id)
    counters.add(session, project_id, counters.DEMONSTRATIONS, sign * demonstrations)
