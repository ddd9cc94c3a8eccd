"""A labeller's last answers."""

from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from app import db
from app.models import Role
from app.services import judgements
from tests.app import registry
from tests.app.queue import Queue, make_queue, rank, take
from tests.app.visitor import Visitor, make_visitor


@pytest.fixture
def queue(client: TestClient, tmp_path: Path) -> Queue:
    with db.transaction() as session:
        return make_queue(session, tmp_path)


@pytest.fixture
def ada(client: TestClient, queue: Queue) -> Visitor:
    return make_visitor(client, queue.project, Role.LABELLER)


def answer(queue: Queue, visitor: Visitor, times: int) -> None:
    """Rank so many tasks as this person."""
    with db.transaction() as session:
        access = registry.access_of(visitor.user, queue.project, Role.LABELLER)
        for _ in range(times):
            queue.task(session)
            work = take(session, access)
            judgements.submit_ranking(session, access, work.task.uid, rank(work))


class TestShowHistory:
    def test_says_what_will_be_here(self, queue: Queue, ada: Visitor) -> None:
        assert "will be listed here" in ada.get(f"/p/{queue.project.slug}/history").text

    def test_lists_one_s_own_last_ten(self, queue: Queue, ada: Visitor, client: TestClient) -> None:
        answer(queue, ada, 11)
        answer(queue, make_visitor(client, queue.project, Role.LABELLER), 1)
        text = ada.get(f"/p/{queue.project.slug}/history").text
        assert text.count("/revise") == 10
