"""Errors a person can act on. Each carries the HTTP status that `app.web.errors` answers with."""


class AppError(Exception):
    """Base of every expected failure: one sentence saying what came, what was expected and how to mend it."""

    status = 400

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class BadInput(AppError):
    """The request cannot be understood or breaks a rule; `field` names the input at fault where there is one."""

    status = 422

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class NotSignedIn(AppError):
    """No valid session: pages redirect to sign-in, the API answers 401."""

    status = 401


class Forbidden(AppError):
    """The person may see that the thing exists but lacks the role for this act."""

    status = 403


class NotFound(AppError):
    """Missing, or invisible to this person. The two are not told apart."""

    status = 404


class Conflict(AppError):
    """The act no longer fits the state of the row; nothing was changed."""

    status = 409


class TooMany(AppError):
    """A rate limit was hit; `retry_after_seconds` says when to come back."""

    status = 429

    def __init__(self, message: str, *, retry_after_seconds: int) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class StaleAttempt(Conflict):
    """A write by an attempt of a job that has been superseded: the fencing number in the row is higher."""


class StartupError(AppError):
    """The process cannot start; printed as one sentence, exit code 1."""
