"""what a task needs of a person, what a person brings, and how much they may do in a day

Revision ID: 0003
Revises: 0002
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0003"
down_revision: str | None = "0002"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_TAGS = (("prompts", "needs"), ("tasks", "needs"), ("memberships", "skills"), ("memberships", "opted_in"))


def upgrade() -> None:
    """Tasks made before need nothing; nobody has a cap."""
    for table, column in _TAGS:
        tags = sa.Column(column, postgresql.ARRAY(sa.Text()), server_default="{}", nullable=False)
        op.add_column(table, tags)
    op.add_column("memberships", sa.Column("daily_cap", sa.BigInteger(), nullable=True))
    op.create_check_constraint(op.f("ck_memberships_daily_cap"), "memberships", "daily_cap BETWEEN 1 AND 1000")
    op.create_index(
        "ix_tasks_needing",
        "tasks",
        ["project_id", "kind"],
        postgresql_where=sa.text("state = 'open' AND needs <> '{}'"),
    )
    op.create_index(
        "ix_leases_answered",
        "leases",
        ["project_id", "user_id", "ended_at"],
        postgresql_where=sa.text("state = 'submitted'"),
    )


def downgrade() -> None:
    """Forget them."""
    op.drop_index("ix_leases_answered", table_name="leases")
    op.drop_index("ix_tasks_needing", table_name="tasks")
    op.drop_constraint("ck_memberships_daily_cap", "memberships")
    op.drop_column("memberships", "daily_cap")
    for table, column in _TAGS:
        op.drop_column(table, column)
