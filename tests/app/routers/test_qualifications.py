"""Practice, the test and its result over HTTP, and the admin's list of who has passed."""

import re

import pytest
from fastapi.testclient import TestClient

from app import db
from app.models import Project, Purpose, Role
from app.schemas.projects import SchoolSettings
from tests.app import school
from tests.app.queue import Queue
from tests.app.ranking_page import fill, open_page
from tests.app.visitor import Visitor, make_visitor


@pytest.fixture
def home(queue: Queue) -> str:
    return f"/p/{queue.project.slug}/qualification"


@pytest.fixture
def tea(client: TestClient, queue: Queue) -> Visitor:
    return make_visitor(client, queue.project, Role.ADMIN)


def make_school(queue: Queue, purpose: Purpose, **settings: object) -> None:
    """Two tasks for a purpose, the reference of which is the order of the alphabet; and what the project asks for."""
    with db.transaction() as session:
        for number in range(2):
            school.referenced(session, queue, purpose, texts=(f"a {number}", f"b {number}", f"c {number}"))
        project = session.get_one(Project, queue.project.id)
        project.school = {**SchoolSettings(test_tasks=2).model_dump(), **settings}


def answer(visitor: Visitor, path: str, order: str) -> str:
    """Rank a task's outputs by their first letters, best first; gives where that leads."""
    page = visitor.get(path).text
    firsts = [order.index(letter) + 1 for letter in re.findall(r'output-raw" dir="auto">(\w)', page)]
    form = open_page(visitor, path).form("/submit")
    answered = visitor.post(f"{path}/submit", **fill(form, [str(tier) for tier in firsts]))
    assert answered.status_code == 303, answered.text
    return str(answered.headers["location"])


class TestPractice:
    def test_leads_from_each_task_to_its_reference(self, queue: Queue, ada: Visitor, home: str) -> None:
        assert "There are no practice tasks" in ada.get(home).text
        make_school(queue, Purpose.PRACTICE)
        assert "0 of 2 done" in ada.get(home).text
        path = ada.post(f"{home}/practice").headers["location"]
        page = ada.get(path).text
        assert "nothing of this counts" in page
        assert f'action="{path}/skip"' not in page
        shown = answer(ada, path, "bac")
        assert shown == f"{home}/practice/{path.rpartition('/')[2]}"
        text = ada.get(shown).text
        assert re.search(r"2 of 3 pairs", text)
        assert re.search(r"You put (\w) over (\w);\s+the reference puts \2 over \1\.", text)
        assert "<em>a 0</em>" in text
        assert "Because." in text
        assert ada.get(path).headers["location"] == shown
        answer(ada, ada.post(f"{home}/practice").headers["location"], "abc")
        assert ada.post(f"{home}/practice").headers["location"] == home
        assert ada.post(shown).headers["location"] == path
        assert "2 of 2 done" in ada.get(home).text


class TestTest:
    def test_failed_then_passed_then_work(self, queue: Queue, ada: Visitor, tea: Visitor, home: str) -> None:
        make_school(queue, Purpose.QUALIFY, requires_qualification=True)
        rank = f"/p/{queue.project.slug}/rank"
        assert "passed its test" in ada.get(rank).text
        assert "passed its test" in ada.get(f"/p/{queue.project.slug}/demonstrate").text
        assert "passed the test" in ada.get(f"/p/{queue.project.slug}/").text
        assert ada.post(f"{rank}/next").headers["location"] == rank
        for state in ("failed", "passed"):
            path = ada.post(f"{home}/test").headers["location"]
            assert "when the test is over" in ada.get(path).text
            following = answer(ada, path, "abc" if state == "passed" else "cba")
            assert "/tasks/" in following
            assert ada.get(path).headers["location"] == home
            assert "1 of 2 answered" in ada.get(home).text
            result = answer(ada, following, "abc")
            text = ada.get(result).text
            assert ("You passed the test" in text, "You did not pass" in text) == (state == "passed", state == "failed")
            assert ("50.0 %" in text) == (state == "failed")
        assert "Your attempts" in ada.get(home).text
        refused = ada.post(f"{home}/test")
        assert (refused.status_code, "You have passed already" in refused.text) == (409, True)
        assert "/tasks/" in ada.post(f"{rank}/next").headers["location"]
        listed = tea.get(f"/p/{queue.project.slug}/school/people").text
        assert re.search(r"passed</span>.*?100 %.*?2\s+of 2", listed, re.S)

    def test_an_admin_is_told_how_many_tasks_it_takes(self, queue: Queue, tea: Visitor) -> None:
        page = f"/p/{queue.project.slug}/school"
        make_school(queue, Purpose.QUALIFY)
        assert "2 tasks can be in the test; 2 attempts of 2 take 4. A later attempt repeats" in tea.get(page).text
        make_school(queue, Purpose.QUALIFY)
        assert "4 tasks can be in the test; 2 attempts of 2 take 4.</p>" in tea.get(page).text

    def test_an_admin_decides(self, queue: Queue, ada: Visitor, tea: Visitor, home: str) -> None:
        make_school(queue, Purpose.QUALIFY, requires_qualification=True, test_tasks=3)
        people = f"/p/{queue.project.slug}/school/people"
        assert "The test is not ready" in ada.get(home).text
        assert "the test is not ready" in tea.get(f"/p/{queue.project.slug}/school").text
        assert tea.post(f"{people}/{ada.user.uid}/pass").headers["location"] == people
        assert "by hand" in tea.get(people).text
        result = re.search(rf"{home}/attempts/[\w-]+", ada.get(home).text)
        assert result is not None
        assert "opened the work to you" in ada.get(result[0]).text
        tea.post(f"{people}/{ada.user.uid}/reset")
        assert "not taken" in tea.get(people).text
