"""Asking people for more than rankings: two models compared, answers rated, prompts labelled."""

import uuid
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select

from app import db
from app.models import (
    AuditEntry,
    CheckpointKind,
    Evaluation,
    EvaluationState,
    Job,
    JobState,
    Judgement,
    PromptStatus,
    Role,
    Split,
    Task,
    TaskKind,
    TaskState,
)
from app.queries import tasks as task_queries
from app.services import checkpoints, evaluations, jobs
from app.services.tasks import NewSample
from tests.app import registry
from tests.app.kinds import answer
from tests.app.queue import Queue, make_queue
from tests.app.visitor import Visitor, make_visitor
from workers.simulate.page import parse


@pytest.fixture
def queue(client: TestClient, tmp_path: Path) -> Queue:
    """A project with two models and four test prompts."""
    with db.transaction() as session:
        made = make_queue(session, tmp_path)
        registry.make_checkpoint(session, made.project, tmp_path, CheckpointKind.SFT)
        for number in range(4):
            registry.make_prompt(session, made.project, f"Name bird {number}.", Split.TEST)
        return made


@pytest.fixture
def researcher(client: TestClient, queue: Queue) -> Visitor:
    return make_visitor(client, queue.project, Role.RESEARCHER)


def models(queue: Queue) -> tuple[str, str]:
    with db.transaction() as session:
        newer, older = evaluations.list_models(session, queue.project)
        return str(newer.uid), str(older.uid)


def form(left: str, right: str, **others: str) -> dict[str, str]:
    sent = {"left": left, "right": right, "split": "test", "prompts": "4", "judgements_wanted": "2"}
    return sent | {"idempotency_key": str(uuid.uuid4())} | others


class TestBegin:
    @pytest.mark.parametrize(
        ("wrong", "message"),
        [
            ({"right": ""}, "Choose one of the project"),
            ({"split": "valid"}, "has no prompt"),
            ({"split": "all"}, "choose one of train, valid, test"),
            ({"prompts": "0"}, "choose 1 to 1,000"),
            ({"prompts": "many"}, "no whole number"),
            ({"judgements_wanted": "101"}, "choose 1 to 100"),
        ],
    )
    def test_says_what_cannot_be(self, queue: Queue, researcher: Visitor, wrong: dict[str, str], message: str) -> None:
        answered = researcher.post(f"/p/{queue.project.slug}/evaluations", **form(*models(queue)) | wrong)
        assert answered.status_code == 422
        assert message in answered.text

    def test_refuses_a_model_against_itself(self, queue: Queue, researcher: Visitor) -> None:
        left, _ = models(queue)
        answered = researcher.post(f"/p/{queue.project.slug}/evaluations", **form(left, left))
        assert "Choose two different models" in answered.text

    def test_from_a_click_to_the_win_rate(self, client: TestClient, queue: Queue, researcher: Visitor) -> None:
        """Of five prompts one is answered alike (a tie), one by one model only and one quarantined meanwhile (both left out)."""
        page = f"/p/{queue.project.slug}/evaluations"
        with db.transaction() as session:
            registry.make_prompt(session, queue.project, "Name bird 4.", Split.TEST)
        sent = form(*models(queue), prompts="5")
        for _ in "a double click":
            assert researcher.post(page, **sent).headers["location"] == f"{page}?begun=true"
        assert "models answer" in researcher.get(page).text
        with db.transaction() as session:
            claim = jobs.claim(session, session.scalars(select(Job.id).where(Job.kind == "compare")).one())
            assert claim is not None
            orders, prompts = evaluations.load(session, claim)
            drawn = [
                {
                    prompt.id: NewSample(
                        f"{'same' if at == 0 else order.checkpoint.kind} {at}", order.sampler.id, at, 3, "stop"
                    )
                    for at, prompt in enumerate(prompts)
                }
                for order in orders
            ]
            del drawn[1][prompts[1].id]
            prompts[4].status, prompts[4].is_private = PromptStatus.PII, True
            session.flush()
            assert [order.checkpoint.kind for order in orders] == [CheckpointKind.SFT, CheckpointKind.BASE]
            evaluations.store(session, claim, prompts, drawn)
            assert session.scalars(select(Evaluation.state)).one() == EvaluationState.OPEN
        # The first prompt: both prefer the left model; the second: one the right, one neither.
        wanted = {"sft 2": [1, 1], "sft 3": [0, None]}
        people = [make_visitor(client, queue.project, Role.LABELLER) for _ in range(2)]
        for person_at, person in enumerate(people):
            for _ in range(2):
                path = person.post(f"/p/{queue.project.slug}/compare/next").headers["location"]
                shown = parse(person.get(path).text).form("/submit")
                with db.transaction() as session:
                    task = session.scalars(select(Task).where(Task.uid == uuid.UUID(path.rpartition("/")[2]))).one()
                    left, right = task_queries.list_outputs(session, task.id)
                outcome = wanted[left.text][person_at]
                choice = "tie" if outcome is None else f"{(left if outcome else right).sample}:2"
                key = shown.values["idempotency_key"][0]
                assert person.post(f"{path}/submit", idempotency_key=key, preference=choice).status_code == 303
        with db.transaction() as session:
            (report,) = evaluations.list_reports(session, queue.project)
        assert (report.tasks, report.judgements) == (2, 4)
        assert report.win_rate is not None
        assert report.win_rate.value == pytest.approx((1 + 0.25 + 0.5) / 3)  # a mean per prompt, the tie with them
        text = researcher.get(page).text
        assert "58.3 %" in text and "1 prompt answered alike" in text and "2 prompts left out" in text
        with db.transaction() as session:
            for judgement in session.scalars(select(Judgement)):
                judgement.status = "superseded"
            (report,) = evaluations.list_reports(session, queue.project)
            assert report.win_rate is None


class TestClose:
    def begin(self, queue: Queue, researcher: Visitor) -> tuple[str, jobs.Claim]:
        """An evaluation whose answers a worker draws; the address of its page and the worker's claim."""
        page = f"/p/{queue.project.slug}/evaluations"
        researcher.post(page, **form(*models(queue)))
        with db.transaction() as session:
            claim = jobs.claim(session, session.scalars(select(Job.id).where(Job.kind == "compare")).one())
        assert claim is not None
        return page, claim

    def store(self, claim: jobs.Claim) -> None:
        with db.transaction() as session:
            orders, prompts = evaluations.load(session, claim)
            drawn = [
                {prompt.id: NewSample(f"{order.checkpoint.kind}", order.sampler.id, 1, 3, "stop") for prompt in prompts}
                for order in orders
            ]
            evaluations.store(session, claim, prompts, drawn)

    def test_retires_what_is_open_and_tells_who_has_begun(
        self, client: TestClient, queue: Queue, researcher: Visitor
    ) -> None:
        page, claim = self.begin(queue, researcher)
        self.store(claim)
        ada = make_visitor(client, queue.project, Role.LABELLER)
        path = ada.post(f"/p/{queue.project.slug}/compare/next").headers["location"]
        action = parse(researcher.get(page).text).form("/close").action
        for _ in "a double click":
            assert researcher.post(action).headers["location"] == page
        with db.transaction() as session:
            assert set(session.scalars(select(Task.state))) == {TaskState.RETIRED}
            assert session.scalars(select(Evaluation.state)).one() == EvaluationState.CLOSED
            acts = session.scalars(select(AuditEntry.details).where(AuditEntry.action == "close evaluation")).all()
        assert acts == [{"retired_tasks": 4}]
        assert "A comparison you had begun is ended" in ada.get(f"/p/{queue.project.slug}/").text
        shown = parse(ada.get(path).text).form("/submit")
        ada.post(f"{path}/submit", idempotency_key=shown.values["idempotency_key"][0], preference="tie")
        text = researcher.get(page).text
        assert "50.0 %" in text
        assert parse(text).find_form("/close") is None

    def test_stops_the_drawing_and_opens_nothing(self, queue: Queue, researcher: Visitor) -> None:
        page, claim = self.begin(queue, researcher)
        researcher.post(parse(researcher.get(page).text).form("/close").action)
        self.store(claim)
        with db.transaction() as session:
            assert session.scalars(select(Job.state)).one() == JobState.CANCELLED
            assert session.scalars(select(Task)).all() == []

    def test_what_failed_is_tried_again(self, queue: Queue, researcher: Visitor) -> None:
        page, claim = self.begin(queue, researcher)
        uid = parse(researcher.get(page).text).form("/close").action.rpartition("/")[0]
        assert parse(researcher.get(page).text).find_form("/retry") is None
        assert researcher.post(f"{uid}/retry").status_code == 409
        with db.transaction() as session:
            jobs.fail(session, claim, "The model's files are gone.")
        assert researcher.post(parse(researcher.get(page).text).form("/retry").action).headers["location"] == page
        with db.transaction() as session:
            again = jobs.claim(session, claim.job_id)
        assert again is not None
        self.store(again)
        assert researcher.post(f"{uid}/retry").status_code == 409


class TestRatingsAndLabels:
    def test_open_tasks_on_what_nobody_was_asked_about(self, queue: Queue, researcher: Visitor) -> None:
        page = f"/p/{queue.project.slug}/evaluations"
        with db.transaction() as session:
            model = str(checkpoints.active_policy(session, queue.project.id).uid)
            prompts = [registry.make_prompt(session, queue.project, split=Split.VALID) for _ in range(3)]
            for prompt in prompts[:2]:
                answer(session, queue, prompt, "old")
            newest = answer(session, queue, prompts[0], "new")
        sent = {"model": model, "split": "valid", "prompts": "1", "judgements_wanted": "3"}
        keys = [{"idempotency_key": str(uuid.uuid4())} for _ in range(3)]
        for key in (keys[0], keys[0], keys[1]):
            assert researcher.post(f"{page}/ratings", **sent | key).headers["location"] == f"{page}?asked=1"
        assert "that nobody was asked to rate" in researcher.post(f"{page}/ratings", **sent | keys[2]).text
        for _ in "a double click":
            answered = researcher.post(f"{page}/labels", **sent | keys[0] | {"prompts": "9"})
            assert answered.headers["location"] == f"{page}?asked=3"
        assert "nobody was asked to label" in researcher.post(f"{page}/labels", **sent | keys[1]).text
        with db.transaction() as session:
            rated = session.scalars(select(Task).where(Task.kind == TaskKind.RATE)).all()
            texts = {task_queries.list_outputs(session, task.id)[0].text: task.judgements_wanted for task in rated}
            assert texts == {newest.text: 3, "old": 3}

    def test_a_labeller_neither_asks_nor_sees_who_is_compared(self, client: TestClient, queue: Queue) -> None:
        labeller = make_visitor(client, queue.project, Role.LABELLER)
        page = f"/p/{queue.project.slug}/evaluations"
        assert labeller.get(page).status_code == labeller.post(f"{page}/labels").status_code == 403
