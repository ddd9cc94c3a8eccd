"""How alike people judge: counted in the transaction of each judgement, so that pages only read.

The caller holds the task's lock: two judgements of one task never miss each other.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy.orm import Session

from app.models import Judgement
from app.permissions import Access
from app.queries import agreements as queries
from app.statistics import Estimate, PairCounts, agreement_of_counts, count_pairs

LEAST_TASKS = 20
"""Tasks a person shares with others before their agreement is shown: of fewer it says more about chance than about them."""

_NEWEST = 500
"""Shared judgements that a person's agreement is taken over."""


def record(session: Session, judgement: Judgement) -> None:
    """Compare a new current judgement with every other current one of its task."""
    rows = []
    rankings = queries.list_tiers(session, judgement.task_id)
    own = next((ranking for ranking in rankings if ranking.judgement_id == judgement.id), None)
    for other in rankings:
        if own is None or other.judgement_id == own.judgement_id:
            continue
        first, second = sorted((own, other), key=lambda ranking: ranking.judgement_id)
        if counts := compare(first, second):
            rows.append(
                {
                    "project_id": judgement.project_id,
                    "task_id": judgement.task_id,
                    "first_id": first.judgement_id,
                    "second_id": second.judgement_id,
                    "first_judge_id": first.judge_id,
                    "second_judge_id": second.judge_id,
                    **vars(counts),
                }
            )
    if rows:
        queries.insert_agreements(session, rows)


def forget(session: Session, judgement: Judgement) -> None:
    """Take out a judgement that is no longer current."""
    queries.delete_of_judgement(session, judgement.id)


def compare(first: queries.TiersRow, second: queries.TiersRow) -> PairCounts | None:
    """How two rankings of a task agree; None where no pair of outputs is ranked by both."""
    outputs = sorted(first.tiers.keys() & second.tiers.keys())
    counts = count_pairs([first.tiers[key] for key in outputs], [second.tiers[key] for key in outputs])
    return counts if counts.pairs else None


@dataclass(frozen=True)
class WithOthers:
    """How a person agrees with others: over how many tasks, and the two shares where those are enough."""

    tasks: int
    strict: Estimate | None
    """A tie is an order of its own."""
    half: Estimate | None
    """One half where just one of the two tied."""

    @property
    def missing(self) -> int:
        """Shared tasks that are wanting."""
        return max(0, LEAST_TASKS - self.tasks)


def with_others(session: Session, access: Access) -> WithOthers:
    """Agreement of this person with other people on the tasks they share, a mean over prompts."""
    rows = queries.list_shared(session, access.project.id, access.user.id, limit=_NEWEST)
    tasks = len({row.task_id for row in rows})
    if tasks < LEAST_TASKS:
        return WithOthers(tasks, None, None)
    counts = _by_prompt(rows)
    return WithOthers(tasks, agreement_of_counts(counts, "strict"), agreement_of_counts(counts, "half"))


def _by_prompt(rows: Sequence[queries.SharedRow]) -> list[tuple[str, PairCounts]]:
    return [(str(row.prompt_id), PairCounts(row.pairs, row.alike, row.one_tied, row.both_tied)) for row in rows]
