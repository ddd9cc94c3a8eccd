"""Announcements: told to everybody in one project, until the end of their last day."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy.orm import Session

from app.errors import BadInput, Forbidden, NotFound
from app.models import Role
from app.permissions import Access
from app.services import notices
from tests.app import registry
from tests.app.queue import Queue, make_queue

TODAY = datetime.now(UTC).date()


@pytest.fixture
def queue(session: Session, tmp_path: Path) -> Queue:
    return make_queue(session, tmp_path)


@pytest.fixture
def admin(session: Session, queue: Queue) -> Access:
    return registry.access_of(registry.make_user(session, name="Grace"), queue.project, Role.ADMIN)


class TestAnnounce:
    def test_is_told_to_everybody_of_the_project(
        self, session: Session, queue: Queue, admin: Access, tmp_path: Path
    ) -> None:
        notice = notices.announce(session, admin, text=" No work\non Friday. ", last_day=str(TODAY))
        ada, elsewhere = queue.person(session), make_queue(session, tmp_path / "b").person(session)
        assert [each.text for each in notices.list_announcements(session, ada)] == ["No work on Friday."]
        assert not notices.list_announcements(session, elsewhere)
        assert notice.ends_at is not None
        assert notice.ends_at > datetime.now(UTC)
        notice.ends_at = datetime.now(UTC) - timedelta(days=1)
        session.flush()
        assert not notices.list_announcements(session, ada)

    @pytest.mark.parametrize(
        ("text", "day", "field"),
        [
            (" ", str(TODAY), "announcement"),
            ("x" * 501, str(TODAY), "announcement"),
            ("Hello.", "", "last_day"),
            ("Hello.", "soon", "last_day"),
            ("Hello.", str(TODAY - timedelta(days=1)), "last_day"),
            ("Hello.", str(TODAY + timedelta(days=400)), "last_day"),
        ],
    )
    def test_refuses_what_cannot_be_told(
        self, session: Session, admin: Access, text: str, day: str, field: str
    ) -> None:
        with pytest.raises(BadInput) as caught:
            notices.announce(session, admin, text=text, last_day=day)
        assert caught.value.field == field

    def test_is_an_admin_s(self, session: Session, queue: Queue) -> None:
        with pytest.raises(Forbidden):
            notices.announce(session, queue.person(session), text="Hello.", last_day=str(TODAY))


class TestEndAnnouncement:
    def test_shows_it_no_more(self, session: Session, admin: Access, tmp_path: Path) -> None:
        notice = notices.announce(session, admin, text="Hello.", last_day=str(TODAY))
        other = registry.access_of(admin.user, make_queue(session, tmp_path / "b").project, Role.ADMIN)
        with pytest.raises(NotFound):
            notices.end_announcement(session, other, notice.uid)
        notices.end_announcement(session, admin, notice.uid)
        session.flush()
        assert not notices.list_announcements(session, admin)
