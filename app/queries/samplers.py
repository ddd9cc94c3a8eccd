"""SQL of samplers: what answers a prompt, one row per distinct setting."""

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from app.models import Json, Sampler


def get_or_insert_sampler(session: Session, project_id: int, values: Json, *, fingerprint: bytes) -> Sampler:
    """The sampler with this fingerprint, made if it is missing; two callers at once get the same row."""
    session.execute(
        insert(Sampler)
        .values(project_id=project_id, fingerprint=fingerprint, **values)
        .on_conflict_do_nothing(index_elements=["project_id", "fingerprint"])
    )
    return session.scalars(
        select(Sampler).where(Sampler.project_id == project_id, Sampler.fingerprint == fingerprint)
    ).one()
