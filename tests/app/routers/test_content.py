"""Sensitive content over HTTP: agreed to, hidden until shown, left in one click."""

import uuid

import pytest
from sqlalchemy import select, update

from app import db
from app.models import Demonstration, Judgement, Lease, LeaseState, Membership, Project, Prompt, Task, TaskKind
from app.routers.tasks import QUEUES
from tests.app.kinds import PATHS, open_task
from tests.app.queue import Queue
from tests.app.ranking_page import count, open_page, take
from tests.app.visitor import Visitor


def make_sensitive(*needs: str) -> None:
    with db.transaction() as session:
        session.execute(update(Task).values(needs=list(needs)))


def opted_in(visitor: Visitor) -> list[str]:
    with db.transaction() as session:
        return session.scalars(select(Membership.opted_in).where(Membership.user_id == visitor.user.id)).one()


def test_nothing_of_a_task_is_on_the_page_until_it_is_shown(queue: Queue, ada: Visitor, bob: Visitor) -> None:
    make_sensitive("content:hate")
    home = f"/p/{queue.project.slug}"
    assert "not agreed to see: hate" in ada.get(f"{home}/rank").text
    assert ada.post(f"{home}/content", kinds="hate").status_code == 303
    path = take(ada, queue)
    gate = ada.get(path).text
    assert "Hate" in gate
    assert "Name a bird" not in gate
    assert "data-output" not in gate
    assert bob.post(f"{path}/open").status_code == 404
    assert ada.post(f"{path}/open").headers["location"] == path
    page = open_page(ada, path)
    assert page.find_form("/submit") is not None
    assert page.find_form("/leave") is not None


def test_a_project_that_gives_none_out_promises_none(queue: Queue, ada: Visitor) -> None:
    make_sensitive("content:hate")
    with db.transaction() as session:
        project = session.get_one(Project, queue.project.id)
        project.sampling = {**project.sampling, "sensitive_tasks_a_day": 0}
    home = f"/p/{queue.project.slug}"
    ada.post(f"{home}/content", kinds="hate")
    assert "gives to nobody now: hate" in ada.get(f"{home}/rank").text
    assert "gives such tasks to nobody" in ada.get(f"{home}/content").text


@pytest.mark.parametrize("kind", TaskKind)
def test_every_kind_of_task_is_hidden_until_opened_and_left_in_one_click(
    queue: Queue, ada: Visitor, kind: TaskKind
) -> None:
    home = f"/p/{queue.project.slug}"
    with db.transaction() as session:
        if kind in PATHS:
            open_task(session, queue, kind)
        session.execute(update(Task).values(needs=["content:hate"]))
        session.execute(update(Prompt).values(needs=["content:hate"]))
    ada.post(f"{home}/content", kinds="hate")
    path = ada.post(f"{home}/{QUEUES[kind]}/next").headers["location"]
    key = str(uuid.uuid4())
    for answer in (
        ada.get(path),
        ada.post(f"{path}/submit", idempotency_key=key),
        ada.post(f"{path}/submit", **{"idempotency_key": key, "text": "Mine.", "ask-use_case": "open question"}),
    ):
        assert "This task holds sensitive content" in answer.text
        assert "Name a bird" not in answer.text
        assert "/submit" not in answer.text
    assert answer.status_code >= 400
    assert count(Judgement) + count(Demonstration) == 0
    ada.post(open_page(ada, path).form("/open").action)
    page = open_page(ada, path)
    assert page.find_form("/submit") is not None
    leave = page.form("/leave")
    assert ada.post(leave.action).headers["location"] == f"{home}/content?left=hate"
    with db.transaction() as session:
        lease = session.scalars(select(Lease)).one()
        assert (lease.state, lease.opened_at is None) == (LeaseState.SKIPPED, False)


def test_leaving_skips_the_task_and_says_what_was_left(queue: Queue, ada: Visitor, bob: Visitor) -> None:
    make_sensitive("content:hate")
    home = f"/p/{queue.project.slug}"
    ada.post(f"{home}/content", kinds="hate")
    path = take(ada, queue)
    assert bob.post(f"{path}/leave").status_code == 404
    answer = ada.post(f"{path}/leave")
    assert answer.headers["location"] == f"{home}/content?left=hate"
    assert "You get no more tasks with: Hate" in " ".join(
        open_page(ada, answer.headers["location"]).root.text().split()
    )
    assert opted_in(ada) == []


def test_what_is_no_choice_comes_back_as_it_was_sent(queue: Queue, ada: Visitor) -> None:
    home = f"/p/{queue.project.slug}"
    answer = ada.post(f"{home}/content", kinds="hate", daily_limit="many")
    assert answer.status_code == 422
    assert 'value="many"' in answer.text
    assert opted_in(ada) == []
    assert ada.post(f"{home}/content", kinds="blood").status_code == 422
    assert ada.get(f"{home}/content?left=blood").status_code == 422


def test_other_tasks_have_no_step_before_them(queue: Queue, ada: Visitor) -> None:
    make_sensitive()
    page = open_page(ada, take(ada, queue))
    assert page.find_form("/submit") is not None
    assert page.find_form("/leave") is None
