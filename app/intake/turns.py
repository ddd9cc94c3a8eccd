"""Conversations as the world's files hold them, brought to turns of role and content. What a prompt may be is checked later."""

import json
import re
from typing import cast

from app.schemas.prompts import Message

_ROLES = {
    "human": "user",
    "user": "user",
    "prompter": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "model": "assistant",
    "assistant": "assistant",
    "system": "system",
}
_SPEAKER = re.compile(r"(?:^|\n\n)\s*(Human|Assistant):")


def read_turns(cell: object, name: str) -> list[Message]:
    """A list of {"role", "content"} or {"from", "value"}, or such a list as JSON in a text, as turns.

    Raises ValueError that calls the cell `name`.
    """
    if isinstance(cell, str):
        cell = _read_json(cell, name)
    if not isinstance(cell, list) or not cell:
        raise ValueError(
            f'{name} is {kind_of(cell)}; expected a list of turns such as {{"role": "user", "content": "…"}}'
        )
    return [_read_turn(turn, f"turn {number} of {name}") for number, turn in enumerate(cell, start=1)]


def read_prompt_cell(cell: object, name: str) -> list[Message]:
    """The prompt of a table: a text, a conversation, or texts of which the first can be asked before any answer."""
    if isinstance(cell, list) and cell and not isinstance(cell[0], str):
        return read_turns(cell, name)
    text = cell[0] if isinstance(cell, list) and cell else cell
    if not isinstance(text, str):
        raise ValueError(f"{name} is {kind_of(text)}; expected text, or a list of turns")
    return [{"role": "user", "content": text}]


def read_answer(cell: object, name: str) -> object:
    """An answer's text, also where it stands as the one turn of a conversation."""
    if not isinstance(cell, list):
        return cell
    turns, text = read_side(cell, name)
    if turns:
        raise ValueError(f"{name} is a conversation of {len(turns) + 1} turns; expected the answer alone")
    return text


def read_side(cell: object, name: str) -> tuple[list[Message], object]:
    """One side of a comparison: the turns before the answer, none where it is a text alone, and the answer."""
    if not isinstance(cell, list):
        return [], cell
    turns = read_turns(cell, name)
    if turns[-1]["role"] != "assistant":
        raise ValueError(
            f"{name} ends with a turn by {turns[-1]['role']!r}; expected it to end with the assistant's answer"
        )
    return turns[:-1], turns[-1]["content"]


def is_transcript(cell: object) -> bool:
    """Whether a text begins as the transcripts of Anthropic's helpful-harmless data do."""
    return isinstance(cell, str) and cell.lstrip().startswith("Human:")


def read_transcript(cell: object, name: str) -> list[Message]:
    r"""A text of "\n\nHuman: …\n\nAssistant: …" as turns. Raises ValueError that calls it `name`."""
    if not isinstance(cell, str):
        raise ValueError(f"{name} is {kind_of(cell)}; expected a transcript beginning with 'Human:'")
    before, *parts = _SPEAKER.split(cell.strip())
    if before.strip() or not parts:
        raise ValueError(f"{name} begins with {cell.strip()[:40]!r}; expected a transcript beginning with 'Human:'")
    roles, texts = parts[::2], parts[1::2]
    return [
        {"role": "user" if role == "Human" else "assistant", "content": text.strip()}
        for role, text in zip(roles, texts, strict=True)
    ]


def kind_of(value: object) -> str:
    """What a value is, for a sentence."""
    if value in ("", []):
        return "empty"
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "missing"}
    return names.get(type(value), "a number" if isinstance(value, int | float) else f"a {type(value).__name__}")


def _read_json(text: str, name: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError(f"{name} is text but not JSON; expected a list of turns, [{{…}}, …], as JSON") from None


def _read_turn(turn: object, name: str) -> Message:
    if not isinstance(turn, dict):
        raise ValueError(f'{name} is {kind_of(turn)}; expected an object such as {{"role": "user", "content": "…"}}')
    speaker = turn.get("role", turn.get("from"))
    content = turn.get("content", turn.get("value"))
    role = _ROLES.get(speaker.lower()) if isinstance(speaker, str) else None
    if role is None:
        raise ValueError(f"{name} is by {speaker!r}; expected system, user (human) or assistant (gpt)")
    # What the content must be is for the check of the prompt to say; a number in it must reach that check.
    return cast(Message, {"role": role, "content": _join_parts(content, name)})


def _join_parts(content: object, name: str) -> object:
    if not isinstance(content, list):
        return content
    for part in content:
        if not isinstance(part, dict) or part.get("type", "text") != "text" or not isinstance(part.get("text"), str):
            what = part.get("type") if isinstance(part, dict) else kind_of(part)
            raise ValueError(
                f'{name} has a part that is {what!r}; only parts {{"type": "text", "text": "…"}} can be stored'
            )
    return "\n\n".join(part["text"] for part in content)
