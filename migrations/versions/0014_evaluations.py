"""tasks that belong to an evaluation, and evaluations in which everybody's answers count

Revision ID: 0014
Revises: 0013
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0014"
down_revision: str | None = "0013"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """No task belongs to one yet."""
    op.alter_column("evaluations", "cohort", nullable=True)
    op.add_column("tasks", sa.Column("evaluation_id", sa.BigInteger(), nullable=True))
    op.create_foreign_key(
        op.f("fk_tasks_project_id_evaluation_id"),
        "tasks",
        "evaluations",
        ["project_id", "evaluation_id"],
        ["project_id", "id"],
    )
    op.create_index(
        "ix_tasks_of_evaluation",
        "tasks",
        ["evaluation_id"],
        postgresql_where=sa.text("evaluation_id IS NOT NULL"),
    )


def downgrade() -> None:
    """Forget which evaluation a task was for; what was said stays."""
    op.drop_index("ix_tasks_of_evaluation", table_name="tasks")
    op.drop_constraint(op.f("fk_tasks_project_id_evaluation_id"), "tasks", type_="foreignkey")
    op.drop_column("tasks", "evaluation_id")
    op.execute("UPDATE evaluations SET cohort = 'training' WHERE cohort IS NULL")
    op.alter_column("evaluations", "cohort", nullable=False)
