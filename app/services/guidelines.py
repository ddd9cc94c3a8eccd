"""What labellers are asked to prefer: published in versions, each read and acknowledged before the next task."""

from datetime import UTC, datetime

from sqlalchemy.orm import Session

from app.errors import BadInput, Conflict, NotFound
from app.markup import render_markdown
from app.models import Guideline, Phase, Project, User
from app.permissions import Access
from app.queries import guidelines as queries
from app.queries import projects as project_queries
from app.services import audit

MAX_LENGTH = 100_000


def publish(session: Session, project: Project, *, body: str, phase: Phase, author: User | None) -> Guideline:
    """Publish the next version. Everybody reads and acknowledges it before their next task.

    Raises BadInput for an empty or overlong text, Conflict for one that equals the current version.
    """
    text = _parse_body(body)
    project_queries.find_project(session, project.slug, lock=True)
    former = queries.find_current(session, project.id, phase)
    if former is not None and former.body == text:
        raise Conflict(f"This is word for word version {former.version}. Nothing was published.")
    guideline = Guideline(
        project_id=project.id,
        version=former.version + 1 if former else 1,
        phase=phase,
        body=text,
        html=render_markdown(text, keeps_breaks=False),
        published_at=datetime.now(UTC),
        author_id=author.id if author else None,
    )
    session.add(guideline)
    session.flush()
    audit.record(
        session,
        actor=author,
        project=project,
        action="publish guidelines",
        subject_kind="guideline",
        subject_uid=guideline.uid,
        version=guideline.version,
        phase=phase.value,
    )
    return guideline


def preview(body: str) -> str:
    """What a text would look like, as safe HTML; an overlong one is cut."""
    return render_markdown(body[:MAX_LENGTH], keeps_breaks=False)


def current(session: Session, project_id: int) -> Guideline | None:
    """The version that holds now, while training; None before the first."""
    return queries.find_current(session, project_id)


def look(session: Session, access: Access) -> tuple[Guideline | None, bool]:
    """The version that holds now, None before the first, and whether this person must still acknowledge it before a task."""
    return queries.look(session, access.project.id, access.user.id)


def unread(session: Session, access: Access) -> Guideline | None:
    """The version this person must acknowledge before a task; None where nothing stands in the way."""
    newest, is_unread = look(session, access)
    return newest if is_unread else None


def read_before(session: Session, access: Access) -> Guideline | None:
    """The newest version this person has read; None for somebody new."""
    return queries.find_acknowledged(session, access.project.id, access.user.id)


def followed(session: Session, access: Access) -> Guideline | None:
    """The version this person works by: the newest they acknowledged, whatever was published since; else the current one."""
    newest, is_unread = look(session, access)
    read = queries.find_acknowledged(session, access.project.id, access.user.id) if is_unread else None
    return read or newest


def get_version(session: Session, project: Project, version: int) -> Guideline:
    """One version. Raises NotFound."""
    guideline = queries.find_version(session, project.id, version)
    if guideline is None:
        raise NotFound(f"The guidelines of {project.name} have no version {version}.")
    return guideline


def acknowledge(session: Session, access: Access, guideline: Guideline) -> None:
    """Note that this person has read a version. A second click changes nothing.

    Raises Conflict where a newer version has been published: that is the one to read.
    """
    newest = current(session, access.project.id)
    if newest is None or newest.id != guideline.id:
        raise Conflict(f"Version {guideline.version} is no longer current. Read the newest version instead.")
    queries.insert_ack(session, guideline, access.user.id)


def _parse_body(body: str) -> str:
    text = body.replace("\r\n", "\n").strip()
    if not 1 <= len(text) <= MAX_LENGTH:
        raise BadInput(f"Guidelines have 1 to {MAX_LENGTH:,} characters; these have {len(text):,}.", field="body")
    return text
