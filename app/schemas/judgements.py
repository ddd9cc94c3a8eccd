"""What a person sends about a task, checked for shape; whether it fits the task is for the service to say."""

import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from app.schemas.effort import read_effort
from app.schemas.labels import TEXT_LIMIT
from app.schemas.values import read_milliseconds, read_uuid, read_whole

UNRANKABLE = "x"
"""Value of a tier field that says: not rankable."""

NOTE_LIMIT = 2_000
"""Characters of a note."""

PAIRS_LIMIT = 10_000
"""Characters of graded pairs: more than all pairs of nine outputs take."""

SORT_LIMIT = 500
"""Characters of how far a page has sorted: more than nine outputs take."""


class WhyUnrankable(StrEnum):
    """Why an output has no place in the ranking."""

    BROKEN = "broken"
    OFF_TOPIC = "off_topic"
    LANGUAGE = "language"
    UNSAFE = "unsafe"
    UNSURE = "unsure"
    OTHER = "other"


class WhySkipped(StrEnum):
    """Why a person passes a task on."""

    KNOWLEDGE = "knowledge"
    UNCLEAR = "unclear"
    LANGUAGE = "language"
    SENSITIVE = "sensitive"
    BROKEN = "broken"
    OTHER = "other"


@dataclass(frozen=True)
class Place:
    """What is said of one output: a tier from 1 (best), or why it cannot be ranked."""

    sample: uuid.UUID
    tier: int | None
    reason: WhyUnrankable | None = None
    quality: int | None = None
    answers: Mapping[str, str] = field(default_factory=dict)
    """To the fields about it, as sent."""


TIE = "tie"
"""Value of a preference that says: neither is better."""

STRENGTHS = (1, 2, 3, 4)
"""How much better one of two outputs is: slightly, somewhat, clearly, much."""


@dataclass(frozen=True)
class Preference:
    """Which of two outputs is better, in terms of the outputs and never of where they were shown."""

    left: uuid.UUID
    right: uuid.UUID
    p_left: float
    """1 where the left one is better, 0 where the right one is, 1/2 for a tie."""
    strength: int | None = None
    """One of `STRENGTHS`; None for a tie."""

    @property
    def value(self) -> str:
        """As a form says it: `tie`, or `<uid of the better one>:<strength>`."""
        return TIE if self.strength is None else f"{self.left if self.p_left > 0.5 else self.right}:{self.strength}"

    @property
    def tiers(self) -> dict[uuid.UUID, int]:
        """The order it means."""
        return {
            self.left: 1 if self.p_left >= 0.5 else 2,
            self.right: 1 if self.p_left <= 0.5 else 2,
        }


def read_preference(value: str, left: uuid.UUID, right: uuid.UUID) -> Preference | None:
    """What a form says of two outputs; None where it says nothing of these two."""
    if value == TIE:
        return Preference(left, right, 0.5)
    better, _, strength = value.partition(":")
    sample, much = read_uuid(better), read_whole(strength)
    if sample not in (left, right) or much not in STRENGTHS:
        return None
    return Preference(left, right, float(sample == left), much)


@dataclass(frozen=True)
class Pair:
    """How much better one output was found than another, from 1 (slightly) to 4 (far)."""

    better: uuid.UUID
    worse: uuid.UUID
    strength: int


@dataclass(frozen=True)
class Ranking:
    """One answer to a task: the places of its outputs, as many as it has.

    `active_ms` and `idle_ms` are the page's own clock, kept as it says.
    """

    idempotency_key: uuid.UUID
    places: tuple[Place, ...]
    note: str | None = None
    active_ms: int | None = None
    idle_ms: int | None = None
    answers: Mapping[str, str] = field(default_factory=dict)
    """To the fields about the prompt and the task, as sent."""
    schema: int | None = None
    """Version of the label schema that the page asked by; None: the project's."""
    effort: Mapping[str, Any] = field(default_factory=dict)
    pairs: tuple[Pair, ...] = ()
    """Those that were graded while two outputs were compared; each says which was better then."""
    preference: Preference | None = None
    """The direct comparison it was made by, in a task that has two outputs to compare."""


@dataclass(frozen=True)
class Choice:
    """The fields of one output as they stand in a form or draft; empty text is no choice."""

    tier: str = ""
    reason: str = ""
    quality: str = ""


@dataclass(frozen=True)
class RankingForm:
    """A half or wholly filled ranking form: what a draft keeps and a refused page shows again."""

    choices: Mapping[str, Choice] = field(default_factory=dict)
    """By the uid of the sample, as text."""
    note: str = ""
    answers: Mapping[str, str] = field(default_factory=dict)
    """To the label schema's fields, by `<key>`, or `<key>-<uid>` where it is about an output; no entry is no answer."""
    schema: int | None = None
    """Version of the label schema that the form asks by; None: the one in force."""
    pairs: str = ""
    """Graded pairs as the page writes them: `better>worse:strength`, by the samples' uids, apart by spaces."""
    preference: str = ""
    """`Preference.value` where two outputs are compared."""
    sort: str = ""
    """How far the page has sorted tiers first, as its script writes it; empty where it does not."""
    active_ms: int | None = None
    idle_ms: int | None = None
    effort: Mapping[str, Any] = field(default_factory=dict)
    """The page's own account so far, as `read_effort` gives it; a page that is opened again goes on from it."""

    @classmethod
    def from_fields(cls, fields: Iterable[tuple[str, str]]) -> "RankingForm":
        """From `tier-<uid>`, `reason-<uid>`, `quality-<uid>`, `ask-<key>`, `ask-<key>-<uid>` and the fields named like ours.

        The last value of a doubled field stands.
        """
        found: dict[str, dict[str, str]] = {}
        answers = {}
        plain: dict[str, str] = {}
        for name, value in fields:
            part, _, sample = name.partition("-")
            if part in ("tier", "reason", "quality") and sample:
                found.setdefault(sample, {})[part] = value.strip()
            elif part == "ask" and sample:
                answers[sample] = value.strip()
            else:
                plain[name] = value.strip()
        return cls(
            choices={sample: Choice(**parts) for sample, parts in found.items()},
            note=plain.get("note", ""),
            answers={name: value for name, value in answers.items() if value},
            schema=read_whole(plain.get("schema", "")),
            pairs=plain.get("pairs", ""),
            preference=plain.get("preference", ""),
            sort=plain.get("sort", ""),
            active_ms=read_milliseconds(plain.get("active_ms", "")),
            idle_ms=read_milliseconds(plain.get("idle_ms", "")),
            effort=read_effort(plain.get("effort", ""), found),
        )

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "RankingForm":
        """From what `to_json` gave."""
        choices, answers, note = content.get("choices"), content.get("answers"), content.get("note")
        schema, pairs, preference = content.get("schema"), content.get("pairs"), content.get("preference")
        return cls(
            choices={sample: Choice(**parts) for sample, parts in choices.items()} if isinstance(choices, dict) else {},
            note=note if isinstance(note, str) else "",
            answers=answers if isinstance(answers, dict) else {},
            schema=schema if isinstance(schema, int) else None,
            pairs=pairs if isinstance(pairs, str) else "",
            preference=preference if isinstance(preference, str) else "",
            sort=content.get("sort", ""),
            active_ms=content.get("active_ms"),
            idle_ms=content.get("idle_ms"),
            effort=content.get("effort", {}),
        )

    def to_json(self, samples: Iterable[uuid.UUID], keys: Iterable[str] = ()) -> dict[str, object]:
        """As JSON for a draft, of these samples and with the answers to these fields only."""
        known = {str(sample) for sample in samples}
        kept = {sample: vars(choice) for sample, choice in self.choices.items() if sample in known}
        asked, places = set(keys), {"", *known}
        named = ((name, *_about(name), value) for name, value in self.answers.items())
        answers = {name: value[:TEXT_LIMIT] for name, key, about, value in named if key in asked and about in places}
        cards = self.effort.get("cards", {})
        return {
            "choices": kept,
            "note": self.note[:NOTE_LIMIT],
            "answers": answers,
            "schema": self.schema,
            "pairs": self.pairs[:PAIRS_LIMIT],
            "preference": self.preference[:50],
            "sort": self.sort if len(self.sort) <= SORT_LIMIT else "",
            "active_ms": self.active_ms,
            "idle_ms": self.idle_ms,
            "effort": {**self.effort, "cards": {name: card for name, card in cards.items() if name in known}},
        }

    def answers_about(self, sample: str = "") -> dict[str, str]:
        """The answers about one output by key; without a sample those about the prompt and the task."""
        named = ((*_about(name), value) for name, value in self.answers.items())
        return {key: value for key, about, value in named if about == sample}


@dataclass(frozen=True)
class ReadRanking:
    """A form turned into a ranking, or what is wrong with it, by field."""

    ranking: Ranking | None
    problems: Mapping[str, str]


def read_ranking(fields: Iterable[tuple[str, str]]) -> ReadRanking:
    """Read the fields of a submit. An output without a tier is left out: the service names it as missing."""
    sent = list(fields)
    form = RankingForm.from_fields(sent)
    names = [name for name, value in sent if name.startswith("tier-") and value.strip()]
    problems = {
        name: "This output was placed twice; choose one tier for it." for name in names if names.count(name) > 1
    }
    places = []
    for sample, choice in form.choices.items():
        if choice.tier:
            place, wrong = _read_place(sample, choice, form.answers_about(sample))
            problems |= {name: text for name, text in wrong.items() if name not in problems}
            places += [place] if place else []
    plain = dict(sent)
    key = read_uuid(plain.get("idempotency_key", ""))
    if key is None:
        problems["idempotency_key"] = "The page sent no valid key. Reload it and submit again; your choices are kept."
    if len(form.note) > NOTE_LIMIT:
        problems["note"] = f"The note has {len(form.note):,} characters; shorten it to {NOTE_LIMIT:,}."
    pairs = _read_pairs(form.pairs)
    if pairs is None:
        problems["pairs"] = "The page sent grades of compared outputs that cannot be read. Reload it and submit again."
    if key is None or pairs is None or problems:
        return ReadRanking(None, problems)
    ranking = Ranking(
        key,
        tuple(places),
        form.note or None,
        form.active_ms,
        form.idle_ms,
        form.answers_about(),
        schema=form.schema,
        effort=form.effort,
        pairs=pairs,
    )
    return ReadRanking(ranking, {})


def _about(name: str) -> tuple[str, str]:
    """Key and sample of an answer's name; the sample is empty where it is about the prompt or the task."""
    key, _, sample = name.partition("-")
    return key, sample


def _read_place(sample: str, choice: Choice, answers: Mapping[str, str]) -> tuple[Place | None, dict[str, str]]:
    problems = {}
    uid = read_uuid(sample)
    if uid is None:
        problems[f"tier-{sample}"] = (
            f"There is no output {sample!r} in this task. Reload the page and rank what it shows."
        )
    tier = read_whole(choice.tier)
    if tier is None and choice.tier != UNRANKABLE:
        problems[f"tier-{sample}"] = (
            f"The tier is {choice.tier!r}; choose a whole number from 1, or {UNRANKABLE} for not rankable."
        )
    quality = read_whole(choice.quality)
    if quality is None and choice.quality:
        problems[f"quality-{sample}"] = f"The quality is {choice.quality!r}; choose 1 to 7, or leave it open."
    reason = None
    if choice.tier == UNRANKABLE and choice.reason:
        if choice.reason in set(WhyUnrankable):
            reason = WhyUnrankable(choice.reason)
        else:
            problems[f"reason-{sample}"] = f"The reason is {choice.reason!r}; choose one of {', '.join(WhyUnrankable)}."
    if problems or uid is None:
        return None, problems
    return Place(sample=uid, tier=tier, reason=reason, quality=quality, answers=answers), {}


def _read_pairs(text: str) -> tuple[Pair, ...] | None:
    """The graded pairs of a form, the last word on each pair; None where the text says something else."""
    if len(text) > PAIRS_LIMIT:
        return None
    found: dict[frozenset[uuid.UUID], Pair] = {}
    for written in text.split():
        samples, _, strength = written.partition(":")
        better, worse = (read_uuid(sample) for sample in samples.partition(">")[::2])
        if better is None or worse is None or better == worse or strength not in tuple("1234"):
            return None
        found[frozenset((better, worse))] = Pair(better, worse, int(strength))
    return tuple(found.values())
