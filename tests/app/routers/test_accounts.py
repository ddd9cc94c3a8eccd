"""Signing in and out, as a browser does it."""

import re

import pytest
from fastapi.testclient import TestClient
from httpx import Response

from app import db
from app.models import User
from app.schemas.keys import STANDARD, Act, Keys
from app.security import hash_password
from app.services import accounts
from app.web.deps import SESSION_COOKIE
from tests.app.registry import make_user

PASSWORD = "four words in a row"


def submit(client: TestClient, page: str, action: str = "", **fields: str) -> Response:
    """Fill in the form of a page."""
    token = re.search(r'name="csrf_token" value="([^"]+)"', client.get(page).text)
    assert token is not None
    return client.post(action or page, data={"csrf_token": token[1], **fields})


@pytest.fixture
def person(client: TestClient) -> User:
    with db.transaction() as session:
        user = make_user(session)
        user.password_hash = hash_password(PASSWORD)
        return user


@pytest.fixture
def path(client: TestClient) -> str:
    with db.transaction() as session:
        return accounts.create_login_link(session, accounts.ensure_owner(session))


class TestLogin:
    def test_opens_a_session_and_goes_on(self, client: TestClient, person: User) -> None:
        response = submit(client, "/login", email=person.email, password=PASSWORD, next="/projects")
        assert (response.status_code, response.headers["location"]) == (303, "/projects")
        assert person.name in client.get("/projects").text

    def test_the_cookie_is_out_of_reach(self, client: TestClient, person: User) -> None:
        cookie = submit(client, "/login", email=person.email, password=PASSWORD).headers["set-cookie"].lower()
        assert cookie.startswith(SESSION_COOKIE)
        assert "httponly" in cookie
        assert "samesite=lax" in cookie

    def test_the_session_before_is_not_carried_over(self, client: TestClient, person: User) -> None:
        submit(client, "/login", email=person.email, password=PASSWORD)
        former = client.cookies[SESSION_COOKIE]
        client.cookies.delete(SESSION_COOKIE)
        submit(client, "/login", email=person.email, password=PASSWORD)
        assert client.cookies[SESSION_COOKIE] != former

    def test_a_wrong_password_keeps_what_was_typed(self, client: TestClient, person: User) -> None:
        response = submit(client, "/login", email=person.email, password="wrong", next="/projects")
        assert response.status_code == 422
        assert f'value="{person.email}"' in response.text
        assert 'value="/projects"' in response.text
        assert "wrong" not in re.sub(r"<[^>]+>", "", response.text).split("do not belong together")[0]

    @pytest.mark.parametrize("target", ["https://evil.example/", "//evil.example", "/\\evil.example"])
    def test_never_leads_away(self, client: TestClient, person: User, target: str) -> None:
        response = submit(client, "/login", email=person.email, password=PASSWORD, next=target)
        assert response.headers["location"] == "/"
        assert client.get("/login", params={"next": target}).headers["location"] == "/"

    def test_without_the_form_nothing_happens(self, client: TestClient, person: User) -> None:
        response = client.post("/login", data={"email": person.email, "password": PASSWORD})
        assert response.status_code == 403
        assert SESSION_COOKIE not in client.cookies

    def test_a_form_of_another_browser_does_not_count(self, client: TestClient, person: User) -> None:
        token = re.search(r'name="csrf_token" value="([^"]+)"', client.get("/login").text)
        assert token is not None
        client.cookies.clear()
        response = client.post("/login", data={"csrf_token": token[1], "email": person.email, "password": PASSWORD})
        assert response.status_code == 403

    def test_too_many_tries_say_when_to_come_back(self, client: TestClient, person: User) -> None:
        for _ in range(9):
            response = submit(client, "/login", email=person.email, password="wrong")
        assert response.status_code == 429
        assert int(response.headers["retry-after"]) > 0


class TestEnter:
    def test_one_button_signs_in_once(self, client: TestClient, path: str) -> None:
        assert client.get(path).status_code == 200
        assert submit(client, path).headers["location"] == "/"
        assert client.get("/projects").status_code == 200
        assert client.get(path).status_code == 404

    def test_a_head_request_or_a_look_uses_nothing_up(self, client: TestClient, path: str) -> None:
        client.head(path)
        client.get(path)
        assert submit(client, path).status_code == 303


class TestLogout:
    def test_the_session_is_gone_on_the_server(self, client: TestClient, path: str) -> None:
        submit(client, path)
        token = client.cookies[SESSION_COOKIE]
        assert submit(client, "/account", "/logout").headers["location"] == "/login"
        client.cookies.set(SESSION_COOKIE, token)
        assert client.get("/projects").status_code == 303


class TestAccount:
    def test_a_password_is_set_and_this_browser_stays(self, client: TestClient, path: str) -> None:
        submit(client, path)
        former = client.cookies[SESSION_COOKIE]
        response = submit(client, "/account", "/account/password", password=PASSWORD)
        assert response.headers["location"] == "/account?saved=password"
        assert client.cookies[SESSION_COOKIE] != former
        assert "Your password is set" in client.get("/account?saved=password").text

    def test_a_weak_one_comes_back_with_the_reason(self, client: TestClient, path: str) -> None:
        submit(client, path)
        response = submit(client, "/account", "/account/password", password="short")
        assert response.status_code == 422
        assert "10 to 256 characters" in response.text
        assert re.search(r'<input id="password"[^>]+"password-hint problem" aria-invalid="true"', response.text)
        assert '<p id="problem">' in response.text

    def test_the_theme_is_on_every_page(self, client: TestClient, path: str) -> None:
        submit(client, path)
        submit(client, "/account", "/account/profile", name="Ada", theme="dark")
        assert '<html lang="en" data-theme="dark">' in client.get("/projects").text


class TestKeys:
    def test_are_changed_switched_off_and_put_back(self, client: TestClient, path: str) -> None:
        submit(client, path)
        response = submit(client, "/account", "/account/keys", **{"key-next": "y", "are_on": "yes"})
        assert response.headers["location"] == "/account?saved=keys"
        assert 'name="key-next" value="y"' in client.get("/account").text
        submit(client, "/account", "/account/keys", **{"key-next": "y"})
        assert self.stored() == Keys(False, {**STANDARD, Act.NEXT: "y"})
        submit(client, "/account", "/account/keys", standard="yes")
        assert self.stored() == Keys()

    def test_that_cannot_be_are_shown_again_and_not_stored(self, client: TestClient, path: str) -> None:
        submit(client, path)
        response = submit(client, "/account", "/account/keys", **{"key-next": "k", "key-undo": "<script>"})
        assert response.status_code == 422
        assert "&#39;k&#39; is there twice" in response.text
        assert "<script>" not in response.text.replace("<script src", "")
        assert self.stored() == Keys()

    def stored(self) -> Keys:
        with db.transaction() as session:
            return Keys.of(accounts.ensure_owner(session).preferences)
