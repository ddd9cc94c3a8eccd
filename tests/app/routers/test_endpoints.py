"""The page of models outside."""

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select

from app import db
from app.models import AuditEntry, Endpoint, Job, Role
from tests.app import registry
from tests.app.queue import Queue
from tests.app.visitor import Visitor, make_visitor
from workers.simulate.page import parse

KEY = "sk-very-secret"


@pytest.fixture
def admin(client: TestClient, queue: Queue) -> Visitor:
    return make_visitor(client, queue.project, Role.ADMIN)


def page(queue: Queue) -> str:
    return f"/p/{queue.project.slug}/endpoints"


def form(**others: str) -> dict[str, str]:
    sent = {"name": "Big", "url": "https://models.example.org/v1/chat/completions", "model": "big-1", "key": KEY}
    return sent | {"price_in": "2.5", "price_out": ""} | others


class TestAdd:
    def test_keeps_the_key_sealed_and_shows_it_to_nobody(self, queue: Queue, admin: Visitor) -> None:
        assert admin.post(page(queue), **form()).headers["location"] == page(queue)
        text = admin.get(page(queue)).text
        assert "https://models.example.org/v1" in text and "kept sealed" in text and KEY not in text
        with db.transaction() as session:
            endpoint = session.scalars(select(Endpoint)).one()
            (act,) = session.scalars(select(AuditEntry).where(AuditEntry.action == "add endpoint")).all()
        assert endpoint.url == "https://models.example.org/v1"
        assert (endpoint.price_in, endpoint.price_out) == (2.5, None)
        assert endpoint.sealed_key is not None and KEY.encode() not in endpoint.sealed_key
        assert KEY not in str(act.details)
        assert KEY not in admin.get(f"/p/{queue.project.slug}/audit").text

    @pytest.mark.parametrize(
        ("wrong", "message"),
        [
            ({"name": ""}, "Give it a"),
            ({"name": "x" * 81}, "at most 80 characters"),
            ({"name": "a\u202eb"}, "a character that cannot be seen"),
            ({"url": "http://models.example.org/v1"}, "plain http"),
            ({"url": "file:///etc/passwd"}, "no address of the web"),
            ({"url": "https://2130706433/"}, "is a number"),
            ({"url": "https://me:word@models.example.org/"}, "a user name, a password"),
            ({"url": "https://models.example.org/v1?key=sk-1"}, "Leave out what follows the ? or #"),
            ({"url": "https://models.example.org/v1#x"}, "Leave out what follows the ? or #"),
            ({"url": "https://models.example.org/" + "v" * 460}, "more than 500 characters"),
            ({"model": ""}, "Give it a"),
            ({"key": "two words"}, "one word of plain letters"),
            ({"key": "sk\u00e9"}, "one word of plain letters"),
            ({"price_in": "-1"}, "greater than or equal to 0"),
            ({"price_out": "cheap"}, "valid number"),
            ({"price_out": "inf"}, "finite"),
        ],
    )
    def test_says_what_cannot_be_and_forgets_the_key(
        self, queue: Queue, admin: Visitor, wrong: dict[str, str], message: str
    ) -> None:
        answered = admin.post(page(queue), **form(**wrong))
        assert answered.status_code == 422 and message in answered.text
        assert KEY not in answered.text
        with db.transaction() as session:
            assert session.scalars(select(Endpoint)).all() == []

    def test_a_name_is_taken_once_until_it_is_removed(self, queue: Queue, admin: Visitor) -> None:
        admin.post(page(queue), **form())
        assert "There is an endpoint" in admin.post(page(queue), **form()).text
        assert admin.post(parse(admin.get(page(queue)).text).form("/remove").action).status_code == 303
        assert admin.post(page(queue), **form()).status_code == 303


class TestRemove:
    def test_forgets_the_key(self, queue: Queue, admin: Visitor) -> None:
        admin.post(page(queue), **form())
        action = parse(admin.get(page(queue)).text).form("/remove").action
        admin.post(action)
        assert "No endpoint yet" in admin.get(page(queue)).text
        with db.transaction() as session:
            endpoint = session.scalars(select(Endpoint)).one()
            acts = session.scalars(select(AuditEntry.action).where(AuditEntry.subject_kind == "endpoint")).all()
        assert endpoint.sealed_key is None and endpoint.removed_at is not None
        assert acts == ["add endpoint", "remove endpoint"]
        assert admin.post(action).status_code == 404

    def test_says_beforehand_what_is_lost(self, queue: Queue, admin: Visitor) -> None:
        admin.post(page(queue), **form())
        assert "No plan that is a draft, waits or runs asks it" in admin.get(page(queue)).text
        with db.transaction() as session:
            registry.make_plan(session, queue.project, session.scalars(select(Endpoint)).one())
        text = admin.get(page(queue)).text
        assert "Its key is forgotten at once" in text and "1 plan that is a draft" in text


class TestTest:
    def test_has_a_worker_try_it(self, queue: Queue, admin: Visitor) -> None:
        admin.post(page(queue), **form())
        action = parse(admin.get(page(queue)).text).form("/test").action
        for _ in "a double click":
            assert admin.post(action).headers["location"] == page(queue)
        assert "being tried" in admin.get(page(queue)).text
        with db.transaction() as session:
            assert session.scalars(select(Job.kind)).all() == ["test_endpoint"]
        assert admin.get(f"{page(queue)}?block=live").text.lstrip().startswith('<div id="endpoints"')


def test_researchers_make_plans_with_it_and_do_not_manage_it(client: TestClient, queue: Queue) -> None:
    with db.transaction() as session:
        registry.make_endpoint(session, queue.project, "Big model")
    researcher = make_visitor(client, queue.project, Role.RESEARCHER)
    assert researcher.get(page(queue)).status_code == 403
    assert "Big model" in researcher.get(f"/p/{queue.project.slug}/sampling/new").text
