"""Several requests side by side, over real HTTP on loopback: what is kept, what is not begun, and an end at once."""

import threading
import time
from typing import Any

import pytest

from tests.workers.tasks.chat_server import Answer, completion, refusal
from tests.workers.tasks.test_outside import PART, PROMPT, QUICK, target_of
from workers.tasks import sending
from workers.tasks.outside import Line, Patience, Way
from workers.tasks.sending import ask_all


def nothing() -> None:
    """Nobody wants it stopped."""


def named(*names: str) -> list[list[dict[str, str]]]:
    return [[{"role": "user", "content": name}] for name in names]


class TestAskAll:
    def test_as_many_to_each_prompt_as_asked_for(self) -> None:
        with target_of(lambda number, body: completion(f"{body['messages'][0]['content']} {number}")) as (target, _):
            asked = ask_all(target, named("a", "b", "c"), [4, 1, 3], PART, keep_going=nothing, line=(line := Line(8)))
        texts = [[answer.text for answer in answers] for answers in asked.answers]
        assert [(len(of_prompt), {text[0] for text in of_prompt}) for of_prompt in texts] == [
            (4, {"a"}),
            (1, {"b"}),
            (3, {"c"}),
        ]
        assert line.charged == 8 and asked.failure is None and not asked.refused

    def test_one_prompt_that_is_refused_leaves_the_others_and_is_not_asked_on(self) -> None:
        with target_of(
            lambda _, body: refusal(400, "no") if body["messages"][0]["content"] == "b" else completion("yes")
        ) as (target, server):
            asked = ask_all(target, named("b", "a", "c"), [40, 2, 2], PART, keep_going=nothing)
        assert [len(answers) for answers in asked.answers] == [0, 2, 2] and "refused" in asked.refused[0]
        assert len(server.bodies) < 4 + sending.SIDE_BY_SIDE * 2, "what was not sent yet is not sent"

    def test_a_failure_keeps_what_came_and_ends_the_rest(self) -> None:
        def answer(_: int, body: dict[str, Any]) -> Answer:
            name = body["messages"][0]["content"]
            if name == "b":
                time.sleep(0.2)
            return refusal(401, "who?") if name == "b" else completion("yes")

        with target_of(answer) as (target, server):
            asked = ask_all(
                target,
                named("a", "b", *"cdefghijklmnopqrstuvwxyz" * 20),
                [2, 1] + [1] * 480,
                PART,
                keep_going=nothing,
                line=(line := Line(8)),
            )
        assert asked.failure is not None and "status 401" in asked.failure
        assert len(asked.answers[0]) == 2 and line.charged == sum(len(answers) for answers in asked.answers)
        assert len(server.bodies) < 482

    def test_too_many_requests_narrow_the_line(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sending, "SIDE_BY_SIDE", 4)
        busy, most, lock = [0], [0], threading.Lock()

        def answer(number: int, _: object) -> Answer:
            with lock:
                busy[0] += 1
                most[0] = max(most[0], busy[0]) if number > 40 else 0
            time.sleep(0.01)
            with lock:
                busy[0] -= 1
            return refusal(429, Retry_After="0") if number < 4 else completion("yes")

        with target_of(answer) as (target, _):
            asked = ask_all(target, [PROMPT], [80], PART, keep_going=nothing, way=Way(wait_factor=QUICK))
        assert len(asked.answers[0]) == 80 and most[0] == 1

    def test_after_its_time_no_further_prompt_is_begun_and_the_first_is_finished(self) -> None:
        with target_of(lambda *_: completion("yes")) as (target, server):
            asked = ask_all(target, named("a", "b", "c"), [9, 9, 9], PART, keep_going=nothing, seconds=-1)
        assert [len(answers) for answers in asked.answers] == [9, 0, 0] and len(server.bodies) == 9
        assert not asked.refused and asked.failure is None

    def test_a_stop_does_not_wait_for_a_silent_endpoint(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sending, "LOOK_SECONDS", 0.05)
        over = threading.Event()

        def answer(*_: object) -> Answer:
            over.wait(5)
            return completion("late")

        class Stopped(Exception):
            pass

        def stop() -> None:
            raise Stopped

        begun = time.monotonic()
        with target_of(answer) as (target, server):
            with pytest.raises(Stopped):
                ask_all(target, [PROMPT] * 20, [1] * 20, PART, keep_going=stop)
            assert time.monotonic() - begun < 2
            over.set()
            time.sleep(0.1)
            assert len(server.bodies) <= sending.SIDE_BY_SIDE

    def test_one_that_hangs_is_given_up_within_its_time_and_may_charge(self) -> None:
        over = threading.Event()

        def answer(*_: object) -> Answer:
            over.wait(5)
            return completion("late")

        with target_of(answer) as (target, _):
            begun = time.monotonic()
            way = Way(wait_factor=QUICK, patience=Patience(5, 0.2, 0.3))
            asked = ask_all(target, [PROMPT], [1], PART, keep_going=nothing, way=way, line=(line := Line(8)))
            assert time.monotonic() - begun < 2
            over.set()
        assert asked.failure is not None and "in 2 tries" in asked.failure and line.charged == 2

    def test_nothing_wanted_is_nothing_asked(self) -> None:
        with target_of(lambda *_: completion("x")) as (target, server):
            assert ask_all(target, [], [], PART, keep_going=nothing).answers == [] and server.bodies == []
