"""Slows down guessing: sign-ins are counted per e-mail and address, in Redis, or in this process while Redis is down."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar, cast

import structlog
from limits import RateLimitItem, parse
from limits.storage import MemoryStorage, Storage, storage_from_string
from limits.strategies import MovingWindowRateLimiter

from app.errors import TooMany
from app.settings import get_settings

log = structlog.get_logger()

PER_EMAIL = parse("8 per 15 minutes")
PER_ADDRESS = parse("40 per 15 minutes")
_NAMESPACE = "sign-in"

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Attempt:
    """One try to sign in; say how it ended."""

    email: str
    address: str

    def failed(self) -> None:
        """Count the failure against the address, too."""
        _ask(lambda limiter: limiter.hit(PER_ADDRESS, _NAMESPACE, "address", self.address))

    def succeeded(self) -> None:
        """Forget the failures of the e-mail."""
        _ask(lambda limiter: limiter.storage.clear(PER_EMAIL.key_for(_NAMESPACE, "email", self.email)))


def begin_sign_in(*, email: str, address: str) -> Attempt:
    """Count a try before the password is checked, so that parallel guesses count too. Raises TooMany."""
    if not _ask(lambda limiter: limiter.test(PER_ADDRESS, _NAMESPACE, "address", address)):
        raise _too_many(PER_ADDRESS, "address", address)
    if not _ask(lambda limiter: limiter.hit(PER_EMAIL, _NAMESPACE, "email", email)):
        raise _too_many(PER_EMAIL, "email", email)
    return Attempt(email=email, address=address)


def _too_many(limit: RateLimitItem, kind: str, value: str) -> TooMany:
    reset_at = _ask(lambda limiter: limiter.get_window_stats(limit, _NAMESPACE, kind, value).reset_time)
    seconds = max(1, int(reset_at - time.time()) + 1)
    return TooMany(
        f"Too many failed sign-ins. Wait {seconds // 60 + 1} min and try again, or ask an admin for a link.",
        retry_after_seconds=seconds,
    )


def _ask(question: Callable[[MovingWindowRateLimiter], Answer]) -> Answer:
    storage, in_process = _storages(get_settings().redis_url)
    try:
        return question(MovingWindowRateLimiter(storage))
    except storage.base_exceptions as error:
        log.warning("the broker is unreachable; sign-ins are counted in this process", error=str(error))
        return question(MovingWindowRateLimiter(in_process))


@lru_cache
def _storages(redis_url: str) -> tuple[Storage, MemoryStorage]:
    in_process = MemoryStorage()
    if not redis_url:
        return in_process, in_process
    return cast(Storage, storage_from_string(redis_url, socket_connect_timeout=1, socket_timeout=1)), in_process
