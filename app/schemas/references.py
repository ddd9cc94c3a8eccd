"""Reference answers on their way in: the form an admin ranks in, and one row of a JSONL file."""

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from app.schemas.judgements import UNRANKABLE
from app.schemas.prompts import PromptIn, read_prompt, read_text
from app.schemas.values import read_whole

EXPLANATION_LIMIT = 20_000
"""Characters of an explanation."""

_PROMPT_FIELDS = ("prompt", "messages", "category", "needs", "licence", "consent")
_FIELDS = (*_PROMPT_FIELDS, "responses", "explanation")
_RESPONSE_FIELDS = ("text", "tier", "explanation")


@dataclass(frozen=True)
class PlaceIn:
    """Where a reference puts one output: a tier from 1 (best), or None for not rankable."""

    tier: int | None
    explanation: str = ""


@dataclass(frozen=True)
class ReferenceForm:
    """A half or wholly filled form of a reference, by the uid of the sample as text."""

    tiers: Mapping[str, str] = field(default_factory=dict)
    whys: Mapping[str, str] = field(default_factory=dict)
    explanation: str = ""

    @classmethod
    def from_fields(cls, fields: Mapping[str, Sequence[str]]) -> "ReferenceForm":
        """From `tier-<uid>`, `why-<uid>` and `explanation`; the last value of a doubled field stands."""
        last = {name: values[-1].replace("\r\n", "\n").replace("\x00", "").strip() for name, values in fields.items()}
        return cls(
            tiers={name.removeprefix("tier-"): text for name, text in last.items() if name.startswith("tier-")},
            whys={name.removeprefix("why-"): text for name, text in last.items() if name.startswith("why-")},
            explanation=last.get("explanation", ""),
        )

    def places(self, samples: Iterable[uuid.UUID]) -> tuple[dict[uuid.UUID, PlaceIn], dict[str, str]]:
        """The places of these samples, and what is missing or wrong, by form field."""
        found: dict[uuid.UUID, PlaceIn] = {}
        problems: dict[str, str] = {}
        known = list(samples)
        for sample in known:
            tier = self.tiers.get(str(sample), "")
            if tier == UNRANKABLE:
                found[sample] = PlaceIn(None, self.whys.get(str(sample), ""))
            elif (number := read_whole(tier)) is not None and 1 <= number <= len(known):
                found[sample] = PlaceIn(number, self.whys.get(str(sample), ""))
            else:
                problems[f"tier-{sample}"] = f"Choose a tier from 1 to {len(known)}, or not rankable."
        return found, problems


@dataclass(frozen=True)
class ReferenceRow:
    """One row of a file: a prompt, responses with their places, and why."""

    prompt: PromptIn
    responses: tuple[tuple[str, PlaceIn], ...]
    explanation: str = ""


def read_row(row: object) -> ReferenceRow:
    """One JSON value as a task with its reference. Raises ValueError saying what came, what was expected and how to mend it."""
    if not isinstance(row, dict):
        raise ValueError('expected an object such as {"prompt": "…", "responses": [{"text": "…", "tier": 1}, …]}')
    if unknown := sorted(set(row) - set(_FIELDS)):
        raise ValueError(f"unknown field {unknown[0]!r}; known are {', '.join(_FIELDS)}")
    responses = row.get("responses")
    if not isinstance(responses, list) or not 2 <= len(responses) <= 9:
        count = len(responses) if isinstance(responses, list) else "none"
        raise ValueError(f'"responses" should be a list of 2 to 9 responses; found {count}')
    read = tuple(_read_response(item, f"response {number}", len(responses)) for number, item in enumerate(responses, 1))
    texts = [" ".join(text.split()) for text, _ in read]
    if doubled := next((text for text in texts if texts.count(text) > 1), None):
        raise ValueError(f"two responses are identical ({doubled[:60]!r}); leave one out")
    if sum(place.tier is not None for _, place in read) < 2:
        raise ValueError("fewer than two responses have a tier, so there is no order; give two of them one")
    prompt = read_prompt({name: row[name] for name in _PROMPT_FIELDS if name in row})
    return ReferenceRow(prompt, read, _read_explanation(row, "the row"))


def _read_response(item: object, name: str, count: int) -> tuple[str, PlaceIn]:
    if not isinstance(item, dict) or "text" not in item or set(item) - set(_RESPONSE_FIELDS):
        raise ValueError(f'{name} should be an object of "text", "tier" and, if you like, "explanation"')
    tier = item.get("tier")
    if isinstance(tier, bool) or not (tier is None or (isinstance(tier, int) and 1 <= tier <= count)):
        raise ValueError(f"{name} has the tier {tier!r}; expected 1 (best) to {count}, or null for not rankable")
    return read_text(item["text"], name), PlaceIn(tier, _read_explanation(item, name))


def _read_explanation(item: Mapping[str, object], name: str) -> str:
    text = item.get("explanation")
    if text is None or text == "":
        return ""
    read = read_text(text, f"the explanation of {name}")
    if len(read) > EXPLANATION_LIMIT:
        raise ValueError(f"the explanation of {name} has {len(read):,} characters; {EXPLANATION_LIMIT:,} at most")
    return read
