"""Which shape the rows of a file have, and which of their columns holds which field."""

import collections.abc
import re
from dataclasses import dataclass, field
from enum import StrEnum

from app.models import Category, ImportKind, Split

MOST_RESPONSES = 9
"""To one prompt that people rank."""


class Shape(StrEnum):
    """The forms in which the world keeps such data."""

    PREFERABLE = "preferable"
    """Our own rows, those of a snapshot among them."""
    MESSAGES = "messages"
    """Conversations of turns with role and content, as chat services have them."""
    INSTRUCTION = "instruction"
    """Instruction, input and output, as Alpaca has them, or chosen and rejected in place of the output."""
    SHAREGPT = "sharegpt"
    """Conversations of turns with from and value."""
    PREFERENCE = "preference"
    """A chosen and a rejected answer, as texts or conversations."""
    HH = "hh"
    """Transcripts of Human and Assistant."""
    OASST = "oasst"
    """Trees of messages whose replies have ranks."""
    COLUMNS = "columns"
    """A table of any kind: the user says which column holds which field."""


@dataclass(frozen=True)
class Field:
    """What a column may hold."""

    name: str
    help: str
    required: bool = False
    instead: tuple[str, ...] = ()
    """Fields of which one does as well as this one that is required."""


_PROMPT = Field("prompt", "The text to be answered; of a list of texts the first.", True, ("messages",))
_BEFORE = (
    Field("messages", "A conversation: a list of turns with role and content, also as JSON in a cell."),
    Field("system", "What is said to the model before the conversation."),
    Field("input", "Text that is appended to the prompt after a blank line."),
)
_ABOUT = (
    Field("category", f"The use case: {', '.join(Category)}."),
    Field("source", "Who wrote the prompt; all prompts of a source fall into one split."),
    Field("split", f"{', '.join(Split)}; where it is empty the source decides."),
    Field("key", "A name of the row within the file, for another row's parent."),
    Field("parent", "The key of the prompt one exchange earlier in the same conversation."),
    Field("reference", "A right answer, for rewards that are checked."),
    Field("verifier", "The check that compares an answer with the reference."),
    Field("licence", "The licence of the text."),
    Field("consent", "What its writer agreed to."),
    Field("needs", "Tags that a person must bring, such as skill:math;content:violence."),
)
_MORE = tuple(Field(f"response_{n}", f"Response number {n}.") for n in range(3, MOST_RESPONSES + 1))
_PAIR = (
    Field("chosen", "The response that was found better."),
    Field("rejected", "The response that was found worse."),
)
_FIRST = Field("response", "The first response.", True, ("chosen",))
_SECOND = Field("response_2", "The second response.", True, ("rejected",))
_PREFERRED = Field(
    "preferred", "Which of two responses is better: 1 or 2, a or b, left or right, or tie.", True, ("chosen",)
)
_ANNOTATOR = Field("annotator", "Who ranked, under any name.")

FIELDS: collections.abc.Mapping[ImportKind, tuple[Field, ...]] = {
    ImportKind.PROMPTS: (_PROMPT, *_BEFORE, Field("response", "An answer, kept as a sample."), *_ABOUT),
    ImportKind.OUTPUTS: (_PROMPT, *_BEFORE, _FIRST, _SECOND, *_MORE, *_PAIR, *_ABOUT),
    ImportKind.RANKINGS: (_PROMPT, *_BEFORE, _FIRST, _SECOND, *_MORE, _PREFERRED, *_PAIR, _ANNOTATOR, *_ABOUT),
    ImportKind.DEMONSTRATIONS: (
        _PROMPT,
        *_BEFORE,
        Field("response", "The answer that was wanted.", True, ("messages", "chosen")),
        *_PAIR,
        *_ABOUT,
    ),
    ImportKind.TEXT: (Field("text", "Text for the pretraining mix.", True),),
}
"""What a mapping of columns can fill, by what is imported."""

_HALF = re.compile("[\ud800-\udfff]")

_NAMES = frozenset(one.name for fields in FIELDS.values() for one in fields)

OWN_FIELDS = _NAMES - {
    "chosen",
    "rejected",
    "preferred",
    "input",
    "system",
    *(one.name for one in (_SECOND, *_MORE)),
} | {
    "responses",
    "pairs",
    "labeller",
}
"""Columns of our own rows that are read."""

_USUAL: dict[Shape, dict[str, str]] = {
    Shape.PREFERABLE: {name: name for name in ("prompt", "messages", "response", "responses", *sorted(OWN_FIELDS))},
    Shape.MESSAGES: {"messages": "messages"},
    Shape.INSTRUCTION: {
        "prompt": "instruction",
        "input": "input",
        "response": "output",
        "chosen": "chosen",
        "rejected": "rejected",
    },
    Shape.SHAREGPT: {"messages": "conversations"},
    Shape.PREFERENCE: {"prompt": "prompt", "chosen": "chosen", "rejected": "rejected"},
    Shape.HH: {"text": "text", "chosen": "chosen", "rejected": "rejected"},
    Shape.OASST: {},
    Shape.COLUMNS: {},
}


@dataclass(frozen=True)
class Mapping:
    """How the rows of one file are read. Raises ValueError for fields that there are not."""

    shape: Shape
    columns: collections.abc.Mapping[str, str] = field(default_factory=dict)
    """The column that holds a field, where the shape does not say so already."""
    every_turn: bool = False
    """Each turn of a user is a prompt of its own, not only the last."""
    names: collections.abc.Mapping[str, str] = field(init=False, repr=False, compare=False)
    """The column of every field, those of the shape among them."""

    def __post_init__(self) -> None:
        if unknown := sorted(set(self.columns) - _NAMES):
            raise ValueError(f"there is no field {unknown[0]!r}; known are {', '.join(sorted(_NAMES))}")
        object.__setattr__(self, "names", {**_USUAL[self.shape], **self.columns})

    def to_json(self) -> dict[str, object]:
        """The mapping as a JSON object."""
        return {"shape": self.shape.value, "columns": dict(self.columns), "every_turn": self.every_turn}

    @classmethod
    def from_json(cls, value: collections.abc.Mapping[str, object]) -> "Mapping":
        """The mapping that `to_json` made an object of. Raises ValueError for anything else."""
        shape, columns, every_turn = value.get("shape"), value.get("columns", {}), value.get("every_turn", False)
        if shape not in list(Shape):
            raise ValueError(f"the shape is {shape!r}; expected one of {', '.join(Shape)}")
        if not isinstance(columns, dict) or not all(isinstance(part, str) for pair in columns.items() for part in pair):
            raise ValueError(f'the columns are {columns!r}; expected an object such as {{"prompt": "question"}}')
        if bad := next((column for column in columns.values() if not is_name(column)), None):
            raise ValueError(
                f"the column {bad!r} has a NUL or half a character in its name, which cannot be stored; rename it in the file"
            )
        if not isinstance(every_turn, bool):
            raise ValueError(f"every_turn is {every_turn!r}; expected true or false")
        return cls(Shape(str(shape)), columns, every_turn)


def is_name(text: str) -> bool:
    """Whether a column's name can be stored: the database refuses a NUL and half a character."""
    return "\x00" not in text and not _HALF.search(text)


def check_mapping(mapping: Mapping, kind: ImportKind) -> None:
    """Raise ValueError where a table's columns lack a field that the import cannot do without, or fill one it has no use for."""
    if mapping.shape is not Shape.COLUMNS:
        return
    known = {one.name for one in FIELDS[kind]}
    if useless := next((name for name in mapping.columns if name not in known), None):
        raise ValueError(f"{kind.value} have no use for the field {useless!r}; take it out of the mapping")
    for one in FIELDS[kind]:
        if one.required and not mapping.columns.keys() & {one.name, *one.instead}:
            others = "".join(f" or {name}" for name in one.instead)
            raise ValueError(f"no column is named for {one.name}{others}; choose the column that holds it")
