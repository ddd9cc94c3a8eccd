"""Sensitive content reaches only who agreed to that kind, so much of it a day, and no longer than they want."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.errors import BadInput, Conflict, NotFound
from app.models import Cohort, LeaseState, Membership, Role, TaskKind
from app.permissions import Access
from app.services import content, exposure, judgements, tasks
from tests.app.queue import Queue, make_queue, rank, take


@pytest.fixture
def queue(session: Session, tmp_path: Path) -> Queue:
    return make_queue(session, tmp_path)


def member(session: Session, queue: Queue) -> Access:
    access = queue.person(session)
    row = Membership(
        project_id=access.project.id, user_id=access.user.id, roles=[Role.LABELLER], cohort=Cohort.TRAINING
    )
    session.add(row)
    session.flush()
    return access


def membership_of(session: Session, access: Access) -> Membership:
    return session.scalars(select(Membership).where(Membership.user_id == access.user.id)).one()


class TestChoose:
    def test_only_who_agreed_to_every_kind_is_lent_the_task(self, session: Session, queue: Queue) -> None:
        ada = member(session, queue)
        queue.task(session, needs=("content:hate", "content:violence"))
        assert tasks.lease_next(session, ada, TaskKind.RANK) is None
        content.choose(session, ada, ["hate"], daily_limit="")
        assert tasks.lease_next(session, ada, TaskKind.RANK) is None
        content.choose(session, ada, ["hate", "violence"], daily_limit="")
        assert tasks.lease_next(session, ada, TaskKind.RANK) is not None

    def test_keeps_the_skills_an_admin_set(self, session: Session, queue: Queue) -> None:
        ada = member(session, queue)
        membership_of(session, ada).skills = ["skill:math"]
        content.choose(session, ada, ["other"], daily_limit="3")
        row = membership_of(session, ada)
        assert (row.skills, row.opted_in, row.content_cap) == (["skill:math"], ["content:other"], 3)

    @pytest.mark.parametrize(
        ("kinds", "limit", "field"),
        [(["blood"], "", "kinds"), (["content:hate"], "", "kinds"), ([], "0", "daily_limit"), ([], "x", "daily_limit")],
    )
    def test_refuses_what_is_no_choice(
        self, session: Session, queue: Queue, kinds: list[str], limit: str, field: str
    ) -> None:
        with pytest.raises(BadInput) as caught:
            content.choose(session, member(session, queue), kinds, daily_limit=limit)
        assert caught.value.field == field

    def test_is_for_members(self, session: Session, queue: Queue) -> None:
        with pytest.raises(Conflict):
            content.choose(session, queue.person(session), [], daily_limit="")


class TestOpenTask:
    def test_is_hidden_until_opened_and_open_from_then_on(self, session: Session, queue: Queue) -> None:
        ada = member(session, queue)
        content.choose(session, ada, ["hate"], daily_limit="")
        queue.task(session, needs=("content:hate",))
        work = take(session, ada)
        assert content.find_hidden(work) == ["hate"]
        first = content.open_task(session, ada, work.task.uid).opened_at
        assert content.open_task(session, ada, work.task.uid).opened_at == first
        assert not content.find_hidden(tasks.find_work(session, ada, work.task.uid))
        with pytest.raises(NotFound):
            content.open_task(session, member(session, queue), work.task.uid)


class TestLimit:
    def test_what_is_opened_counts_for_a_day_and_the_lower_limit_holds(self, session: Session, queue: Queue) -> None:
        ada = member(session, queue)
        content.choose(session, ada, ["hate"], daily_limit="2")
        works = []
        for _ in range(3):
            queue.task(session, needs=("content:hate",))
        for _ in range(2):
            work = take(session, ada)
            works.append(content.open_task(session, ada, work.task.uid))
            judgements.submit_ranking(session, ada, work.task.uid, rank(work))
        nothing = tasks.find_nothing(session, ada, TaskKind.RANK)
        assert nothing is not None
        assert (nothing.why, nothing.lacking) == (tasks.WhyNothing.NEEDS, ("content:hate",))
        assert nothing.content_free_at is not None
        assert tasks.lease_next(session, ada, TaskKind.RANK) is None
        queue.task(session)
        assert take(session, ada).task.needs == []  # other work goes on
        works[0].opened_at = datetime.now(UTC) - timedelta(hours=25)
        session.flush()
        assert exposure.find_end(session, membership_of(session, ada)) is None

    def test_the_project_s_limit_holds_against_a_higher_one(self, session: Session, queue: Queue) -> None:
        ada = member(session, queue)
        content.choose(session, ada, ["hate"], daily_limit="900")
        row = membership_of(session, ada)
        assert exposure.find_limit(queue.project, row) == 20
        queue.project.sampling = {**queue.project.sampling, "sensitive_tasks_a_day": 0}
        queue.task(session, needs=("content:hate",))
        nothing = tasks.find_nothing(session, ada, TaskKind.RANK)
        assert nothing is not None
        assert (nothing.lacking_content, nothing.gives_content, nothing.content_free_at) == (["hate"], False, None)


class TestLeave:
    def test_skips_the_task_and_stops_its_kinds_alone(self, session: Session, queue: Queue) -> None:
        ada = member(session, queue)
        content.choose(session, ada, ["hate", "violence"], daily_limit="5")
        queue.task(session, needs=("content:hate",))
        work = take(session, ada)
        assert content.leave(session, ada, work.task.uid) == ["hate"]
        session.refresh(work.lease)
        row = membership_of(session, ada)
        assert (work.lease.state, work.lease.skip_reason) == (LeaseState.SKIPPED, "sensitive")
        assert (row.opted_in, row.content_cap) == (["content:violence"], 5)
