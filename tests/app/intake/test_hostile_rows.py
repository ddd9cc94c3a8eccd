"""Rows of chance: whatever stands in a cell, a row is read or refused with a sentence, and nothing else happens."""

import random

import pytest

from app.intake.mapping import FIELDS, OWN_FIELDS, Mapping, Shape
from app.intake.records import Record
from app.intake.shapes import detect, read_records
from app.models import ImportKind

_NAMES = [
    *sorted(OWN_FIELDS | {one.name for one in FIELDS[ImportKind.RANKINGS]}),
    *[
        "instruction",
        "output",
        "instances",
        "conversations",
        "text",
        "replies",
        "role",
        "content",
        "from",
        "value",
        "rank",
    ],
    *[
        "preferred_output",
        "non_preferred_output",
        "completion",
        "label",
        "message_id",
        "deleted",
        "model_name",
        "type",
        "tier",
    ],
    *["left", "right", "p_left", "sample"],
]
_CELLS = (
    *(
        None,
        "",
        " ",
        "a",
        "b",
        "\x00",
        "\ud800",
        0,
        1,
        -1.5,
        True,
        float("nan"),
        float("inf"),
        10**400,
        [],
        {},
        b"x",
        "[]",
        "[1]",
    ),
    *(
        "Human: a\n\nAssistant: b",
        "\n\nHuman:",
        "user",
        "assistant",
        "system",
        "chat",
        "train",
        "1",
        "tie",
        "skill:math",
        "[{}]",
    ),
)


def make(chance: random.Random, depth: int = 0) -> object:
    if depth < 4 and chance.random() < 0.5:
        if chance.random() < 0.5:
            return [make(chance, depth + 1) for _ in range(chance.randrange(4))]
        if chance.random() < 0.5:
            return {"role": chance.choice(["user", "assistant"]), "content": make(chance, depth + 2)}
        return {chance.choice(_NAMES): make(chance, depth + 1) for _ in range(chance.randrange(6))}
    return chance.choice(_CELLS)


class TestReadRecords:
    @pytest.mark.parametrize("shape", list(Shape))
    def test_reads_or_refuses(self, shape):
        chance = random.Random(shape.value)
        for number in range(4000):
            row = {chance.choice(_NAMES): make(chance) for _ in range(chance.randrange(7))}
            kind = chance.choice(list(ImportKind))
            columns = {name: chance.choice(_NAMES) for name in chance.sample([one.name for one in FIELDS[kind]], 1)}
            mapping = Mapping(shape, columns if number % 2 else {}, every_turn=chance.random() < 0.5)
            for each in (mapping, detect([row], kind)):
                try:
                    records = read_records(row, kind, each, line=1)
                except ValueError as error:
                    assert 10 < len(str(error)) <= 500
                    assert "\x00" not in str(error) and str(error).encode()
                else:
                    assert records and all(isinstance(record, Record) for record in records)
