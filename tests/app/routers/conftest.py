"""Who the tests of the ranking pages act as, on which tasks."""

from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from app import db
from app.models import LabelSchema, Role
from app.schemas import labels
from tests.app.queue import Queue, make_queue
from tests.app.ranking_page import HOSTILE
from tests.app.visitor import Visitor, make_visitor


@pytest.fixture
def queue(client: TestClient, tmp_path: Path) -> Queue:
    """A project with three rank tasks."""
    with db.transaction() as session:
        made = make_queue(session, tmp_path)
        fields = [field.as_json() for field in labels.PAPERS]
        session.add(LabelSchema(project_id=made.project.id, version=1, fields=fields))
        for texts in (("one", "two", HOSTILE), ("four", "five", "six"), ("seven", "eight", "nine")):
            made.task(session, texts)
        return made


@pytest.fixture
def ada(client: TestClient, queue: Queue) -> Visitor:
    return make_visitor(client, queue.project, Role.LABELLER)


@pytest.fixture
def bob(client: TestClient, queue: Queue) -> Visitor:
    return make_visitor(client, queue.project, Role.LABELLER)
