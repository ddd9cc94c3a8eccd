"""What a sampling plan is told, what it counts, and what is said of an endpoint; plans keep both as JSON in their row."""

import hashlib
import json
import math
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from app.models import Category, Json, Split, Stream

PARTS = 4
"""Parts of a mix that the form has room for."""

MOST_TASKS = 10_000

LEAST_CONTROL = 0.05
"""Of a plan whose prompts are not all drawn at random: without a random stream nobody could say what the choice did."""

MOST_ASKED = 64
"""Requests to an endpoint for one task of a part: what a worker cannot give way in the middle of."""

PAID_ALLOWANCE = 1.5
"""Requests to an endpoint at most, as a multiple of those its tasks need: repetitions, refusals and failures are paid too."""


class Order(StrEnum):
    """Which prompts of the pools a plan takes first."""

    RANDOM = "random"
    NEVER_RANKED = "never_ranked"
    """Only those of which no response was ranked or waits to be."""
    DISAGREEMENT = "disagreement"
    """Those on which two reward models differ most, of four times as many as are wanted."""


class Part(BaseModel):
    """One sampler of the mix, and how many of a task's responses it draws."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    kind: Literal["checkpoint", "endpoint"]
    source: uuid.UUID
    """The checkpoint or endpoint by its uid."""
    responses: int = Field(ge=1, le=9)
    temperature: float = Field(1.0, gt=0, le=4)
    top_p: float = Field(1.0, gt=0, le=1)
    max_new_tokens: int = Field(512, ge=1, le=8192)
    best_of: int = Field(1, ge=1, le=64)
    """Responses drawn for each one kept."""
    reward: uuid.UUID | None = None
    """The reward model that chooses among them."""
    prefix: str = Field("", max_length=20_000)
    """Put before the last user turn, as the model reads it; people never see it."""

    @field_validator("prefix")
    @classmethod
    def _without_nul(cls, value: str) -> str:
        if "\x00" in value:
            raise ValueError("it holds a NUL character, which cannot be stored; remove it")
        return value.replace("\r\n", "\n")

    @property
    def drawn(self) -> int:
        """Responses drawn for one task, without repetitions."""
        return self.responses * self.best_of

    @model_validator(mode="after")
    def _reward_of_best(self) -> "Part":
        if self.kind == "endpoint" and self.drawn > MOST_ASKED:
            raise ValueError(
                f"{self.drawn} requests for one task are too many for an endpoint, which is asked {MOST_ASKED} times at most; "
                "draw fewer for each response kept"
            )
        if self.best_of > 1 and self.reward is None:
            raise ValueError("say which reward model chooses the best of several, or draw 1")
        if self.best_of == 1 and self.reward is not None:
            return self.model_copy(update={"reward": None})
        return self


class PlanSettings(BaseModel):
    """A plan: who answers, which prompts, and what becomes of the tasks."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    parts: tuple[Part, ...] = Field(min_length=1, max_length=PARTS)
    tasks: int = Field(100, ge=1, le=MOST_TASKS)
    judgements_wanted: int = Field(1, ge=1, le=100)
    priority: int = Field(-1, ge=-10, le=10)
    """Below 0 after the queue of the automation, which a plan is not to hold up."""
    pools: tuple[uuid.UUID, ...] = ()
    """Pools to take prompts from; none means every pool that is switched on."""
    categories: tuple[Category, ...] = ()
    valid_share: float = Field(0.2, ge=0, le=1)
    """Share of tasks on held-out prompts."""
    order: Order = Order.RANDOM
    first_judge: uuid.UUID | None = None
    second_judge: uuid.UUID | None = None
    control_share: float = Field(0.2, ge=0, le=1)

    @property
    def outputs(self) -> int:
        """K, the responses of one task."""
        return sum(part.responses for part in self.parts)

    @model_validator(mode="after")
    def _fits_together(self) -> "PlanSettings":
        if not 2 <= self.outputs <= 9:
            raise ValueError(f"the parts draw {self.outputs} responses a task together; a task shows 2 to 9")
        judges = {self.first_judge, self.second_judge} - {None}
        if self.order == Order.DISAGREEMENT and len(judges) < 2:
            raise ValueError("choose two different reward models whose disagreement orders the prompts")
        if self.order != Order.RANDOM:
            if self.control_share < LEAST_CONTROL:
                raise ValueError(
                    f"at least {LEAST_CONTROL:.0%} of the prompts are drawn at random beside the chosen ones"
                )
            if self.tasks - self._held_out < 2:
                raise ValueError(
                    "it takes 2 tasks at least that are not held out: one chosen and one at random beside it"
                )
        return self

    @property
    def _held_out(self) -> int:
        return round(self.valid_share * self.tasks)

    @property
    def fingerprint(self) -> str:
        """sha256 of what the plan is told, by which a click on start names the settings that it means."""
        told = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(told.encode()).hexdigest()

    def most_responses(self, part: Part) -> int:
        """Responses that a part may draw in all, where an endpoint is paid for each; the worker stops there."""
        needed = self.tasks * part.drawn
        return needed if part.kind == "checkpoint" else max(math.ceil(needed * PAID_ALLOWANCE), needed + 2 * part.drawn)

    def lanes(self) -> "dict[Lane, int]":
        """Tasks wanted of each stream and split, those of none left out.

        Held-out tasks are all of the control stream: on prompts chosen for being hard, the accuracy of a reward model would
        be another figure than before. The control share is of the others.
        """
        train = self.tasks - self._held_out
        control = math.ceil(self.control_share * train - 1e-9)  # 0.05 * 100 is a little more than 5
        if self.order != Order.RANDOM:
            control = min(max(control, 1), train - 1)
        found = {
            Lane(Stream.CONTROL, Split.VALID): self._held_out,
            Lane(Stream.CONTROL, Split.TRAIN): control,
            Lane(Stream.CHOSEN, Split.TRAIN): train - control,
        }
        return {lane: count for lane, count in found.items() if count}


@dataclass(frozen=True)
class Lane:
    """Prompts of one stream and one split."""

    stream: Stream
    split: Split

    @property
    def key(self) -> str:
        """Its name in the counts."""
        return f"{self.stream}/{self.split}"


@dataclass
class PartCounts:
    """What one part of the mix has drawn."""

    responses: int = 0
    """All of them, those that the best of n or a repetition left out too."""
    tokens: int = 0
    tokens_in: int = 0
    """Of the prompts, as the source reads them; endpoints that do not say are not counted."""
    seconds: float = 0.0
    requests: int = 0
    """To an endpoint that it may charge for: those it answered, and those whose answer never came."""

    def add(self, other: "PartCounts") -> None:
        """Count another's too."""
        for each in fields(self):
            setattr(self, each.name, getattr(self, each.name) + getattr(other, each.name))


@dataclass
class PlanCounts:
    """What became of a plan so far."""

    made: dict[str, int] = field(default_factory=dict)
    """Tasks by lane."""
    passed: int = 0
    """Prompts passed over; each with its reason in `plan_prompts`."""
    spoiled: int = 0
    """Those among them that were passed over after responses had been drawn or asked for."""
    most_money: float | None = None
    """What its endpoints were said to cost at most when it was started; None where no price was known."""
    looked_at: int = 0
    """Candidates whose responses two reward models have scored."""
    seconds: float = 0.0
    """Time spent on the tasks made."""
    parts: list[PartCounts] = field(default_factory=list)

    @property
    def tasks(self) -> int:
        """Tasks made."""
        return sum(self.made.values())

    def of_stream(self, stream: str) -> int:
        """Tasks made of one stream."""
        return sum(count for key, count in self.made.items() if key.startswith(f"{stream}/"))

    @classmethod
    def from_json(cls, value: Json) -> "PlanCounts":
        """As stored."""
        known = {each.name for each in fields(cls)} - {"parts"}
        parts = [PartCounts(**part) for part in value.get("parts", [])]
        return cls(**{name: count for name, count in value.items() if name in known}, parts=parts)

    def to_json(self) -> Json:
        """To be stored."""
        return asdict(self)


@dataclass(frozen=True)
class FormRead:
    """A form that holds, or a sentence for each field that does not."""

    settings: PlanSettings | None
    problems: Mapping[str, str]


_PART_FIELDS = ("responses", "temperature", "top_p", "max_new_tokens", "best_of", "reward", "prefix")


def read_plan(given: Mapping[str, Sequence[str]]) -> FormRead:
    """What a form says. Fields of the mix are `parts-0-source` and so on; a part without a source is left out."""
    places = [at for at in range(PARTS) if _last(given, f"parts-{at}-source")]
    values: dict[str, Any] = {
        name: _last(given, name)
        for name in ("tasks", "judgements_wanted", "priority", "valid_share", "control_share", "order")
        if _last(given, name)
    }
    for name in ("valid_share", "control_share"):
        if name in values:
            values[name] = _share(values[name])
    values["parts"] = [_read_part(given, at) for at in places]
    values["pools"] = [value for value in given.get("pools", ()) if value]
    values["categories"] = [value for value in given.get("categories", ()) if value]
    values |= {name: _last(given, name) or None for name in ("first_judge", "second_judge")}
    try:
        return FormRead(PlanSettings.model_validate(values), {})
    except ValidationError as error:
        return FormRead(None, dict(_describe(error, places)))


def _read_part(given: Mapping[str, Sequence[str]], at: int) -> dict[str, Any]:
    kind, _, source = _last(given, f"parts-{at}-source").partition(":")
    texts = {name: _last(given, f"parts-{at}-{name}") for name in _PART_FIELDS}
    texts["prefix"] = (given.get(f"parts-{at}-prefix") or [""])[-1]  # its white space is the person's
    return {"kind": kind, "source": source} | {name: value for name, value in texts.items() if value}


def _last(given: Mapping[str, Sequence[str]], name: str) -> str:
    return (given.get(name) or [""])[-1].strip()


def _share(percent: str) -> float | str:
    """A share that the form asks for in percent; what is no number is left for the check to name."""
    try:
        return float(percent) / 100
    except ValueError:
        return percent


def _describe(error: ValidationError, places: Sequence[int]) -> Mapping[str, str]:
    """A sentence per field by its name in the form; a rule about the whole is under "parts" or, of a part, its source."""
    found: dict[str, str] = {}
    for item in error.errors():
        loc = [str(part) for part in item["loc"]]
        if loc[:1] == ["parts"] and len(loc) > 1:
            loc[1] = str(places[int(loc[1])])
        if len(loc) == 2:
            loc.append("best_of")
        if loc[-1:] == ["kind"]:
            loc[-1] = "source"
        message = item["msg"].removeprefix("Value error, ")
        name = "-".join(loc) or "parts"
        if name == "parts" and not places:
            message = "choose at least one model that answers"
        found.setdefault(name if not name.startswith(("pools-", "categories-")) else loc[0], _sentence(message))
    return found


def _sentence(message: str) -> str:
    return message[:1].upper() + message[1:].rstrip(".") + "."


class EndpointForm(BaseModel):
    """An endpoint as an admin describes it. Whether its address may be called is the fetcher's to say (`app.fetch`)."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, str_strip_whitespace=True)

    name: str = Field(min_length=1, max_length=80)
    url: str = Field(min_length=1, max_length=500)
    model: str = Field(min_length=1, max_length=200)
    key: str = Field("", max_length=2000, repr=False)
    price_in: float | None = Field(None, ge=0, le=1_000_000)
    price_out: float | None = Field(None, ge=0, le=1_000_000)

    @field_validator("price_in", "price_out", mode="before")
    @classmethod
    def _empty_is_unknown(cls, value: object) -> object:
        return None if value == "" else value

    @field_validator("name", "model", "key")
    @classmethod
    def _printable(cls, value: str) -> str:
        if not value.isprintable():
            raise ValueError("it holds a character that cannot be seen; remove it")
        return value

    @field_validator("key")
    @classmethod
    def _ascii(cls, value: str) -> str:
        if not value.isascii() or " " in value:
            raise ValueError("an API key is one word of plain letters, digits and signs")
        return value
