"""Plans and tries that ask a model outside, over real HTTP on loopback: what is sent, what is kept, what is paid at most."""

import threading
import time
import uuid
from typing import Any

import pytest
from sqlalchemy import func, select

from app.db import transaction
from app.models import (
    AuditEntry,
    Endpoint,
    Job,
    JobState,
    PlanPrompt,
    Project,
    Prompt,
    PromptPool,
    PromptStatus,
    Role,
    Sample,
    Sampler,
    SamplingPlan,
    Task,
)
from app.permissions import Access
from app.queries import plans as plan_queries
from app.schemas.plans import EndpointForm, PlanCounts, PlanSettings
from app.services import endpoints, plan_work, plans
from app.settings import Settings, get_settings
from tests.app import registry
from tests.workers.tasks.chat_server import Answer, ChatServer, completion, refusal, serve_chat
from workers.tasks import outside, sending
from workers.tasks import plans as plan_tasks
from workers.tasks.endpoints import test_endpoint as try_endpoint
from workers.tasks.plans import sample_plan

QUICK = 0.001


@pytest.fixture
def access(project: Project) -> Access:
    with transaction() as session:
        return registry.access_of(registry.make_user(session), project, Role.ADMIN)


def allow(monkeypatch: pytest.MonkeyPatch, server: ChatServer) -> None:
    monkeypatch.setenv("PREFERABLE_ALLOWED_HOSTS", f"127.0.0.1:{server.port}")
    get_settings.cache_clear()


def add(access: Access, server: ChatServer, **others: Any) -> Endpoint:
    values = {"name": "Big", "url": server.url, "model": "big-1", "key": "sk-secret"} | others
    with transaction() as session:
        return endpoints.add(session, access, EndpointForm.model_validate(values))


def plan_with(access: Access, endpoint: Endpoint, **others: Any) -> SamplingPlan:
    part = {"kind": "endpoint", "source": endpoint.uid, "responses": 2, "max_new_tokens": 20}
    values = {"parts": [part], "tasks": 3, "valid_share": 0} | others
    with transaction() as session:
        plan = plans.save_draft(session, access, "Outside", PlanSettings.model_validate(values))
        return plans.start(session, access, plan.uid)


def run(plan: SamplingPlan) -> Job:
    sample_plan(plan.job_id or 0)
    with transaction() as session:
        return session.get_one(Job, plan.job_id)


class TestPlan:
    def test_an_endpoint_and_a_model_of_the_registry_share_tasks(
        self, access: Access, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with transaction() as session:
            base = plans.list_choices(session, access.project).models[0]
        with serve_chat(lambda number, _: completion(f"Bird {number}.")) as server:
            allow(monkeypatch, server)
            endpoint = add(access, server)
            both = [
                {
                    "kind": "endpoint",
                    "source": endpoint.uid,
                    "responses": 1,
                    "max_new_tokens": 20,
                    "prefix": "Please: ",
                },
                {"kind": "checkpoint", "source": base.uid, "responses": 2, "max_new_tokens": 12},
            ]
            job = run(plan := plan_with(access, endpoint, parts=both))
        assert (job.state, job.error) == (JobState.SUCCEEDED, None)
        assert server.keys == ["Bearer sk-secret"] * 3
        assert {body["messages"][-1]["content"][:12] for body in server.bodies} == {"Please: Bird"}
        with transaction() as session:
            sampler = session.scalars(select(Sampler).where(Sampler.endpoint_id == endpoint.id)).one()
            drawn = session.scalars(select(Sample).where(Sample.sampler_id == sampler.id)).all()
            counts = PlanCounts.from_json(session.get_one(SamplingPlan, plan.id).counts)
            stored = session.get_one(Endpoint, endpoint.id)
        assert {(one.seed, one.length_tokens, one.finish_reason) for one in drawn} == {(None, 7, "stop")}
        assert len(drawn) == 3
        assert (counts.parts[0].responses, counts.parts[0].tokens, counts.parts[0].tokens_in) == (3, 21, 33)
        assert stored.sealed_key is not None and b"sk-secret" not in stored.sealed_key

    def test_one_that_is_away_fails_the_plan_and_a_retry_goes_on(
        self, access: Access, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(outside, "WAITS", (QUICK,) * 4)
        is_away = [True]
        with serve_chat(lambda number, _: refusal(401, "who?") if is_away[0] else completion(f"{number}")) as server:
            allow(monkeypatch, server)
            plan = plan_with(access, add(access, server))
            job = run(plan)
            assert job.state == JobState.FAILED and job.error is not None
            assert "Big refuses with status 401: who?. Its key is missing or wrong." in job.error
            assert "sk-secret" not in job.error
            is_away[0] = False
            with transaction() as session:
                plans.retry(session, access, plan.uid)
            assert run(plan).state == JobState.SUCCEEDED
        with transaction() as session:
            assert session.scalar(select(func.count()).select_from(Task).where(Task.plan_id == plan.id)) == 3

    def test_prompts_that_it_refuses_are_passed_over_with_its_words(
        self, access: Access, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with serve_chat(
            lambda number, body: refusal(400, "not this") if "Bird 1?" in str(body) else completion(f"{number}")
        ) as server:
            allow(monkeypatch, server)
            job = run(plan := plan_with(access, add(access, server), tasks=9))
        assert job.state == JobState.SUCCEEDED and job.result is not None
        assert (job.result["made"], job.result["passed_over"]) == (8, 1)
        with transaction() as session:
            problems = session.scalars(
                select(PlanPrompt.problem).where(PlanPrompt.plan_id == plan.id, PlanPrompt.problem.is_not(None))
            ).all()
        assert problems == ["The endpoint Big refused it with status 400: not this."]

    def test_what_is_quarantined_while_it_waits_is_not_sent(
        self, access: Access, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The prompt was taken up hours ago; between two waves somebody finds personal data in it."""
        monkeypatch.setattr(plan_tasks, "MANY_AT_ONCE", 1)
        found: list[str] = []

        def answer(number: int, body: dict[str, Any]) -> Answer:
            if number == 0:
                with transaction() as session:
                    said = body["messages"][-1]["content"]
                    waiting = session.scalars(
                        select(Prompt).join(PlanPrompt, PlanPrompt.prompt_id == Prompt.id).where(~PlanPrompt.is_over)
                    )
                    prompt = next(one for one in waiting if one.messages[-1]["content"] != said)
                    prompt.status, prompt.is_private = PromptStatus.PII, True
                    found.append(prompt.messages[-1]["content"])
            return completion(f"{number}")

        with serve_chat(answer) as server:
            allow(monkeypatch, server)
            job = run(plan := plan_with(access, add(access, server), tasks=9))
        assert found[0] not in str(server.bodies)
        assert job.result is not None and (job.result["made"], job.result["passed_over"]) == (8, 1)
        with transaction() as session:
            passed = plan_queries.list_passed_over(session, plan.id, limit=9)
        assert passed == [(None, plan_queries.TAKEN_OUT)], "its text is shown to nobody"

    def test_a_pool_that_is_switched_off_is_not_sent(self, access: Access, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(plan_tasks, "MANY_AT_ONCE", 1)

        def answer(number: int, _: object) -> Answer:
            if number == 1:
                with transaction() as session:
                    session.scalars(select(PromptPool)).one().is_active = False
            return completion(f"{number}")

        with serve_chat(answer) as server:
            allow(monkeypatch, server)
            job = run(plan_with(access, add(access, server), tasks=5))
        assert job.result is not None and (job.result["made"], job.result["passed_over"]) == (1, 4)
        assert len(server.bodies) == 2

    def test_removing_it_stops_a_plan_under_way(self, access: Access, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(plan_tasks, "MANY_AT_ONCE", 1)
        uids: list[uuid.UUID] = []

        def answer(number: int, _: object) -> Answer:
            if number == 1:
                with transaction() as session:
                    endpoints.remove(session, access, uids[0])
            return completion(f"{number}")

        with serve_chat(answer) as server:
            allow(monkeypatch, server)
            endpoint = add(access, server)
            uids.append(endpoint.uid)
            job = run(plan := plan_with(access, endpoint, tasks=5))
        assert job.error is not None and "was removed" in job.error and len(server.bodies) == 2
        with transaction() as session:
            assert PlanCounts.from_json(session.get_one(SamplingPlan, plan.id).counts).tasks == 1

    def test_what_was_paid_is_kept_when_one_request_fails(
        self, access: Access, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def answer(number: int, body: dict[str, Any]) -> Answer:
            if "Bird 1?" in str(body):
                time.sleep(0.3)
                return refusal(401, "who?")
            return completion(f"{number}")

        with serve_chat(answer) as server:
            allow(monkeypatch, server)
            job = run(plan := plan_with(access, add(access, server), tasks=9))
        assert job.state == JobState.FAILED and job.error is not None and "status 401" in job.error
        with transaction() as session:
            counts = PlanCounts.from_json(session.get_one(SamplingPlan, plan.id).counts)
        assert counts.tasks >= 1 and counts.parts[0].responses == counts.parts[0].requests >= 2 * counts.tasks

    def test_repetitions_are_paid_for_once_more_and_no_oftener(
        self, access: Access, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with serve_chat(lambda *_: completion("Always this.")) as server:
            allow(monkeypatch, server)
            job = run(plan := plan_with(access, add(access, server), tasks=2))
        most = 8
        assert len(server.bodies) <= most, "no more than the plan's cost was shown for"
        assert job.state == JobState.FAILED and job.error is not None
        assert f"the cost was shown for {most} at most. 0 of 2 tasks are made" in job.error
        with transaction() as session:
            problems = set(session.scalars(select(PlanPrompt.problem).where(PlanPrompt.plan_id == plan.id)))
        assert any("not found in 2 draws" in (problem or "") for problem in problems)

    def test_money_is_not_spent_beyond_what_was_shown(self, access: Access, monkeypatch: pytest.MonkeyPatch) -> None:
        """An endpoint that says it counted a million tokens for each response."""
        with serve_chat(lambda number, _: completion(f"{number}", tokens=1_000_000)) as server:
            allow(monkeypatch, server)
            monkeypatch.setattr(plan_tasks, "MANY_AT_ONCE", 1)
            endpoint = add(access, server, price_in=1, price_out=1)
            job = run(plan_with(access, endpoint, tasks=5))
        assert len(server.bodies) == 2 and job.error is not None and "have cost 2.00" in job.error

    def test_a_stop_does_not_forget_what_was_paid(self, access: Access, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sending, "LOOK_SECONDS", 0.05)
        plan_uids: list[uuid.UUID] = []
        over = threading.Event()

        def answer(number: int, _: object) -> Answer:
            if number == 3:
                with transaction() as session:
                    plans.cancel(session, access, plan_uids[0])
            if number >= 3:
                over.wait(5)
            return completion(f"{number}")

        begun = time.monotonic()
        with serve_chat(answer) as server:
            allow(monkeypatch, server)
            plan = plan_with(access, add(access, server), tasks=5)
            plan_uids.append(plan.uid)
            job = run(plan)
            assert job.state == JobState.CANCELLED and time.monotonic() - begun < 4
            over.set()
        with transaction() as session:
            assert PlanCounts.from_json(session.get_one(SamplingPlan, plan.id).counts).parts[0].requests == 3

    def test_one_that_refuses_nearly_all_is_given_up(self, access: Access, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(plan_work, "HOPELESS_AFTER", 4)
        monkeypatch.setattr(plan_tasks, "MANY_AT_ONCE", 4)
        with serve_chat(lambda *_: refusal(400, "not this")) as server:
            allow(monkeypatch, server)
            job = run(plan_with(access, add(access, server), tasks=9))
        assert job.state == JobState.SUCCEEDED and job.result is not None
        assert (job.result["made"], job.result["passed_over"]) == (0, 4)

    def test_hostile_words_do_not_leave_the_job_stuck(self, access: Access, monkeypatch: pytest.MonkeyPatch) -> None:
        with serve_chat(lambda *_: completion(None, reason="\0\ud800")) as server:
            allow(monkeypatch, server)
            job = run(plan_with(access, add(access, server)))
        assert job.error is not None and "at most. 0 of 3 tasks are made" in job.error, (
            "written, and not lost to Postgres"
        )

    def test_one_that_was_removed_is_not_asked(self, access: Access, monkeypatch: pytest.MonkeyPatch) -> None:
        with serve_chat(lambda *_: completion("x")) as server:
            allow(monkeypatch, server)
            plan = plan_with(access, endpoint := add(access, server))
            with transaction() as session:
                endpoints.remove(session, access, endpoint.uid)
            job = run(plan)
        assert job.error is not None and "was removed" in job.error
        assert server.bodies == []

    def test_a_host_that_is_no_longer_allowed_is_not_asked(
        self, access: Access, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with serve_chat(lambda *_: completion("x")) as server:
            allow(monkeypatch, server)
            plan = plan_with(access, add(access, server))
            monkeypatch.setenv("PREFERABLE_ALLOWED_HOSTS", "")
            get_settings.cache_clear()
            job = run(plan)
        assert job.error is not None and "PREFERABLE_ALLOWED_HOSTS" in job.error
        assert server.bodies == []


class TestTestEndpoint:
    def test_asks_one_short_question(self, access: Access, monkeypatch: pytest.MonkeyPatch) -> None:
        with serve_chat(lambda *_: completion("Blue.")) as server:
            allow(monkeypatch, server)
            endpoint = add(access, server)
            with transaction() as session:
                job = endpoints.request_test(session, access, endpoint.uid)
                assert endpoints.request_test(session, access, endpoint.uid).id == job.id
            try_endpoint(job.id)
        with transaction() as session:
            (listed,) = endpoints.list_with_tests(session, access.project)
            acts = session.scalars(select(AuditEntry).where(AuditEntry.subject_uid == endpoint.uid)).all()
        assert listed.test is not None and listed.test.result is not None
        assert listed.test.state == JobState.SUCCEEDED and listed.test.result["text"] == "Blue."
        assert len(server.bodies) == 1
        assert [act.action for act in acts] == ["add endpoint", "test endpoint"]
        assert "sk-secret" not in str([act.details for act in acts])

    def test_one_that_hangs_is_given_up_soon_for_imports_wait(
        self, access: Access, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert outside.OF_TRIES.total_seconds <= 60 < outside.OF_PLANS.total_seconds <= 180
        monkeypatch.setattr(outside, "OF_TRIES", outside.Patience(2, 0.2, 0.3))
        monkeypatch.setattr(outside, "WAITS", (QUICK,))
        over = threading.Event()

        def answer(*_: object) -> Answer:
            over.wait(5)
            return completion("late")

        begun = time.monotonic()
        with serve_chat(answer) as server:
            allow(monkeypatch, server)
            endpoint = add(access, server)
            with transaction() as session:
                job = endpoints.request_test(session, access, endpoint.uid)
            try_endpoint(job.id)
            assert time.monotonic() - begun < 3
            over.set()
        with transaction() as session:
            stored = session.get_one(Job, job.id)
        assert stored.error is not None and "no response in 2 tries" in stored.error

    def test_says_why_it_failed(self, access: Access, monkeypatch: pytest.MonkeyPatch) -> None:
        with serve_chat(lambda *_: refusal(401, "bad key")) as server:
            allow(monkeypatch, server)
            endpoint = add(access, server)
            with transaction() as session:
                job = endpoints.request_test(session, access, endpoint.uid)
            try_endpoint(job.id)
        with transaction() as session:
            stored = session.get_one(Job, job.id)
        assert stored.state == JobState.FAILED and stored.error is not None and "bad key" in stored.error


def test_a_key_sealed_under_another_secret_is_said(
    access: Access, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve_chat(lambda *_: completion("x")) as server:
        allow(monkeypatch, server)
        endpoint = add(access, server)
        monkeypatch.setenv("PREFERABLE_SECRET_KEY", "another-one-of-more-than-thirty-two-characters")
        get_settings.cache_clear()
        with pytest.raises(Exception, match="secret key has changed"):
            endpoints.open_target(endpoint)
