"""Guidelines: versions that never change, read before the next task."""

from pathlib import Path

import pytest
from sqlalchemy.orm import Session

from app.errors import BadInput, Conflict, NotFound
from app.models import Guideline, Phase, Project, Role
from app.permissions import Access
from app.services import guidelines
from app.settings import Settings
from tests.app import registry


@pytest.fixture
def access(session: Session, settings: Settings, tmp_path: Path) -> Access:
    project, _ = registry.make_project(session, tmp_path)
    return registry.access_of(registry.make_user(session), project, Role.LABELLER)


def publish(session: Session, project: Project, body: str) -> Guideline:
    return guidelines.publish(session, project, body=body, phase=Phase.TRAIN, author=None)


def test_versions_count_up(session: Session, access: Access) -> None:
    assert [publish(session, access.project, body).version for body in ("one", "two")] == [1, 2]
    current = guidelines.current(session, access.project.id)
    assert current is not None
    assert current.body == "two"
    assert guidelines.get_version(session, access.project, 1).body == "one"
    with pytest.raises(NotFound):
        guidelines.get_version(session, access.project, 3)


def test_phases_count_apart(session: Session, access: Access) -> None:
    publish(session, access.project, "train")
    final = guidelines.publish(session, access.project, body="final", phase=Phase.EVALUATE, author=None)
    assert final.version == 1
    current = guidelines.current(session, access.project.id)
    assert current is not None
    assert current.body == "train"


def test_text_is_rendered_once_and_safe(session: Session, access: Access) -> None:
    made = publish(session, access.project, "**bold** <script>alert(1)</script>")
    assert made.html == "<p><strong>bold</strong> &lt;script&gt;alert(1)&lt;/script&gt;</p>"


@pytest.mark.parametrize("body", ["", "  \r\n ", "x" * (guidelines.MAX_LENGTH + 1)])
def test_refuses_no_text_and_too_much(session: Session, access: Access, body: str) -> None:
    with pytest.raises(BadInput):
        publish(session, access.project, body)


def test_refuses_the_same_text_again(session: Session, access: Access) -> None:
    publish(session, access.project, "one\r\ntwo")
    with pytest.raises(Conflict, match="version 1"):
        publish(session, access.project, " one\ntwo ")


def test_each_version_is_read_anew(session: Session, access: Access) -> None:
    assert guidelines.unread(session, access) is None
    first = publish(session, access.project, "one")
    assert guidelines.unread(session, access) == first
    guidelines.acknowledge(session, access, first)
    guidelines.acknowledge(session, access, first)
    assert guidelines.unread(session, access) is None
    second = publish(session, access.project, "two")
    assert guidelines.unread(session, access) == second
    with pytest.raises(Conflict, match="no longer current"):
        guidelines.acknowledge(session, access, first)


def test_a_person_follows_the_version_they_read_last(session: Session, access: Access) -> None:
    assert guidelines.followed(session, access) is None
    first = publish(session, access.project, "one")
    assert guidelines.followed(session, access) == first, "there is no other"
    guidelines.acknowledge(session, access, first)
    second = publish(session, access.project, "two")
    assert guidelines.followed(session, access) == first
    guidelines.acknowledge(session, access, second)
    assert guidelines.followed(session, access) == second
