"""The command line of `preferable simulate`."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from app.settings import Settings
from workers.cli import app
from workers.simulate.stack import StackError, running


def test_a_url_needs_the_owner_s_link() -> None:
    result = CliRunner().invoke(app, ["simulate", "--url", "http://127.0.0.1:1"])
    assert result.exit_code == 2
    assert "--owner-link" in result.output


def test_an_installation_that_is_down_is_one_sentence() -> None:
    link = "http://127.0.0.1:1/enter/token"
    result = CliRunner().invoke(app, ["simulate", "--url", "http://127.0.0.1:1", "--owner-link", link])
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ") and "Traceback" not in result.output


def test_a_stack_that_cannot_start_says_why(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "run").write_text("in the way")
    with (
        pytest.raises(StackError, match="Cannot write to the data folder"),
        running(Settings(home=tmp_path / "home"), tmp_path / "log"),
    ):
        pass
