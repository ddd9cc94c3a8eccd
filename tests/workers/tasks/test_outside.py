"""Asking a model outside: over real HTTP on loopback, which the operator's setting allows."""

import json
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from app import fetch
from app.schemas.plans import Part
from app.services.endpoints import Target
from tests.workers.tasks.chat_server import Answer, ChatServer, completion, refusal, serve_chat
from workers.tasks import outside
from workers.tasks.outside import EndpointFailedError, PromptRefusedError, Way, ask

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
        assert 2.25 <= waits[0] <= 3.75 and waits[1:3] == [17, 60] and 6 <= waits[3] <= 10

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
        monkeypatch.setattr(outside, "MOST_BYTES", 1000)
        with (
            target_of(lambda *_: completion("x" * 2000)) as (target, _),
            pytest.raises(EndpointFailedError, match="more than 1,000 bytes"),
        ):
            ask(target, PROMPT, PART, Way(wait_factor=QUICK))


class TestHostileWords:
    """What an endpoint says is shown to people and stored: no key in it, nothing that PostgreSQL refuses, and no end of it."""

    def test_a_reason_that_cannot_be_stored_is_cleaned(self) -> None:
        with (
            target_of(lambda *_: completion(None, reason="\0bad \ud800 \x1b[31m")) as (target, _),
            pytest.raises(PromptRefusedError, match=r"^The endpoint gave no text \(bad \[31m\)\.$"),
        ):
            ask(target, PROMPT, PART, Way())

    @pytest.mark.parametrize(
        "answer",
        [
            refusal(401, "your key sk-1-secret is wrong"),
            refusal(400, "sk-1-secret"),
            (200, {}, b"sk-1-secret is no JSON"),
            (403, {}, b"x" * 190 + b"sk-1-secret"),
            completion(None, reason="sk-1-secret"),
        ],
    )
    def test_a_key_that_comes_back_is_not_quoted(self, answer: Answer) -> None:
        with (
            target_of(lambda *_: answer, key="sk-1-secret") as (target, _),
            pytest.raises((EndpointFailedError, PromptRefusedError)) as caught,
        ):
            ask(target, PROMPT, PART, Way(wait_factor=QUICK))
        assert "sk-1" not in str(caught.value)

    def test_a_key_in_a_response_reaches_no_labeller(self) -> None:
        with target_of(lambda *_: completion("It is sk-1-secret!"), key="sk-1-secret") as (target, _):
            assert ask(target, PROMPT, PART, Way()).text == "It is [key]!"

    def test_a_text_beyond_its_tokens_is_cut(self) -> None:
        with target_of(lambda *_: completion("x" * 1000)) as (target, _):
            answer = ask(target, PROMPT, PART, Way())
        assert (len(answer.text), answer.finish_reason) == (16 * 20, "length")
