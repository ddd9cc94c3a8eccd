"""One row of an import in the one form that everything behind it knows, whatever the file looked like."""

from dataclasses import dataclass

from app.schemas.prompts import PromptIn


@dataclass(frozen=True, slots=True)
class ResponseIn:
    """A text that answers the record's prompt."""

    text: str
    tier: int | None = None
    """Place in a ranking, 1 the best, equal is a tie, None is not rankable. Outside of rankings always None."""
    sampler: str | None = None
    """Name of the model or person that wrote it, where the file says so."""


@dataclass(frozen=True, slots=True)
class Record:
    """A prompt with what the file has of responses to it; or a text."""

    prompt: PromptIn | None
    """None for a text alone."""
    responses: tuple[ResponseIn, ...] = ()
    text: str | None = None
    annotator: str | None = None
    """Who ranked, under the file's own name for them."""
