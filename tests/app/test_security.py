"""Secrets: no key in the source, nothing stored that signs anybody in (T01, T26)."""

import re
from pathlib import Path

import pytest

from app.errors import StartupError
from app.main import create_app
from app.security import (
    check_production,
    hash_password,
    hash_token,
    new_token,
    read_signed,
    seal,
    secret_key,
    sign,
    unseal,
    verify_password,
)
from app.settings import Settings
from tests.architecture.source import ROOT

KEY = b"k" * 32
GOOD = "mB5Zc0qkq4pYtVJwXr2uHnL8sDfG1aEy"


def make_settings(home: Path, **values: object) -> Settings:
    return Settings.model_validate({"home": home, **values})


class TestSecretKey:
    def test_is_made_once_and_readable_by_us_only(self, tmp_path: Path) -> None:
        made = secret_key(make_settings(tmp_path))
        assert len(made) >= 32
        assert (tmp_path / "secret-key").stat().st_mode & 0o077 == 0
        secret_key.cache_clear()
        assert secret_key(make_settings(tmp_path)) == made

    def test_two_installations_differ(self, tmp_path: Path) -> None:
        assert secret_key(make_settings(tmp_path / "a")) != secret_key(make_settings(tmp_path / "b"))

    @pytest.mark.parametrize("weak", ["short", "x" * 64, "change-me-" + GOOD, "my-secret-" + GOOD, "0123456789" * 4])
    def test_refuses_one_that_can_be_guessed(self, tmp_path: Path, weak: str) -> None:
        with pytest.raises(StartupError, match="too weak"):
            secret_key(make_settings(tmp_path, secret_key=weak))

    def test_production_needs_one_of_its_own(self, tmp_path: Path) -> None:
        with pytest.raises(StartupError, match="missing"):
            secret_key(make_settings(tmp_path, production=True))
        assert secret_key(make_settings(tmp_path, production=True, secret_key=GOOD)) == GOOD.encode()

    def test_a_damaged_file_is_said(self, tmp_path: Path) -> None:
        (tmp_path / "secret-key").write_text("x")
        with pytest.raises(StartupError, match="Delete it"):
            secret_key(make_settings(tmp_path))

    def test_no_key_of_the_repository_is_strong_enough(self, tmp_path: Path) -> None:
        files = [ROOT / name for name in ("docker-compose.yml", "Makefile", "README.md")] + [
            *(ROOT / "docs").rglob("*.md")
        ]
        for file in files:
            for found in re.findall(r"PREFERABLE_SECRET_KEY[=:]\s*([^\s$`'\"{]{8,})", file.read_text(encoding="utf-8")):
                with pytest.raises(StartupError):
                    secret_key(make_settings(tmp_path, secret_key=found))


def test_production_needs_https(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="https"):
        check_production(make_settings(tmp_path, production=True, public_url="http://example.org"))
    check_production(make_settings(tmp_path, production=True, public_url="https://example.org"))


def test_the_app_does_not_start_with_a_weak_key(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.main.get_settings", lambda: settings.model_copy(update={"secret_key": "short"}))
    with pytest.raises(StartupError):
        create_app()


class TestSign:
    def test_reads_back_what_it_signed(self) -> None:
        assert read_signed(sign("value", purpose="a", key=KEY), purpose="a", key=KEY) == "value"

    @pytest.mark.parametrize("forged", ["", "value", "value.", ".", "value.00", "other." + "0" * 64, "välue.ü"])
    def test_refuses_a_forgery(self, forged: str) -> None:
        assert read_signed(forged, purpose="a", key=KEY) is None

    def test_refuses_another_purpose_and_another_key(self) -> None:
        signed = sign("value", purpose="a", key=KEY)
        assert read_signed(signed, purpose="b", key=KEY) is None
        assert read_signed(signed, purpose="a", key=b"x" * 32) is None


class TestPasswords:
    def test_only_the_right_one_passes(self) -> None:
        stored = hash_password("correct horse")
        assert stored.startswith("$argon2id$")
        assert verify_password("correct horse", stored)
        assert not verify_password("correct horsf", stored)

    def test_nobody_has_no_password(self) -> None:
        assert not verify_password("", None)


def test_tokens_are_long_and_their_hash_tells_nothing() -> None:
    first, second = new_token(), new_token()
    assert first != second
    assert len(first) >= 43
    assert first.encode() not in hash_token(first)


def test_no_setting_switches_protection_off() -> None:
    """There is no debug mode, no trusted header and no shared key (T23, T26)."""
    words = ("debug", "bypass", "disable", "skip", "insecure", "auth", "open_signup", "csrf")
    assert not [name for name in Settings.model_fields if any(word in name for word in words)]


class TestSeal:
    def test_only_the_same_key_and_purpose_read_it(self) -> None:
        sealed = seal("sk-1 \u00e9", purpose="endpoint key", key=b"a" * 32)
        assert b"sk-1" not in sealed
        assert unseal(sealed, purpose="endpoint key", key=b"a" * 32) == "sk-1 \u00e9"
        assert unseal(sealed, purpose="webhook", key=b"a" * 32) is None
        assert unseal(sealed, purpose="endpoint key", key=b"b" * 32) is None

    def test_what_was_changed_is_not_read(self) -> None:
        sealed = bytearray(seal("sk-1", purpose="endpoint key", key=b"a" * 32))
        sealed[-2] ^= 1
        assert unseal(bytes(sealed), purpose="endpoint key", key=b"a" * 32) is None
        assert unseal(b"", purpose="endpoint key", key=b"a" * 32) is None

    def test_the_same_value_is_sealed_otherwise_each_time(self) -> None:
        first, second = (seal("sk-1", purpose="x", key=b"a" * 32) for _ in range(2))
        assert first != second
