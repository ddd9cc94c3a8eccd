"""`preferable import`: a file comes in from a shell as it does from the page, and what is wrong with it is one sentence."""

import json
from pathlib import Path

import pytest
from sqlalchemy import select
from typer.testing import CliRunner

from app import db
from app.models import Import, Judgement, Project, Prompt, Role, User
from app.settings import Settings, get_settings
from tests.app import registry
from workers.cli import app


@pytest.fixture
def project(settings: Settings, tmp_path: Path) -> Project:
    with db.transaction() as session:
        project = registry.make_project(session, tmp_path)[0]
        owner = registry.make_user(session)
        owner.is_owner = True
        assert registry.access_of(owner, project, Role.OWNER)
        return project


def write(path: Path, *rows: object) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def run(project: Project, *arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["import", *arguments, "--project", project.slug])
    return result.exit_code, result.output


def test_brings_a_file_in_and_prints_what_became_of_it(project: Project, tmp_path: Path) -> None:
    file = write(tmp_path / "birds.jsonl", {"prompt": "Name a bird."}, {"prompt": ""})
    code, printed = run(project, file, "--set", "licence=MIT")
    assert code == 0, printed
    assert "birds.jsonl: rows 2, refused 1, added 1" in printed
    assert "line 2: " in printed
    with db.transaction() as session:
        assert session.scalars(select(Prompt.licence)).one() == "MIT"


def test_a_table_by_its_columns(project: Project, tmp_path: Path) -> None:
    rows = [{"q": "Name a bird.", "good": "A gull.", "bad": "A cat.", "who": "w1"}]
    columns = [
        "--column",
        "prompt=q",
        "--column",
        "chosen=good",
        "--column",
        "rejected=bad",
        "--column",
        "annotator=who",
    ]
    code, printed = run(
        project,
        write(tmp_path / "a.jsonl", *rows),
        "--kind",
        "rankings",
        "--shape",
        "columns",
        "--pool",
        "old",
        *columns,
    )
    assert code == 0, printed
    with db.transaction() as session:
        assert len(session.scalars(select(Judgement)).all()) == 1


def test_a_look_leaves_nothing(project: Project, tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", {"prompt": "Name a bird."}, {"prompt": ""})
    code, printed = run(project, file, "--look")
    assert code == 0
    assert "line 1: Name a bird." in printed
    assert "line 2: refused" in printed
    with db.transaction() as session:
        assert session.scalar(select(Import)) is None
    assert not list((get_settings().store / "imports").iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--set", "most_per_source=few"), "most_per_source"),
        (("--set", "birds=many"), "birds"),
        (("--set", "licence"), "expected name=value"),
        (("--column", "bird=q"), "there is no field"),
        (("--shape", "columns"), "no column is named for prompt"),
    ],
)
def test_what_does_not_hold_is_one_sentence(
    project: Project, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    code, printed = run(project, write(tmp_path / "a.jsonl", {"prompt": "Name a bird."}), *arguments)
    assert code == 1
    assert message in printed
    assert "Traceback" not in printed


def test_a_name_of_neither_file_nor_dataset(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name in ("../nothing/../here", "nobody/nothing"):
        code, printed = run(project, name)
        assert code == 1
        assert "There is no file" in printed


def test_an_unknown_project(project: Project, tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", {"prompt": "Name a bird."})
    result = CliRunner().invoke(app, ["import", file, "--project", "nowhere"])
    assert (result.exit_code, "no project 'nowhere'" in result.output) == (1, True)
    with db.transaction() as session:
        assert session.scalars(select(User)).first() is not None
