"""Counts kept by the transactions that change them, each spread over shards that a reader adds up."""

import random
from collections.abc import Mapping

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from app.models import Counter

SHARDS = 16
"""Rows per counter: enough that submits at the same moment rarely wait for the same row."""


def add_to_counters(session: Session, project_id: int, deltas: Mapping[str, int]) -> None:
    """Add to counters by name, creating them at need. All go to one shard, in the order of their names: no two wait crosswise."""
    shard = random.randrange(SHARDS)
    statement = insert(Counter).values(
        [
            {"project_id": project_id, "name": name, "shard": shard, "value": delta}
            for name, delta in sorted(deltas.items())
        ]
    )
    session.execute(
        statement.on_conflict_do_update(
            index_elements=[Counter.project_id, Counter.name, Counter.shard],
            set_={"value": Counter.value + statement.excluded.value},
        )
    )


def get_counter(session: Session, project_id: int, name: str) -> int:
    """The value of a counter; 0 for one that was never added to."""
    total = select(func.coalesce(func.sum(Counter.value), 0)).where(
        Counter.project_id == project_id, Counter.name == name
    )
    return int(session.scalar(total) or 0)
