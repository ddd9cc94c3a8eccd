"""imports in the background, what they found in prompts, and edits of many prompts that can be undone

Revision ID: 0019
Revises: 0018
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0019"
down_revision: str | None = "0018"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


_STATES = "'active', 'duplicate', 'pii', 'retired'"
_TASK_STATES = "'open', 'done', 'retired'"


def upgrade() -> None:
    """Sources are counted from the prompts; the first import sees to the keys of those that are there."""
    op.create_table(
        "prompt_edits",
        sa.Column("author_id", sa.BigInteger(), nullable=True),
        sa.Column("field", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=True),
        sa.Column("prompts", sa.BigInteger(), nullable=False),
        sa.Column("undone_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("project_id", sa.BigInteger(), nullable=False),
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("created_at", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("uid", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.ForeignKeyConstraint(["author_id"], ["users.id"], name=op.f("fk_prompt_edits_author_id")),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name=op.f("fk_prompt_edits_project_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_prompt_edits")),
        sa.UniqueConstraint("project_id", "id", name=op.f("uq_prompt_edits_project_id_id")),
        sa.UniqueConstraint("uid", name=op.f("uq_prompt_edits_uid")),
    )
    op.create_table(
        "prompt_segments",
        sa.Column("keys", sa.LargeBinary(), nullable=False),
        sa.Column("ids", sa.LargeBinary(), nullable=False),
        sa.Column("prompts", sa.BigInteger(), nullable=False),
        sa.Column("project_id", sa.BigInteger(), nullable=False),
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("created_at", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name=op.f("fk_prompt_segments_project_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_prompt_segments")),
        sa.UniqueConstraint("project_id", "id", name=op.f("uq_prompt_segments_project_id_id")),
    )
    for column in ("keys", "ids"):  # they are hashes: compressing them is work for nothing
        op.execute(f"ALTER TABLE prompt_segments ALTER COLUMN {column} SET STORAGE EXTERNAL")
    op.create_table(
        "prompt_sources",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column(
            "split",
            sa.Enum("train", "valid", "test", name="split", native_enum=False, create_constraint=True, length=32),
            nullable=False,
        ),
        sa.Column("prompts", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("project_id", sa.BigInteger(), nullable=False),
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("created_at", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name=op.f("fk_prompt_sources_project_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_prompt_sources")),
        sa.UniqueConstraint("project_id", "id", name=op.f("uq_prompt_sources_project_id_id")),
        sa.UniqueConstraint("project_id", "name", name=op.f("uq_prompt_sources_project_id_name")),
    )
    op.create_table(
        "imports",
        sa.Column(
            "kind",
            sa.Enum(
                "prompts",
                "outputs",
                "rankings",
                "demonstrations",
                "text",
                name="importkind",
                native_enum=False,
                create_constraint=True,
                length=32,
            ),
            nullable=False,
        ),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("container", sa.Text(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("settings", postgresql.JSONB(astext_type=sa.Text()), server_default="{}", nullable=False),
        sa.Column("position", postgresql.JSONB(astext_type=sa.Text()), server_default="{}", nullable=False),
        sa.Column("counts", postgresql.JSONB(astext_type=sa.Text()), server_default="{}", nullable=False),
        sa.Column("first_prompt_id", sa.BigInteger(), nullable=True),
        sa.Column("last_prompt_id", sa.BigInteger(), nullable=True),
        sa.Column("has_upload", sa.Boolean(), server_default="true", nullable=False),
        sa.Column("created_by_id", sa.BigInteger(), nullable=True),
        sa.Column("job_id", sa.BigInteger(), nullable=True),
        sa.Column("project_id", sa.BigInteger(), nullable=False),
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("created_at", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("uid", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.ForeignKeyConstraint(["created_by_id"], ["users.id"], name=op.f("fk_imports_created_by_id")),
        sa.ForeignKeyConstraint(
            ["project_id", "job_id"], ["jobs.project_id", "jobs.id"], name=op.f("fk_imports_project_id_job_id")
        ),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name=op.f("fk_imports_project_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_imports")),
        sa.UniqueConstraint("job_id", name=op.f("uq_imports_job_id")),
        sa.UniqueConstraint("project_id", "id", name=op.f("uq_imports_project_id_id")),
        sa.UniqueConstraint("uid", name=op.f("uq_imports_uid")),
    )
    op.create_table(
        "import_refusals",
        sa.Column("import_id", sa.BigInteger(), nullable=False),
        sa.Column("line", sa.BigInteger(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("project_id", sa.BigInteger(), nullable=False),
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("created_at", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["project_id", "import_id"],
            ["imports.project_id", "imports.id"],
            name=op.f("fk_import_refusals_project_id_import_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name=op.f("fk_import_refusals_project_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_import_refusals")),
        sa.UniqueConstraint("project_id", "id", name=op.f("uq_import_refusals_project_id_id")),
    )
    op.create_index(op.f("ix_import_refusals_import_id_id"), "import_refusals", ["import_id", "id"], unique=False)
    op.create_table(
        "import_keys",
        sa.Column("import_id", sa.BigInteger(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("prompt_id", sa.BigInteger(), nullable=False),
        sa.Column("project_id", sa.BigInteger(), nullable=False),
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("created_at", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["project_id", "import_id"],
            ["imports.project_id", "imports.id"],
            name=op.f("fk_import_keys_project_id_import_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["project_id", "prompt_id"],
            ["prompts.project_id", "prompts.id"],
            name=op.f("fk_import_keys_project_id_prompt_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name=op.f("fk_import_keys_project_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_import_keys")),
        sa.UniqueConstraint("import_id", "key", name=op.f("uq_import_keys_import_id_key")),
        sa.UniqueConstraint("project_id", "id", name=op.f("uq_import_keys_project_id_id")),
    )
    op.create_table(
        "prompt_edit_rows",
        sa.Column("project_id", sa.BigInteger(), nullable=False),
        sa.Column("edit_id", sa.BigInteger(), nullable=False),
        sa.Column("prompt_id", sa.BigInteger(), nullable=False),
        sa.Column("before", sa.Text(), nullable=True),
        sa.Column("after", sa.Text(), nullable=True),
        sa.Column("was_labelled", sa.Boolean(), server_default="false", nullable=False),
        sa.ForeignKeyConstraint(
            ["project_id", "edit_id"],
            ["prompt_edits.project_id", "prompt_edits.id"],
            name=op.f("fk_prompt_edit_rows_project_id_edit_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["project_id", "prompt_id"],
            ["prompts.project_id", "prompts.id"],
            name=op.f("fk_prompt_edit_rows_project_id_prompt_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("edit_id", "prompt_id", name=op.f("pk_prompt_edit_rows")),
    )
    op.add_column("prompts", sa.Column("import_id", sa.BigInteger(), nullable=True))
    op.add_column("prompts", sa.Column("language", sa.Text(), nullable=True))
    op.add_column("prompts", sa.Column("duplicate_of_id", sa.BigInteger(), nullable=True))
    op.add_column(
        "prompts", sa.Column("findings", postgresql.JSONB(astext_type=sa.Text()), server_default="[]", nullable=False)
    )
    op.add_column("prompts", sa.Column("is_private", sa.Boolean(), server_default="false", nullable=False))
    op.execute("UPDATE prompts SET is_private = true WHERE status = 'pii'")
    op.create_check_constraint(op.f("ck_prompts_quarantined_is_private"), "prompts", "status <> 'pii' OR is_private")
    op.add_column("prompts", sa.Column("is_indexed", sa.Boolean(), server_default="false", nullable=False))
    op.create_index(
        "ix_prompts_unindexed",
        "prompts",
        ["project_id", "id"],
        unique=False,
        postgresql_where=sa.text("NOT is_indexed"),
    )
    op.drop_constraint(op.f("fk_prompts_project_id"), "prompts", type_="foreignkey")  # the pool's says the same
    op.create_foreign_key(
        op.f("fk_prompts_project_id_duplicate_of_id"),
        "prompts",
        "prompts",
        ["project_id", "duplicate_of_id"],
        ["project_id", "id"],
    )

    op.add_column("tasks", sa.Column("import_id", sa.BigInteger(), nullable=True))
    op.create_foreign_key(
        op.f("fk_tasks_project_id_import_id"), "tasks", "imports", ["project_id", "import_id"], ["project_id", "id"]
    )
    _set_states(_STATES + ", 'capped', 'language'")
    _set_task_states(_TASK_STATES + ", 'waiting'")
    op.execute("""
        INSERT INTO prompt_sources (project_id, name, split, prompts)
        SELECT project_id, source, min(split), count(*) FILTER (WHERE status <> 'duplicate') FROM prompts
        WHERE source !~ '^prompt-[0-9a-f]{16}$' GROUP BY project_id, source
    """)


def downgrade() -> None:
    """What was kept out of the work stays out."""
    op.execute("UPDATE prompts SET status = 'retired' WHERE status IN ('capped', 'language')")
    _set_states(_STATES)
    op.execute("UPDATE tasks SET state = 'retired' WHERE state = 'waiting'")
    _set_task_states(_TASK_STATES)
    op.drop_constraint(op.f("fk_tasks_project_id_import_id"), "tasks", type_="foreignkey")
    op.drop_column("tasks", "import_id")
    op.drop_constraint(op.f("fk_prompts_project_id_duplicate_of_id"), "prompts", type_="foreignkey")
    op.create_foreign_key(
        op.f("fk_prompts_project_id"), "prompts", "projects", ["project_id"], ["id"], ondelete="CASCADE"
    )
    op.drop_index("ix_prompts_unindexed", table_name="prompts")
    op.drop_column("prompts", "is_indexed")
    op.drop_constraint(op.f("ck_prompts_quarantined_is_private"), "prompts", type_="check")
    op.drop_column("prompts", "is_private")
    op.drop_column("prompts", "findings")
    op.drop_column("prompts", "duplicate_of_id")
    op.drop_column("prompts", "language")
    op.drop_column("prompts", "import_id")
    op.drop_table("prompt_edit_rows")
    op.drop_table("import_keys")
    op.drop_index(op.f("ix_import_refusals_import_id_id"), table_name="import_refusals")
    op.drop_table("import_refusals")
    op.drop_table("imports")
    op.drop_table("prompt_sources")
    op.drop_table("prompt_segments")
    op.drop_table("prompt_edits")


def _set_states(states: str) -> None:
    op.drop_constraint(op.f("ck_prompts_promptstatus"), "prompts", type_="check")
    op.create_check_constraint(op.f("ck_prompts_promptstatus"), "prompts", f"status IN ({states})")


def _set_task_states(states: str) -> None:
    op.drop_constraint(op.f("ck_tasks_taskstate"), "tasks", type_="check")
    op.create_check_constraint(op.f("ck_tasks_taskstate"), "tasks", f"state IN ({states})")
