"""questions to an admin, and notices

Revision ID: 0010
Revises: 0009
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0010"
down_revision: str | None = "0009"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """What labellers ask and are told."""
    op.create_table(
        "notices",
        sa.Column("user_id", sa.BigInteger(), nullable=True),
        sa.Column("task_id", sa.BigInteger(), nullable=True),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("author_id", sa.BigInteger(), nullable=True),
        sa.Column("ends_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("read_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("project_id", sa.BigInteger(), nullable=False),
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("created_at", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("uid", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.CheckConstraint("(user_id IS NULL) = (ends_at IS NOT NULL)", name=op.f("ck_notices_announcement_ends")),
        sa.ForeignKeyConstraint(["author_id"], ["users.id"], name=op.f("fk_notices_author_id")),
        sa.ForeignKeyConstraint(
            ["project_id", "task_id"],
            ["tasks.project_id", "tasks.id"],
            name=op.f("fk_notices_project_id_task_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name=op.f("fk_notices_project_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_notices_user_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_notices")),
        sa.UniqueConstraint("project_id", "id", name=op.f("uq_notices_project_id_id")),
        sa.UniqueConstraint("uid", name=op.f("uq_notices_uid")),
    )
    op.create_index(
        "ix_notices_unread",
        "notices",
        ["project_id", "user_id"],
        unique=False,
        postgresql_where=sa.text("read_at IS NULL"),
    )
    op.create_table(
        "questions",
        sa.Column("task_id", sa.BigInteger(), nullable=False),
        sa.Column("asker_id", sa.BigInteger(), nullable=False),
        sa.Column(
            "kind",
            sa.Enum(
                "question",
                "broken",
                "appeal",
                name="questionkind",
                native_enum=False,
                create_constraint=True,
                length=32,
            ),
            nullable=False,
        ),
        sa.Column(
            "state",
            sa.Enum(
                "open", "answered", "closed", name="questionstate", native_enum=False, create_constraint=True, length=32
            ),
            nullable=False,
        ),
        sa.Column("idempotency_key", sa.Uuid(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("answer", sa.Text(), nullable=True),
        sa.Column("settled_by_id", sa.BigInteger(), nullable=True),
        sa.Column("settled_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("read_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("guideline_id", sa.BigInteger(), nullable=True),
        sa.Column("project_id", sa.BigInteger(), nullable=False),
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("created_at", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("uid", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.CheckConstraint(
            "(state = 'answered') = (answer IS NOT NULL)", name=op.f("ck_questions_answered_has_an_answer")
        ),
        sa.CheckConstraint("(state = 'open') = (settled_at IS NULL)", name=op.f("ck_questions_settled_is_dated")),
        sa.ForeignKeyConstraint(["asker_id"], ["users.id"], name=op.f("fk_questions_asker_id"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(
            ["project_id", "guideline_id"],
            ["guidelines.project_id", "guidelines.id"],
            name=op.f("fk_questions_project_id_guideline_id"),
        ),
        sa.ForeignKeyConstraint(
            ["project_id", "task_id"],
            ["tasks.project_id", "tasks.id"],
            name=op.f("fk_questions_project_id_task_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name=op.f("fk_questions_project_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["settled_by_id"], ["users.id"], name=op.f("fk_questions_settled_by_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_questions")),
        sa.UniqueConstraint("idempotency_key", name=op.f("uq_questions_idempotency_key")),
        sa.UniqueConstraint("project_id", "id", name=op.f("uq_questions_project_id_id")),
        sa.UniqueConstraint("uid", name=op.f("uq_questions_uid")),
    )
    op.create_index(
        op.f("ix_questions_project_id_asker_id_id"), "questions", ["project_id", "asker_id", "id"], unique=False
    )
    op.create_index(op.f("ix_questions_project_id_state_id"), "questions", ["project_id", "state", "id"], unique=False)
    op.create_index(op.f("ix_questions_task_id"), "questions", ["task_id"], unique=False)
    op.create_index(
        "ix_questions_unread",
        "questions",
        ["project_id", "asker_id"],
        unique=False,
        postgresql_where=sa.text("settled_at IS NOT NULL AND read_at IS NULL"),
    )


def downgrade() -> None:
    """Forget both."""
    op.drop_index(
        "ix_questions_unread",
        table_name="questions",
        postgresql_where=sa.text("settled_at IS NOT NULL AND read_at IS NULL"),
    )
    op.drop_index(op.f("ix_questions_task_id"), table_name="questions")
    op.drop_index(op.f("ix_questions_project_id_state_id"), table_name="questions")
    op.drop_index(op.f("ix_questions_project_id_asker_id_id"), table_name="questions")
    op.drop_table("questions")
    op.drop_index("ix_notices_unread", table_name="notices", postgresql_where=sa.text("read_at IS NULL"))
    op.drop_table("notices")
