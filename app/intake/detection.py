"""Guesses from the first rows of a file which shape they have and which column holds what."""

import re
from collections.abc import Mapping as ReadOnly
from collections.abc import Sequence

from app.intake.drafts import is_filled, read_choice, read_preferred
from app.intake.mapping import FIELDS, MOST_RESPONSES, OWN_FIELDS, Mapping, Shape, is_name
from app.intake.trees import is_tree
from app.intake.turns import is_transcript, read_turns
from app.models import Category, ImportKind, Split

Rows = Sequence[ReadOnly[str, object]]

_LOOKED_AT = 200
"""Rows of which a guess is made."""

_SYNONYMS: dict[str, tuple[str, ...]] = {
    "prompt": (
        *(
            "prompt",
            "question",
            "query",
            "instruction",
            "request",
            "user_prompt",
            "user_query",
            "problem",
            "task",
            "turns",
        ),
        *("user", "human", "user_message", "message", "goal", "input", "sentence", "text", "content"),
    ),
    "messages": ("messages", "conversation", "conversations", "dialogue", "dialog", "chat", "history"),
    "system": ("system", "system_prompt", "system_message"),
    "input": ("input", "context"),
    "response": (
        *("response", "answer", "best_answer", "completion", "output", "target", "reply", "assistant", "summary"),
        *("solution", "demonstration", "generation"),
    ),
    "chosen": ("chosen", "preferred_response", "better", "best", "winner_response", "accepted"),
    "rejected": ("rejected", "dispreferred_response", "worse", "worst", "loser_response"),
    "preferred": ("preferred", "preference", "winner", "better_response", "choice", "overall_preference"),
    "category": ("category", "use_case", "task_type"),
    "source": ("user_id", "author", "writer", "author_id"),
    "split": ("split", "subset", "partition"),
    "reference": ("reference", "ground_truth", "reference_answer", "expected_answer", "gold", "final_answer"),
    "verifier": ("verifier",),
    "licence": ("licence", "license"),
    "consent": ("consent",),
    "needs": ("needs",),
    "annotator": ("annotator", "annotator_id", "worker_id", "labeler", "labeller", "judge", "rater"),
    "text": ("text", "content", "document", "article", "body", "story", "passage", "sentence", "paragraph"),
}
_ABOUT = frozenset(
    ("system", "category", "source", "split", "reference", "verifier", "licence", "consent", "needs", "annotator")
)
"""Fields that rows of any shape may have a column for."""

_OF_PAIR = _ABOUT | {"prompt", "chosen", "rejected"}
_OF_INSTRUCTION = _OF_PAIR | {"input", "response"}
_NUMBERED = re.compile(r"(response|answer|output|completion|prediction|generation|reply|summary)_?([0-9]|[a-i])?")
_PROMPT_FIRST = ("prompt", "completion", "chosen", "rejected")
"""Columns that are no conversation of their own, though they may hold turns."""


def detect(rows: Sequence[ReadOnly[str, object] | str], kind: ImportKind) -> Mapping:
    """The best guess at how the first rows of a file are to be read; where nothing fits, a table without columns."""
    objects = [row for row in rows[:_LOOKED_AT] if isinstance(row, ReadOnly)]
    if not objects:
        return Mapping(Shape.PREFERABLE)
    names = [name for name in dict.fromkeys(name for row in objects for name in row) if is_name(name)]
    if _is_own(objects, names, kind):
        return Mapping(Shape.PREFERABLE)
    if kind is not ImportKind.TEXT and (special := _find_special(objects, names, kind)):
        return special
    columns = guess_columns(objects, names, kind)
    if kind is ImportKind.PROMPTS and "prompt" not in columns and (longest := _find_longest(objects, names, columns)):
        columns = {"prompt": longest, **columns}
    return Mapping(Shape.COLUMNS, columns)


def _find_longest(rows: Rows, names: Sequence[str], taken: ReadOnly[str, str]) -> str | None:
    """The column with the longest texts among those that hold nothing else and are not taken: in any language, it asks."""
    lengths: dict[str, float] = {}
    for name in names:
        cells = _cells(rows, name)
        if name not in taken.values() and cells and all(isinstance(cell, str) for cell in cells):
            lengths[name] = sum(len(str(cell)) for cell in cells) / len(cells)
    return max(lengths, key=lambda name: lengths[name], default=None)


def _is_own(rows: Rows, names: list[str], kind: ImportKind) -> bool:
    given = set(names)
    if kind is ImportKind.TEXT:
        return "text" in given
    prompts = _cells(rows, "prompt")
    if {"id", "prompt", "split"} <= given and prompts and all(isinstance(cell, list) for cell in prompts):
        return True
    is_known = given <= OWN_FIELDS and given & {"prompt", "messages"} and given != {"messages"}
    if not is_known or any(isinstance(cell, dict) for cell in prompts):
        return False
    return _are_choices(rows, "category", Category) and _are_choices(rows, "split", Split)


def _find_special(rows: Rows, names: list[str], kind: ImportKind) -> Mapping | None:
    """The shape of rows that are no table of texts."""
    plain = {_normalise(name) for name in names}
    is_unpaired = {"prompt", "completion", "label"} <= plain and kind is not ImportKind.PROMPTS
    if any(is_tree(row) for row in rows):
        return Mapping(Shape.OASST)
    if {"chosen", "rejected"} <= plain:
        return _find_preference(rows, names, kind)
    if "preferred_output" in plain or is_unpaired:
        return Mapping(Shape.PREFERENCE)
    if found := _find_conversation(rows, names, kind):
        return found
    if "instruction" in plain:
        return Mapping(Shape.INSTRUCTION, guess_columns(rows, names, kind, _OF_INSTRUCTION))
    return None


def _find_conversation(rows: Rows, names: list[str], kind: ImportKind) -> Mapping | None:
    """The shape of rows with a column of transcripts or of turns."""
    for name in names:
        cells = _cells(rows, name)
        if cells and all(is_transcript(cell) for cell in cells):
            return Mapping(Shape.HH, {"text": name})
        if name not in _PROMPT_FIRST and cells and all(_is_conversation(cell) for cell in cells):
            is_from = isinstance(cells[0], list) and "from" in cells[0][0]
            shape = Shape.SHAREGPT if is_from else Shape.MESSAGES
            return Mapping(shape, {"messages": name, **guess_columns(rows, names, kind, _ABOUT)})
    return None


def _find_preference(rows: Rows, names: list[str], kind: ImportKind) -> Mapping:
    """The shape of rows with chosen and rejected."""
    columns = guess_columns(rows, names, ImportKind.RANKINGS, _OF_PAIR)
    chosen = _cells(rows, columns.get("chosen", "chosen"))
    if chosen and all(is_transcript(cell) for cell in chosen):
        return Mapping(Shape.HH, {name: columns[name] for name in ("chosen", "rejected") if name in columns})
    known = {one.name for one in FIELDS[kind]} | _OF_PAIR - _ABOUT
    if _normalise(columns.get("prompt", "")) == "instruction":
        more = guess_columns(rows, names, kind, _OF_INSTRUCTION)
        return Mapping(Shape.INSTRUCTION, {name: column for name, column in (more | columns).items() if name in known})
    return Mapping(Shape.PREFERENCE, {name: column for name, column in columns.items() if name in known})


def guess_columns(
    rows: Rows, names: Sequence[str], kind: ImportKind, wanted: frozenset[str] | None = None
) -> dict[str, str]:
    """The column of each field (of those `wanted`) that the kind can be given, as far as names and cells tell it."""
    plain = {_normalise(name): name for name in reversed(names)}
    columns: dict[str, str] = {} if wanted else _guess_numbered(plain, kind)
    for field in FIELDS[kind]:
        if field.name in columns or (wanted and field.name not in wanted) or field.name == "messages":
            continue
        for synonym in _SYNONYMS.get(field.name, ()):
            column = plain.get(synonym)
            if column and column not in columns.values() and _fits(field.name, _cells(rows, column)):
                columns[field.name] = column
                break
    return columns


def _guess_numbered(plain: ReadOnly[str, str], kind: ImportKind) -> dict[str, str]:
    """Columns such as answer_a and answer_b, or response and response_2, as the responses in order."""
    if kind not in (ImportKind.OUTPUTS, ImportKind.RANKINGS):
        return {}
    stems: dict[str, list[str]] = {}
    for name in sorted(plain):
        if match := _NUMBERED.fullmatch(name):
            stems.setdefault(match[1], []).append(plain[name])
    most = max(stems.values(), key=len, default=[])[:MOST_RESPONSES]
    fields = ("response", *(f"response_{number}" for number in range(2, MOST_RESPONSES + 1)))
    return dict(zip(fields, most, strict=False)) if len(most) > 1 else {}


def _fits(field: str, cells: Sequence[object]) -> bool:
    """Whether the cells of a column can be what the field holds."""
    if field == "category":
        return bool(cells) and all(read_choice(cell, Category) in list(Category) for cell in cells)
    if field == "split":
        return bool(cells) and all(read_choice(cell, Split) in list(Split) for cell in cells)
    if field == "preferred":
        return bool(cells) and all(_is_preferred(cell) for cell in cells)
    kinds: tuple[type, ...] = (str,)
    if field in ("prompt", "response", "chosen", "rejected", "needs"):
        kinds = (str, list)
    elif field in ("annotator", "source"):
        kinds = (str, int)
    return all(isinstance(cell, kinds) for cell in cells)


def _is_preferred(cell: object) -> bool:
    try:
        read_preferred(cell)
    except ValueError:
        return False
    return True


def _is_conversation(cell: object) -> bool:
    if not isinstance(cell, list) and not (isinstance(cell, str) and cell.lstrip().startswith("[")):
        return False
    try:
        read_turns(cell, "it")
    except ValueError:
        return False
    return True


def _are_choices(rows: Rows, name: str, choices: type[Category] | type[Split]) -> bool:
    """Whether a column is of these choices; a slip in some of its rows is theirs to be refused for."""
    cells = _cells(rows, name)
    return not cells or any(read_choice(cell, choices) in list(choices) for cell in cells)


def _cells(rows: Rows, name: str) -> list[object]:
    return [cell for row in rows if is_filled(cell := row.get(name))]


def _normalise(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
