"""Asking about a task over HTTP, and the admins' inbox."""

import pytest
from fastapi.testclient import TestClient
from httpx import Response
from sqlalchemy import select

from app import db
from app.models import Draft, Guideline, Question, QuestionState, Role, Task, TaskState
from tests.app.queue import Queue
from tests.app.ranking_page import HOSTILE, count, fill, open_page, submit, take
from tests.app.visitor import Visitor, make_visitor


@pytest.fixture
def grace(client: TestClient, queue: Queue) -> Visitor:
    return make_visitor(client, queue.project, Role.ADMIN)


def ask(visitor: Visitor, path: str, text: str, kind: str = "question", **fields: str) -> Response:
    key = open_page(visitor, path).form("/submit").values["idempotency_key"][-1]
    sent = {"idempotency_key": key, **fields, "question": text, "question_kind": kind}
    return visitor.post(f"{path}/ask", **sent)


def only_question() -> Question:
    with db.transaction() as session:
        return session.scalars(select(Question)).one()


class TestAsk:
    def test_keeps_what_was_chosen_and_comes_back_to_the_task(self, queue: Queue, ada: Visitor) -> None:
        path = take(ada, queue)
        sent = fill(open_page(ada, path).form("/submit"), ["2", "x", ""], note="half way")
        answers = [ada.post(f"{path}/ask", **{**sent, "question": "Why?", "question_kind": "question"}) for _ in "ab"]
        assert [answer.headers["location"] for answer in answers] == [f"{path}#asked"] * 2
        assert count(Question) == 1
        page = open_page(ada, path)
        assert "Waits for an admin" in page.root.text()
        assert page.form("/submit").values["note"] == ("half way",)
        assert [value for name, value in page.form("/submit").values.items() if name.startswith("tier-")] == [
            ("2",),
            ("x",),
            ("",),
        ]

    @pytest.mark.parametrize(
        ("text", "kind", "says"), [("", "question", "empty"), ("Why?", "appeal", "broken"), ("Why?", "?", "broken")]
    )
    def test_what_cannot_be_sent_is_shown_again_and_the_draft_is_kept(
        self, queue: Queue, ada: Visitor, text: str, kind: str, says: str
    ) -> None:
        path = take(ada, queue)
        sent = fill(open_page(ada, path).form("/submit"), ["1", "", ""])
        answer = ada.post(f"{path}/ask", **{**sent, "question": text, "question_kind": kind})
        assert answer.status_code == 422
        assert says in answer.text
        assert (count(Question), count(Draft)) == (0, 1)

    def test_a_page_without_a_key_is_asked_again(self, queue: Queue, ada: Visitor) -> None:
        path = take(ada, queue)
        answer = ada.post(f"{path}/ask", question="Why?", question_kind="question", idempotency_key="none")
        assert (answer.status_code, count(Question)) == (422, 0)

    def test_works_from_a_demonstration_and_keeps_its_text(self, queue: Queue, ada: Visitor) -> None:
        path = ada.post(f"/p/{queue.project.slug}/demonstrate/next").headers["location"]
        form = open_page(ada, path).form("/submit")
        sent = {"idempotency_key": form.values["idempotency_key"][-1], "text": "A wren"}
        answer = ada.post(
            path.replace("/demonstrate/", "/tasks/") + "/ask", **sent, question="How long?", question_kind="question"
        )
        assert answer.status_code == 303
        page = open_page(ada, path)
        assert page.form("/submit").values["text"][-1].strip() == "A wren"
        assert "How long?" in page.root.text()

    def test_works_after_the_submit(self, queue: Queue, ada: Visitor) -> None:
        path = take(ada, queue)
        submit(ada, path, ["1", "2", "3"])
        form = open_page(ada, path).form("/ask")
        sent = {name: values[-1] for name, values in form.filled().items() if values}
        assert ada.post(f"{path}/ask", **{**sent, "question": HOSTILE, "question_kind": "broken"}).status_code == 303
        assert "<script>alert" not in ada.get(path).text


class TestInbox:
    def test_an_answer_reaches_who_asked_and_nobody_else(
        self, queue: Queue, ada: Visitor, bob: Visitor, grace: Visitor
    ) -> None:
        path, inbox = take(ada, queue), f"/p/{queue.project.slug}/inbox"
        ask(ada, path, f"Is A cut off? {HOSTILE}")
        text = grace.get(inbox).text
        assert "Is A cut off?" in text
        assert "<script>alert" not in text
        place = f"{inbox}/{only_question().uid}"
        page = open_page(grace, place)
        assert "Name a bird." in page.root.text()
        assert "Is A cut off?" in page.root.text()
        assert grace.post(f"{place}/answer", answer=" ").status_code == 422
        assert grace.post(f"{place}/answer", answer="Rank what is there.").status_code == 303
        assert "Is A cut off?" not in grace.get(inbox).text
        assert "Is A cut off?" in grace.get(f"{inbox}?state=answered&kind=question").text
        assert "Is A cut off?" not in grace.get(f"{inbox}?state=answered&kind=broken").text
        assert "not seen yet" in grace.get(place).text
        first, second = ada.get(path).text, ada.get(path).text
        assert "An admin answered your question" in first
        assert "An admin answered your question" not in second
        assert "Rank what is there." in second
        assert "not seen yet" not in grace.get(place).text
        own = f"/p/{queue.project.slug}/questions"
        assert "Rank what is there." in ada.get(own).text
        assert "Rank what is there." not in bob.get(own).text

    def test_pages_by_key_from_the_oldest_that_waits(
        self, queue: Queue, ada: Visitor, grace: Visitor, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("app.routers.questions.PAGE_LENGTH", 2)
        path, inbox = take(ada, queue), f"/p/{queue.project.slug}/inbox"
        for text in ("number one", "number two", "number three"):
            ask(ada, path, text)
        first = grace.get(inbox).text
        assert first.index("number one") < first.index("number two")
        assert "number three" not in first
        with db.transaction() as session:
            second = session.scalars(select(Question).order_by(Question.id)).all()[1]
        assert f"after={second.id}" in first
        rest = grace.get(f"{inbox}?state=open&kind=&after={second.id}").text
        assert "number three" in rest
        assert "number two" not in rest
        own = f"/p/{queue.project.slug}/questions"
        assert "before=" in ada.get(own).text
        monkeypatch.setattr("app.routers.questions.PAGE_LENGTH", 3)
        assert "before=" not in ada.get(own).text

    def test_what_cannot_be_a_filter_is_refused(self, queue: Queue, grace: Visitor) -> None:
        inbox = f"/p/{queue.project.slug}/inbox"
        for query in ("state=x", "kind=x", "after=0", "after=9999999999999999999"):
            assert grace.get(f"{inbox}?{query}").status_code == 422

    def test_closes_without_an_answer(self, queue: Queue, ada: Visitor, grace: Visitor) -> None:
        path = take(ada, queue)
        ask(ada, path, "Hello?")
        place = f"/p/{queue.project.slug}/inbox/{only_question().uid}"
        assert grace.post(f"{place}/close").status_code == 303
        assert only_question().state == QuestionState.CLOSED
        assert "settled your question" in ada.get(path).text

    def test_a_retired_task_says_so_to_who_holds_it(
        self, queue: Queue, ada: Visitor, bob: Visitor, grace: Visitor
    ) -> None:
        with db.transaction() as session:
            for task in session.scalars(select(Task)):
                task.judgements_wanted = 2
        path = take(ada, queue)
        assert take(bob, queue) == path
        ask(ada, path, "The second is empty.", "broken")
        place = f"/p/{queue.project.slug}/inbox/{only_question().uid}"
        assert grace.post(f"{place}/retire").status_code == 303
        assert "The task is retired" in grace.get(place).text
        assert "retired while you had it" in bob.get(path).text
        assert bob.post(f"{path}/release").status_code == 303
        assert take(bob, queue) != path
        with db.transaction() as session:
            retired = session.scalars(select(Task).where(Task.state == TaskState.RETIRED)).one()
            assert path.endswith(str(retired.uid))

    def test_an_answer_becomes_a_guideline_example(self, queue: Queue, ada: Visitor, grace: Visitor) -> None:
        path, home = take(ada, queue), f"/p/{queue.project.slug}"
        ask(ada, path, "Tie or not?")
        uid = only_question().uid
        assert grace.get(f"{home}/guidelines/edit?example={uid}").status_code == 409
        grace.post(f"{home}/inbox/{uid}/answer", answer="Tie them.")
        form = open_page(grace, f"{home}/guidelines/edit?example={uid}").form("/guidelines")
        sent = {name: values[-1] for name, values in form.filled().items() if values}
        assert "> Tie or not?" in sent["body"]
        shown = grace.post(f"{home}/guidelines", **{**sent, "act": "preview"}).text
        assert f'value="{uid}"' in shown
        assert grace.post(f"{home}/guidelines", **{**sent, "act": "publish"}).status_code == 303
        with db.transaction() as session:
            guideline = session.scalars(select(Guideline)).one()
        assert only_question().guideline_id == guideline.id
        assert "example in the guidelines" in grace.get(f"{home}/inbox/{uid}").text
        assert "example in the guidelines" in ada.get(f"{home}/questions").text
