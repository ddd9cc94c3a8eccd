"""Asking a model outside, by the OpenAI chat completions protocol: one response a request, several requests side by side.

Every call passes the guard of `app.fetch`. What an endpoint answers is untrusted: read strictly, bounded, never run or followed.
"""

import json
import random
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Event
from typing import Any

from app import fetch
from app.errors import AppError
from app.schemas.plans import Part
from app.services.endpoints import Target

SIDE_BY_SIDE = 8
TRIES = 5
WAITS = (1.0, 2.0, 4.0, 8.0)
"""Seconds before each further try, a quarter more or less by chance, unless the endpoint itself says how long."""
LONGEST_WAIT = 60.0
LOOK_SECONDS = 5.0
"""Between two looks whether somebody wants the work stopped."""
LIMITS = fetch.Limits(seconds=120.0, body_bytes=2 * 1024**2)

_OK, _TOO_MANY, _SERVER = 200, 429, 500
_OF_THE_PROMPT = (400, 413, 422)
"""Statuses by which an endpoint refuses one request for what is in it."""


class EndpointFailedError(AppError):
    """The endpoint gives no responses at present; the sentence says why."""

    status = 502


class PromptRefusedError(Exception):
    """The endpoint gives none to this prompt."""


@dataclass(frozen=True)
class Answer:
    """A response, with the tokens that the endpoint says it counted."""

    text: str
    finish_reason: str
    tokens: int | None
    tokens_in: int | None


@dataclass(frozen=True)
class Way:
    """How a call leaves and how a wait passes. A wait ends when `stopped` is set, and no further try begins."""

    call: Callable[..., fetch.Reply] = fetch.call
    wait_factor: float = 1.0
    stopped: Event = field(default_factory=Event)

    def wait(self, seconds: float) -> None:
        """Let so much time pass. Raises EndpointFailedError where the work was stopped."""
        if self.stopped.wait(seconds * self.wait_factor):
            raise EndpointFailedError("The work was stopped.")


def ask_all(
    target: Target,
    prompts: Sequence[Sequence[Mapping[str, str]]],
    n: int,
    part: Part,
    *,
    keep_going: Callable[[], None],
    way: Way | None = None,
) -> list[list[Answer] | str]:
    """`n` responses to each prompt, or why there are none. `keep_going` is called between them, and may raise.

    Raises EndpointFailedError where the endpoint cannot be used: it is away, refuses the key, or speaks another protocol.
    """
    way = way or Way()
    found: list[list[Answer] | str] = [[] for _ in prompts]
    with ThreadPoolExecutor(SIDE_BY_SIDE, thread_name_prefix="endpoint") as pool:
        asked = [
            (at, pool.submit(ask, target, prompt, part, way)) for at, prompt in enumerate(prompts) for _ in range(n)
        ]
        try:
            for at, future in asked:
                try:
                    answer, of_prompt = _wait_for(future, keep_going), found[at]
                except PromptRefusedError as error:
                    found[at] = str(error)
                    continue
                if isinstance(of_prompt, list):
                    of_prompt.append(answer)
        except BaseException:
            way.stopped.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return found


def _wait_for(future: "Future[Answer]", keep_going: Callable[[], None]) -> Answer:
    while True:
        try:
            return future.result(timeout=LOOK_SECONDS)
        except TimeoutError:
            keep_going()


def ask(target: Target, prompt: Sequence[Mapping[str, str]], part: Part, way: Way) -> Answer:
    """One response. Raises PromptRefusedError, EndpointFailedError."""
    body = {
        "model": target.model,
        "messages": [{"role": turn["role"], "content": turn["content"]} for turn in prompt],
        "temperature": part.temperature,
        "top_p": part.top_p,
        "max_tokens": part.max_new_tokens,
        "stream": False,
    }
    headers = {"Content-Type": "application/json", "Accept": "application/json"}
    if target.key:
        headers["Authorization"] = f"Bearer {target.key}"
    content = json.dumps(body).encode()
    problem = ""
    for attempt in range(TRIES):
        wait = None
        try:
            reply = way.call("POST", target.address, headers=headers, content=content, limits=LIMITS)
            if reply.status == _OK:
                return _read(reply.body)
            problem = f"it answers with status {reply.status}"
            _check_status(target, reply)
            wait = _asked_wait(reply)
        except fetch.AddressRefused as error:
            raise EndpointFailedError(f"The endpoint {target.name} may not be called. {error.message}") from error
        except fetch.Unanswered as error:
            problem = error.message.rstrip(".")
        except ValueError as error:
            problem = f"what it answers is no chat completion: {error}"
        if attempt < len(WAITS):
            way.wait(wait if wait is not None else WAITS[attempt] * random.uniform(0.75, 1.25))
    raise EndpointFailedError(
        f"The endpoint {target.name} gave no response in {TRIES} tries; at last, {problem}. "
        "Try it on the page of endpoints, then go on."
    )


def _check_status(target: Target, reply: fetch.Reply) -> None:
    """Raise where another try cannot help."""
    if reply.status in _OF_THE_PROMPT:
        raise PromptRefusedError(
            f"The endpoint {target.name} refused it with status {reply.status}: {_said(reply.body)}."
        )
    if reply.status != _TOO_MANY and reply.status < _SERVER:
        hint = {
            401: "Its key is missing or wrong.",
            403: "Its key may not use this model.",
            404: "Its address or the model's name is wrong.",
        }.get(reply.status, "")
        raise EndpointFailedError(
            f"The endpoint {target.name} refuses with status {reply.status}: {_said(reply.body)}. {hint}".strip()
        )


def _asked_wait(reply: fetch.Reply) -> float | None:
    value = reply.headers.get("retry-after", "")
    return min(float(value), LONGEST_WAIT) if value.isascii() and value.isdigit() and len(value) < 6 else None


def _said(body: bytes) -> str:
    """What an error says of itself, in one short line."""
    try:
        value = json.loads(body)
        said = value["error"]["message"] if isinstance(value, dict) else ""
    except (ValueError, KeyError, TypeError, RecursionError):
        said = ""
    text = said if isinstance(said, str) and said else body[:200].decode("utf-8", "replace")
    return (
        " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())[:200] or "without a word"
    )


def _read(body: bytes) -> Answer:
    """A chat completion. Raises ValueError saying what is wrong, PromptRefusedError where the model gave no text."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        raise ValueError(f"{body[:60]!r} is no JSON") from None
    choices = value.get("choices") if isinstance(value, dict) else None
    if not (isinstance(choices, list) and choices and isinstance(choices[0], dict)):
        raise ValueError("it has no choices")
    message, reason = choices[0].get("message"), choices[0].get("finish_reason")
    if not isinstance(message, dict):
        raise ValueError("its choice has no message")
    text = message.get("content")
    if text is None or text == "":
        raise PromptRefusedError(f"The endpoint gave no text ({str(reason)[:40]}).")
    if not isinstance(text, str):
        raise ValueError("its content is no text")
    text = text.encode("utf-8", "replace").decode("utf-8").replace("\0", "\N{REPLACEMENT CHARACTER}")
    usage = value.get("usage")
    counted = usage if isinstance(usage, dict) else {}
    return Answer(
        text=text,
        finish_reason="length" if reason == "length" else "stop",
        tokens=_count(counted, "completion_tokens"),
        tokens_in=_count(counted, "prompt_tokens"),
    )


def _count(usage: Mapping[str, Any], name: str) -> int | None:
    value = usage.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10_000_000 else None
