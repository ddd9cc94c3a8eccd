"""how much sensitive content a person opens in a day

Revision ID: 0012
Revises: 0011
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0012"
down_revision: str | None = "0011"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Nothing was opened before; nobody has a limit of their own."""
    op.add_column("memberships", sa.Column("content_cap", sa.BigInteger(), nullable=True))
    op.create_check_constraint(op.f("ck_memberships_content_cap"), "memberships", "content_cap BETWEEN 1 AND 1000")
    op.add_column("leases", sa.Column("opened_at", sa.TIMESTAMP(timezone=True), nullable=True))
    op.create_index(
        "ix_leases_opened",
        "leases",
        ["project_id", "user_id", "opened_at"],
        postgresql_where=sa.text("opened_at IS NOT NULL"),
    )


def downgrade() -> None:
    """Forget both."""
    op.drop_index("ix_leases_opened", table_name="leases")
    op.drop_column("leases", "opened_at")
    op.drop_constraint("ck_memberships_content_cap", "memberships")
    op.drop_column("memberships", "content_cap")
