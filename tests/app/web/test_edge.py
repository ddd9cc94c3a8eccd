"""What every request meets: headers, origin, size."""

import asyncio
from collections.abc import Iterator

import pytest
from fastapi import Request
from fastapi.testclient import TestClient
from starlette.exceptions import HTTPException
from starlette.types import Message

from app import db
from app.web import edge
from app.web.edge import BODY_BYTES, MIB
from app.web.headers import HEADERS


class TestHeaders:
    @pytest.mark.parametrize("path", ["/login", "/healthz", "/nowhere", "/static/css/base.css", "/p/x/"])
    def test_stand_on_every_answer(self, client: TestClient, path: str) -> None:
        response = client.get(path)
        assert {name: response.headers[name] for name in HEADERS} == HEADERS

    def test_the_content_policy_allows_nothing_inline(self) -> None:
        policy = HEADERS["Content-Security-Policy"]
        assert "unsafe" not in policy
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy

    def test_pages_are_not_kept_by_caches(self, client: TestClient) -> None:
        assert client.get("/login").headers["cache-control"] == "no-store"

    def test_files_are_kept_for_ever_under_their_hash_only(self, client: TestClient) -> None:
        page = client.get("/login").text
        hashed = page.split('href="/static/css/base.css')[1].split('"')[0]
        assert "immutable" in client.get(f"/static/css/base.css{hashed}").headers["cache-control"]
        assert client.get("/static/css/base.css?v=0").headers["cache-control"] == "no-cache"

    @pytest.mark.parametrize("path", ["/static/../app/main.py", "/static/%2e%2e/app/main.py", "/static//etc/passwd"])
    def test_static_paths_do_not_lead_out(self, client: TestClient, path: str) -> None:
        assert client.get(path).status_code == 404


class TestOrigin:
    @pytest.mark.parametrize(
        "headers",
        [
            {"Origin": "https://evil.example"},
            {"Origin": "null"},
            {"Sec-Fetch-Site": "cross-site"},
            {"Sec-Fetch-Site": "same-site"},
        ],
    )
    def test_refuses_forms_of_other_sites(self, client: TestClient, headers: dict[str, str]) -> None:
        response = client.post("/login", data={"email": "a@b.c"}, headers=headers)
        assert response.status_code == 403
        assert "Another site" in response.text

    def test_takes_our_own(self, client: TestClient) -> None:
        headers = {"Origin": "http://testserver", "Sec-Fetch-Site": "same-origin"}
        assert "Another site" not in client.post("/login", headers=headers).text


class TestBodies:
    def test_refuses_a_declared_size_above_the_limit(self, client: TestClient) -> None:
        response = client.post("/login", content=b"x" * (BODY_BYTES + 1))
        assert response.status_code == 413
        assert "larger than 1 MB" in response.text

    def test_refuses_a_size_that_was_not_declared(self, client: TestClient) -> None:
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        response = client.post("/login", content=(b"x" * 65536 for _ in range(20)), headers=form)
        assert response.status_code == 413

    def test_imports_may_be_larger(self, client: TestClient) -> None:
        response = client.post("/p/x/school/import", content=b"x" * (2 * MIB))
        assert response.status_code == 403  # read, then refused for want of the form's token

    @pytest.mark.parametrize("boundary", ["", "x" * 70_000, "\x00", ";;;;", "a b c"])
    def test_survives_odd_multipart_boundaries(self, client: TestClient, boundary: str) -> None:
        headers = {"Content-Type": f"multipart/form-data; boundary={boundary}".encode("latin-1")}
        response = client.post("/login", content=b"--x\r\n\r\n" * 1000, headers=headers)  # type: ignore[arg-type]
        assert 400 <= response.status_code < 500

    def test_gives_up_on_a_body_that_does_not_come(self, client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(edge, "BODY_SECONDS", 0.01)

        async def silence() -> Message:
            await asyncio.sleep(60)
            raise AssertionError

        async def read() -> None:
            request = Request({"type": "http", "method": "POST", "path": "/login", "headers": [], "query_string": b""})
            await edge.bound_body(request, silence)()

        with pytest.raises(HTTPException) as caught:
            asyncio.run(read())
        assert caught.value.status_code == 408

    def test_holds_no_connection_while_a_body_comes(self, client: TestClient) -> None:
        held: list[str] = []

        def trickle() -> Iterator[bytes]:
            for _ in range(3):
                held.append(db.get_engine().pool.status())
                yield b"a=b&"

        headers = {"Content-Type": "application/x-www-form-urlencoded", "Cookie": "preferable_session=x"}
        assert client.post("/logout", content=trickle(), headers=headers).status_code == 303
        assert len(held) == 3
        assert all(status.endswith("Checked out connections: 0") for status in held), held
