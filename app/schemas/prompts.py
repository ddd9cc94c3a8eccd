"""Prompts on their way in: one row of a JSONL file, checked for shape."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from app.models import Category, Split
from app.schemas.needs import read_needs
from app.snapshot import Row

Message = dict[str, str]
"""One turn: {"role": "user" | "assistant" | "system", "content": str}."""

_Choice = TypeVar("_Choice", Category, Split)

ROLES = ("system", "user", "assistant")

_TEXT_FIELDS = ("source", "key", "parent", "reference", "verifier", "licence", "consent")
_FIELDS = ("prompt", "messages", "category", "split", "needs", *_TEXT_FIELDS)


@dataclass(frozen=True, slots=True)
class PromptIn:
    """A prompt to be stored. Without a source it is a group of its own; without a split its source decides."""

    messages: tuple[Message, ...]
    category: Category | None = None
    source: str | None = None
    split: Split | None = None
    key: str | None = None
    """Name of the row within its file, for `parent_key` to refer to."""
    parent_key: str | None = None
    """Key of the prompt one exchange earlier in the same conversation."""
    reference: str | None = None
    verifier: str | None = None
    licence: str | None = None
    consent: str | None = None
    needs: tuple[str, ...] = ()
    """Tags of `app.schemas.needs` that a person must bring to be given its tasks."""


@dataclass(frozen=True, slots=True)
class LineError:
    """What is wrong with one line of a file; `line` counts from 1."""

    line: int
    message: str


@dataclass(frozen=True)
class ParsedPrompts:
    """Why a file is refused."""

    errors: Sequence[LineError] = ()
    """The first of them; `error_count` counts all."""
    error_count: int = 0


@dataclass(frozen=True)
class ImportReport:
    """What an import did. `ids` has the prompt behind each key, new or stored before."""

    added: int
    duplicates: int
    ids: Mapping[str, int] = field(default_factory=dict)


def read_conversation(row: object, name: str) -> tuple[list[PromptIn], dict[str, str]]:
    """One JSON value as a prompt for every turn of its user, each the parent of the next, and the answers given, by key.

    What a row says of its prompt (category, reference, verifier) holds for the last. `name` makes keys where the row has none.
    Raises ValueError as `read_prompt` does, but not where the conversation ends with an answer.
    """
    whole = read_prompt(row, may_be_answered=True)
    ends = [at for at, turn in enumerate(whole.messages) if turn["role"] == "user"]
    prompts: list[PromptIn] = []
    answers: dict[str, str] = {}
    for at in ends:
        is_last = at == ends[-1]
        key = whole.key if is_last and whole.key is not None else f"{name}, turn {at + 1}"
        prompts.append(
            replace(
                whole,
                messages=whole.messages[: at + 1],
                category=whole.category if is_last else None,
                reference=whole.reference if is_last else None,
                verifier=whole.verifier if is_last else None,
                key=key,
                parent_key=prompts[-1].key if prompts else None,
            )
        )
        if at + 1 < len(whole.messages):
            answers[key] = whole.messages[at + 1]["content"]
    return prompts, answers


def read_prompt(row: object, *, may_be_answered: bool = False) -> PromptIn:
    """One JSON value as a prompt; `may_be_answered` lets an assistant's turn follow it.

    Raises ValueError saying what came, what was expected and how to mend it.
    """
    if not isinstance(row, dict):
        raise ValueError(f'expected an object such as {{"prompt": "…"}}, found {_kind(row)}')
    if unknown := sorted(set(row) - set(_FIELDS)):
        raise ValueError(f"unknown field {unknown[0]!r}; known are {', '.join(_FIELDS)}")
    for name in _TEXT_FIELDS:
        if row.get(name) is not None and not isinstance(row[name], str):
            raise ValueError(f"{name} is {_kind(row[name])}; expected text")
        _check_storable(row.get(name) or "", name)
    return PromptIn(
        messages=_read_messages(row, may_be_answered),
        category=_read_choice(row, "category", Category),
        source=row.get("source") or None,
        split=_read_choice(row, "split", Split),
        key=row.get("key"),
        parent_key=row.get("parent"),
        reference=row.get("reference"),
        verifier=row.get("verifier"),
        licence=row.get("licence"),
        consent=row.get("consent"),
        needs=_read_needs(row),
    )


def _read_messages(row: Row, may_be_answered: bool) -> tuple[Message, ...]:
    if ("prompt" in row) == ("messages" in row):
        raise ValueError('give either "prompt" (text) or "messages" (a list of turns), and only one of them')
    if "prompt" in row:
        return (_read_message({"role": "user", "content": row["prompt"]}, '"prompt"'),)
    turns = row["messages"]
    if not isinstance(turns, list) or not turns:
        raise ValueError(f'"messages" is {_kind(turns)}; expected a list with at least one turn')
    messages = tuple(_read_message(turn, f"turn {number}") for number, turn in enumerate(turns, start=1))
    if messages[-1]["role"] != "user" and not (may_be_answered and messages[-1]["role"] == "assistant"):
        raise ValueError(
            f"the last turn is by {messages[-1]['role']!r}; a prompt ends with the user's turn that is to be answered"
        )
    for number, message in enumerate(messages, start=1):
        if message["role"] == "system" and number > 1:
            raise ValueError(f"turn {number} is by 'system'; only the first may be")
    said = [message["role"] for message in messages if message["role"] != "system"]
    if said != ["user" if index % 2 == 0 else "assistant" for index in range(len(said))]:
        order = ", ".join(said[:20]) + (", …" if len(said) > 20 else "")
        raise ValueError(f"the turns go {order}; expected user and assistant in turn, beginning with user")
    return messages


def _read_message(turn: object, name: str) -> Message:
    if not isinstance(turn, dict) or set(turn) != {"role", "content"}:
        raise ValueError(f'{name} is {_kind(turn)}; expected an object of "role" and "content" alone')
    role, content = turn["role"], turn["content"]
    if role not in ROLES:
        raise ValueError(f"{name} has the role {role!r}; expected one of {', '.join(ROLES)}")
    return {"role": role, "content": read_text(content, name)}


def read_text(value: object, name: str) -> str:
    """A text that can be stored and is not empty. Raises ValueError that calls it `name`."""
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{name} is {_kind(value)}; expected text that is not empty")
    _check_storable(value, name)
    return value


def _check_storable(text: str, name: str) -> None:
    """Raise ValueError for what JSON may hold and a database of UTF-8 text may not."""
    if "\x00" in text:
        raise ValueError(f"{name} holds a NUL character, which cannot be stored; remove it")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        half = ord(text[error.start])
        raise ValueError(
            f"{name} holds half a character (\\u{half:04x} alone), which cannot be stored; remove it"
        ) from None


def _read_choice(row: Row, name: str, choices: type[_Choice]) -> _Choice | None:
    value = row.get(name)
    if value is None or value == "":
        return None
    try:
        return choices(value)
    except ValueError:
        raise ValueError(f"{name} is {value!r}; expected one of {', '.join(choices)}") from None


def _read_needs(row: Row) -> tuple[str, ...]:
    needs = row.get("needs")
    if needs is None:
        return ()
    if not isinstance(needs, list):
        raise ValueError(f'needs is {_kind(needs)}; expected a list of tags such as "skill:math"')
    try:
        return read_needs(needs)
    except ValueError as error:
        raise ValueError(f"needs: {error}") from None


def _kind(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    if value in ("", []):
        return "empty"
    return names.get(type(value), "a number")
