"""How the web server is run: whose word about the client's address counts (T23), how long a request's head may be."""

import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
import uvicorn
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


@pytest.fixture
def served(settings: Settings) -> Iterator[int]:
    """The port of a server as it is run."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(serve.make_config())
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        yield int(listening.getsockname()[1])
        server.should_exit = True
        thread.join()


class TestHead:
    @pytest.mark.parametrize("begin", [b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Long: ", b"GET /healthz?"])
    def test_that_does_not_end_is_refused(self, served: int, begin: bytes) -> None:
        with socket.create_connection(("127.0.0.1", served), timeout=20) as connection:
            connection.sendall(begin + b"a" * (serve.HEAD_BYTES + 1))
            answer = connection.recv(4096)
        assert answer.startswith(b"HTTP/1.1 400")
        assert b"longer than 64 KB" in answer

    def test_counts_no_body_and_begins_anew_with_every_request(self, served: int) -> None:
        with httpx.Client(base_url=f"http://127.0.0.1:{served}") as client:
            for _ in range(3):
                headers = {"X-Long": "a" * (serve.HEAD_BYTES // 2)}
                assert client.get("/healthz", headers=headers).status_code == 200
                assert client.post("/login", content=b"a" * 4 * serve.HEAD_BYTES).status_code == 403
