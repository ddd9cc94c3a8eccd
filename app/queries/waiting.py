"""Why there is nothing for a person: what others hold of the queue, and what its tasks need that the person lacks."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import text
from sqlalchemy.orm import Session

from app.queries.leases import SUITS, TAGS, Seeker

_WAITING = text(f"""
SELECT count(DISTINCT task.id) AS tasks, min(held.expires_at) AS next_free_at
FROM tasks AS task
JOIN leases AS held ON held.task_id = task.id AND held.state = 'held' AND held.expires_at > now() AND NOT held.is_surplus
WHERE {SUITS}
  AND NOT EXISTS (SELECT FROM leases AS own WHERE own.task_id = task.id AND own.user_id = :user_id
                  AND own.state NOT IN ('expired', 'released'))
""").bindparams(TAGS)


# The condition `needs <> '{}'` is that of the index.
_LACKING = text("""
SELECT DISTINCT tag FROM (
  SELECT task.needs FROM tasks AS task
  WHERE task.project_id = :project_id AND task.kind = :kind AND task.state = 'open' AND task.needs <> '{}'
    AND task.purpose = ANY(:purposes) AND NOT task.needs <@ :granted
  LIMIT 1000
) AS beyond, unnest(beyond.needs) AS tag
WHERE tag <> ALL(:granted) ORDER BY tag
""").bindparams(TAGS)


@dataclass(frozen=True)
class Waiting:
    """Open tasks a person could do if others did not hold them, and when the first of them frees."""

    tasks: int
    next_free_at: datetime | None


def get_waiting(session: Session, seeker: Seeker) -> Waiting:
    """What others hold of the tasks this person could do."""
    row = session.execute(_WAITING, seeker.values()).one()
    return Waiting(tasks=row.tasks, next_free_at=row.next_free_at)


def list_lacking(session: Session, seeker: Seeker) -> list[str]:
    """Tags that open tasks need and this person lacks."""
    return list(session.scalars(_LACKING, seeker.values()))
