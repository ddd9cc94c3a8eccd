"""reference answers; tasks for practice, and tasks for everybody

Revision ID: 0004
Revises: 0003
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0004"
down_revision: str | None = "0003"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """No task has a reference answer yet."""
    _set_checks(
        "'train', 'evaluate', 'gold', 'qualify', 'review', 'practice'",
        "CASE WHEN purpose IN ('gold', 'qualify', 'practice') THEN 10000 ELSE 100 END",
    )
    op.create_table(
        "task_references",
        sa.Column("task_id", sa.BigInteger(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("explanation", sa.Text(), nullable=False),
        sa.Column("html", sa.Text(), nullable=False),
        sa.Column("author_id", sa.BigInteger(), nullable=True),
        *_in_project(),
        sa.CheckConstraint("version >= 1", name=op.f("ck_task_references_version")),
        _refers("task_references", "task_id", "tasks"),
        sa.ForeignKeyConstraint(["author_id"], ["users.id"], name=op.f("fk_task_references_author_id")),
        *_keys("task_references"),
        sa.UniqueConstraint("task_id", "version", name=op.f("uq_task_references_task_id_version")),
    )
    op.create_table(
        "reference_places",
        sa.Column("reference_id", sa.BigInteger(), nullable=False),
        sa.Column("output_id", sa.BigInteger(), nullable=False),
        sa.Column("tier", sa.BigInteger(), nullable=True),
        sa.Column("explanation", sa.Text(), nullable=False),
        sa.Column("html", sa.Text(), nullable=False),
        *_in_project(),
        sa.CheckConstraint("tier >= 1", name=op.f("ck_reference_places_tier")),
        _refers("reference_places", "reference_id", "task_references"),
        _refers("reference_places", "output_id", "task_outputs"),
        *_keys("reference_places"),
        sa.UniqueConstraint("reference_id", "output_id", name=op.f("uq_reference_places_reference_id_output_id")),
    )


def downgrade() -> None:
    """Tasks that have no purpose any more were made for these answers; they go with what was said about them."""
    op.drop_table("reference_places")
    op.drop_table("task_references")
    op.execute("DELETE FROM judgements USING tasks WHERE tasks.id = judgements.task_id AND tasks.purpose = 'practice'")
    op.execute("DELETE FROM tasks WHERE purpose = 'practice'")
    op.execute("UPDATE tasks SET judgements_wanted = 100 WHERE judgements_wanted > 100")
    _set_checks("'train', 'evaluate', 'gold', 'qualify', 'review'", "100")


def _set_checks(purposes: str, most: str) -> None:
    op.drop_constraint(op.f("ck_tasks_purpose"), "tasks", type_="check")
    op.create_check_constraint(op.f("ck_tasks_purpose"), "tasks", f"purpose IN ({purposes})")
    op.drop_constraint(op.f("ck_tasks_judgements_wanted"), "tasks", type_="check")
    op.create_check_constraint(op.f("ck_tasks_judgements_wanted"), "tasks", f"judgements_wanted BETWEEN 1 AND {most}")


def _in_project() -> tuple[sa.Column, ...]:
    return (
        sa.Column("project_id", sa.BigInteger(), nullable=False),
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("created_at", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
    )


def _keys(table: str) -> tuple[sa.Constraint, ...]:
    return (
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name=op.f(f"fk_{table}_project_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f(f"pk_{table}")),
        sa.UniqueConstraint("project_id", "id", name=op.f(f"uq_{table}_project_id_id")),
    )


def _refers(table: str, column: str, other: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        ["project_id", column],
        [f"{other}.project_id", f"{other}.id"],
        name=op.f(f"fk_{table}_project_id_{column}"),
        ondelete="CASCADE",
    )
