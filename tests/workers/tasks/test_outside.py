"""Asking a model outside: over real HTTP on loopback, which the operator's setting allows."""

import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import func, select

from app import fetch
from app.db import transaction
from app.models import (
    AuditEntry,
    Endpoint,
    Job,
    JobState,
    PlanPrompt,
    Project,
    Role,
    Sample,
    Sampler,
    SamplingPlan,
    Task,
)
from app.permissions import Access
from app.schemas.plans import EndpointForm, Part, PlanCounts, PlanSettings
from app.services import endpoints, plans
from app.services.endpoints import Target
from app.settings import Settings, get_settings
from tests.app import registry
from tests.workers.tasks.chat_server import Answer, ChatServer, completion, refusal, serve_chat
from workers.tasks import outside
from workers.tasks.endpoints import test_endpoint as try_endpoint
from workers.tasks.outside import EndpointFailedError, PromptRefusedError, Way, ask, ask_all
from workers.tasks.plans import sample_plan

PART = Part(kind="endpoint", source=uuid.uuid4(), responses=1, temperature=0.7, max_new_tokens=20)
PROMPT = [{"role": "user", "content": "Name a bird."}]
QUICK = 0.001


@contextmanager
def target_of(
    answer: Callable[[int, dict[str, Any]], Answer], key: str | None = "sk-1"
) -> Iterator[tuple[Target, ChatServer]]:
    with serve_chat(answer) as server:
        address = fetch.read_address(f"{server.url}/chat/completions", {("127.0.0.1", server.port)})
        yield Target("Big", address, "big-1", key), server


class TestAsk:
    def test_a_response_comes_back_with_what_it_counted(self) -> None:
        with target_of(lambda *_: completion("A gull.", reason="length", tokens=3)) as (target, server):
            answer = ask(target, PROMPT, PART, Way())
        assert (answer.text, answer.finish_reason, answer.tokens, answer.tokens_in) == ("A gull.", "length", 3, 11)
        assert server.keys == ["Bearer sk-1"]
        assert server.bodies == [
            {
                "model": "big-1",
                "messages": PROMPT,
                "temperature": 0.7,
                "top_p": 1.0,
                "max_tokens": 20,
                "stream": False,
            }
        ]

    def test_without_a_key_none_is_sent(self) -> None:
        with target_of(lambda *_: completion("A gull."), key=None) as (target, server):
            ask(target, PROMPT, PART, Way())
        assert server.keys == [None]

    @pytest.mark.parametrize("status", [429, 500, 502, 503, 529])
    def test_what_passes_is_tried_again(self, status: int) -> None:
        with target_of(lambda number, _: refusal(status) if number < 3 else completion("A gull.")) as (target, server):
            assert ask(target, PROMPT, PART, Way(wait_factor=QUICK)).text == "A gull."
        assert len(server.bodies) == 4

    def test_waits_grow_unless_the_endpoint_says_how_long(self, monkeypatch: pytest.MonkeyPatch) -> None:
        waits: list[float] = []
        monkeypatch.setattr(Way, "wait", lambda self, seconds: waits.append(seconds))
        answers = [refusal(429), refusal(429, Retry_After="17"), refusal(503, Retry_After="9999"), refusal(500)]
        with target_of(lambda number, _: answers[number] if number < 4 else completion("A gull.")) as (target, _):
            ask(target, PROMPT, PART, Way())
        assert 0.75 <= waits[0] <= 1.25 and waits[1:3] == [17, 60] and 6 <= waits[3] <= 10

    def test_gives_up_after_so_many_tries_with_the_last_reason(self) -> None:
        with (
            target_of(lambda *_: refusal(503)) as (target, server),
            pytest.raises(
                EndpointFailedError, match="Big gave no response in 5 tries; at last, it answers with status 503"
            ),
        ):
            ask(target, PROMPT, PART, Way(wait_factor=QUICK))
        assert len(server.bodies) == 5

    @pytest.mark.parametrize(("status", "hint"), [(401, "Its key"), (403, "Its key may not use"), (404, "Its address")])
    def test_what_stays_is_not_tried_again(self, status: int, hint: str) -> None:
        with (
            target_of(lambda *_: refusal(status, "sorry\x1b[31m \u202e!")) as (target, server),
            pytest.raises(EndpointFailedError, match=rf"status {status}: sorry \[31m !\. {hint}"),
        ):
            ask(target, PROMPT, PART, Way())
        assert len(server.bodies) == 1

    @pytest.mark.parametrize("status", [400, 413, 422])
    def test_what_is_about_the_prompt_is_said_of_the_prompt(self, status: int) -> None:
        with (
            target_of(lambda *_: refusal(status, "too long")) as (target, _),
            pytest.raises(PromptRefusedError, match=f"refused it with status {status}: too long"),
        ):
            ask(target, PROMPT, PART, Way())

    @pytest.mark.parametrize(
        ("body", "problem"),
        [
            (b"", "is no JSON"),
            (b"<html>", "is no JSON"),
            (b"[" * 100_000, "is no JSON"),
            (b"\xff\xfe", "is no JSON"),
            (b"[]", "no choices"),
            (b"null", "no choices"),
            (b'{"choices": []}', "no choices"),
            (b'{"choices": ["x"]}', "no choices"),
            (b'{"choices": [{}]}', "no message"),
            (b'{"choices": [{"message": {"content": ["x"]}}]}', "content is no text"),
            (b'{"choices": [{"message": {"content": 5}}]}', "content is no text"),
        ],
    )
    def test_garbage_is_tried_again_and_named(self, body: bytes, problem: str) -> None:
        with (
            target_of(lambda *_: (200, {}, body)) as (target, server),
            pytest.raises(EndpointFailedError, match=problem),
        ):
            ask(target, PROMPT, PART, Way(wait_factor=QUICK))
        assert len(server.bodies) == 5

    @pytest.mark.parametrize("text", [None, ""])
    def test_no_text_is_said_of_the_prompt(self, text: str | None) -> None:
        with (
            target_of(lambda *_: completion(text, reason="content_filter")) as (target, _),
            pytest.raises(PromptRefusedError, match=r"gave no text \(content_filter\)"),
        ):
            ask(target, PROMPT, PART, Way())

    def test_what_postgres_cannot_store_is_replaced_and_odd_counts_are_left_out(self) -> None:
        value = {"choices": [{"message": {"content": "a\0b\ud800c"}}], "usage": {"completion_tokens": True}}
        with target_of(lambda *_: (200, {}, json.dumps(value).encode())) as (target, _):
            answer = ask(target, PROMPT, PART, Way())
        assert answer.text == "a\ufffdb?c" and answer.tokens is answer.tokens_in is None

    def test_a_redirect_and_a_huge_body_are_no_answers(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with (
            target_of(lambda *_: (307, {"Location": "http://10.0.0.1/"}, b"")) as (target, server),
            pytest.raises(EndpointFailedError, match="redirects elsewhere"),
        ):
            ask(target, PROMPT, PART, Way())
        assert len(server.bodies) == 1
        monkeypatch.setattr(outside, "LIMITS", fetch.Limits(seconds=10, body_bytes=1000))
        with (
            target_of(lambda *_: completion("x" * 2000)) as (target, _),
            pytest.raises(EndpointFailedError, match="more than 1,000 bytes"),
        ):
            ask(target, PROMPT, PART, Way(wait_factor=QUICK))


class TestAskAll:
    def test_as_many_to_each_prompt_as_asked_for(self) -> None:
        with target_of(lambda number, body: completion(f"{body['messages'][0]['content']} {number}")) as (target, _):
            prompts = [[{"role": "user", "content": name}] for name in "abc"]
            found = ask_all(target, prompts, 4, PART, keep_going=lambda: None)
        texts = [[answer.text for answer in answers] for answers in found if isinstance(answers, list)]
        assert [{text[0] for text in of_prompt} for of_prompt in texts] == [{"a"}, {"b"}, {"c"}]
        assert len({text for of_prompt in texts for text in of_prompt}) == 12

    def test_one_prompt_that_is_refused_leaves_the_others(self) -> None:
        with target_of(
            lambda _, body: refusal(400, "no") if body["messages"][0]["content"] == "b" else completion("yes")
        ) as (target, _):
            found = ask_all(
                target, [[{"role": "user", "content": name}] for name in "abc"], 2, PART, keep_going=lambda: None
            )
        assert [len(found[0]), len(found[2])] == [2, 2] and isinstance(found[1], str) and "refused" in found[1]

    def test_a_stop_is_heard_while_the_endpoint_is_silent(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(outside, "LOOK_SECONDS", 0.05)
        silent = threading.Event()

        def answer(*_: object) -> Answer:
            silent.wait(1)
            return refusal(503)

        class Stopped(Exception):
            pass

        def stop() -> None:
            silent.set()
            raise Stopped

        begun = time.monotonic()
        with target_of(answer) as (target, _), pytest.raises(Stopped):
            ask_all(target, [PROMPT] * 20, 1, PART, keep_going=stop)
        assert time.monotonic() - begun < 5


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
