"""Failures as people and as programs see them."""

from pathlib import Path
from unittest.mock import Mock

import psycopg
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import create_engine
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from app import db
from app.models import Role
from app.routers import accounts as accounts_router
from app.services import accounts
from tests.app import registry
from tests.app.visitor import make_visitor


def test_a_browser_gets_a_page(client: TestClient) -> None:
    response = client.get("/nowhere", headers={"Accept": "text/html"})
    assert response.status_code == 404
    assert "<h1>There is nothing here</h1>" in response.text


def test_a_program_gets_problem_json(client: TestClient) -> None:
    response = client.get("/p/x/", headers={"Accept": "application/json"})
    assert response.status_code == 401
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json() == {
        "type": "about:blank",
        "title": "Sign in first",
        "status": 401,
        "detail": "Sign in to see this page.",
    }


def test_a_visitor_comes_back_after_signing_in(client: TestClient) -> None:
    response = client.get("/p/x/audit?action=a%20b")
    assert response.status_code == 303
    assert response.headers["location"] == "/login?next=/p/x/audit%3Faction%3Da%2520b"


def test_a_form_of_a_session_that_ended_leads_back_to_its_page(client: TestClient) -> None:
    headers = {"Cookie": "preferable_session=ended", "Referer": "http://testserver/p/x/tasks/1"}
    response = client.post("/p/x/tasks/1/submit", data={"csrf_token": "former"}, headers=headers)
    assert (response.status_code, response.headers["location"]) == (303, "/login?next=/p/x/tasks/1")
    elsewhere = headers | {"Referer": "https://evil.example/p/x"}
    response = client.post("/p/x/tasks/1/submit", data={"csrf_token": "former"}, headers=elsewhere)
    assert response.headers["location"] == "/login"


def test_a_database_that_is_down_is_said(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = create_engine("postgresql+psycopg://nobody@127.0.0.1:1/nothing")
    monkeypatch.setattr("app.web.deps.transaction", lambda: db.transaction(gone))
    response = client.get("/p/x/", headers={"Cookie": "preferable_session=x"})
    assert response.status_code == 503
    assert "The database does not answer" in response.text
    assert response.headers["retry-after"] == "5"
    assert client.get("/healthz").status_code == 503


@pytest.mark.parametrize(
    "error",
    [
        OperationalError("SELECT", {}, psycopg.errors.DeadlockDetected("deadlock detected")),
        OperationalError("SELECT", {}, psycopg.errors.SerializationFailure("could not serialize access")),
        PoolTimeoutError("QueuePool limit of size 16 overflow 2 reached"),
    ],
)
def test_what_passes_is_to_be_tried_again(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(accounts, "check_login_link", Mock(side_effect=error))
    response = client.get("/enter/x")
    assert (response.status_code, response.headers["retry-after"]) == (503, "5")


def test_htmx_is_sent_to_sign_in_as_a_whole_page(client: TestClient) -> None:
    page = {"HX-Request": "true", "Referer": "http://testserver/p/x/rank"}
    response = client.get("/p/x/rank?block=queue", headers=page)
    assert (response.status_code, response.headers["hx-redirect"]) == (401, "/login?next=/p/x/rank")


def test_htmx_gets_the_message_without_the_page_around_it(client: TestClient) -> None:
    text = client.get("/nowhere", headers={"HX-Request": "true"}).text
    assert "There is nothing here" in text
    assert "<html" not in text


def test_a_value_that_cannot_be_stored_is_said(client: TestClient, tmp_path: Path) -> None:
    with db.transaction() as session:
        project, _ = registry.make_project(session, tmp_path)
    owner = make_visitor(client, project, Role.OWNER)
    for response in (
        owner.get(f"/p/{project.slug}/guidelines?version={10**20}"),
        owner.post("/login", email="ada\x00@example.org", password="a long password"),
    ):
        assert response.status_code == 422
        assert "Nothing was stored" in response.text


def test_half_a_character_is_refused(client: TestClient, tmp_path: Path) -> None:
    with db.transaction() as session:
        project, _ = registry.make_project(session, tmp_path)
    owner = make_visitor(client, project, Role.OWNER)
    part = '--x\r\nContent-Disposition: form-data; name="{}"\r\n\r\n{}\r\n'
    body = part.format("csrf_token", owner.csrf_token.replace("+", "+-")) + part.format("name", "+2AA-") + "--x--\r\n"
    response = client.post(
        "/account/profile",
        content=body,
        headers={
            "Cookie": f"preferable_session={owner.token}",
            "Content-Type": "multipart/form-data; charset=utf-7; boundary=x",
        },
    )
    assert response.status_code == 422
    assert "Nothing was stored" in response.text


def test_an_error_inside_a_project_keeps_its_navigation(client: TestClient, tmp_path: Path) -> None:
    with db.transaction() as session:
        project, _ = registry.make_project(session, tmp_path)
    visitor = make_visitor(client, project, Role.LABELLER)
    response = visitor.get(f"/p/{project.slug}/people")
    assert response.status_code == 403
    assert f'href="/p/{project.slug}/rank"' in response.text
    assert "manage people" in response.text


def test_a_failure_of_ours_tells_nothing_of_its_inside(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("the inside")

    monkeypatch.setattr(accounts_router.accounts, "check_login_link", fail)
    quiet = TestClient(client.app, raise_server_exceptions=False)
    response = quiet.get("/enter/x")
    assert response.status_code == 500
    assert "Something broke on our side" in response.text
    assert "the inside" not in response.text
    assert response.headers["x-content-type-options"] == "nosniff"


def test_what_was_done_before_a_refusal_is_undone(client: TestClient) -> None:
    with db.transaction() as session:
        owner = accounts.ensure_owner(session)
        path = accounts.create_login_link(session, owner)
    client.post(path)  # without its form's token: refused, and the link is still good
    assert client.get(path).status_code == 200


class TestHealth:
    def test_is_well_on_a_migrated_database(self, client: TestClient) -> None:
        response = client.get("/healthz")
        assert response.status_code == 200
        assert response.json()["status"] == "ok"

    def test_waits_for_migrations(self, client: TestClient, database_url: str) -> None:
        from alembic import command

        command.downgrade(db.migration_config(database_url), "base")
        response = client.get("/healthz")
        assert response.status_code == 503
        assert response.json()["status"] == "starting"
