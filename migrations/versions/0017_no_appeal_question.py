"""no question is an appeal: those have a table of their own

Revision ID: 0017
Revises: 0016
"""

from collections.abc import Sequence

from alembic import op

revision: str = "0017"
down_revision: str | None = "0016"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """None was ever stored as such."""
    _allow("question", "broken")


def downgrade() -> None:
    """Allow the third kind again."""
    _allow("question", "broken", "appeal")


def _allow(*kinds: str) -> None:
    op.drop_constraint(op.f("ck_questions_questionkind"), "questions", type_="check")
    listed = ", ".join(f"'{kind}'" for kind in kinds)
    op.create_check_constraint(op.f("ck_questions_questionkind"), "questions", f"kind IN ({listed})")
