"""What a label does to its prompt: one said to hold personal data is given out no more."""

import uuid
from pathlib import Path

import pytest
from sqlalchemy.orm import Session

from app.models import Judgement, TaskState
from app.schemas.judgements import WhySkipped
from app.services import notices, prompt_labels, tasks
from tests.app.queue import Queue, make_queue, take


@pytest.fixture
def queue(session: Session, tmp_path: Path) -> Queue:
    return make_queue(session, tmp_path)


def test_a_quarantined_prompt_is_lent_no_more_whoever_holds_a_task_of_it(session: Session, queue: Queue) -> None:
    task = queue.task(session, wanted=3)
    ada, bob, eve = (queue.person(session) for _ in range(3))
    take(session, ada)
    said = Judgement(uid=uuid.uuid4(), answers={"has_pii": True})
    prompt_labels.apply(session, bob, task.prompt_id, said, None)
    assert task.state == TaskState.RETIRED
    assert [row.task for row in notices.list_unread(session, ada)] == [task.uid]
    assert tasks.lease_next(session, eve, task.kind) is None
    tasks.skip(session, ada, task.uid, reason=WhySkipped.SENSITIVE)
    assert tasks.lease_next(session, eve, task.kind) is None
