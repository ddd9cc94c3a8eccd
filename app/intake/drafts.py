"""Rows of every shape brought to one: what a prompt is read from, and the answers beside it."""

import json
import math
import re
from collections.abc import Mapping as ReadOnly
from dataclasses import dataclass

from app.intake.mapping import MOST_RESPONSES, Mapping, Shape
from app.intake.pairs import read_pairs
from app.intake.turns import kind_of, read_answer, read_prompt_cell, read_side, read_transcript, read_turns
from app.models import Category, ImportKind, Split
from app.schemas.prompts import Message, read_text

RANKED = (ImportKind.OUTPUTS, ImportKind.RANKINGS)

MOST_CHARACTERS = 16_000_000
"""Of all prompts together that one row is made into: each holds all that was said before it."""

MOST_TURNS = 1_000
"""Of one conversation."""

Cells = dict[str, object]
"""The filled cells of a row by the field they are for."""

_RESPONSES = ("response", *(f"response_{n}" for n in range(2, MOST_RESPONSES + 1)))
_TEXTS = ("source", "key", "parent", "reference", "verifier", "licence", "consent")
_SPLITS = {"training": "train", "validation": "valid", "val": "valid", "dev": "valid"}
_CHOICES = {choices: frozenset(map(str, choices)) for choices in (Category, Split)}
_FIRST = ("1", "a", "left", "first")
_SECOND = ("2", "b", "right", "second")
_TIE = ("tie", "both", "equal", "same", "tie (bothbad)", "draw")


@dataclass(frozen=True, slots=True)
class Answer:
    """A response before its text is checked."""

    text: object
    name: str
    """What to call it in a sentence."""
    tier: int | None = None
    sampler: str | None = None


@dataclass(frozen=True, slots=True)
class Draft:
    """What a row says: the fields of `app.schemas.prompts.read_prompt` and the answers."""

    row: dict[str, object]
    answers: tuple[Answer, ...] = ()
    annotator: str | None = None


def pick(value: ReadOnly[str, object], mapping: Mapping) -> Cells:
    """The filled cells of a row by field."""
    if mapping.shape is Shape.PREFERABLE and not mapping.columns:
        names = mapping.names
        return {
            name: cell
            for name, cell in value.items()
            # `is_filled` without a call for texts
            if name in names and (cell.strip() if type(cell) is str else is_filled(cell))
        }
    get = value.get
    return {name: cell for name, column in mapping.names.items() if is_filled(cell := get(column))}


def is_filled(cell: object) -> bool:
    """Whether a cell has anything in it; where a table of numbers has a gap, its cell is no number (NaN)."""
    if isinstance(cell, str):
        return cell.strip() != ""
    return cell is not None and not (isinstance(cell, float) and math.isnan(cell))


def _check_turns(turns: list[Message]) -> list[Message]:
    """The turns. Raises ValueError where they are so many that a prompt for each would fill the memory."""
    if len(turns) > MOST_TURNS:
        raise ValueError(
            f"the conversation has {len(turns):,} turns; expected {MOST_TURNS:,} at most, so cut it into parts"
        )
    return turns


def read_drafts(value: ReadOnly[str, object], kind: ImportKind, mapping: Mapping) -> list[Draft]:
    """The drafts of one row, of any shape but trees. Raises ValueError where the row does not have that shape."""
    rows = _read_instances(value) if mapping.shape is Shape.INSTRUCTION else [value]
    return [_draft(_find(row, kind, mapping), kind) for row in rows]


def _read_instances(value: ReadOnly[str, object]) -> list[ReadOnly[str, object]]:
    """A row for each instance of an instruction, as Self-Instruct keeps them; the row itself where it has none."""
    instances = value.get("instances")
    if not isinstance(instances, list):
        return [value]
    if not instances or not all(isinstance(instance, dict) for instance in instances):
        raise ValueError(
            'instances is empty or holds what is no object; expected a list such as [{"input": "…", "output": "…"}]'
        )
    common = sum(len(cell) for name, cell in value.items() if isinstance(cell, str) and name != "instances")
    check_characters(common * len(instances), "cut the instances into several rows, or shorten the instruction")
    return [{**value, **instance} for instance in instances]


def check_characters(count: int, mend: str) -> None:
    """Raise ValueError where the prompts of one row would have more than `MOST_CHARACTERS`."""
    if count > MOST_CHARACTERS:
        raise ValueError(
            f"the row would become prompts of {count:,} characters together; expected {MOST_CHARACTERS:,} at most, so {mend}"
        )


def _find(value: ReadOnly[str, object], kind: ImportKind, mapping: Mapping) -> Cells:
    cells = pick(value, mapping)
    if mapping.shape is Shape.PREFERENCE:
        _refuse_unpaired(value, kind)
        cells |= _find_outputs(value)
    if not cells:
        wanted = ", ".join(repr(column) for column in list(mapping.names.values())[:6]) or "columns of a mapping"
        found = ", ".join(repr(name) for name in list(value)[:10]) or "none"
        if empty := next((column for column in mapping.names.values() if column in value), None):
            raise ValueError(f"{empty!r} is empty; expected text")
        raise ValueError(f"no expected column is filled; expected {wanted}, found {found}")
    if mapping.shape is Shape.HH:
        for side in cells.keys() & {"text", "chosen", "rejected"}:
            cells[side] = read_transcript(cells[side], side)
        if (text := cells.pop("text", None)) is not None:
            cells["messages"] = text
    return cells


def _refuse_unpaired(value: ReadOnly[str, object], kind: ImportKind) -> None:
    if kind is not ImportKind.PROMPTS and {"completion", "label"} <= value.keys() and "chosen" not in value:
        raise ValueError(
            "one completion with a label of good or bad compares no two answers; expected chosen and rejected, "
            "or responses to one prompt side by side"
        )


def _find_outputs(value: ReadOnly[str, object]) -> Cells:
    """The fields of a row as OpenAI's preference tuning has it."""
    if "preferred_output" not in value:
        return {}
    given = value.get("input")
    messages = given.get("messages") if isinstance(given, dict) else given
    return {"prompt": messages, "chosen": value["preferred_output"], "rejected": value.get("non_preferred_output")}


def _draft(cells: Cells, kind: ImportKind) -> Draft:
    shared, answers = _read_pair(cells)
    listed = _read_list(cells) if "responses" in cells else []
    named = _read_named(cells)
    choices = [answers, listed, named] if kind in RANKED else [named, listed, answers]
    if kind is ImportKind.PROMPTS:
        chosen = [answer for choice in choices for answer in choice]
    else:
        chosen = next((choice for choice in choices if choice), [])
    row: dict[str, object] = {"messages": _check_turns(_read_conversation(cells, shared)), **_read_about(cells)}
    annotator = cells.get("annotator", cells.get("labeller"))
    return Draft(row, tuple(chosen), None if annotator is None else read_text(_as_text(annotator), "annotator"))


def _read_conversation(cells: Cells, shared: list[Message]) -> list[Message]:
    """The turns of a row: its messages, its prompt, or what both sides of a comparison begin with."""
    if "prompt" in cells and "messages" in cells:
        raise ValueError("both prompt and messages are filled; fill only one of them")
    if shared:
        turns = shared
    elif "messages" in cells:
        turns = read_turns(cells["messages"], "messages")
    elif "prompt" in cells:
        turns = read_prompt_cell(cells["prompt"], "prompt")
    else:
        raise ValueError("the row has no prompt; fill the column of the prompt or of the messages")
    if "input" in cells:
        given = _as_text(cells["input"])
        turns = [*turns[:-1], {**turns[-1], "content": f"{turns[-1]['content']}\n\n{read_text(given, 'input')}"}]
    if "system" in cells:
        turns = [{"role": "system", "content": read_text(cells["system"], "system")}, *turns]
    return turns


def _read_pair(cells: Cells) -> tuple[list[Message], list[Answer]]:
    """The turns that chosen and rejected share, where they are conversations, and the two answers."""
    if "chosen" not in cells and "rejected" not in cells:
        return [], []
    sides = {side: read_side(cells.get(side), side) for side in ("chosen", "rejected")}
    (shared, best), (other, worse) = sides.values()
    if shared != other and "rejected" in cells and "chosen" in cells:
        raise ValueError("chosen and rejected differ before their last turn; expected two answers to one conversation")
    return shared or other, [Answer(best, "chosen", 1), Answer(worse, "rejected", 2)]


def _read_named(cells: Cells) -> list[Answer]:
    """The responses that have a column each."""
    names = [name for name in _RESPONSES if name in cells]
    tiers: list[int | None] = [None] * len(names)
    if "preferred" in cells and names:
        if names != ["response", "response_2"]:
            raise ValueError(
                f"preferred chooses between two responses, but {len(names)} are filled: {', '.join(names)}"
            )
        tiers = list(read_preferred(cells["preferred"]))
    return [Answer(read_answer(cells[name], name), name, tier) for name, tier in zip(names, tiers, strict=True)]


def read_preferred(cell: object) -> tuple[int, int]:
    """The tiers of two responses. Raises ValueError where the cell names neither and is no tie."""
    said = re.sub(r"^(model|response|answer|output)[ _]?", "", str(cell).strip().lower().removesuffix(".0"))
    for names, tiers in ((_FIRST, (1, 2)), (_SECOND, (2, 1)), (_TIE, (1, 1))):
        if said in names:
            return tiers
    raise ValueError(f"preferred is {cell!r}; expected 1 or 2, a or b, left or right, or tie")


def _read_list(cells: Cells) -> list[Answer]:
    """The responses of our own rows: objects of text, tier and sampler, or texts."""
    given = cells["responses"]
    if isinstance(given, str):
        given = _parse_list(given)
    if not isinstance(given, list):
        raise ValueError(
            f'responses is {kind_of(given)}; expected a list of objects such as {{"text": "…", "tier": 1}}'
        )
    answers = [_read_listed(one, f"response {number}") for number, one in enumerate(given, start=1)]
    if is_filled(cells.get("pairs")) and all(answer.tier is None for answer in answers):
        samples = [one.get("sample") if isinstance(one, dict) else None for one in given]
        tiers = read_pairs(cells["pairs"], samples)
        answers = [Answer(one.text, one.name, tier, one.sampler) for one, tier in zip(answers, tiers, strict=True)]
    return answers


def _parse_list(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError('responses is text but not JSON; expected a list such as [{"text": "…", "tier": 1}]') from None


def _read_listed(one: object, name: str) -> Answer:
    if not isinstance(one, dict):
        return Answer(one, name)
    sampler = one.get("sampler")
    return Answer(one.get("text"), name, read_tier(one.get("tier"), name), _as_name(sampler, f"sampler of {name}"))


def _as_name(value: object, name: str) -> str | None:
    if not is_filled(value):
        return None
    if not isinstance(value, str):
        raise ValueError(f"the {name} is {kind_of(value)}; expected text")
    return value


def read_tier(value: object, name: str) -> int | None:
    """A place in a ranking as a whole number. Raises ValueError for anything else."""
    if not is_filled(value):
        return None
    text = str(value).strip().removesuffix(".0")
    if isinstance(value, bool) or not re.fullmatch(r"[+-]?[0-9]{1,9}", text, re.ASCII):
        raise ValueError(f"the tier of {name} is {value!r}; expected a whole number, 1 for the best, equal for a tie")
    return int(text)


def _read_about(cells: Cells) -> dict[str, object]:
    """What a row says of its prompt beside its words."""
    about = {name: _as_text(cells[name]) for name in _TEXTS if name in cells}
    if "category" in cells:
        about["category"] = read_choice(cells["category"], Category)
    if "split" in cells:
        about["split"] = read_choice(cells["split"], Split)
    if "needs" in cells:
        needs = cells["needs"]
        about["needs"] = [tag for tag in re.split(r"[;,\s]+", needs) if tag] if isinstance(needs, str) else needs
    return about


def read_choice(cell: object, choices: type[Category] | type[Split]) -> object:
    """The cell in the spelling of a choice, or as it is where it is none: the check of the prompt names the choices."""
    if not isinstance(cell, str):
        return cell
    if cell in _CHOICES[choices]:
        return cell
    said = re.sub(r"[\s-]+", "_", cell.strip().lower())
    said = _SPLITS.get(said, said) if choices is Split else said
    return said if said in _CHOICES[choices] else cell


def _as_text(cell: object) -> object:
    """A number as text, a whole one without the .0 that a table gives to numbers with gaps between; else the cell."""
    if isinstance(cell, bool) or not isinstance(cell, int | float):
        return cell
    return str(int(cell)) if isinstance(cell, float) and cell.is_integer() else str(cell)
