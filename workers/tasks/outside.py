"""Asking a model outside, by the OpenAI chat completions protocol: one response a request.

Every call passes the guard of `app.fetch`. What an endpoint answers is untrusted: read strictly, bounded, never run or followed.
How several requests go side by side is in `workers.tasks.sending`.
"""

import json
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from threading import Event
from typing import Any

from app import fetch
from app.errors import AppError
from app.schemas.plans import Part
from app.schemas.values import storable
from app.services.endpoints import Target

WAITS = (1.0, 2.0, 4.0, 8.0)
"""Seconds before each further try, a quarter more or less by chance, unless the endpoint itself says how long."""
LONGEST_WAIT = 60.0
MOST_BYTES = 2 * 1024**2
CHARACTERS_PER_TOKEN = 16
"""A text that is longer for the tokens it may have is cut: no tokenizer makes so many of one."""
LEAST_SECRET = 8
"""Characters of a key from which it is taken out of responses, too; a shorter one may be a word."""

_OK, _TOO_MANY, _SERVER = 200, 429, 500
_OF_THE_PROMPT = (400, 413, 422)
"""Statuses by which an endpoint refuses one request for what is in it."""


class EndpointFailedError(AppError):
    """The endpoint gives no responses at present; the sentence says why."""

    status = 502


class PromptRefusedError(Exception):
    """The endpoint gives none to this prompt."""


@dataclass(frozen=True)
class Patience:
    """How long an endpoint is waited for."""

    tries: int
    seconds: float
    """Of one call."""
    total_seconds: float
    """Of all calls for one response and the waits between them."""


OF_PLANS = Patience(tries=5, seconds=90.0, total_seconds=150.0)
"""The worker draws nothing else meanwhile, so an endpoint that hangs is given up within minutes."""

OF_TRIES = Patience(tries=2, seconds=25.0, total_seconds=50.0)
"""Of a try, for which imports wait."""


@dataclass(frozen=True)
class Answer:
    """A response, with the tokens that the endpoint says it counted."""

    text: str
    finish_reason: str
    tokens: int | None
    tokens_in: int | None


@dataclass
class Line:
    """How many requests go side by side: halved where the endpoint says it is too many. Counts those that may be charged for."""

    width: int
    charged: int = 0
    free_at: float = 0.0
    """Moment before which none begins, by the monotonic clock."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def narrow(self, wait_seconds: float) -> None:
        """Send fewer from now on, and none for so long."""
        with self.lock:
            self.width = max(1, self.width // 2)
            self.free_at = max(self.free_at, time.monotonic() + wait_seconds)

    def charge(self) -> None:
        """Count a request that the endpoint did its work for, or may have."""
        with self.lock:
            self.charged += 1


@dataclass(frozen=True)
class Way:
    """How a call leaves and how a wait passes. A wait ends when `stopped` is set, and no further try begins."""

    call: Callable[..., fetch.Reply] = fetch.call
    wait_factor: float = 1.0
    patience: Patience = OF_PLANS
    stopped: Event = field(default_factory=Event)

    def wait(self, seconds: float) -> None:
        """Let so much time pass. Raises EndpointFailedError where the work was stopped."""
        if self.stopped.wait(seconds * self.wait_factor):
            raise EndpointFailedError("The work was stopped.")


def ask(target: Target, prompt: Sequence[Mapping[str, str]], part: Part, way: Way, line: Line | None = None) -> Answer:
    """One response. Raises PromptRefusedError, EndpointFailedError."""
    line = line or Line(1)
    headers, content = _request(target, prompt, part)
    problem, tried, deadline = "", 0, time.monotonic() + way.patience.total_seconds
    for attempt in range(way.patience.tries):
        seconds = min(way.patience.seconds, deadline - time.monotonic())
        if seconds <= 0:
            break
        tried += 1
        wait = WAITS[min(attempt, len(WAITS) - 1)] * random.uniform(0.75, 1.25)
        limits = fetch.Limits(seconds=seconds, body_bytes=MOST_BYTES)
        try:
            reply = way.call("POST", target.address, headers=headers, content=content, limits=limits)
            if reply.status == _OK:
                line.charge()
                return _read(target, reply.body, part)
            problem = f"it answers with status {reply.status}"
            _check_status(target, reply)
            wait = _wait_of(reply, wait, line)
        except fetch.AddressRefused as error:
            raise EndpointFailedError(f"The endpoint {target.name} may not be called. {error.message}") from error
        except fetch.Unanswered as error:
            if isinstance(error, fetch.TimedOut):
                line.charge()
            problem = _quote(target, error.message).rstrip(".")
        except ValueError as error:
            problem = f"what it answers is no chat completion: {error}"
        if attempt < way.patience.tries - 1:
            way.wait(min(wait, max(0.0, deadline - time.monotonic())))
    raise EndpointFailedError(
        f"The endpoint {target.name} gave no response in {tried} tries; at last, {problem}. "
        "Try it on the page of endpoints, then go on."
    )


def _request(target: Target, prompt: Sequence[Mapping[str, str]], part: Part) -> tuple[dict[str, str], bytes]:
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
    return headers, json.dumps(body).encode()


def _check_status(target: Target, reply: fetch.Reply) -> None:
    """Raise where another try cannot help."""
    if reply.status in _OF_THE_PROMPT:
        raise PromptRefusedError(
            f"The endpoint {target.name} refused it with status {reply.status}: {_said(target, reply.body)}."
        )
    if reply.status != _TOO_MANY and reply.status < _SERVER:
        hint = {
            401: "Its key is missing or wrong.",
            403: "Its key may not use this model.",
            404: "Its address or the model's name is wrong.",
        }.get(reply.status, "")
        raise EndpointFailedError(
            f"The endpoint {target.name} refuses with status {reply.status}: {_said(target, reply.body)}. {hint}".strip()
        )


def _wait_of(reply: fetch.Reply, wait: float, line: Line) -> float:
    """Seconds until the next try: as long as the endpoint says. Where it is asked too often, thrice as long, by all."""
    value = reply.headers.get("retry-after", "")
    if value.isascii() and value.isdigit() and len(value) < 6:
        wait = min(float(value), LONGEST_WAIT)
    elif reply.status == _TOO_MANY:
        wait *= 3
    if reply.status == _TOO_MANY:
        line.narrow(wait)
    return wait


def _quote(target: Target, text: str, longest: int = 200) -> str:
    """What an endpoint says, in one short line that can be stored and shown, without the key it was given."""
    if target.key:
        text = text.replace(target.key, "[key]")
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())[:longest]


def _said(target: Target, body: bytes) -> str:
    """What an error says of itself."""
    try:
        value = json.loads(body)
        said = value["error"]["message"] if isinstance(value, dict) else ""
    except (ValueError, KeyError, TypeError, RecursionError):
        said = ""
    text = said if isinstance(said, str) and said else body[:4000].decode("utf-8", "replace")
    return _quote(target, text) or "without a word"


def _read(target: Target, body: bytes, part: Part) -> Answer:
    """A chat completion. Raises ValueError saying what is wrong, PromptRefusedError where the model gave no text."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        raise ValueError(f"{_quote(target, body[:4000].decode('utf-8', 'replace'), 60)!r} is no JSON") from None
    choices = value.get("choices") if isinstance(value, dict) else None
    if not (isinstance(choices, list) and choices and isinstance(choices[0], dict)):
        raise ValueError("it has no choices")
    message, reason = choices[0].get("message"), choices[0].get("finish_reason")
    if not isinstance(message, dict):
        raise ValueError("its choice has no message")
    text = message.get("content")
    if text is None or text == "":
        raise PromptRefusedError(f"The endpoint gave no text ({_quote(target, str(reason), 40)}).")
    if not isinstance(text, str):
        raise ValueError("its content is no text")
    if target.key and len(target.key) >= LEAST_SECRET:
        text = text.replace(target.key, "[key]")
    text = storable(text)
    longest = CHARACTERS_PER_TOKEN * part.max_new_tokens
    usage = value.get("usage")
    counted = usage if isinstance(usage, dict) else {}
    return Answer(
        text=text[:longest],
        finish_reason="length" if reason == "length" or len(text) > longest else "stop",
        tokens=_count(counted, "completion_tokens"),
        tokens_in=_count(counted, "prompt_tokens"),
    )


def _count(usage: Mapping[str, Any], name: str) -> int | None:
    value = usage.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10_000_000 else None
