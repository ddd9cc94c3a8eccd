"""SQL of sampling: which prompts are answered next, and what was drawn already."""

from collections.abc import Collection, Sequence

from sqlalchemy import case, func, select, update
from sqlalchemy.orm import Session

from app.models import Category, Prompt, PromptPool, PromptStatus, Purpose, Split, Task, TaskKind


def list_next_prompts(
    session: Session, project_id: int, split: Split, *, limit: int, excluded: Collection[int]
) -> Sequence[Prompt]:
    """Prompts that may be sampled, those with the fewest training tasks first, at random among equals."""
    tasks = (
        select(Task.prompt_id, func.count().label("tasks"))
        .where(
            Task.project_id == project_id,
            Task.kind == TaskKind.RANK,
            Task.purpose == Purpose.TRAIN,
            Task.derived_from_id.is_(None),
        )
        .group_by(Task.prompt_id)
        .subquery()
    )
    return session.scalars(
        select(Prompt)
        .join(PromptPool, PromptPool.id == Prompt.pool_id)
        .outerjoin(tasks, tasks.c.prompt_id == Prompt.id)
        .where(
            Prompt.project_id == project_id,
            Prompt.status == PromptStatus.ACTIVE,
            Prompt.problem.is_(None),
            Prompt.split == split,
            Prompt.id.not_in(excluded),
            PromptPool.is_active,
        )
        .order_by(func.coalesce(tasks.c.tasks, 0), func.random())
        .limit(limit)
    ).all()


def list_showcase_prompts(session: Session, project_id: int, *, limit: int) -> Sequence[Prompt]:
    """The same held-out prompts every time: the oldest of each category, then the second oldest, in the paper's order."""
    place = func.row_number().over(partition_by=Prompt.category, order_by=Prompt.id)
    of_category = case({category: number for number, category in enumerate(Category)}, value=Prompt.category)
    return session.scalars(
        select(Prompt)
        .join(PromptPool, PromptPool.id == Prompt.pool_id)
        .where(
            Prompt.project_id == project_id,
            Prompt.status == PromptStatus.ACTIVE,
            Prompt.problem.is_(None),
            Prompt.split == Split.VALID,
            PromptPool.is_active,
        )
        .order_by(place, of_category, Prompt.id)
        .limit(limit)
    ).all()


def set_problem(session: Session, project_id: int, prompt_id: int, problem: str) -> None:
    """Note why a prompt cannot be sampled."""
    session.execute(
        update(Prompt).where(Prompt.project_id == project_id, Prompt.id == prompt_id).values(problem=problem)
    )


def clear_problems(session: Session, project_id: int) -> None:
    """Let every prompt be tried again."""
    session.execute(
        update(Prompt).where(Prompt.project_id == project_id, Prompt.problem.is_not(None)).values(problem=None)
    )
