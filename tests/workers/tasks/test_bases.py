"""A base named on the hub is fetched once, by a worker, and gets its project."""

from pathlib import Path

import pytest
from sqlalchemy import select

from app.db import transaction
from app.models import Checkpoint, CheckpointKind, Project
from app.services import bases
from app.settings import Settings, get_settings
from workers.celery_app import _schedule
from workers.tasks.bases import fetch_base


def test_makes_a_project_once(settings: Settings, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched: list[str] = []

    def download(name: str) -> Path:
        fetched.append(name)
        return base

    monkeypatch.setattr(bases, "_download", download)  # nothing outside this machine is asked
    monkeypatch.setenv("PREFERABLE_BASE_MODEL", "birds/heron-1m")
    get_settings.cache_clear()
    fetch_base()
    fetch_base()
    assert fetched == ["birds/heron-1m"]
    with transaction() as session:
        project = session.scalars(select(Project)).one()
        assert (project.slug, project.name) == ("heron-1m", "heron-1m")
        assert session.scalars(select(Checkpoint.kind)).all() == [CheckpointKind.BASE]


def test_beat_asks_for_it_only_where_a_hub_name_is_set(tmp_path: Path) -> None:
    assert set(_schedule(Settings(base_model="birds/heron-1m"))) == {"tick", "fetch base"}
    assert set(_schedule(Settings(base_model=str(tmp_path)))) == {"tick"}
    assert set(_schedule(Settings())) == {"tick"}
