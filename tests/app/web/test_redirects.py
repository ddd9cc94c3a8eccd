"""Redirects stay here (T14)."""

import pytest

from app.web.redirects import local_path


@pytest.mark.parametrize(
    "target",
    [
        "https://evil.example/",
        "//evil.example/",
        "///evil.example/",
        "/\\evil.example/",
        "\\\\evil.example/",
        "/%2fevil.example/",
        "/%5cevil.example/",
        "/%2Fevil.example/",
        "/%252fevil.example/",
        "/\tevil.example",
        "/\n/evil.example",
        " //evil.example",
        "javascript:alert(1)",
        "evil.example",
        "/p/x\r\nSet-Cookie: a=b",
        "",
        None,
        "/" + "x" * 3000,
    ],
)
def test_refuses_what_leads_away(target: str | None) -> None:
    assert local_path(target) == "/"


@pytest.mark.parametrize(
    "target", ["/", "/p/starter/", "/p/starter/rank?x=1&y=%2F", "/p/starter/audit?action=a%20b#end"]
)
def test_keeps_local_paths(target: str) -> None:
    assert local_path(target) == target
