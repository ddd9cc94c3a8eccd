import json
import tracemalloc

import pytest

from app.intake.records import Record, ResponseIn
from app.intake.shapes import LONGEST_ERROR, Mapping, Shape, detect, read_records
from app.models import Category, ImportKind, Split
from app.schemas.prompts import PromptIn

PROMPTS, OUTPUTS, RANKINGS, DEMONSTRATIONS, TEXT = ImportKind

USER, ANSWER = {"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}
TALK = [USER, ANSWER, {"role": "user", "content": "How?"}, {"role": "assistant", "content": "Thus."}]


def read(value, kind, mapping: Mapping | Shape | None = None, *, every_turn: bool = False) -> list[Record]:
    if mapping is None:
        mapping = detect([value], kind)
    if isinstance(mapping, Shape):
        mapping = Mapping(mapping)
    if every_turn:
        mapping = Mapping(mapping.shape, mapping.columns, every_turn=True)
    return read_records(value, kind, mapping, line=7)


def words(record: Record) -> list[str]:
    return [turn["content"] for turn in record.prompt.messages]


def answers(record: Record) -> list[tuple]:
    return [(one.text, one.tier) for one in record.responses]


class TestPrompts:
    def test_short_way_and_long_way_agree(self):
        short = {"prompt": "Why?", "source": "eve", "key": "k", "licence": "MIT", "consent": "yes"}
        for mapping in (Mapping(Shape.PREFERABLE), Mapping(Shape.COLUMNS, {name: name for name in short})):
            assert read(short, PROMPTS, mapping) == read(short, PROMPTS, mapping, every_turn=True)
            assert read(short, PROMPTS, mapping) == [
                Record(PromptIn((USER,), source="eve", key="k", licence="MIT", consent="yes"))
            ]

    @pytest.mark.parametrize(
        "value", ["Why?", {"prompt": "Why?"}, {"messages": [USER]}, {"prompt": [USER]}, {"question": "Why?"}]
    )
    def test_a_question_in_many_forms(self, value):
        assert read(value, PROMPTS) == [Record(PromptIn((USER,)))]

    def test_all_that_may_be_said_of_one_in_cells_of_text(self):
        row = {
            "messages": json.dumps([USER]),
            "category": "Open QA",
            "split": "validation",
            "needs": "skill:math; content:violence",
            "reference": "So.",
            "parent": "p",
            "source": "",
        }
        assert read(row, PROMPTS, Shape.PREFERABLE)[0].prompt == PromptIn(
            (USER,),
            category=Category.OPEN_QA,
            split=Split.VALID,
            needs=("skill:math", "content:violence"),
            reference="So.",
            parent_key="p",
        )

    def test_ends_at_the_last_turn_of_the_user_and_keeps_the_answer(self):
        (record,) = read({"messages": TALK}, PROMPTS)
        assert (words(record), answers(record)) == (["Why?", "So.", "How?"], [("Thus.", None)])

    def test_every_turn_is_one_with_its_answer(self):
        records = read({"messages": TALK}, PROMPTS, every_turn=True)
        assert [(one.prompt.key, one.prompt.parent_key) for one in records] == [
            ("line 7, turn 1", None),
            ("line 7, turn 3", "line 7, turn 1"),
        ]
        assert [answers(one) for one in records] == [[("So.", None)], [("Thus.", None)]]

    def test_answers_of_comparisons_are_kept_without_their_places(self):
        (record,) = read({"prompt": "Why?", "chosen": "So.", "rejected": "No."}, PROMPTS)
        assert answers(record) == [("So.", None), ("No.", None)]

    def test_an_answer_that_is_empty_or_there_twice_is_none(self):
        assert read({"prompt": "Why?", "response": " "}, PROMPTS)[0].responses == ()
        assert len(read({"prompt": "Why?", "chosen": "So.", "rejected": "So."}, PROMPTS)[0].responses) == 1

    def test_of_several_texts_the_first(self):
        assert words(read({"question_id": 1, "turns": ["Why?", "How?"]}, PROMPTS)[0]) == ["Why?"]

    def test_numbers_name_things(self):
        mapping = Mapping(Shape.COLUMNS, {"prompt": "q", "key": "id", "source": "who"})
        prompt = read({"q": "Why?", "id": 3, "who": 2.0}, PROMPTS, mapping)[0].prompt
        assert (prompt.key, prompt.source) == ("3", "2")

    def test_a_gap_among_numbers_is_not_filled(self):
        row = {"prompt": "Why?", "source": float("nan"), "key": 17.0, "reference": 0.5}
        for mapping in (Mapping(Shape.PREFERABLE), Mapping(Shape.COLUMNS, {name: name for name in row})):
            prompt = read(row, PROMPTS, mapping)[0].prompt
            assert (prompt.source, prompt.key, prompt.reference) == (None, "17", "0.5")

    def test_columns_whose_names_cannot_be_stored_are_passed_over(self):
        row = {"prompt": "Why?", "\x00source": "eve", "\ud800": "x"}
        assert read(row, PROMPTS) == [Record(PromptIn((USER,)))]

    @pytest.mark.parametrize("kind", [PROMPTS, DEMONSTRATIONS])
    def test_a_row_may_not_become_prompts_that_fill_the_memory(self, kind):
        turns = [{"role": "user" if n % 2 == 0 else "assistant", "content": "x" * 2800} for n in range(999)]
        tracemalloc.start()
        with pytest.raises(
            ValueError, match=r"700,000,000 characters together; expected 16,000,000 .* prompt of every turn"
        ):
            read({"messages": turns}, kind, every_turn=True)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
        tracemalloc.stop()
        assert len(read({"messages": turns}, PROMPTS)) == 1
        assert len(read({"messages": turns[:99]}, kind, every_turn=True)) == (50 if kind is PROMPTS else 49)

    def test_nor_a_tree(self):
        replies = [{"text": "a", "replies": [{"text": str(n), "replies": []}]} for n in range(20)]
        row = {"prompt": {"text": "x" * 1_000_000, "replies": replies}}
        assert len(read(row, PROMPTS)) == 1
        with pytest.raises(ValueError, match="21,000,050 characters together"):
            read(row, PROMPTS, every_turn=True)

    def test_nor_instances(self):
        row = {"instruction": "x" * 1_000_000, "instances": [{"input": str(n), "output": "y"} for n in range(20)]}
        with pytest.raises(ValueError, match="20,000,000 characters together"):
            read(row, DEMONSTRATIONS, Shape.INSTRUCTION)

    def test_system_and_input(self):
        mapping = Mapping(Shape.COLUMNS, {"prompt": "q", "system": "s", "input": "i"})
        (record,) = read({"q": "Why?", "s": "Be kind.", "i": "The sky."}, PROMPTS, mapping)
        assert words(record) == ["Be kind.", "Why?\n\nThe sky."]

    @pytest.mark.parametrize(
        ("row", "part"),
        [
            ({}, "no expected column"),
            ({"prompt": " "}, "'prompt' is empty; expected text"),
            ({"prompt": "", "id": 3}, "'prompt' is empty; expected text"),
            ({"prompt": float("nan")}, "'prompt' is empty; expected text"),
            ({"other": "x"}, "found 'other'"),
            ({"source": "x"}, "the row has no prompt"),
            ({"prompt": 3}, "prompt is a number"),
            ({"prompt": "a\x00"}, "NUL"),
            ({"prompt": "a\ud83d"}, "half a character"),
            ({"prompt": "a", "source": "\ud83d"}, "half a character"),
            ({"prompt": "a", "messages": [USER]}, "only one of them"),
            ({"prompt": "a", "category": "cooking"}, "expected one of generation"),
            ({"prompt": "a", "needs": "math"}, "no tag"),
            ({"messages": []}, "expected a list of turns"),
            ({"messages": "Hello"}, "not JSON"),
            ({"messages": [USER, USER]}, "user and assistant in turn"),
            ({"messages": [ANSWER]}, "user and assistant in turn"),
            ({"messages": [{"role": "tool", "content": "x"}]}, "by 'tool'"),
            ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "only parts"),
            ({"messages": [{"role": "user", "content": 3}]}, "turn 1 is a number"),
            ({"messages": [USER, ANSWER] * 600 + [USER]}, "1,201 turns"),
            ({"messages": ["x"]}, "turn 1 of messages is a text"),
        ],
    )
    def test_says_what_is_wrong(self, row, part):
        with pytest.raises(ValueError, match=part):
            read(row, PROMPTS, Shape.PREFERABLE)

    def test_an_error_is_short_however_long_the_row(self):
        with pytest.raises(ValueError, match="expected one of") as caught:
            read({"prompt": "a", "category": "x" * 10_000}, PROMPTS, Shape.PREFERABLE)
        assert len(str(caught.value)) <= LONGEST_ERROR


class TestRankings:
    @pytest.mark.parametrize(
        "row",
        [
            {"prompt": "Why?", "chosen": "So.", "rejected": "No."},
            {"prompt": [USER], "chosen": [ANSWER], "rejected": [{"role": "assistant", "content": "No."}]},
            {"chosen": [USER, ANSWER], "rejected": [USER, {"role": "assistant", "content": "No."}]},
            {"prompt": "x", "chosen": [USER, ANSWER], "rejected": [USER, {"role": "assistant", "content": "No."}]},
            {"instruction": "Why?", "input": "", "output": "So.", "chosen": "So.", "rejected": "No."},
            {"chosen": "\n\nHuman: Why?\n\nAssistant: So.", "rejected": "\n\nHuman: Why?\n\nAssistant: No."},
            {
                "input": {"messages": [USER], "tools": []},
                "preferred_output": [ANSWER],
                "non_preferred_output": [{"role": "assistant", "content": "No."}],
            },
            {"Question": "Why?", "Chosen": "So.", "Rejected": "No."},
            {"prompt": "Why?", "response_a": "So.", "response_b": "No.", "winner": "model_a"},
            {"prompt": "Why?", "response_0": "So.", "response_1": "No.", "preference": "left"},
            {"prompt": "Why?", "responses": [{"text": "So.", "tier": "-4"}, {"text": "No.", "tier": 9.0}]},
            {"prompt": "Why?", "responses": '[{"text": "So.", "tier": 1}, {"text": "No.", "tier": 2}]'},
        ],
    )
    def test_one_comparison_in_many_forms(self, row):
        (record,) = read(row, RANKINGS)
        assert (words(record), answers(record)) == (["Why?"], [("So.", 1), ("No.", 2)])

    def test_ties_gaps_and_the_unrankable(self):
        given = [("a", 7), ("b", 3), ("c", None), ("d", 7)]
        row = {"prompt": "Why?", "responses": [{"text": text, "tier": tier} for text, tier in given], "annotator": 12}
        (record,) = read(row, RANKINGS)
        assert answers(record) == [("a", 2), ("b", 1), ("c", None), ("d", 2)]
        assert record.annotator == "12"

    @pytest.mark.parametrize("said", ["tie", "Tie (bothbad)", "both"])
    def test_tie(self, said):
        assert [
            one.tier
            for one in read({"prompt": "q", "answer_a": "x", "answer_b": "y", "winner": said}, RANKINGS)[0].responses
        ] == [1, 1]

    @pytest.mark.parametrize(
        ("row", "part"),
        [
            ({"prompt": "q", "chosen": "x", "rejected": "x"}, "the same text"),
            ({"prompt": "q", "chosen": "x"}, "rejected is missing"),
            ({"prompt": "q", "chosen": "x", "rejected": " "}, "rejected is missing"),
            ({"chosen": "x", "rejected": "y"}, "no prompt"),
            ({"chosen": [USER, ANSWER], "rejected": [{"role": "user", "content": "Else?"}, ANSWER]}, "differ before"),
            ({"chosen": [USER], "rejected": [USER]}, "end with the assistant"),
            ({"prompt": "q", "completion": "x", "label": True}, "compares no two answers"),
        ],
    )
    def test_bad_preferences(self, row, part):
        with pytest.raises(ValueError, match=part):
            read(row, RANKINGS, Shape.PREFERENCE)

    @pytest.mark.parametrize(
        ("responses", "part"),
        [
            ([], "no responses"),
            ([{"text": "x", "tier": 1}], "1 responses"),
            ([{"text": str(n), "tier": n} for n in range(10)], "10 responses"),
            ([{"text": "x", "tier": 1}, {"text": "y"}], "which response is better"),
            ([{"text": "x", "tier": "best"}, {"text": "y"}], "the tier of response 1 is 'best'"),
            ([{"text": "x", "tier": True}, {"text": "y"}], "the tier of response 1 is True"),
            ([{"text": "x", "tier": 1.5}, {"text": "y"}], "whole number"),
            ([{"text": "", "tier": 1}, {"text": "y", "tier": 2}], "response 1 is empty"),
            ([{"text": "a\x00", "tier": 1}, {"text": "y", "tier": 2}], "NUL"),
            ([{"text": "x", "sampler": 3}, {"text": "y"}], "sampler"),
            ("[", "not JSON"),
            (3, "responses is a number"),
        ],
    )
    def test_bad_responses(self, responses, part):
        with pytest.raises(ValueError, match=part):
            read({"prompt": "q", "responses": responses}, RANKINGS, Shape.PREFERABLE)

    def test_preferred_chooses_between_two(self):
        mapping = Mapping(
            Shape.COLUMNS, {"prompt": "q", "response": "a", "response_2": "b", "response_3": "c", "preferred": "w"}
        )
        assert answers(read({"q": "q", "a": "x", "b": "y", "c": "", "w": 2}, RANKINGS, mapping)[0]) == [
            ("x", 2),
            ("y", 1),
        ]
        with pytest.raises(ValueError, match="3 are filled"):
            read({"q": "q", "a": "x", "b": "y", "c": "z", "w": 2}, RANKINGS, mapping)
        with pytest.raises(ValueError, match="preferred is 0"):
            read({"q": "q", "a": "x", "b": "y", "w": 0}, RANKINGS, mapping)


class TestOutputs:
    @pytest.mark.parametrize(
        "row",
        [
            {"prompt": "Why?", "responses": ["So.", "No."]},
            {"prompt": "Why?", "responses": [{"text": "So.", "tier": 2}, {"text": "No.", "tier": 1}]},
            {"prompt": "Why?", "response": "So.", "response_2": "No."},
            {"question": "Why?", "prediction 1": "So.", "prediction 2": "No."},
            {"prompt": "Why?", "chosen": "So.", "rejected": "No."},
        ],
    )
    def test_no_places(self, row):
        assert [(words(one), answers(one)) for one in read(row, OUTPUTS)] == [
            (["Why?"], [("So.", None), ("No.", None)])
        ]

    def test_samplers(self):
        row = {"prompt": "Why?", "responses": [{"text": "x", "sampler": "m"}, {"text": "y"}]}
        assert read(row, OUTPUTS)[0].responses == (ResponseIn("x", None, "m"), ResponseIn("y"))

    def test_the_prompt_must_be_open(self):
        with pytest.raises(ValueError, match="ends with the user's turn"):
            read({"messages": TALK, "responses": ["a", "b"]}, OUTPUTS, Shape.PREFERABLE)


class TestDemonstrations:
    @pytest.mark.parametrize(
        "row",
        [
            {"prompt": "Why?", "response": "So."},
            {"messages": [USER, ANSWER]},
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "Why?"}]}, ANSWER]},
            {"conversations": [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "So."}]},
            {"instruction": "Why?", "input": "", "output": "So."},
            {"Instruction": "Why?", "Context": "", "Response": "So.", "category": "closed_qa"},
            {"instruction": "Why?", "instances": [{"input": "", "output": "So."}]},
            {"question": "Why?", "answer": "So."},
            {"prompt": [USER], "completion": [ANSWER]},
            {"prompt": "Why?", "chosen": "So.", "rejected": "No."},
            {"transcript": "\n\nHuman: Why?\n\nAssistant: So."},
            {"prompt": "Why?", "responses": [{"text": "No.", "tier": 2}, {"text": "So.", "tier": 1}]},
        ],
    )
    def test_one_answer_in_many_forms(self, row):
        assert [(words(one), answers(one)) for one in read(row, DEMONSTRATIONS)] == [(["Why?"], [("So.", None)])]

    def test_every_turn_of_the_assistant_is_one(self):
        records = read({"messages": [*TALK, USER]}, DEMONSTRATIONS, every_turn=True)
        assert [(words(one), answers(one)) for one in records] == [
            (["Why?"], [("So.", None)]),
            (["Why?", "So.", "How?"], [("Thus.", None)]),
        ]

    @pytest.mark.parametrize(
        ("row", "part"),
        [
            ({"prompt": "Why?"}, "has no response"),
            ({"messages": [USER]}, "has no response"),
            ({"prompt": "Why?", "responses": ["a", "b"]}, "none of them the best"),
            ({"messages": [USER, ANSWER], "response": "x"}, "2 responses"),
            (
                {"prompt": "Why?", "responses": [{"text": "a", "tier": 1}, {"text": "b", "tier": 1}]},
                "none of them the best",
            ),
        ],
    )
    def test_says_what_is_wrong(self, row, part):
        with pytest.raises(ValueError, match=part):
            read(row, DEMONSTRATIONS, Shape.PREFERABLE)

    def test_a_text_alone_is_none(self):
        with pytest.raises(ValueError, match="a text alone"):
            read("Why?", DEMONSTRATIONS)


class TestText:
    @pytest.mark.parametrize("value", ["Once.", {"text": "Once."}, {"Document": "Once.", "id": 1}])
    def test_forms(self, value):
        assert read(value, TEXT) == [Record(None, text="Once.")]

    @pytest.mark.parametrize(
        ("value", "part"), [({"a": 1}, "no column 'text'"), ({"text": 3}, "text is a number"), ({"text": ""}, "empty")]
    )
    def test_says_what_is_wrong(self, value, part):
        with pytest.raises(ValueError, match=part):
            read(value, TEXT)


class TestSnapshots:
    def ranking(self, **more) -> dict:
        responses = [
            {
                "sample": name,
                "text": text,
                "tier": tier,
                "quality": 4,
                "flags": {},
                "sampler": "m",
                "finish_reason": "stop",
            }
            for name, text, tier in (("s1", "x", 2), ("s2", "y", 1), ("s3", "z", None))
        ]
        return {
            "id": "j", "prompt_id": "p", "prompt": [USER], "responses": responses, "pairs": None, "split": "train",
            "labeller": "L1", "group": None, "round": 1, "confidence": None, "answers": {}, "purpose": "train",
            "judge": "human", "weight": 1.0, "guideline": 1, "schema": 1, "created": "2026-01-01T00:00:00",
        } | more  # fmt: skip

    def test_what_was_exported_comes_back(self):
        (record,) = read(self.ranking(), RANKINGS)
        assert record == Record(
            PromptIn((USER,), split=Split.TRAIN),
            (ResponseIn("x", 2, "m"), ResponseIn("y", 1, "m"), ResponseIn("z", None, "m")),
            annotator="L1",
        )
        row = {
            "id": "d",
            "prompt_id": "p",
            "prompt": [USER],
            "response": "x",
            "split": "test",
            "labeller": None,
            "origin": "written",
        }
        assert read(row, DEMONSTRATIONS) == [Record(PromptIn((USER,), split=Split.TEST), (ResponseIn("x"),))]
        row = {"id": "p", "prompt": [USER], "split": "valid", "category": "chat", "reference": None, "verifier": None}
        assert read(row, PROMPTS) == [Record(PromptIn((USER,), Category.CHAT, split=Split.VALID))]

    def test_pairs_in_place_of_tiers(self):
        pairs = [
            {"left": "s1", "right": "s2", "p_left": 0.2, "strength": None},
            {"left": "s3", "right": "s1", "p_left": 0.5, "strength": 1},
            {"left": "s2", "right": "s3", "p_left": 1, "strength": 1},
        ]
        row = self.ranking(pairs=pairs)
        for one in row["responses"]:
            one["tier"] = None
        assert [one.tier for one in read(row, RANKINGS)[0].responses] == [2, 1, 2]


class TestTrees:
    def tree(self, ranks, texts=("a", "b", "c")) -> dict:
        replies = [
            {"message_id": text, "text": text, "role": "assistant", "rank": rank, "replies": []}
            for text, rank in zip(texts, ranks, strict=True)
        ]
        return {
            "message_tree_id": "t",
            "prompt": {"message_id": "p", "text": "Why?", "role": "prompter", "replies": replies},
        }

    @pytest.mark.parametrize(
        ("ranks", "order"),
        [((2, 0, 1), "bca"), ((None, None, None), "abc"), ((2, None, 1), "abc"), (("x", True, 0), "abc")],
    )
    def test_rank_then_order_of_the_file(self, ranks, order):
        (record,) = read(self.tree(ranks), RANKINGS)
        assert answers(record) == [(text, tier) for tier, text in enumerate(order, start=1)]
        assert record.prompt.source == "t"

    def test_equal_ranks_tie(self):
        assert [tier for _, tier in answers(read(self.tree((0, 0, 1)), RANKINGS)[0])] == [1, 1, 2]

    def test_a_text_given_twice_or_deleted_counts_once_or_not(self):
        assert answers(read(self.tree((1, 0, 2), ("a", "a", "b")), RANKINGS)[0]) == [("a", 1), ("b", 2)]
        tree = self.tree((0, 1, 2))
        tree["prompt"]["replies"][0]["deleted"] = True
        assert answers(read(tree, RANKINGS)[0]) == [("b", 1), ("c", 2)]

    @pytest.mark.parametrize(
        "value", [{"prompt": {"text": "x"}}, {"prompt": "x"}, {"prompt": {"text": 3, "replies": [{}]}}]
    )
    def test_what_is_no_tree(self, value):
        with pytest.raises(ValueError, match="tree"):
            read(value, RANKINGS, Shape.OASST)
