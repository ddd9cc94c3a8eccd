"""Gold tasks over HTTP: not to be told from others; a miss in the history, an appeal, and its decision."""

import re

import pytest
from fastapi.testclient import TestClient

from app import db
from app.models import Project, Purpose, Role
from app.schemas.projects import SchoolSettings
from app.services import gold
from tests.app import school
from tests.app.queue import Queue
from tests.app.ranking_page import fill, open_page, take
from tests.app.visitor import Visitor, make_visitor
from workers.simulate.page import parse

UID = r"[0-9a-f]{8}-[0-9a-f-]{27}"


@pytest.fixture
def tea(client: TestClient, queue: Queue) -> Visitor:
    return make_visitor(client, queue.project, Role.ADMIN)


def make_gold(queue: Queue, monkeypatch: pytest.MonkeyPatch, *draws: float, number: int = 0) -> None:
    """A gold task, and what the draws of the next leases give."""
    given = iter(draws)
    monkeypatch.setattr(gold, "draw", lambda key: next(given, 0.99))
    with db.transaction() as session:
        school.referenced(session, queue, Purpose.GOLD, texts=[f"{letter} {number}" for letter in "abc"])
        project = session.get_one(Project, queue.project.id)
        project.school = SchoolSettings(gold_rate=0.5, shows_gold_misses=True).model_dump()


def answer(visitor: Visitor, path: str, order: str) -> None:
    page = visitor.get(path).text
    firsts = [str(order.index(letter) + 1) for letter in re.findall(r'output-raw" dir="auto">(\w)', page)]
    assert visitor.post(f"{path}/submit", **fill(open_page(visitor, path).form("/submit"), firsts)).status_code == 303


def test_its_page_is_like_any_other(queue: Queue, ada: Visitor, bob: Visitor, monkeypatch: pytest.MonkeyPatch) -> None:
    make_gold(queue, monkeypatch, 0.0, 0.99)
    with db.transaction() as session:
        queue.task(session, ("a 1", "b 1", "c 1"), priority=9)
    pages = []
    for visitor in (ada, bob):  # a gold task, and one that is none
        path = take(visitor, queue)
        text = visitor.get(path).text
        text = text.replace(visitor.csrf_token, "token").replace(str(visitor.user.uid), "person")
        text = re.sub(r"(?<=output-raw\" dir=\"auto\">)\w \d|<p>\w \d</p>", "text", re.sub(UID, "uid", text))
        pages.append(re.sub(r"<time .*?</time>", "time", text))
    assert pages[0] == pages[1]


def test_a_miss_is_appealed_and_upheld(
    queue: Queue, ada: Visitor, bob: Visitor, tea: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_gold(queue, monkeypatch, 0.0)
    home = f"/p/{queue.project.slug}"
    path = take(ada, queue)
    answer(ada, path, "cba")
    assert f'href="{path}/miss"' in ada.get(f"{home}/history").text
    assert "/miss" not in bob.get(f"{home}/history").text
    text = ada.get(f"{path}/miss").text
    assert re.search(r"0 of 3 pairs", text)
    assert bob.get(f"{path}/miss").status_code == 404
    assert bob.post(f"{path}/appeal", body="Mine.").status_code == 404
    assert ada.post(f"{path}/appeal", body=" ").status_code == 422
    assert "Nobody has appealed" in tea.get(f"{home}/school/appeals").text
    assert "appeal waits" not in tea.get(f"{home}/").text
    ada.post(f"{path}/appeal", body="<b>Only c answers.</b>")
    assert "waits for an admin" in ada.get(f"{path}/miss").text
    assert ada.post(f"{path}/appeal", body="Again.").status_code == 409
    assert "One appeal waits" in tea.get(f"{home}/").text
    assert re.search(rf'{home}/school/appeals">Appeals <span class="tab-count">1<', tea.get(f"{home}/inbox").text)
    found = re.search(rf"{home}/school/appeals/({UID})", tea.get(f"{home}/school/appeals").text)
    assert found is not None
    at = found[0]
    page = tea.get(at).text
    assert "&lt;b&gt;Only c answers.&lt;/b&gt;" in page
    form = parse(page, at).form(f"{at}/uphold")
    names = [name for name in form.choices if name.startswith("tier-")]
    sent = {name: values[-1] for name, values in form.filled().items() if values}
    assert tea.post(f"{at}/uphold", **{**sent, names[0]: ""}).status_code == 422
    assert tea.post(f"{at}/decline").status_code == 422
    right = dict(zip(names, ("3", "2", "1"), strict=True))
    assert (
        tea.post(f"{at}/uphold", **{**sent, **right, "reply": "True."}).headers["location"] == f"{home}/school/appeals"
    )
    assert "One appeal waits" not in tea.get(f"{home}/").text
    told = ada.get(f"{home}/").text
    assert "about a gold task was upheld" in told
    assert f'href="{path}/miss"' in told
    assert "about a gold task" not in bob.get(f"{home}/").text
    assert "was upheld" in ada.get(f"{path}/miss").text
    assert "True." in ada.get(f"{path}/miss").text
    assert "appeal upheld" in ada.get(f"{home}/history").text
    assert tea.post(f"{at}/decline", reply="No.").status_code == 409
    people = re.sub(r"<.*?>", "", tea.get(f"{home}/school/people").text)
    assert re.search(r"100\s% 1 task, 0 misses", people)
    ada.post(f"{take(ada, queue)}/release")  # the one that came after it
    make_gold(queue, monkeypatch, 0.0, number=9)
    answer(ada, take(ada, queue), "cba")
    people = re.sub(r"<.*?>", "", tea.get(f"{home}/school/people").text)
    assert re.search(r"50\s% 0\s%–100\s%, 2 tasks, 1 miss\b", people)
