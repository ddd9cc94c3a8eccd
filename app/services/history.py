"""A person's last answers of every kind, which they may look at again and revise."""

from collections.abc import Sequence

from sqlalchemy.orm import Session

from app.permissions import Access
from app.queries import demonstrations as demonstration_queries
from app.queries import judgements as judgement_queries
from app.queries.judgements import RecentRow

RECENT = 10
"""Answers that a person's history lists."""


def list_recent(session: Session, access: Access) -> Sequence[RecentRow]:
    """The last answers, the newest first, of each the newest version."""
    project_id, user_id = access.project.id, access.user.id
    judged = judgement_queries.list_recent(session, project_id, user_id, RECENT)
    written = demonstration_queries.list_recent(session, project_id, user_id, RECENT)
    return sorted([*judged, *written], key=lambda row: row.created_at, reverse=True)[:RECENT]
