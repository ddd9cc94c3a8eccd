"""The lineage of a project's models: base -> SFT -> reward models and policies, with the runs that made them."""

from dataclasses import dataclass

from sqlalchemy.orm import Session

from app.models import Checkpoint, ParentRole, Run
from app.queries import checkpoints as queries


@dataclass(frozen=True)
class Parent:
    """A model that another one was made from, and what for."""

    role: ParentRole
    checkpoint: Checkpoint


@dataclass(frozen=True)
class Node:
    """A checkpoint in its place in the lineage; `depth` counts initialisations back to the base."""

    checkpoint: Checkpoint
    parents: tuple[Parent, ...]
    run: Run | None
    depth: int

    def parent(self, role: ParentRole) -> Checkpoint | None:
        """The parent in this role."""
        return next((parent.checkpoint for parent in self.parents if parent.role == role), None)


def lineage(session: Session, project_id: int) -> list[Node]:
    """All checkpoints as a tree by initialisation, depth first, older before younger.

    A model registered between these queries is left out. Whoever looks a model up here reads it first, so that it is here.
    """
    checkpoints = {checkpoint.id: checkpoint for checkpoint in queries.list_checkpoints(session, project_id)}
    runs = {run.result_id: run for run in queries.list_runs_with_result(session, project_id)}
    parents: dict[int, list[Parent]] = {id_: [] for id_ in checkpoints}
    children: dict[int | None, list[int]] = {}
    for edge in queries.list_edges(session, project_id):
        if edge.checkpoint_id in parents:
            parents[edge.checkpoint_id].append(Parent(edge.role, checkpoints[edge.parent_id]))
    for id_ in checkpoints:
        init = next((parent.checkpoint.id for parent in parents[id_] if parent.role == ParentRole.INIT), None)
        children.setdefault(init, []).append(id_)

    def walk(init: int | None, depth: int) -> list[Node]:
        nodes = []
        for id_ in children.get(init, ()):
            nodes.append(Node(checkpoints[id_], tuple(parents[id_]), runs.get(id_), depth))
            nodes.extend(walk(id_, depth + 1))
        return nodes

    return walk(None, 0)
