"""Rounds as people read them: which model was judged, how much, and how good the models that came of it were."""

from dataclasses import dataclass

from sqlalchemy.orm import Session

from app.models import Checkpoint, ParentRole, Project, Round
from app.queries import rounds as queries
from app.services import counters, lineage


@dataclass(frozen=True)
class RoundReport:
    """One line of the history: the round, the model judged in it, and the reward model that model was trained against."""

    round: Round
    checkpoint: Checkpoint
    judgements: int
    reward: Checkpoint | None


def history(session: Session, project_id: int) -> list[RoundReport]:
    """Every round, newest first."""
    rounds = queries.list_rounds(session, project_id)
    nodes = {node.checkpoint.id: node for node in lineage.lineage(session, project_id)}
    return [
        RoundReport(
            round=round_,
            checkpoint=checkpoint,
            judgements=counters.get(session, project_id, counters.judgements_of_round(round_.number)),
            reward=nodes[checkpoint.id].parent(ParentRole.REWARD),
        )
        for round_, checkpoint in rounds
    ]


def retire_leftovers(session: Session, project: Project) -> int:
    """Retire what a promotion left to its labellers and they gave back since; how many tasks they were."""
    return queries.retire_unleased_tasks(session, project.id)
