"""What must be true of the queue at any moment, whatever was killed: each rule as a query that finds what breaks it."""

from sqlalchemy import text
from sqlalchemy.orm import Session

RULES = {
    "one current judgement per task and judge": """
        SELECT task_id, judge_id FROM judgements WHERE status = 'current' GROUP BY 1, 2 HAVING count(*) > 1""",
    "every judgement places every output once": """
        SELECT judgement.id FROM judgements AS judgement
        LEFT JOIN judgement_ranks AS rank ON rank.judgement_id = judgement.id
        GROUP BY judgement.id HAVING count(DISTINCT rank.output_id) <>
          (SELECT count(*) FROM task_outputs AS output WHERE output.task_id = judgement.task_id)
        OR count(rank.id) <> count(DISTINCT rank.output_id)""",
    "a judgement's lease is submitted, and a submitted lease has its answer": """
        SELECT lease.id FROM leases AS lease JOIN tasks AS task ON task.id = lease.task_id AND task.kind = 'rank'
        LEFT JOIN judgements AS judgement ON judgement.lease_id = lease.id AND judgement.status = 'current'
        WHERE (lease.state = 'submitted') <> (judgement.id IS NOT NULL)""",
    "no slot is filled twice": """
        SELECT task_id, slot FROM leases WHERE state IN ('held', 'submitted') AND NOT is_surplus
        GROUP BY 1, 2 HAVING count(*) > 1""",
    "no person holds two tasks of a kind": """
        SELECT lease.user_id FROM leases AS lease JOIN tasks AS task ON task.id = lease.task_id
        WHERE lease.state = 'held' AND lease.expires_at > now() GROUP BY lease.user_id, task.kind HAVING count(*) > 1""",
    "no task has more answers within its number than are wanted": """
        SELECT task.id FROM tasks AS task JOIN leases AS lease ON lease.task_id = task.id
        WHERE lease.state = 'submitted' AND NOT lease.is_surplus
        GROUP BY task.id HAVING count(*) > task.judgements_wanted""",
    "a task is done exactly when it has all answers wanted": """
        SELECT task.id FROM tasks AS task WHERE task.kind = 'rank' AND (task.state = 'done') <> (task.judgements_wanted <=
          (SELECT count(*) FROM leases AS lease
           WHERE lease.task_id = task.id AND lease.state = 'submitted' AND NOT lease.is_surplus))""",
    "an answered task keeps no draft of its answer": """
        SELECT draft.id FROM drafts AS draft
        JOIN leases AS lease ON lease.task_id = draft.task_id AND lease.user_id = draft.user_id
        WHERE lease.state = 'submitted'""",
    "the counter of judgements is what is there": """
        SELECT 1 WHERE (SELECT coalesce(sum(value), 0) FROM counters WHERE name = 'judgements') <>
          (SELECT count(DISTINCT (task_id, judge_id)) FROM judgements)""",
    "the counter of comparisons is what is there": """
        SELECT 1 WHERE (SELECT coalesce(sum(value), 0) FROM counters WHERE name = 'comparisons') <>
          (SELECT count(*) FROM judgements AS judgement
           JOIN judgement_ranks AS one ON one.judgement_id = judgement.id
           JOIN judgement_ranks AS other ON other.judgement_id = judgement.id AND other.id > one.id
           WHERE judgement.status = 'current' AND one.tier <> other.tier)""",
    "the counter of skips is what is there": """
        SELECT 1 WHERE (SELECT coalesce(sum(value), 0) FROM counters WHERE name = 'skips') <>
          (SELECT count(*) FROM leases WHERE state = 'skipped')""",
}
"""For projects without excluded judgements, whose people all train the model."""


def find_lies(session: Session) -> list[str]:
    """The rules that are broken."""
    return [rule for rule, query in RULES.items() if session.execute(text(query)).first() is not None]
