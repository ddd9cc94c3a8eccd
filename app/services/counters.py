"""Counts that pages and triggers read, written in the transaction of the act they count.

Names: `judgements` (purpose train, cohort training, human: what a reward model learns from), `judgements/round/<number>` (the
same by round), `comparisons` (their pairs that are not tied), `held_out_judgements` (of labellers who only measure),
`demonstrations`, `skips`.
"""

from collections.abc import Mapping

from sqlalchemy.orm import Session

from app.queries import counters as queries

JUDGEMENTS = "judgements"
HELD_OUT_JUDGEMENTS = "held_out_judgements"
COMPARISONS = "comparisons"
DEMONSTRATIONS = "demonstrations"
SKIPS = "skips"


def judgements_of_round(number: int) -> str:
    """Name of the counter of one round's judgements."""
    return f"{JUDGEMENTS}/round/{number}"


def add(session: Session, project_id: int, name: str, delta: int = 1) -> None:
    """Add `delta` in the caller's transaction; 0 writes nothing."""
    add_all(session, project_id, {name: delta})


def add_all(session: Session, project_id: int, deltas: Mapping[str, int]) -> None:
    """Add to several counters as `add` does to one."""
    if changes := {name: delta for name, delta in deltas.items() if delta}:
        queries.add_to_counters(session, project_id, changes)


def get(session: Session, project_id: int, name: str) -> int:
    """The count; 0 where nothing was ever counted."""
    return queries.get_counter(session, project_id, name)
