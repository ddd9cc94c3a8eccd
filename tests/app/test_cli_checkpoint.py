"""`preferable checkpoint register`: a model trained anywhere joins; what cannot join is one sentence and exit code 1."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from app import db
from app.cli import app
from app.models import CheckpointKind, Project
from app.services import checkpoints
from app.settings import Settings
from tests.app.registry import make_project, write_model


@pytest.fixture
def project(settings: Settings, tmp_path: Path) -> Project:
    """A project to join."""
    with db.transaction() as session:
        return make_project(session, tmp_path)[0]


def register(folder: Path, project: str, kind: str = "sft") -> tuple[int, str]:
    result = CliRunner().invoke(app, ["checkpoint", "register", str(folder), "--kind", kind, "--project", project])
    return result.exit_code, result.output.strip()


def test_joins_and_prints_name_and_identity(project: Project, tmp_path: Path) -> None:
    code, output = register(write_model(tmp_path / "elsewhere"), project.slug)
    with db.transaction() as session:
        made = checkpoints.latest(session, project.id, CheckpointKind.SFT)
    assert made is not None
    assert (code, output) == (0, f"SFT 1 {made.sha256}")


def test_says_what_is_wrong(project: Project, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert register(tmp_path / "empty", project.slug) == (
        1,
        f"{tmp_path / 'empty'} is no model folder: it has no readable config.json.",
    )
    assert register(tmp_path / "empty", "elsewhere") == (1, "There is no project 'elsewhere'.")
