"""A project's home: what one person is told there, and what they are not."""

from datetime import UTC, datetime

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select, update

from app import db
from app.models import Lease, LeaseState, Membership, Notice, Phase, Question, Role, Task
from app.services import guidelines
from tests.app.queue import Queue
from tests.app.ranking_page import HOSTILE, open_page, submit, take
from tests.app.visitor import Visitor, make_visitor


@pytest.fixture
def grace(client: TestClient, queue: Queue) -> Visitor:
    return make_visitor(client, queue.project, Role.ADMIN)


class TestNotices:
    def test_announcements_are_made_seen_and_ended(self, queue: Queue, ada: Visitor, grace: Visitor) -> None:
        home, today = f"/p/{queue.project.slug}", str(datetime.now(UTC).date())
        refused = grace.post(f"{home}/announcements", announcement="Hello.", last_day="soon")
        assert refused.status_code == 422
        assert 'value="Hello."' in refused.text
        assert grace.post(f"{home}/announcements", announcement=HOSTILE, last_day=today).status_code == 303
        text = ada.get(f"{home}/").text
        assert "alert(1)" in text
        assert "<script>alert" not in text
        with db.transaction() as session:
            uid = session.scalars(select(Notice.uid)).one()
        assert str(uid) in grace.get(f"{home}/people").text
        assert ada.post(f"{home}/notices/{uid}/read").status_code == 404
        grace.post(f"{home}/announcements/{uid}/end")
        assert "alert(1)" not in ada.get(f"{home}/").text

    def test_an_answer_stays_until_it_is_read(self, queue: Queue, ada: Visitor, bob: Visitor, grace: Visitor) -> None:
        home, path = f"/p/{queue.project.slug}", take(ada, queue)
        key = open_page(ada, path).form("/submit").values["idempotency_key"][-1]
        ada.post(f"{path}/ask", question="Tie?", question_kind="question", idempotency_key=key)
        assert "One question waits" in grace.get(f"{home}/").text
        with db.transaction() as session:
            uid = session.scalars(select(Question.uid)).one()
        grace.post(f"{home}/inbox/{uid}/answer", answer="Yes.")
        assert "question waits" not in grace.get(f"{home}/").text
        assert "Your question is answered" not in bob.get(f"{home}/").text
        for _ in "ab":
            assert "Your question is answered" in ada.get(f"{home}/").text
        ada.get(f"{home}/questions")
        assert "Your question is answered" not in ada.get(f"{home}/").text

    def test_a_retired_task_is_told_until_put_away(
        self, queue: Queue, ada: Visitor, bob: Visitor, grace: Visitor
    ) -> None:
        with db.transaction() as session:
            session.execute(update(Task).values(judgements_wanted=2))
        home, path = f"/p/{queue.project.slug}", take(ada, queue)
        take(bob, queue)
        key = open_page(ada, path).form("/submit").values["idempotency_key"][-1]
        ada.post(f"{path}/ask", question="Empty.", question_kind="broken", idempotency_key=key)
        with db.transaction() as session:
            uid = session.scalars(select(Question.uid)).one()
        grace.post(f"{home}/inbox/{uid}/retire")
        assert "is retired" in bob.get(f"{home}/").text
        form = open_page(bob, f"{home}/").form("/read")
        assert bob.post(form.action).status_code == 303
        assert "is retired" not in bob.get(f"{home}/").text


class TestChanges:
    def test_new_guidelines_begin_with_what_changed_since_the_ones_read(self, queue: Queue, ada: Visitor) -> None:
        home = f"/p/{queue.project.slug}"
        publish(queue, "Be kind.\n\nPrefer short answers.")
        assert "What changed" not in ada.get(f"{home}/guidelines").text
        ada.post(f"{home}/guidelines/1/acknowledge")
        publish(queue, "Be kind.\n\nPrefer <b>true</b> answers.")
        assert "begins with what changed since version 1" in ada.get(f"{home}/").text
        text = ada.get(f"{home}/guidelines").text
        assert "<del>short </del><ins>&lt;b&gt;true&lt;/b&gt; </ins>" in text
        ada.post(f"{home}/guidelines/2/acknowledge")
        assert "What changed" not in ada.get(f"{home}/guidelines").text
        assert "What changed since version 1" in ada.get(f"{home}/guidelines?version=2&since=1").text
        assert ada.get(f"{home}/guidelines?since=7").status_code == 404


def publish(queue: Queue, body: str) -> None:
    with db.transaction() as session:
        guidelines.publish(session, queue.project, body=body, phase=Phase.TRAIN, author=None)


class TestNothingToDo:
    @pytest.mark.parametrize(
        ("of_person", "of_tasks", "words"),
        [
            ({"daily_cap": 1}, {}, "You have reached your limit for a day. The next task comes"),
            ({}, {"needs": ["skill:law"]}, "The tasks left need a skill"),
            ({"is_paused": True}, {}, "An admin has paused your work"),
        ],
    )
    def test_says_why(
        self, queue: Queue, ada: Visitor, of_person: dict[str, object], of_tasks: dict[str, object], words: str
    ) -> None:
        home, path = f"/p/{queue.project.slug}", take(ada, queue)
        submit(ada, path, ["1", "2", "3"])
        with db.transaction() as session:
            session.execute(update(Lease).where(Lease.state == LeaseState.HELD).values(state=LeaseState.RELEASED))
            if of_person:
                session.execute(update(Membership).where(Membership.user_id == ada.user.id).values(**of_person))
            if of_tasks:
                session.execute(update(Task).values(**of_tasks))
        assert words in ada.get(f"{home}/").text


class TestProgress:
    def test_tells_one_s_own_work_and_nothing_of_what_others_said(
        self, queue: Queue, ada: Visitor, bob: Visitor
    ) -> None:
        """T25: another's answer to a task that is still before this person changes nothing on their home."""
        with db.transaction() as session:
            session.execute(update(Task).values(judgements_wanted=2))
        home, path = f"/p/{queue.project.slug}/", take(ada, queue)
        before = ada.get(home).text
        assert "No task yet today" in before
        assert "3 are open" in bob.get(home).text
        take(bob, queue)
        submit(bob, path, ["1", "1", "2"], note="bob was here")
        assert ada.get(home).text == before
        submit(ada, path, ["1", "2", "3"], active_ms="61000")
        after = ada.get(home).text
        assert "One task today" in after
        assert "1 min 1 s" in after
        assert "20 more tasks" not in after  # one is shared now
        assert "19 more tasks" in after

    def test_an_admin_reads_of_no_work_of_their_own(self, queue: Queue, grace: Visitor) -> None:
        text = grace.get(f"/p/{queue.project.slug}/").text
        assert "Your work so far" not in text
        assert "The project" in text
