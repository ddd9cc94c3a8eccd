"""agreement between the judgements of a task

Revision ID: 0011
Revises: 0010
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0011"
down_revision: str | None = "0010"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

# What the current judgements of each task had in common before they were compared as they arrive.
EARLIER = """
INSERT INTO agreements
  (project_id, task_id, first_id, second_id, first_judge_id, second_judge_id, pairs, alike, one_tied, both_tied)
SELECT first.project_id, first.task_id, first.id, second.id, first.judge_id, second.judge_id,
       count(*),
       count(*) FILTER (WHERE sign(a.tier - c.tier) = sign(b.tier - d.tier)),
       count(*) FILTER (WHERE (a.tier = c.tier) <> (b.tier = d.tier)),
       count(*) FILTER (WHERE a.tier = c.tier AND b.tier = d.tier)
FROM judgements AS first
JOIN tasks AS task ON task.id = first.task_id AND task.purpose IN ('train', 'evaluate', 'review')
JOIN judgements AS second ON second.task_id = first.task_id AND second.id > first.id AND second.status = 'current'
JOIN judgement_ranks AS a ON a.judgement_id = first.id AND a.tier IS NOT NULL
JOIN judgement_ranks AS c ON c.judgement_id = first.id AND c.tier IS NOT NULL AND c.output_id > a.output_id
JOIN judgement_ranks AS b ON b.judgement_id = second.id AND b.output_id = a.output_id AND b.tier IS NOT NULL
JOIN judgement_ranks AS d ON d.judgement_id = second.id AND d.output_id = c.output_id AND d.tier IS NOT NULL
WHERE first.status = 'current'
GROUP BY first.id, second.id
"""


def upgrade() -> None:
    """A row for every two current judgements of a task, those made before included; and a person's skips are found."""
    op.create_table(
        "agreements",
        *(
            sa.Column(name, sa.BigInteger(), nullable=False)
            for name in (
                "task_id",
                "first_id",
                "second_id",
                "first_judge_id",
                "second_judge_id",
                "pairs",
                "alike",
                "one_tied",
                "both_tied",
                "project_id",
            )
        ),
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("created_at", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint(
            "first_id < second_id AND first_judge_id <> second_judge_id", name=op.f("ck_agreements_two_judgements")
        ),
        sa.CheckConstraint("alike >= both_tied AND alike + one_tied <= pairs", name=op.f("ck_agreements_counts_fit")),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name=op.f("fk_agreements_project_id"), ondelete="CASCADE"
        ),
        *(
            sa.ForeignKeyConstraint(
                ["project_id", column],
                [f"{table}.project_id", f"{table}.id"],
                name=op.f(f"fk_agreements_project_id_{column}"),
                ondelete=ondelete,
            )
            for column, table, ondelete in (
                ("task_id", "tasks", "CASCADE"),
                ("first_id", "judgements", "CASCADE"),
                ("second_id", "judgements", "CASCADE"),
                ("first_judge_id", "judges", None),
                ("second_judge_id", "judges", None),
            )
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_agreements")),
        sa.UniqueConstraint("project_id", "id", name=op.f("uq_agreements_project_id_id")),
        sa.UniqueConstraint("first_id", "second_id", name=op.f("uq_agreements_first_id_second_id")),
    )
    op.create_index(op.f("ix_agreements_second_id"), "agreements", ["second_id"])
    for column in ("first_judge_id", "second_judge_id"):
        op.create_index(op.f(f"ix_agreements_project_id_{column}_id"), "agreements", ["project_id", column, "id"])
    op.execute(EARLIER)
    skipped = sa.text("state = 'skipped'")
    op.create_index("ix_leases_skipped", "leases", ["project_id", "user_id"], postgresql_where=skipped)


def downgrade() -> None:
    """Forget it: it can be counted again."""
    op.drop_index("ix_leases_skipped", table_name="leases")
    op.drop_table("agreements")
