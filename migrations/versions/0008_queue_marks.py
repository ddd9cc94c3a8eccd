"""places in the queue, and how far each person is through it

Revision ID: 0008
Revises: 0007
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0008"
down_revision: str | None = "0007"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_OPEN = sa.text("state = 'open'")


def upgrade() -> None:
    """Tasks keep the order of their age."""
    op.add_column("tasks", sa.Column("queued_at", sa.TIMESTAMP(timezone=True), nullable=True))
    op.execute("UPDATE tasks SET queued_at = created_at")
    op.alter_column("tasks", "queued_at", server_default=sa.text("clock_timestamp()"), nullable=False)
    op.execute(
        """
CREATE FUNCTION queue_task_anew() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN NEW.queued_at := clock_timestamp(); RETURN NEW; END $$"""
    )
    op.execute(
        """
CREATE TRIGGER tasks_queue_anew BEFORE UPDATE ON tasks FOR EACH ROW
WHEN (NEW.state = 'open' AND (OLD.state, OLD.priority, OLD.purpose, OLD.needs)
      IS DISTINCT FROM (NEW.state, NEW.priority, NEW.purpose, NEW.needs))
EXECUTE FUNCTION queue_task_anew()"""
    )
    op.drop_index("ix_tasks_queue", table_name="tasks")
    op.create_index(
        "ix_tasks_queue",
        "tasks",
        ["project_id", "kind", sa.text("priority DESC"), "queued_at", "id"],
        postgresql_where=_OPEN,
    )
    op.create_index("ix_leases_held", "leases", ["project_id"], postgresql_where=sa.text("state = 'held'"))
    kinds = ("rank", "demonstrate", "compare", "rate", "label_prompt")
    kind = sa.Enum(*kinds, name="taskkind", native_enum=False, create_constraint=True, length=32)
    op.create_table(
        "queue_marks",
        sa.Column("user_id", sa.BigInteger(), nullable=False),
        sa.Column("kind", kind, nullable=False),
        sa.Column("priority", sa.BigInteger(), nullable=False),
        sa.Column("profile", sa.Text(), nullable=False),
        sa.Column("passed", sa.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("project_id", sa.BigInteger(), nullable=False),
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("created_at", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name=op.f("fk_queue_marks_project_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_queue_marks_user_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_queue_marks")),
        sa.UniqueConstraint("project_id", "id", name=op.f("uq_queue_marks_project_id_id")),
        sa.UniqueConstraint(
            "project_id",
            "user_id",
            "kind",
            "priority",
            "profile",
            name=op.f("uq_queue_marks_project_id_user_id_kind_priority_profile"),
        ),
    )


def downgrade() -> None:
    """Forget them; the order is by id again."""
    op.drop_table("queue_marks")
    op.drop_index("ix_leases_held", table_name="leases")
    op.drop_index("ix_tasks_queue", table_name="tasks")
    op.create_index(
        "ix_tasks_queue", "tasks", ["project_id", "kind", sa.text("priority DESC"), "id"], postgresql_where=_OPEN
    )
    op.execute("DROP TRIGGER tasks_queue_anew ON tasks")
    op.execute("DROP FUNCTION queue_task_anew()")
    op.drop_column("tasks", "queued_at")
