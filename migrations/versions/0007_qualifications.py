"""attempts at the qualification test

Revision ID: 0007
Revises: 0006
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0007"
down_revision: str | None = "0006"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Projects that went on before require nothing."""
    op.add_column(
        "projects",
        sa.Column("school", postgresql.JSONB(astext_type=sa.Text()), server_default="{}", nullable=False),
    )
    op.create_table(
        "qualifications",
        sa.Column("user_id", sa.BigInteger(), nullable=False),
        sa.Column("attempt", sa.BigInteger(), nullable=False),
        sa.Column(
            "state",
            sa.Enum(
                "open",
                "passed",
                "failed",
                "void",
                name="qualificationstate",
                native_enum=False,
                create_constraint=True,
                length=32,
            ),
            nullable=False,
        ),
        sa.Column("pass_mark", sa.Float(), nullable=False),
        sa.Column("score", sa.Float(), nullable=True),
        sa.Column("ended_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("decided_by_id", sa.BigInteger(), nullable=True),
        sa.Column("uid", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        *_in_project(),
        sa.CheckConstraint("score BETWEEN 0 AND 1", name=op.f("ck_qualifications_score")),
        sa.CheckConstraint("pass_mark BETWEEN 0 AND 1", name=op.f("ck_qualifications_pass_mark")),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_qualifications_user_id"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["decided_by_id"], ["users.id"], name=op.f("fk_qualifications_decided_by_id")),
        *_keys("qualifications"),
        sa.UniqueConstraint("uid", name=op.f("uq_qualifications_uid")),
        sa.UniqueConstraint(
            "project_id", "user_id", "attempt", name=op.f("uq_qualifications_project_id_user_id_attempt")
        ),
    )
    op.create_index(
        "uq_qualifications_open",
        "qualifications",
        ["project_id", "user_id"],
        unique=True,
        postgresql_where=sa.text("state = 'open'"),
    )
    op.create_table(
        "qualification_tasks",
        sa.Column("qualification_id", sa.BigInteger(), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("task_id", sa.BigInteger(), nullable=False),
        sa.Column("judgement_id", sa.BigInteger(), nullable=True),
        sa.Column("reference_id", sa.BigInteger(), nullable=True),
        *_in_project(),
        *(
            sa.ForeignKeyConstraint(
                ["project_id", column],
                [f"{other}.project_id", f"{other}.id"],
                name=op.f(f"fk_qualification_tasks_project_id_{column}"),
                ondelete="CASCADE",
            )
            for column, other in (
                ("qualification_id", "qualifications"),
                ("task_id", "tasks"),
                ("judgement_id", "judgements"),
                ("reference_id", "task_references"),
            )
        ),
        *_keys("qualification_tasks"),
        sa.UniqueConstraint(
            "qualification_id", "position", name=op.f("uq_qualification_tasks_qualification_id_position")
        ),
        sa.UniqueConstraint(
            "qualification_id", "task_id", name=op.f("uq_qualification_tasks_qualification_id_task_id")
        ),
    )


def downgrade() -> None:
    """Forget them."""
    op.drop_table("qualification_tasks")
    op.drop_table("qualifications")
    op.drop_column("projects", "school")


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
