"""demonstrations with versions, the sample they were edited from, and the time they took

Revision ID: 0005
Revises: 0004
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0005"
down_revision: str | None = "0004"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_COLUMNS = ("parent_id", "active_ms", "idle_ms")


def upgrade() -> None:
    """Those made before are first versions, written from nothing."""
    for column in _COLUMNS:
        op.add_column("demonstrations", sa.Column(column, sa.BigInteger(), nullable=True))
    op.add_column("demonstrations", sa.Column("revision", sa.BigInteger(), server_default="1", nullable=False))
    op.create_foreign_key(
        op.f("fk_demonstrations_project_id_parent_id"),
        "demonstrations",
        "samples",
        ["project_id", "parent_id"],
        ["project_id", "id"],
    )
    op.create_index(
        "uq_demonstrations_current",
        "demonstrations",
        ["task_id", "author_id"],
        unique=True,
        postgresql_where=sa.text("status = 'current'"),
    )
    op.create_index("ix_demonstrations_of_author", "demonstrations", ["project_id", "author_id", "id"])


def downgrade() -> None:
    """Keep the newest versions; forget where they began."""
    op.drop_index("ix_demonstrations_of_author", table_name="demonstrations")
    op.drop_index("uq_demonstrations_current", table_name="demonstrations")
    op.execute(
        "DELETE FROM demonstrations WHERE status = 'superseded' AND id NOT IN"
        " (SELECT demonstration_id FROM snapshot_demonstrations)"
    )
    op.drop_constraint(op.f("fk_demonstrations_project_id_parent_id"), "demonstrations", type_="foreignkey")
    for column in ("revision", *_COLUMNS):
        op.drop_column("demonstrations", column)
