import json

import pytest

from app.intake.mapping import FIELDS, Mapping, Shape, check_mapping
from app.models import ImportKind


class TestMapping:
    @pytest.mark.parametrize("shape", list(Shape))
    def test_goes_to_json_and_back(self, shape):
        mapping = Mapping(shape, {"prompt": "question"}, every_turn=True)
        assert Mapping.from_json(json.loads(json.dumps(mapping.to_json()))) == mapping

    @pytest.mark.parametrize(
        ("value", "part"),
        [
            ({}, "the shape is None"),
            ({"shape": []}, "the shape is"),
            ({"shape": "columns", "columns": ["a"]}, "the columns are"),
            ({"shape": "columns", "columns": {"prompt": 3}}, "the columns are"),
            ({"shape": "columns", "columns": {"prompts": "a"}}, "no field 'prompts'"),
            ({"shape": "columns", "every_turn": 1}, "every_turn is 1"),
            (
                {"shape": "columns", "columns": {"prompt": "fo\x00o"}},
                r"the column 'fo\\x00o' has a NUL or half a character",
            ),
            ({"shape": "columns", "columns": {"prompt": "fo\ud800o"}}, "rename it in the file"),
        ],
    )
    def test_says_what_is_wrong(self, value, part):
        with pytest.raises(ValueError, match=part):
            Mapping.from_json(value)


class TestFields:
    def test_each_kind_has_fields_of_one_name_with_help(self):
        for kind in ImportKind:
            names = [field.name for field in FIELDS[kind]]
            assert len(names) == len(set(names))
            assert all(field.help.endswith(".") for field in FIELDS[kind])


class TestCheckMapping:
    @pytest.mark.parametrize(
        ("kind", "fields"),
        [
            (ImportKind.PROMPTS, "prompt"),
            (ImportKind.PROMPTS, "messages"),
            (ImportKind.OUTPUTS, "prompt response response_2"),
            (ImportKind.RANKINGS, "prompt chosen rejected"),
            (ImportKind.RANKINGS, "prompt response response_2 preferred"),
            (ImportKind.DEMONSTRATIONS, "messages"),
            (ImportKind.TEXT, "text"),
        ],
    )
    def test_enough(self, kind, fields):
        check_mapping(Mapping(Shape.COLUMNS, {name: name for name in fields.split()}), kind)

    @pytest.mark.parametrize(
        ("kind", "fields", "part"),
        [
            (ImportKind.PROMPTS, "source", "prompt or messages"),
            (ImportKind.OUTPUTS, "prompt response", "response_2 or rejected"),
            (ImportKind.RANKINGS, "prompt response response_2", "preferred or chosen"),
            (ImportKind.RANKINGS, "prompt chosen", "response_2 or rejected"),
            (ImportKind.DEMONSTRATIONS, "prompt", "response or messages"),
            (ImportKind.TEXT, "text prompt", "no use for the field 'prompt'"),
        ],
    )
    def test_too_little_or_useless(self, kind, fields, part):
        with pytest.raises(ValueError, match=part):
            check_mapping(Mapping(Shape.COLUMNS, {name: name for name in fields.split()}), kind)

    def test_other_shapes_know_their_columns(self):
        check_mapping(Mapping(Shape.MESSAGES), ImportKind.RANKINGS)
