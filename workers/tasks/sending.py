"""Several requests to an endpoint side by side: which goes next, what is kept when one fails, and an end at once when wanted.

Threads are daemons that nobody joins: one that waits for a silent endpoint holds up neither a stop nor the worker's end, and
what comes back to it then is dropped.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from app.schemas.plans import Part
from app.services.endpoints import Target
from workers.tasks import outside
from workers.tasks.outside import Answer, EndpointFailedError, Line, PromptRefusedError, Way

SIDE_BY_SIDE = 8

LOOK_SECONDS = 2.0
"""Between two looks whether somebody wants the work stopped."""


@dataclass
class Asked:
    """What came of requests, by the prompt's place."""

    answers: list[list[Answer]]
    refused: dict[int, str] = field(default_factory=dict)
    """Why a prompt gets no responses. What came to it before is among the answers: it was paid for."""
    failure: str | None = None
    """Why the endpoint was asked no further."""


@dataclass
class _Round:
    """Requests under way, shared by the threads; every field under the lock."""

    waiting: deque[int]
    asked: Asked
    line: Line
    until: float
    under_way: int = 0
    begun: set[int] = field(default_factory=set)
    changed: threading.Condition = field(default_factory=threading.Condition)
    unexpected: BaseException | None = None

    def next(self) -> int | None:
        """Place of the prompt to ask for next; None where nothing is left to be begun."""
        while self.waiting and self.asked.failure is None and self.unexpected is None:
            at = self.waiting.popleft()
            is_late = time.monotonic() > self.until and at not in self.begun
            if at not in self.asked.refused and not (is_late and self.begun):
                self.begun.add(at)
                return at
        return None

    @property
    def is_over(self) -> bool:
        """Whether nothing is under way, and nothing will be."""
        stopped = self.asked.failure is not None or self.unexpected is not None
        return not self.under_way and (stopped or not self.waiting)


def ask_all(
    target: Target,
    prompts: Sequence[Sequence[Mapping[str, str]]],
    wanted: Sequence[int],
    part: Part,
    *,
    keep_going: Callable[[], None],
    way: Way | None = None,
    seconds: float = 60.0,
    line: Line | None = None,
) -> Asked:
    """So many responses to each prompt. `keep_going` is called every few seconds, and may raise; then nothing is waited for.

    One that fails ends the sending of further ones; those under way are waited for, since they are paid. After `seconds` no
    further prompt is begun, and those that were not begun have no answers and no reason. `line` counts what may be charged for.
    """
    way, line = way or Way(), line or Line(SIDE_BY_SIDE)
    places = deque(at for at, count in enumerate(wanted) for _ in range(count))
    work = _Round(places, Asked([[] for _ in prompts]), line, time.monotonic() + seconds)
    threads = min(SIDE_BY_SIDE, len(places))
    for number in range(threads):
        threading.Thread(
            target=_send, args=(work, number, target, prompts, part, way), name=f"endpoint-{number}", daemon=True
        ).start()
    try:
        while not _comes_to_an_end(work):
            keep_going()
    except BaseException:
        way.stopped.set()
        with work.changed:
            work.waiting.clear()
            work.changed.notify_all()
        raise
    if work.unexpected is not None:
        raise work.unexpected
    return work.asked


def _comes_to_an_end(work: _Round) -> bool:
    """Whether the round is over before the next look is due."""
    with work.changed:
        return work.changed.wait_for(lambda: work.is_over, LOOK_SECONDS)


def _send(
    work: _Round, number: int, target: Target, prompts: Sequence[Sequence[Mapping[str, str]]], part: Part, way: Way
) -> None:
    """A thread: ask for one response after another."""
    while True:
        with work.changed:
            while number >= work.line.width and not work.is_over and work.waiting:
                work.changed.wait(LOOK_SECONDS)
            at = work.next()
            if at is None:
                work.changed.notify_all()
                return
            work.under_way += 1
        try:
            pause = work.line.free_at - time.monotonic()
            if pause > 0:
                way.wait(pause)
            answer = outside.ask(target, prompts[at], part, way, work.line)
        except PromptRefusedError as error:
            _end(work, at, refused=str(error))
        except EndpointFailedError as error:
            way.stopped.set()  # the others end with the call they are in, and try no further
            _end(work, at, failure=error.message)
        except BaseException as error:  # raised again where the round is waited for
            _end(work, at, unexpected=error)
        else:
            _end(work, at, answer=answer)


def _end(
    work: _Round,
    at: int,
    *,
    answer: Answer | None = None,
    refused: str | None = None,
    failure: str | None = None,
    unexpected: BaseException | None = None,
) -> None:
    with work.changed:
        work.under_way -= 1
        if answer is not None:
            work.asked.answers[at].append(answer)
        if refused is not None:
            work.asked.refused.setdefault(at, refused)
        work.asked.failure = work.asked.failure or failure
        work.unexpected = work.unexpected or unexpected
        work.changed.notify_all()
