"""The learning half's side of the file contract: its tests train on valid rows, and it reads whatever the schema allows."""

import json
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from app import snapshot
from tests.workers.training import factories
from workers.training import data, rankings

SCHEMA = json.loads((Path(snapshot.__file__).parent / "snapshot_schema.json").read_text(encoding="utf-8"))


def check(folder: Path) -> None:
    manifest = snapshot.read_manifest(folder)
    for name in manifest.files:
        validator = Draft202012Validator({**SCHEMA, "$ref": f"#/$defs/{Path(name).stem}"})
        for row in snapshot.read_rows(folder, name):
            validator.validate(row)


@pytest.mark.parametrize("write", [factories.write_demonstrations, factories.write_rankings, factories.write_prompts])
def test_rows_of_the_learning_tests_are_valid(tmp_path: Path, write) -> None:
    check(write(tmp_path / "snapshot"))


def test_null_wherever_the_schema_allows_it_can_be_read(tmp_path: Path) -> None:
    demonstration = factories.demonstration(1, "who", "one cat") | {"labeller": None}
    ranking = factories.ranking(1, "who", ["one", "two", "three"], [1, 2, None])
    for key in ("labeller", "group", "round", "confidence", "guideline", "schema"):
        ranking[key] = None
    for response in ranking["responses"]:
        response |= {"quality": None, "sampler": None, "finish_reason": None}
    prompt = factories.prompt_row(1, "who") | {"category": None}
    files = {"demonstrations.jsonl": [demonstration], "rankings.jsonl": [ranking], "prompts.jsonl": [prompt]}
    folder = tmp_path / "snapshot"
    snapshot.write(folder, "rankings", files)
    check(folder)
    tokenizer = factories.make_tokenizer(template=True)
    assert len(data.read_demonstrations(folder, tokenizer, 64).train) == 1
    assert len(rankings.read(folder, tokenizer, 64).train) == 1
    assert len(data.read_prompts(folder, tokenizer, 64)[0]) == 1
