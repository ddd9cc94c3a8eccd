"""The tiny base model, written once per run; and an admin who imports."""

from pathlib import Path

import pytest

from app.db import transaction
from app.models import Project, Role
from app.permissions import Access
from app.settings import Settings
from tests.app import registry
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


@pytest.fixture
def admin(settings: Settings, tmp_path: Path) -> Access:
    """An admin of a project without prompts, committed."""
    with transaction() as session:
        project = registry.make_project(session, tmp_path)[0]
        return registry.access_of(registry.make_user(session), project, Role.ADMIN)
