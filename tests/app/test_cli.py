"""Commands of the web half, called as a person calls them."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import create_engine
from typer.testing import CliRunner

from app import db, embedded
from app.cli import app
from app.services import accounts
from app.settings import Settings, get_settings

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call() -> Call:
    def run(*arguments: str) -> tuple[int, str, str]:
        result = CliRunner().invoke(app, arguments)
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.exit_code, result.stdout, result.stderr

    return run


@pytest.fixture
def owned(settings: Settings) -> Settings:
    """A database with an owner."""
    with db.transaction() as session:
        accounts.ensure_owner(session)
    return settings


class TestLogin:
    def test_prints_a_link_that_signs_the_owner_in_once(self, call: Call, owned: Settings) -> None:
        code, output, _ = call("login")
        found = re.fullmatch(r"http://127\.0\.0\.1:8000/enter/(\S+)\n", output)
        assert code == 0
        assert found
        with db.transaction() as session:
            assert accounts.use_login_link(session, found[1])

    def test_names_the_address_where_the_pages_are_served(self, call: Call, owned: Settings) -> None:
        (owned.home / "run").mkdir()
        (owned.home / "run" / "url").write_text("http://127.0.0.1:4711")
        assert call("login")[1].startswith("http://127.0.0.1:4711/enter/")

    def test_in_a_new_folder_asks_for_a_start_first(
        self, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: Settings
    ) -> None:
        monkeypatch.setenv("DATABASE_URL", "")
        monkeypatch.setenv("PREFERABLE_HOME", str(tmp_path / "new"))
        forget()
        code, output, error = call("login")
        assert (code, output) == (1, "")
        assert error.startswith("The database is empty: start `make run` once first")
        assert error.count("\n") == 1


class TestMigrate:
    def test_brings_an_empty_database_to_the_newest_revision_and_makes_the_starter(
        self, call: Call, settings: Settings
    ) -> None:
        assert call("migrate") == (0, "The database is up to date.\n", "")
        assert call("migrate")[0] == 0
        code, output, _ = call("user", "list")
        assert (code, output) == (0, "owner@localhost  Owner  owner\n")

    def test_starts_the_embedded_database_where_none_runs(
        self, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: Settings
    ) -> None:
        monkeypatch.setenv("DATABASE_URL", "")
        monkeypatch.setenv("PREFERABLE_HOME", str(tmp_path / "other"))
        (tmp_path / "other").mkdir()
        forget()
        assert call("migrate")[0] == 0
        with embedded.running_postgres(tmp_path / "other") as url:
            engine = create_engine(db.normalise_url(url))
            with db.transaction(engine) as session:
                assert accounts.ensure_owner(session).email == "owner@localhost"
            engine.dispose()


class TestUser:
    def test_link_is_for_the_person_named(self, call: Call, owned: Settings) -> None:
        code, output, _ = call("user", "link", " Owner@Localhost ")
        assert (code, output.count("/enter/")) == (0, 1)

    def test_link_for_nobody_is_refused(self, call: Call, owned: Settings) -> None:
        code, output, error = call("user", "link", "nobody@example.org")
        assert (code, output) == (1, "")
        assert error == "Nobody signs in as 'nobody@example.org': `preferable user list` shows who does.\n"


class TestDoctor:
    def test_finds_a_migrated_database_and_a_broker(self, call: Call, owned: Settings) -> None:
        code, output, _ = call("doctor")
        marks = {line.split()[1]: line.split()[0] for line in output.splitlines()}
        assert code == 0, output
        assert [marks[name] for name in ("python", "database", "migrations", "broker")] == ["ok"] * 4
        assert marks["processes"] == "-"

    def test_says_which_server_does_not_answer(
        self, call: Call, owned: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1/0")
        forget()
        code, output, _ = call("doctor")
        assert code == 1
        assert re.search(r"^FAIL broker .*127\.0\.0\.1:1", output, re.MULTILINE)


def forget() -> None:
    get_settings.cache_clear()
    db.get_engine.cache_clear()
