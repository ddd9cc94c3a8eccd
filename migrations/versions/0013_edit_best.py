"""whether a project asks to improve the output put first

Revision ID: 0013
Revises: 0012
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0013"
down_revision: str | None = "0012"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """No project asks until an admin says so."""
    op.add_column("projects", sa.Column("asks_to_edit_best", sa.Boolean(), server_default="false", nullable=False))


def downgrade() -> None:
    """Ask for it no more; what was stored stays."""
    op.drop_column("projects", "asks_to_edit_best")
