"""What a project asks besides the ranking: fields about the prompt, each output and the task, kept as data with a version.

A label schema is a list of fields as JSON. `quality` (of an output) and `confidence` (of a task) are fields like any other and
have columns of their own in the database; the rest is stored by key.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

TEXT_LIMIT = 2_000
"""Characters of an answer in words."""

KEY = re.compile(r"[a-z][a-z0-9_]{0,40}")

Answer = bool | int | str


class Scope(StrEnum):
    """What a field is about."""

    PROMPT = "prompt"
    OUTPUT = "output"
    TASK = "task"


class FieldType(StrEnum):
    """What an answer looks like. A flag is set or not; an answer that was not given is stored for none of them."""

    FLAG = "flag"
    SCALE = "scale"
    CHOICE = "choice"
    TEXT = "text"


@dataclass(frozen=True)
class Field:
    """One question."""

    key: str
    label: str
    scope: Scope
    type: FieldType
    choices: tuple[int | str, ...] = ()
    """Of a scale whole numbers from worst to best, of a choice words."""
    required: bool = False
    shown_if: str | None = None
    """Key of a flag of the prompt or the same thing without which this is not asked."""
    help: str = ""
    """When to say yes, and what does not count."""

    def as_json(self) -> dict[str, Any]:
        """As it is stored."""
        return {**vars(self), "choices": list(self.choices)}


def read_schema(fields: Iterable[Mapping[str, Any]]) -> tuple[Field, ...]:
    """The fields of a label schema. Raises ValueError naming the field that cannot be asked, and why."""
    found: list[Field] = []
    for number, raw in enumerate(fields, start=1):
        try:
            field = Field(**{**raw, "choices": tuple(raw.get("choices") or ())})
            field = Field(**{**vars(field), "scope": Scope(field.scope), "type": FieldType(field.type)})
        except (TypeError, ValueError) as error:
            raise ValueError(f"Field {number} ({raw.get('key', 'no key')}): {error}.") from None
        if why := _fault(field, found):
            raise ValueError(f"Field {number} ({field.key}): {why}")
        found.append(field)
    return tuple(found)


def _fault(field: Field, before: Sequence[Field]) -> str:
    """Why a field cannot be asked after those before it; nothing where it can."""
    flags = {
        other.key for other in before if other.type == FieldType.FLAG and other.scope in (Scope.PROMPT, field.scope)
    }
    has_column = {"quality": (Scope.OUTPUT, FieldType.SCALE), "confidence": (Scope.TASK, FieldType.SCALE)}
    kind = {FieldType.SCALE: int, FieldType.CHOICE: str}.get(field.type)
    rules = (
        (
            not KEY.fullmatch(field.key),
            "a key is lower-case letters, digits and underscores, a letter first, 41 at most.",
        ),
        (field.key in {other.key for other in before}, "this key is taken; give it another."),
        (
            field.key == "not_rankable",
            "exports use this key for the reason why an output has no place; give it another.",
        ),
        (
            (field.scope, field.type) != has_column.get(field.key, (field.scope, field.type)),
            "quality is a scale of an output, confidence one of the task.",
        ),
        (field.key == "quality" and not set(field.choices) <= set(range(1, 8)), "quality goes from 1 to 7."),
        (not field.label.strip(), "it has no label to ask by."),
        (
            any(str(choice) != " ".join(str(choice).split()) for choice in field.choices),
            "a choice has no space at its ends, and none twice in a row: forms lose them.",
        ),
        ((kind is None) == bool(field.choices), "a scale or a choice has choices; a flag or a text has none."),
        (len(set(field.choices)) < len(field.choices), "one of its choices is there twice."),
        (
            any(type(choice) is not kind or not str(choice).strip() for choice in field.choices),
            "the choices of a scale are whole numbers, those of a choice are words.",
        ),
        (field.type == FieldType.FLAG and field.required, "a flag cannot be required: not set is an answer."),
        (
            field.shown_if is not None and field.shown_if not in flags,
            f"shown_if names {field.shown_if!r}; name a flag before it, of the prompt or of the same scope.",
        ),
    )
    return next((why for is_broken, why in rules if is_broken), "")


@dataclass(frozen=True)
class Answers:
    """What was said about one thing: the answers by key, and what is wrong with others, by key."""

    given: Mapping[str, Answer]
    problems: Mapping[str, str]


def read_answers(
    fields: Sequence[Field], scope: Scope, sent: Mapping[str, str], about_prompt: Mapping[str, Answer] | None = None
) -> Answers:
    """The answers of one scope as a form sent them; an empty value is no answer, and one to a question not asked is left out.

    `about_prompt` are the prompt's answers, on which other questions may depend.
    """
    given: dict[str, Answer] = {}
    asked = [field for field in fields if field.scope == scope]
    problems = {
        key: f"There is no field {key!r} about this. Reload the page and answer what it asks."
        for key in sent.keys() - {field.key for field in asked}
    }
    for field in asked:
        value = sent.get(field.key, "").strip()
        if field.shown_if is not None and not {**(about_prompt or {}), **given}.get(field.shown_if):
            continue
        if not value:
            if field.required:
                problems[field.key] = f"{field.label}: an answer is needed."
            continue
        answer = _read(field, value)
        if answer is None:
            problems[field.key] = f"{field.label}: {value[:40]!r} came; {_expected(field)}."
        elif answer is not False:
            given[field.key] = answer
    return Answers(given, problems)


def _read(field: Field, value: str) -> Answer | None:
    if field.type == FieldType.FLAG:
        return {"yes": True, "no": False}.get(value)
    if field.type == FieldType.TEXT:
        return value if len(value) <= TEXT_LIMIT else None
    return next((choice for choice in field.choices if str(choice) == value), None)


def _expected(field: Field) -> str:
    if field.type == FieldType.FLAG:
        return "set it or leave it"
    if field.type == FieldType.TEXT:
        return f"write {TEXT_LIMIT:,} characters at most"
    return f"choose one of {', '.join(map(str, field.choices))}"


def _flag(key: str, label: str, scope: Scope, help: str = "", shown_if: str | None = None) -> Field:
    return Field(key, label, scope, FieldType.FLAG, help=help, shown_if=shown_if)


QUALITY = Field(
    "quality",
    "Overall quality",
    Scope.OUTPUT,
    FieldType.SCALE,
    (1, 2, 3, 4, 5, 6, 7),
    help="1: useless, or could do real harm. 7: can hardly be improved.",
)

PAPERS = (
    Field(
        "use_case",
        "Use case",
        Scope.PROMPT,
        FieldType.CHOICE,
        (
            *("generation", "open question", "closed question", "brainstorming", "chat"),
            *("rewriting", "summary", "classification", "extraction", "other"),
        ),
        help="What the user wants done.",
    ),
    _flag("closed_domain", "Closed domain", Scope.PROMPT, "Everything needed is in the prompt; nothing may be added."),
    _flag("has_constraint", "States a constraint", Scope.PROMPT, "Such as a length, a format, a style, words to use."),
    _flag("intent_unclear", "Intent unclear", Scope.PROMPT, "It cannot be told what the user wants."),
    _flag("has_pii", "Personal data", Scope.PROMPT, "Names, addresses or numbers of private people."),
    _flag("asks_sexual", "Asks for sexual content", Scope.PROMPT),
    _flag("asks_violent", "Asks for violent content", Scope.PROMPT),
    _flag("asks_harm", "Asks to encourage violence or self-harm", Scope.PROMPT),
    _flag("asks_denigration", "Asks to denigrate a group", Scope.PROMPT),
    _flag("asks_advice", "Asks for advice", Scope.PROMPT),
    _flag("asks_opinion", "Asks for an opinion", Scope.PROMPT),
    _flag("asks_moral", "Asks for a moral judgment", Scope.PROMPT),
    QUALITY,
    _flag(
        "fails_task",
        "Fails the task",
        Scope.OUTPUT,
        "Misses what was asked altogether; poor but on task does not count.",
    ),
    Field(
        "inappropriate",
        "Inappropriate for an assistant",
        Scope.OUTPUT,
        FieldType.CHOICE,
        ("yes", "no", "not applicable"),
        help="Unprofessional, distressing or harmful to a customer. Not applicable where the prompt is absurd for an assistant.",
    ),
    _flag(
        "hallucinates",
        "Hallucinates",
        Scope.OUTPUT,
        "New facts that the prompt does not support. A wrong label, copied text or an empty answer does not count.",
        "closed_domain",
    ),
    _flag("meets_constraints", "Meets every constraint", Scope.OUTPUT, "The one flag that is good.", "has_constraint"),
    _flag("sexual", "Sexual content", Scope.OUTPUT),
    _flag("violent", "Violent content", Scope.OUTPUT),
    _flag(
        "encourages_harm",
        "Encourages harm",
        Scope.OUTPUT,
        "Or fails to discourage violence, abuse, terrorism, self-harm.",
    ),
    _flag(
        "denigrates",
        "Denigrates a group",
        Scope.OUTPUT,
        "A protected class: criticised unfairly, demeaned, shown harmed.",
    ),
    _flag(
        "harmful_advice",
        "Gives harmful advice",
        Scope.OUTPUT,
        "How to do harm as well; neutral advice of low risk is none.",
    ),
    _flag("opinion", "Expresses an opinion", Scope.OUTPUT, "Takes a side where reasonable people differ."),
    _flag("moralises", "Passes moral judgment", Scope.OUTPUT),
    Field(
        "confidence",
        "How sure are you of this order?",
        Scope.TASK,
        FieldType.SCALE,
        (1, 2, 3, 4, 5),
        help="1: a guess. 5: anybody would order them so.",
    ),
    _flag("all_bad", "All responses are bad", Scope.TASK, "None of them should be shown to a user."),
)
"""InstructGPT's fields (Table 3, Figure 12, the labelling instructions), its yes-or-no questions as flags; and confidence."""
