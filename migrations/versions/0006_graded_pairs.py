"""Pairs of a ranking may be graded: the view counts such a pair once, by its tiers.

Revision ID: 0006
Revises: 0005
"""

from collections.abc import Sequence

from alembic import op

revision: str = "0006"
down_revision: str | None = "0005"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

COMPARISONS = """
CREATE OR REPLACE VIEW comparisons AS
SELECT judgement.project_id, judgement.id AS judgement_id, judgement.task_id, task.prompt_id, task.purpose, task.round_id,
       judge.kind AS judge_kind, judge.user_id, membership.cohort, prompt.split,
       first.output_id AS first_output_id, second.output_id AS second_output_id,
       CASE WHEN first.tier < second.tier THEN 1.0 WHEN first.tier = second.tier THEN 0.5 ELSE 0.0 END AS p_first
FROM judgements AS judgement
JOIN judgement_ranks AS first ON first.judgement_id = judgement.id AND first.tier IS NOT NULL
JOIN judgement_ranks AS second
  ON second.judgement_id = judgement.id AND second.tier IS NOT NULL AND first.output_id < second.output_id
JOIN tasks AS task ON task.id = judgement.task_id
JOIN prompts AS prompt ON prompt.id = task.prompt_id
JOIN judges AS judge ON judge.id = judgement.judge_id
LEFT JOIN memberships AS membership
  ON membership.project_id = judgement.project_id AND membership.user_id = judge.user_id
WHERE judgement.status = 'current'
UNION ALL
SELECT judgement.project_id, judgement.id, judgement.task_id, task.prompt_id, task.purpose, task.round_id,
       judge.kind, judge.user_id, membership.cohort, prompt.split, pair.left_id, pair.right_id, pair.p_left
FROM judgements AS judgement
JOIN judgement_pairs AS pair ON pair.judgement_id = judgement.id
JOIN tasks AS task ON task.id = judgement.task_id
JOIN prompts AS prompt ON prompt.id = task.prompt_id
JOIN judges AS judge ON judge.id = judgement.judge_id
LEFT JOIN memberships AS membership
  ON membership.project_id = judgement.project_id AND membership.user_id = judge.user_id
WHERE judgement.status = 'current'{unless_ranked}
"""

UNLESS_RANKED = """
  AND NOT EXISTS (
    SELECT FROM judgement_ranks AS rank WHERE rank.judgement_id = judgement.id AND rank.tier IS NOT NULL
  )"""


def upgrade() -> None:
    op.execute(COMPARISONS.format(unless_ranked=UNLESS_RANKED))


def downgrade() -> None:
    op.execute(COMPARISONS.format(unless_ranked=""))
