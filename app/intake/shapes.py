"""Turns the rows of a file, whatever their shape, into records, and says of a row that cannot be one how to mend it."""

from collections.abc import Mapping as ReadOnly
from collections.abc import Sequence
from dataclasses import replace
from typing import cast

from app.intake.detection import detect
from app.intake.drafts import RANKED, Answer, Cells, Draft, check_characters, pick, read_drafts
from app.intake.mapping import FIELDS, MOST_RESPONSES, Field, Mapping, Shape, check_mapping
from app.intake.records import Record, ResponseIn
from app.intake.trees import read_tree
from app.intake.turns import kind_of
from app.models import ImportKind
from app.schemas.prompts import Message, PromptIn, read_conversation, read_prompt, read_text

__all__ = ["FIELDS", "Field", "Mapping", "Shape", "check_mapping", "detect", "read_records"]

_PLAIN = frozenset(("prompt", "source", "key", "licence", "consent"))
"""Fields that a prompt of one turn may have and still be read the short way."""

LONGEST_ERROR = 500
"""A message may quote what came, and that may be as long as a row."""

Value = ReadOnly[str, object] | str
Found = tuple[PromptIn, list[Answer]]


def read_records(value: Value, kind: ImportKind, mapping: Mapping, *, line: int) -> list[Record]:
    """The records of one row; `line` makes keys for the turns of a conversation that has none.

    Raises ValueError saying what came, what was expected and how to mend it, in `LONGEST_ERROR` letters at most.
    """
    try:
        return _read(value, kind, mapping, line)
    except RecursionError:
        raise ValueError("its lists and objects are nested too deep; make the row flat") from None
    except ValueError as error:
        if len(message := str(error)) <= LONGEST_ERROR:
            raise
        raise ValueError(f"{message[: LONGEST_ERROR - 150]} … {message[-140:]}") from None


def _read(value: Value, kind: ImportKind, mapping: Mapping, line: int) -> list[Record]:
    if kind is ImportKind.TEXT:
        return [Record(prompt=None, text=_read_plain(value, mapping))]
    if isinstance(value, str):
        if kind is not ImportKind.PROMPTS:
            raise ValueError(f"a text alone; {kind.value} need an object with a prompt and what answers it")
        value = {"prompt": value}
        mapping = Mapping(Shape.PREFERABLE)
    if kind is ImportKind.PROMPTS and not mapping.every_turn and mapping.shape in (Shape.PREFERABLE, Shape.COLUMNS):
        cells = pick(value, mapping)
        if "prompt" in cells and cells.keys() <= _PLAIN and set(map(type, cells.values())) == {str}:
            return [Record(_read_single(cells))]
    is_tree = mapping.shape is Shape.OASST
    drafts = read_tree(value, kind, mapping) if is_tree else read_drafts(value, kind, mapping)
    records: list[Record] = []
    splits_turns = mapping.every_turn and not is_tree
    if splits_turns or len(drafts) > 1:
        _check_room(drafts, splits_turns=splits_turns and kind not in RANKED)
    for number, draft in enumerate(drafts, start=1):
        name = f"line {line}" if number == 1 else f"line {line}, part {number}"
        records += _finish(draft, kind, name, every_turn=splits_turns)
    return records


def _read_plain(value: Value, mapping: Mapping) -> str:
    if isinstance(value, str):
        return read_text(value, "the text")
    column = mapping.names.get("text", "text")
    if column not in value:
        found = ", ".join(repr(name) for name in list(value)[:10]) or "none"
        raise ValueError(f"there is no column {column!r} with the text; found {found}")
    return read_text(value[column], column)


def _read_single(cells: Cells) -> PromptIn:
    """A prompt of one turn without anything that needs more than the check of its texts."""
    texts = {name: read_text(cell, name) for name, cell in cells.items()}
    return PromptIn(
        ({"role": "user", "content": texts["prompt"]},),
        source=texts.get("source"),
        key=texts.get("key"),
        licence=texts.get("licence"),
        consent=texts.get("consent"),
    )


def _check_room(drafts: Sequence[Draft], *, splits_turns: bool) -> None:
    """Raise ValueError where the prompts of a row would fill the memory, before they are made."""
    count = 0
    for draft in drafts:
        said = 0
        turns = cast(Sequence[Message], draft.row["messages"])
        for at, turn in enumerate(turns, start=1):
            said += len(turn["content"]) if isinstance(turn["content"], str) else 0
            if at == len(turns) or (splits_turns and turn["role"] == "user"):
                count += said
    check_characters(count, "choose not to make a prompt of every turn, or shorten the conversation")


def _finish(draft: Draft, kind: ImportKind, name: str, *, every_turn: bool) -> list[Record]:
    if kind in (ImportKind.OUTPUTS, ImportKind.RANKINGS):
        prompt = read_prompt(draft.row)
        responses = _read_responses(draft.answers)
        if kind is ImportKind.RANKINGS:
            return [Record(prompt, _close_tiers(responses), annotator=draft.annotator)]
        return [Record(prompt, tuple(replace(one, tier=None) for one in responses))]
    found = _find_turns(draft, name, every_turn=every_turn)
    if kind is ImportKind.PROMPTS:
        return [Record(prompt, _read_samples(answers)) for prompt, answers in found]
    return _read_demonstrations(found)


def _find_turns(draft: Draft, name: str, *, every_turn: bool) -> list[Found]:
    """The prompts of a conversation, the last alone unless `every_turn`, each with its answers."""
    if every_turn:
        prompts, given = read_conversation(draft.row, name)
        found = [(one, [Answer(given[one.key], "the answer")] if one.key in given else []) for one in prompts]
    else:
        whole = read_prompt(draft.row, may_be_answered=True)
        last = whole.messages[-1]
        if last["role"] == "assistant":
            found = [(replace(whole, messages=whole.messages[:-1]), [Answer(last["content"], "the answer")])]
        else:
            found = [(whole, [])]
    found[-1][1].extend(draft.answers)
    return found


def _read_samples(answers: Sequence[Answer]) -> tuple[ResponseIn, ...]:
    """The answers to a prompt, each text once; an empty one is none."""
    given = [answer for answer in answers if isinstance(answer.text, str) and answer.text.strip()]
    by_text = {one.text: one for one in (_read_response(answer) for answer in given)}
    return tuple(replace(one, tier=None) for one in by_text.values())


def _read_demonstrations(found: Sequence[Found]) -> list[Record]:
    """A record for each prompt that is answered. Raises ValueError where none is, or one has several answers and no best."""
    records = [Record(prompt, (_choose_best(answers),)) for prompt, answers in found if answers]
    if not records:
        raise ValueError("the prompt has no response; fill it, or end the conversation with the assistant's turn")
    return records


def _choose_best(answers: Sequence[Answer]) -> ResponseIn:
    tiers = [answer.tier for answer in answers if answer.tier is not None]
    best = [answer for answer in answers if not tiers or answer.tier == min(tiers)]
    if len(best) > 1:
        raise ValueError(f"{len(best)} responses, and none of them the best alone; expected the one that was wanted")
    return replace(_read_response(best[0]), tier=None)


def _read_responses(answers: Sequence[Answer]) -> tuple[ResponseIn, ...]:
    """The responses that people rank: two to nine, all different."""
    if not 2 <= len(answers) <= MOST_RESPONSES:
        raise ValueError(f"the row has {len(answers) or 'no'} responses; expected 2 to {MOST_RESPONSES} to one prompt")
    names: dict[str, str] = {}
    responses = []
    for answer in answers:
        response = _read_response(answer)
        if (other := names.setdefault(response.text, answer.name)) != answer.name:
            raise ValueError(f"{other} and {answer.name} have the same text; keep it once")
        responses.append(response)
    return tuple(responses)


def _read_response(answer: Answer) -> ResponseIn:
    if not isinstance(answer.text, str) or not answer.text.strip():
        raise ValueError(f"{answer.name} is {kind_of(answer.text)}; expected text that is not empty")
    sampler = None if answer.sampler is None else read_text(answer.sampler, f"the sampler of {answer.name}")
    return ResponseIn(read_text(answer.text, answer.name), answer.tier, sampler)


def _close_tiers(responses: Sequence[ResponseIn]) -> tuple[ResponseIn, ...]:
    """The responses with tiers 1, 2, 3 without a gap. Raises ValueError where fewer than two have one."""
    tiers = sorted({one.tier for one in responses if one.tier is not None})
    if sum(one.tier is not None for one in responses) < 2:
        raise ValueError(
            "nothing says which response is better; give two of them a tier, or fill chosen and rejected, or preferred"
        )
    return tuple(one if one.tier is None else replace(one, tier=tiers.index(one.tier) + 1) for one in responses)
