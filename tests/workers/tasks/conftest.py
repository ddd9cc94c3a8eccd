"""The tiny base model, written once per run."""

from pathlib import Path

import pytest

from app.db import transaction
from app.models import Project
from app.settings import Settings
from tests.workers.tasks import tiny


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the tiny base model."""
    return tiny.write_base(tmp_path_factory.mktemp("tiny") / "base")


@pytest.fixture
def project(settings: Settings, base: Path) -> Project:
    """A project on the tiny model, committed."""
    with transaction() as session:
        return tiny.make_project(session, base)
