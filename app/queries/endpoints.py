"""SQL of endpoints: models outside that a project may ask."""

import uuid
from collections.abc import Sequence

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from app.models import Endpoint, Job


def test_key(endpoint_id: int) -> str:
    """Dedupe key of the job that tries an endpoint."""
    return f"endpoint/{endpoint_id}"


def insert(session: Session, endpoint: Endpoint) -> None:
    """Add an endpoint. Raises IntegrityError where one of that name is there; look before."""
    session.add(endpoint)
    session.flush()


def lock_naming(session: Session, project_id: int) -> None:
    """Let one request at a time name an endpoint of a project."""
    session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(f"endpoints/{project_id}", 0))))


def find(session: Session, project_id: int, uid: uuid.UUID) -> Endpoint | None:
    """The endpoint with this uid that was not removed."""
    return session.scalar(
        select(Endpoint).where(Endpoint.project_id == project_id, Endpoint.uid == uid, Endpoint.removed_at.is_(None))
    )


def find_by_name(session: Session, project_id: int, name: str) -> Endpoint | None:
    """The endpoint of this name that was not removed."""
    return session.scalar(
        select(Endpoint).where(Endpoint.project_id == project_id, Endpoint.name == name, Endpoint.removed_at.is_(None))
    )


def get(session: Session, project_id: int, endpoint_id: int) -> Endpoint:
    """The endpoint with this id, removed or not."""
    return session.scalars(select(Endpoint).where(Endpoint.project_id == project_id, Endpoint.id == endpoint_id)).one()


def list_endpoints(session: Session, project_id: int, *, with_removed: bool = False) -> Sequence[Endpoint]:
    """Endpoints by name; those that were removed only where wanted."""
    query = select(Endpoint).where(Endpoint.project_id == project_id)
    if not with_removed:
        query = query.where(Endpoint.removed_at.is_(None))
    return session.scalars(query.order_by(Endpoint.name, Endpoint.id)).all()


def list_tests(session: Session, project_id: int, endpoint_ids: Sequence[int]) -> dict[int, Job]:
    """The newest try of each of these endpoints."""
    keys = {test_key(endpoint_id): endpoint_id for endpoint_id in endpoint_ids}
    newest = (
        select(func.max(Job.id)).where(Job.project_id == project_id, Job.dedupe_key.in_(keys)).group_by(Job.dedupe_key)
    )
    return {keys[job.dedupe_key or ""]: job for job in session.scalars(select(Job).where(Job.id.in_(newest)))}


def remove(session: Session, endpoint: Endpoint) -> None:
    """Take an endpoint out of use and forget its key; what it answered keeps naming it."""
    session.execute(update(Endpoint).where(Endpoint.id == endpoint.id).values(removed_at=func.now(), sealed_key=None))
    session.refresh(endpoint)
