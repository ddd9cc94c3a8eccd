"""How the web server is run: whose word about the client's address counts (T23)."""

import pytest
from fastapi.testclient import TestClient
from limits import parse

from app import serve
from app.services import throttle
from app.settings import Settings, get_settings
from tests.app.routers.test_accounts import submit


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
