"""whether a prompt's category is a labeller's word

Revision ID: 0015
Revises: 0014
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0015"
down_revision: str | None = "0014"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Categories that are there already stay as they are: nothing tells which were imported."""
    op.add_column("prompts", sa.Column("is_category_labelled", sa.Boolean(), server_default="false", nullable=False))


def downgrade() -> None:
    """The categories stay."""
    op.drop_column("prompts", "is_category_labelled")
