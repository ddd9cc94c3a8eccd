"""no note with a skip: nothing ever wrote one

Revision ID: 0016
Revises: 0015
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0016"
down_revision: str | None = "0015"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """The reason says why a task was passed on."""
    op.drop_column("leases", "skip_note")


def downgrade() -> None:
    """An empty column again."""
    op.add_column("leases", sa.Column("skip_note", sa.Text(), nullable=True))
