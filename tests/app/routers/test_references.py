"""The admin's page of tasks with reference answers, over HTTP."""

import json
import re
import threading

import pytest
from fastapi.testclient import TestClient
from httpx import Response
from sqlalchemy import select

from app import db
from app.models import Purpose, ReferencePlace, Role, Task
from app.web.csrf import FIELD
from app.web.deps import SESSION_COOKIE
from tests.app import school
from tests.app.queue import Queue
from tests.app.ranking_page import count
from tests.app.visitor import Visitor, make_visitor
from workers.simulate.page import Form, parse


@pytest.fixture
def tea(client: TestClient, queue: Queue) -> Visitor:
    return make_visitor(client, queue.project, Role.ADMIN)


def form_at(visitor: Visitor, path: str) -> Form:
    return parse(visitor.get(path).text, path).form(path)


def fill(form: Form, *tiers: str, **others: str) -> dict[str, str]:
    names = [name for name in form.choices if name.startswith("tier-")]
    sent = {name: values[-1] for name, values in form.filled().items() if values}
    return sent | dict(zip(names, tiers, strict=True)) | others


class TestMakingOne:
    def test_of_a_ranked_task(self, queue: Queue, tea: Visitor) -> None:
        home = f"/p/{queue.project.slug}/school"
        assert "No task has a reference answer yet" in tea.get(home).text
        with db.transaction() as session:
            of = school.ranked(session, queue)
        assert str(of.uid) in tea.get(f"{home}/choose").text
        assert "No ranked task has these words" in tea.get(f"{home}/choose?q=zebra").text
        path = f"{home}/from/{of.uid}"
        form = form_at(tea, path)
        refused = tea.post(path, **fill(form, "1", "", "2", purpose="gold", explanation="So <b>it</b> is."))
        assert refused.status_code == 422
        assert "Choose a tier from 1 to 3" in refused.text
        assert "So &lt;b&gt;it&lt;/b&gt; is." in refused.text
        made = tea.post(path, **fill(form, "1", "2", "2", purpose="gold", explanation="So it is."))
        assert made.headers["location"] == f"{home}?purpose=gold&added=1"
        assert "1 task added" in tea.get(made.headers["location"]).text
        assert "No task is for this yet" in tea.get(f"{home}?purpose=practice").text
        assert "used already" in tea.get(f"{home}/choose").text

    def test_a_double_click_makes_one(self, queue: Queue, tea: Visitor) -> None:
        with db.transaction() as session:
            of = school.ranked(session, queue)
        path = f"/p/{queue.project.slug}/school/from/{of.uid}"
        sent = fill(form_at(tea, path), "1", "2", "2", purpose="gold")
        answers: list[Response] = []
        threads = [threading.Thread(target=lambda: answers.append(tea.post(path, **sent))) for _ in "ab"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        made, refused = sorted(answers, key=lambda answer: answer.status_code)
        assert (made.status_code, refused.status_code) == (303, 409)
        with db.transaction() as session:
            uid = session.scalars(select(Task.uid).where(Task.purpose == Purpose.GOLD)).one()
        assert f"/school/references/{uid}" in refused.text

    def test_asks_what_it_is_for(self, queue: Queue, tea: Visitor) -> None:
        with db.transaction() as session:
            of = school.ranked(session, queue)
        path = f"/p/{queue.project.slug}/school/from/{of.uid}"
        for purpose in ("", "train", "evaluate"):
            answer = tea.post(path, **fill(form_at(tea, path), "1", "2", "2", purpose=purpose))
            assert (answer.status_code, "Say what the task is for" in answer.text) == (422, True)
        assert count(ReferencePlace) == 0


class TestChangingOne:
    def test_stores_a_version_and_retires(self, queue: Queue, tea: Visitor) -> None:
        with db.transaction() as session:
            task = school.referenced(session, queue)
        path = f"/p/{queue.project.slug}/school/references/{task.uid}"
        form = form_at(tea, path)
        sent = fill(form, "1", "1", "2")
        assert tea.post(path, **sent).headers["location"] == f"{path}?saved=2"
        assert "Version 2 is stored" in tea.get(f"{path}?saved=2").text
        assert tea.post(path, **sent).status_code == 409
        tea.post(f"{path}/use")
        assert "This task is retired" in tea.get(path).text
        tea.post(f"{path}/use", is_used="true")
        assert "This task is retired" not in tea.get(path).text

    def test_warns_where_a_labeller_could_count(self, queue: Queue, tea: Visitor) -> None:
        with db.transaction() as session:
            task = school.referenced(session, queue)
        path = f"/p/{queue.project.slug}/school/references/{task.uid}"
        assert re.search(r"has 3 responses, the project.{1,6}s tasks have 4", tea.get(path).text)


class TestImporting:
    def send(self, visitor: Visitor, queue: Queue, text: str, purpose: str = "practice") -> Response:
        return visitor.client.post(
            f"/p/{queue.project.slug}/school/import",
            data={FIELD: visitor.csrf_token, "purpose": purpose},
            files={"file": ("gold.jsonl", text.encode())},
            headers={"Cookie": f"{SESSION_COOKIE}={visitor.token}"},
        )

    def test_as_a_whole_or_by_line(self, queue: Queue, tea: Visitor) -> None:
        good = json.dumps({"prompt": "Hi", "responses": [{"text": "a", "tier": 1}, {"text": "b", "tier": 2}]})
        refused = self.send(tea, queue, f"{good}\nno")
        assert refused.status_code == 422
        assert "1 of 2 lines" in refused.text
        assert "not JSON" in refused.text
        assert "Say what the task is for" in self.send(tea, queue, good, "").text
        with db.transaction() as session:
            assert session.scalar(select(Task).where(Task.purpose == Purpose.PRACTICE)) is None
        added = self.send(tea, queue, good)
        assert added.headers["location"].endswith("/school?purpose=practice&added=1")
