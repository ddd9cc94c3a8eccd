"""sampling plans, models outside that answer prompts, and samplers that give the best of several

Revision ID: 0020
Revises: 0019
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0020"
down_revision: str | None = "0019"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def _stream() -> sa.Enum:
    return sa.Enum("control", "chosen", name="stream", native_enum=False, create_constraint=True, length=32)


def _split() -> sa.Enum:
    return sa.Enum("train", "valid", "test", name="split", native_enum=False, create_constraint=True, length=32)


def upgrade() -> None:
    """An address that a sampler had as text becomes an endpoint that is not in use: nothing is known of its model or key."""
    op.create_table(
        "endpoints",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("sealed_key", sa.LargeBinary(), nullable=True),
        sa.Column("price_in", sa.Float(), nullable=True),
        sa.Column("price_out", sa.Float(), nullable=True),
        sa.Column("created_by_id", sa.BigInteger(), nullable=True),
        sa.Column("removed_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("project_id", sa.BigInteger(), nullable=False),
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("created_at", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("uid", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.CheckConstraint("removed_at IS NULL OR sealed_key IS NULL", name=op.f("ck_endpoints_no_key_once_removed")),
        sa.ForeignKeyConstraint(["created_by_id"], ["users.id"], name=op.f("fk_endpoints_created_by_id")),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name=op.f("fk_endpoints_project_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_endpoints")),
        sa.UniqueConstraint("project_id", "id", name=op.f("uq_endpoints_project_id_id")),
        sa.UniqueConstraint("uid", name=op.f("uq_endpoints_uid")),
    )
    op.create_index(
        "uq_endpoints_name",
        "endpoints",
        ["project_id", "name"],
        unique=True,
        postgresql_where=sa.text("removed_at IS NULL"),
    )
    op.create_table(
        "sampling_plans",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("settings", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("counts", postgresql.JSONB(astext_type=sa.Text()), server_default="{}", nullable=False),
        sa.Column("created_by_id", sa.BigInteger(), nullable=True),
        sa.Column("job_id", sa.BigInteger(), nullable=True),
        sa.Column("project_id", sa.BigInteger(), nullable=False),
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("created_at", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("uid", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.ForeignKeyConstraint(["created_by_id"], ["users.id"], name=op.f("fk_sampling_plans_created_by_id")),
        sa.ForeignKeyConstraint(
            ["project_id", "job_id"], ["jobs.project_id", "jobs.id"], name=op.f("fk_sampling_plans_project_id_job_id")
        ),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name=op.f("fk_sampling_plans_project_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sampling_plans")),
        sa.UniqueConstraint("job_id", name=op.f("uq_sampling_plans_job_id")),
        sa.UniqueConstraint("project_id", "id", name=op.f("uq_sampling_plans_project_id_id")),
        sa.UniqueConstraint("uid", name=op.f("uq_sampling_plans_uid")),
    )
    op.create_table(
        "plan_prompts",
        sa.Column("project_id", sa.BigInteger(), nullable=False),
        sa.Column("plan_id", sa.BigInteger(), nullable=False),
        sa.Column("prompt_id", sa.BigInteger(), nullable=False),
        sa.Column("stream", _stream(), nullable=False),
        sa.Column("split", _split(), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("is_over", sa.Boolean(), server_default="false", nullable=False),
        sa.Column("problem", sa.Text(), nullable=True),
        sa.Column("disagreement", sa.Float(), nullable=True),
        sa.ForeignKeyConstraint(
            ["project_id", "plan_id"],
            ["sampling_plans.project_id", "sampling_plans.id"],
            name=op.f("fk_plan_prompts_project_id_plan_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["project_id", "prompt_id"],
            ["prompts.project_id", "prompts.id"],
            name=op.f("fk_plan_prompts_project_id_prompt_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("plan_id", "prompt_id", name=op.f("pk_plan_prompts")),
    )
    op.create_index(
        "ix_plan_prompts_waiting",
        "plan_prompts",
        ["plan_id", "stream", "split", "position"],
        postgresql_where=sa.text("NOT is_over"),
    )
    _give_tasks_their_plan()
    _give_samplers_their_endpoint()
    op.add_column("jobs", sa.Column("handed_back", sa.BigInteger(), server_default="0", nullable=False))


def _give_tasks_their_plan() -> None:
    op.add_column("tasks", sa.Column("plan_id", sa.BigInteger(), nullable=True))
    op.add_column("tasks", sa.Column("stream", _stream(), nullable=True))
    op.create_foreign_key(
        op.f("fk_tasks_project_id_plan_id"), "tasks", "sampling_plans", ["project_id", "plan_id"], ["project_id", "id"]
    )
    op.create_check_constraint(op.f("ck_tasks_stream_of_plan"), "tasks", "(plan_id IS NULL) = (stream IS NULL)")
    op.create_index(
        "uq_tasks_of_plan",
        "tasks",
        ["plan_id", "prompt_id"],
        unique=True,
        postgresql_where=sa.text("plan_id IS NOT NULL"),
    )


def _give_samplers_their_endpoint() -> None:
    op.add_column("samplers", sa.Column("endpoint_id", sa.BigInteger(), nullable=True))
    op.add_column("samplers", sa.Column("reward_id", sa.BigInteger(), nullable=True))
    op.create_foreign_key(
        op.f("fk_samplers_project_id_endpoint_id"),
        "samplers",
        "endpoints",
        ["project_id", "endpoint_id"],
        ["project_id", "id"],
    )
    op.create_foreign_key(
        op.f("fk_samplers_project_id_reward_id"),
        "samplers",
        "checkpoints",
        ["project_id", "reward_id"],
        ["project_id", "id"],
    )
    op.execute("""
        INSERT INTO endpoints (project_id, name, url, model, removed_at)
        SELECT DISTINCT project_id, endpoint, endpoint, '', now() FROM samplers WHERE endpoint IS NOT NULL
    """)
    op.execute("""
        UPDATE samplers SET endpoint_id = endpoints.id FROM endpoints
        WHERE endpoints.project_id = samplers.project_id AND endpoints.url = samplers.endpoint
    """)
    op.drop_constraint(op.f("ck_samplers_checkpoint_or_endpoint"), "samplers", type_="check")
    op.drop_column("samplers", "endpoint")
    op.create_check_constraint(
        op.f("ck_samplers_checkpoint_or_endpoint"), "samplers", "(checkpoint_id IS NULL) <> (endpoint_id IS NULL)"
    )
    op.create_check_constraint(op.f("ck_samplers_reward_of_best"), "samplers", "reward_id IS NULL OR best_of > 1")


def downgrade() -> None:
    """Tasks and samples stay; which plan they came of is forgotten, and keys of endpoints are."""
    op.drop_column("jobs", "handed_back")
    op.drop_constraint(op.f("ck_samplers_reward_of_best"), "samplers", type_="check")
    op.drop_constraint(op.f("ck_samplers_checkpoint_or_endpoint"), "samplers", type_="check")
    op.add_column("samplers", sa.Column("endpoint", sa.Text(), nullable=True))
    op.execute("""
        UPDATE samplers SET endpoint = endpoints.url FROM endpoints
        WHERE endpoints.project_id = samplers.project_id AND endpoints.id = samplers.endpoint_id
    """)
    op.drop_column("samplers", "reward_id")
    op.drop_column("samplers", "endpoint_id")
    op.create_check_constraint(
        op.f("ck_samplers_checkpoint_or_endpoint"), "samplers", "(checkpoint_id IS NULL) <> (endpoint IS NULL)"
    )
    op.drop_index("uq_tasks_of_plan", table_name="tasks")
    op.drop_column("tasks", "stream")
    op.drop_column("tasks", "plan_id")
    op.drop_table("plan_prompts")
    op.drop_table("sampling_plans")
    op.drop_table("endpoints")
