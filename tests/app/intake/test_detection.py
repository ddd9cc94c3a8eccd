import pytest

from app.intake.detection import detect
from app.intake.mapping import Mapping, Shape
from app.models import ImportKind

PROMPTS, OUTPUTS, RANKINGS, DEMONSTRATIONS, TEXT = ImportKind
TURNS = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]


class TestDetect:
    @pytest.mark.parametrize(
        ("row", "kind", "mapping"),
        [
            ({"prompt": "q", "source": "s"}, PROMPTS, Mapping(Shape.PREFERABLE)),
            ({"prompt": "q", "category": "chat"}, PROMPTS, Mapping(Shape.PREFERABLE)),
            ({"prompt": "q", "category": "cooking"}, PROMPTS, Mapping(Shape.COLUMNS, {"prompt": "prompt"})),
            ({"prompt": "q", "topic": "x"}, PROMPTS, Mapping(Shape.COLUMNS, {"prompt": "prompt"})),
            ({"messages": TURNS}, DEMONSTRATIONS, Mapping(Shape.MESSAGES, {"messages": "messages"})),
            (
                {"conversation": TURNS, "license": "MIT", "source": "site"},
                DEMONSTRATIONS,
                Mapping(Shape.MESSAGES, {"messages": "conversation", "licence": "license"}),
            ),
            (
                {"system": "s", "conversations": [{"from": "human", "value": "q"}]},
                PROMPTS,
                Mapping(Shape.SHAREGPT, {"messages": "conversations", "system": "system"}),
            ),
            (
                {"System Prompt": "s", "question": "q", "response": "r"},
                DEMONSTRATIONS,
                Mapping(Shape.COLUMNS, {"prompt": "question", "response": "response", "system": "System Prompt"}),
            ),
            (
                {"input": "q", "output": "r"},
                DEMONSTRATIONS,
                Mapping(Shape.COLUMNS, {"prompt": "input", "response": "output"}),
            ),
            (
                {"prompt": "q", "answer_a": "x", "answer_b": "y", "winner": "b", "worker id": 3},
                RANKINGS,
                Mapping(
                    Shape.COLUMNS,
                    {
                        "prompt": "prompt",
                        "response": "answer_a",
                        "response_2": "answer_b",
                        "preferred": "winner",
                        "annotator": "worker id",
                    },
                ),
            ),
            ({"prompt": "q", "completion": "c", "label": True}, RANKINGS, Mapping(Shape.PREFERENCE)),
            (
                {"prompt": "q", "completion": "c", "label": True},
                PROMPTS,
                Mapping(Shape.COLUMNS, {"prompt": "prompt", "response": "completion"}),
            ),
            ({"x": 1, "y": None}, PROMPTS, Mapping(Shape.COLUMNS)),
            ({"wer": "w1", "frage": "Wo liegt Rom?", "n": 1}, PROMPTS, Mapping(Shape.COLUMNS, {"prompt": "frage"})),
            ("a text", PROMPTS, Mapping(Shape.PREFERABLE)),
            ({"title": "t", "article": "x"}, TEXT, Mapping(Shape.COLUMNS, {"text": "article"})),
        ],
    )
    def test_guesses(self, row, kind, mapping):
        assert detect([row], kind) == mapping

    def test_of_no_rows(self):
        assert detect([], PROMPTS) == Mapping(Shape.PREFERABLE)

    def test_a_column_counts_that_is_filled_later(self):
        rows = [{"question": "q"}, {"question": "q", "answer": "a"}]
        assert detect(rows, DEMONSTRATIONS).columns == {"prompt": "question", "response": "answer"}

    def test_a_column_of_lists_is_no_reference(self):
        rows = [{"turns": ["q", "r"]}, {"turns": ["q"], "reference": ["a"]}]
        assert detect(rows, PROMPTS).columns == {"prompt": "turns"}

    @pytest.mark.parametrize("name", ["\x00prompt", "pro\ud800mpt", "fo\x00o"])
    def test_a_column_whose_name_cannot_be_stored_is_never_guessed(self, name):
        assert detect([{name: "Why is it so?", "n": 1}], PROMPTS).columns == {}
        assert detect([{name: "Why is it so?", "question": "Why?"}], PROMPTS).columns == {"prompt": "question"}
        assert detect([{name: [{"role": "user", "content": "a"}]}], PROMPTS).columns == {}
