"""How the web server is run: whose word about the client's address counts (T23)."""

from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from fastapi.testclient import TestClient
from limits import parse

from app import serve
from app.services import throttle
from app.settings import Settings, get_settings
from app.web.deps import SESSION_COOKIE
from tests.app.routers.test_accounts import submit
from tests.browser.person import make_person


@pytest.mark.parametrize(("trusted", "status"), [("", 429), ("10.0.0.0/8", 429), ("127.0.0.1", 422), ("*", 422)])
def test_a_forged_address_does_not_get_around_the_throttle(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, trusted: str, status: int
) -> None:
    monkeypatch.setattr(throttle, "PER_ADDRESS", parse("2 per 15 minutes"))
    monkeypatch.setenv("PREFERABLE_TRUSTED_PROXIES", trusted)
    get_settings.cache_clear()
    config = serve.make_config()
    config.load()
    with TestClient(config.loaded_app, client=("127.0.0.1", 50000)) as client:
        for number in range(3):
            client.headers["X-Forwarded-For"] = f"192.0.2.{number}"
            response = submit(client, "/login", email=f"a{number}@example.org", password="wrong")
    assert response.status_code == status


def test_more_people_at_once_than_threads_wait_their_turn(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request keeps its connection from one thread to the next: without turns those that wait for one hold every thread."""
    monkeypatch.setenv("PREFERABLE_WEB_THREADS", "2")
    person = make_person(request.getfixturevalue("live_url"))

    def look(_: int) -> int:
        cookies = {SESSION_COOKIE: person.token}
        return httpx.get(f"{person.url}/p/starter/", cookies=cookies, timeout=60).status_code

    with ThreadPoolExecutor(24) as pool:
        assert set(pool.map(look, range(36))) == {200}
