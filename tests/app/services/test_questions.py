"""Questions about tasks: kept once, answered once, and never in the way of the work they are about."""

import uuid
from pathlib import Path

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.errors import BadInput, Conflict, Forbidden, NotFound, TooMany
from app.models import AuditEntry, LeaseState, Phase, Question, QuestionKind, QuestionState, Role, TaskState
from app.permissions import Access
from app.services import guidelines, judgements, notices, questions, tasks
from tests.app import registry
from tests.app.queue import Queue, make_queue, rank, take


@pytest.fixture
def queue(session: Session, tmp_path: Path) -> Queue:
    return make_queue(session, tmp_path)


@pytest.fixture
def admin(session: Session, queue: Queue) -> Access:
    return registry.access_of(registry.make_user(session, name="Grace"), queue.project, Role.ADMIN)


def ask(
    session: Session,
    access: Access,
    work: tasks.Work,
    text: str = "Is A cut off?",
    *,
    kind: QuestionKind = QuestionKind.QUESTION,
    key: uuid.UUID | None = None,
) -> Question:
    return questions.ask(session, access, work.task.uid, kind=kind, text=text, key=key or uuid.uuid4())


class TestAsk:
    def test_is_stored_once_for_one_key(self, session: Session, queue: Queue) -> None:
        queue.task(session)
        ada, key = queue.person(session), uuid.uuid4()
        work = take(session, ada)
        first = ask(session, ada, work, " Is it\r\ncut off? ", key=key)
        assert ask(session, ada, work, "Is it\ncut off?", key=key).id == first.id
        assert (first.text, first.state) == ("Is it\ncut off?", QuestionState.OPEN)

    def test_a_key_is_of_one_task_and_person(self, session: Session, queue: Queue) -> None:
        queue.task(session, wanted=2)
        ada, bob, key = queue.person(session), queue.person(session), uuid.uuid4()
        ask(session, ada, take(session, ada), key=key)
        with pytest.raises(Conflict, match="another task"):
            ask(session, bob, take(session, bob), key=key)

    def test_is_refused_where_the_task_was_not_theirs(self, session: Session, queue: Queue) -> None:
        queue.task(session)
        work = take(session, queue.person(session))
        with pytest.raises(NotFound):
            ask(session, queue.person(session), work)

    @pytest.mark.parametrize("text", ["", " \n\x00", "x" * 2001])
    def test_needs_a_text_of_some_length(self, session: Session, queue: Queue, text: str) -> None:
        queue.task(session)
        ada = queue.person(session)
        with pytest.raises(BadInput) as caught:
            ask(session, ada, take(session, ada), text)
        assert caught.value.field == "question"

    def test_only_so_many_may_wait(self, session: Session, queue: Queue, admin: Access) -> None:
        queue.task(session)
        ada = queue.person(session)
        work = take(session, ada)
        asked = [ask(session, ada, work) for _ in range(questions.MOST_OPEN)]
        with pytest.raises(TooMany):
            ask(session, ada, work)
        questions.close(session, admin, asked[0].uid)
        ask(session, ada, work)


class TestAnswer:
    def test_is_new_to_the_asker_until_they_look(self, session: Session, queue: Queue, admin: Access) -> None:
        queue.task(session)
        ada = queue.person(session)
        work = take(session, ada)
        question = ask(session, ada, work)
        work = tasks.find_work(session, ada, work.task.uid)
        assert [row.is_new for row in questions.look_at(session, ada, work)] == [False]
        questions.answer(session, admin, question.uid, "Yes: rank what is there.")
        assert [row.question.id for row in questions.list_unread(session, ada)] == [question.id]
        assert [row.is_new for row in questions.look_at(session, ada, work)] == [True]
        assert not questions.list_unread(session, ada)
        session.refresh(question)
        questions.answer(session, admin, question.uid, "No, it is whole.")
        assert len(questions.list_unread(session, ada)) == 1

    def test_is_nobody_else_s(self, session: Session, queue: Queue, admin: Access) -> None:
        queue.task(session, wanted=2)
        ada, bob = queue.person(session), queue.person(session)
        question = ask(session, ada, take(session, ada))
        questions.answer(session, admin, question.uid, "Yes.")
        work = take(session, bob)
        assert not questions.look_at(session, bob, work)
        assert not questions.list_unread(session, bob)
        assert questions.page_own(session, bob, before=None, limit=10) == ([], False)
        with pytest.raises(Forbidden):
            questions.answer(session, bob, question.uid, "No.")

    def test_stands_against_closing(self, session: Session, queue: Queue, admin: Access) -> None:
        queue.task(session)
        ada = queue.person(session)
        question = ask(session, ada, take(session, ada))
        questions.answer(session, admin, question.uid, "Yes.")
        with pytest.raises(Conflict):
            questions.close(session, admin, question.uid)


class TestRetireTask:
    def test_strands_no_draft_and_tells_who_has_one(self, session: Session, queue: Queue, admin: Access) -> None:
        task = queue.task(session, wanted=3)
        ada, bob, eve = (queue.person(session) for _ in range(3))
        report = ask(session, ada, take(session, ada), kind=QuestionKind.BROKEN)
        work = take(session, bob)
        tasks.save_draft(session, bob, task.uid, {"note": "half way"})
        questions.retire_task(session, admin, report.uid)
        questions.retire_task(session, admin, report.uid)

        assert task.state == TaskState.RETIRED
        assert [row.task for row in notices.list_unread(session, bob)] == [task.uid]
        assert not notices.list_unread(session, ada)  # who reported it gets an answer instead
        assert [row.question.answer for row in questions.list_unread(session, ada)] == [questions.RETIRED_ANSWER]
        assert tasks.lease_next(session, eve, task.kind) is None
        assert tasks.find_work(session, bob, task.uid).draft == {"note": "half way"}
        judgements.submit_ranking(session, bob, task.uid, rank(work))
        session.refresh(work.lease)
        assert work.lease.state == LeaseState.SUBMITTED
        actions = session.scalars(select(AuditEntry.action).where(AuditEntry.project_id == queue.project.id)).all()
        assert sorted(actions) == ["answer question", "retire task"]

    def test_a_notice_is_put_away_by_whom_it_is_for(self, session: Session, queue: Queue, admin: Access) -> None:
        queue.task(session, wanted=2)
        ada, bob = queue.person(session), queue.person(session)
        report = ask(session, ada, take(session, ada))
        take(session, bob)
        questions.retire_task(session, admin, report.uid)
        (row,) = notices.list_unread(session, bob)
        with pytest.raises(NotFound):
            notices.put_away(session, ada, row.notice.uid)
        notices.put_away(session, bob, row.notice.uid)
        notices.put_away(session, bob, row.notice.uid)
        assert not notices.list_unread(session, bob)


class TestAsExample:
    def test_quotes_what_people_typed(self, session: Session, queue: Queue, admin: Access) -> None:
        queue.task(session)
        ada = queue.person(session)
        question = ask(session, ada, take(session, ada), "Tie?\n# Both are *fine*")
        with pytest.raises(Conflict, match="no answer"):
            questions.as_example(session, admin, question.uid)
        questions.answer(session, admin, question.uid, "Tie them.")
        text = questions.as_example(session, admin, question.uid)
        assert text == "### Tie? # Both are *fine*\n\n> Name a bird.\n\n> Tie?\n> # Both are *fine*\n\nTie them."
        published = guidelines.publish(session, queue.project, body=text, phase=Phase.TRAIN, author=admin.user)
        questions.take_in(session, admin, question.uid, published)
        assert question.guideline_id == published.id
