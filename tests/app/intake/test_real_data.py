"""Sets of the world as they are: told apart, read to the end, counted. They lie beside the repository, not in it."""

from collections import Counter
from pathlib import Path

import pytest

from app.intake.containers import Container, open_rows, sniff
from app.intake.records import Record
from app.intake.shapes import Mapping, Shape, detect, read_records
from app.models import ImportKind

DATA = Path(__file__).resolve().parents[4] / "shared" / "data"

pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="the folder shared/data is not beside the repository")

PROMPTS, OUTPUTS, RANKINGS, DEMONSTRATIONS, TEXT = ImportKind


def read(name: str, kind: ImportKind, *, every_turn: bool = False, columns: dict[str, str] | None = None):
    """The container, the mapping guessed or made of `columns`, the records, and the errors by count."""
    path = DATA / name
    container = sniff(path, path.name)
    rows = [row for batch in open_rows(path, container, batch_rows=500, batch_bytes=1 << 20) for row in batch.rows]
    assert not [row.error for row in rows if row.error]
    guess = detect([row.value for row in rows[:50]], kind)
    mapping = Mapping(Shape.COLUMNS, columns) if columns else Mapping(guess.shape, guess.columns, every_turn)
    records: list[Record] = []
    errors: Counter[str] = Counter()
    for row in rows:
        try:
            records += read_records(row.value, kind, mapping, line=row.line)
        except ValueError as error:
            errors[str(error).split(";")[0]] += 1
    return container, guess, records, errors


class TestRead:
    @pytest.mark.parametrize(
        ("name", "kind", "shape", "count", "responses"),
        [
            ("rasbt_instructions/instruction-data.json", PROMPTS, Shape.INSTRUCTION, 1100, 1100),
            ("rasbt_instructions/instruction-data.json", DEMONSTRATIONS, Shape.INSTRUCTION, 1100, 1100),
            ("rasbt_instructions/instruction-data-with-preference.json", DEMONSTRATIONS, Shape.INSTRUCTION, 1100, 1100),
            ("self_instruct/seed_tasks.jsonl", DEMONSTRATIONS, Shape.INSTRUCTION, 175, 175),
            ("oasst_en_100/en_100_tree.jsonl", PROMPTS, Shape.OASST, 100, 333),
            ("oasst_en_100/en_100_tree.jsonl", DEMONSTRATIONS, Shape.OASST, 100, 100),
            ("oasst_en_100/prompt_lottery_en_250_text.jsonl", PROMPTS, Shape.PREFERABLE, 250, 0),
            ("gsm8k/train.jsonl", DEMONSTRATIONS, Shape.COLUMNS, 7473, 7473),
            ("gsm8k/test.jsonl", PROMPTS, Shape.COLUMNS, 1319, 1319),
            ("truthfulqa/TruthfulQA.csv", PROMPTS, Shape.COLUMNS, 817, 817),
            ("mt_bench/question.jsonl", PROMPTS, Shape.COLUMNS, 80, 0),
            ("mt_bench/vicuna_question.jsonl", PROMPTS, Shape.COLUMNS, 80, 0),
            ("winogender/all_sentences.tsv", TEXT, Shape.COLUMNS, 720, 0),
            ("winogender/all_sentences.tsv", PROMPTS, Shape.COLUMNS, 720, 0),
            ("squality/dev.jsonl", TEXT, Shape.COLUMNS, 25, 0),
            ("squality/train.jsonl", TEXT, Shape.COLUMNS, 50, 0),
            ("tinyshakespeare/input.txt", TEXT, Shape.PREFERABLE, 294, 0),
        ],
    )
    def test_is_told_and_read_whole(self, name, kind, shape, count, responses):
        _, guess, records, errors = read(name, kind)
        assert guess.shape is shape
        assert not errors
        assert (len(records), sum(len(record.responses) for record in records)) == (count, responses)

    def test_alpaca_with_preferences_has_six_pairs_of_one_text(self):
        container, guess, records, errors = read("rasbt_instructions/instruction-data-with-preference.json", RANKINGS)
        assert (container, guess.shape) == (Container.JSON, Shape.INSTRUCTION)
        assert len(records) == 1094
        assert errors == {"chosen and rejected have the same text": 6}
        assert [one.tier for one in records[0].responses] == [1, 2]
        assert records[0].prompt.messages[0]["content"].endswith("spelling given.\n\nfreind --> friend")

    @pytest.mark.parametrize("kind", [RANKINGS, OUTPUTS])
    @pytest.mark.parametrize("name", ["en_100_tree.jsonl", "en_100_message.jsonl"])
    def test_trees_of_open_assistant(self, kind, name):
        """212 groups have ranks; two more have none and are taken in the order of the file."""
        _, guess, records, errors = read(f"oasst_en_100/{name}", kind)
        assert (guess.shape, len(records), errors) == (Shape.OASST, 214, {})
        sizes = Counter(len(record.responses) for record in records)
        assert set(sizes) <= set(range(2, 10))
        assert len({record.prompt.source for record in records}) <= 100
        if kind is RANKINGS:
            assert all(
                [one.tier for one in record.responses] == list(range(1, len(record.responses) + 1))
                for record in records
            )
        else:
            assert all(one.tier is None for record in records for one in record.responses)

    def test_every_turn_of_a_tree_is_a_prompt_that_names_its_parent(self):
        _, _, records, _ = read("oasst_en_100/en_100_tree.jsonl", PROMPTS, every_turn=True)
        keys = {record.prompt.key for record in records}
        assert len(records) == len(keys) == 480
        assert sum(record.prompt.parent_key is None for record in records) == 100
        assert all(record.prompt.parent_key in keys for record in records if record.prompt.parent_key)

    def test_helpful_harmless(self):
        container, guess, records, errors = read("hh_harmless/pairs.jsonl.gz", RANKINGS)
        assert (container, guess.shape, len(records)) == (Container.JSONL, Shape.HH, 1801)
        assert sum(errors.values()) == 11
        assert errors["chosen is empty"] == 4
        assert errors["chosen and rejected differ before their last turn"] == 3
        assert all([one.tier for one in record.responses] == [1, 2] for record in records)

    def test_gsm8k_by_mapping_to_a_reference(self):
        _, _, records, errors = read("gsm8k/test.jsonl", PROMPTS, columns={"prompt": "question", "reference": "answer"})
        assert (len(records), errors) == (1319, {})
        assert records[0].prompt.reference.endswith("#### 18")
        assert not records[0].responses
