"""which ranking another was made of, and tasks whose answers train nothing

Revision ID: 0018
Revises: 0017
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0018"
down_revision: str | None = "0017"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """A derived ranking and the demonstration that came with it were stored under one key."""
    op.add_column("tasks", sa.Column("derived_from_id", sa.BigInteger(), nullable=True))
    op.add_column("tasks", sa.Column("excluded_by_id", sa.BigInteger(), nullable=True))
    op.add_column("tasks", sa.Column("excluded_why", sa.Text(), nullable=True))
    op.create_foreign_key(
        op.f("fk_tasks_project_id_derived_from_id"),
        "tasks",
        "tasks",
        ["project_id", "derived_from_id"],
        ["project_id", "id"],
    )
    op.create_foreign_key(op.f("fk_tasks_excluded_by_id"), "tasks", "users", ["excluded_by_id"], ["id"])
    op.create_index(
        "ix_tasks_derived", "tasks", ["derived_from_id"], postgresql_where=sa.text("derived_from_id IS NOT NULL")
    )
    op.execute("""
        UPDATE tasks SET derived_from_id = demonstrations.task_id
        FROM judgements JOIN demonstrations ON demonstrations.idempotency_key = judgements.idempotency_key
          AND demonstrations.project_id = judgements.project_id AND demonstrations.origin = 'edited'
        WHERE judgements.task_id = tasks.id AND demonstrations.task_id <> tasks.id
    """)


def downgrade() -> None:
    """What was said stays, and what was excluded."""
    op.drop_index("ix_tasks_derived", table_name="tasks")
    op.drop_constraint(op.f("fk_tasks_excluded_by_id"), "tasks", type_="foreignkey")
    op.drop_constraint(op.f("fk_tasks_project_id_derived_from_id"), "tasks", type_="foreignkey")
    op.drop_column("tasks", "excluded_why")
    op.drop_column("tasks", "excluded_by_id")
    op.drop_column("tasks", "derived_from_id")
