"""What a project asks besides the ranking: schemas that can be asked, answers that fit them."""

from typing import Any

import pytest

from app.schemas import labels
from app.schemas.labels import Field, FieldType, Scope


def raw(**changes: Any) -> dict[str, Any]:
    return {"key": "sexual", "label": "Sexual content", "scope": "output", "type": "flag", "choices": []} | changes


FIELDS = labels.read_schema(
    [
        raw(key="closed", scope="prompt"),
        raw(key="tone", type="choice", choices=["dry", "warm"], required=True),
        raw(key="invents", shown_if="closed"),
        raw(key="stars", type="scale", choices=[1, 2, 3]),
        raw(key="why", type="text"),
    ]
)


class TestReadSchema:
    def test_reads_what_it_wrote(self) -> None:
        assert labels.read_schema([field.as_json() for field in labels.PAPERS]) == labels.PAPERS

    def test_the_papers_asks_about_all_three(self) -> None:
        assert {field.scope for field in labels.PAPERS} == set(Scope)
        by_key = {field.key: field for field in labels.PAPERS}
        assert by_key["hallucinates"].shown_if == "closed_domain"
        assert by_key["meets_constraints"].shown_if == "has_constraint"
        assert by_key["quality"].choices == (1, 2, 3, 4, 5, 6, 7)

    @pytest.mark.parametrize(
        ("field", "why"),
        [
            (raw(key="Bad key"), "a key is lower-case letters"),
            (raw(label=" "), "no label"),
            (raw(choices=["a"]), "a flag or a text has none"),
            (raw(type="scale"), "a scale or a choice has choices"),
            (raw(type="scale", choices=[1, 1]), "there twice"),
            (raw(type="scale", choices=["a"]), "whole numbers"),
            (raw(type="scale", choices=[True, 2]), "whole numbers"),
            (raw(type="choice", choices=["a", ""]), "are words"),
            (raw(type="choice", choices=["a  b"]), "forms lose them"),
            (raw(key="not_rankable"), "exports use this key"),
            (raw(key="quality"), "quality is a scale of an output"),
            (raw(key="quality", type="scale", choices=[0, 1]), "quality goes from 1 to 7"),
            (raw(key="confidence", type="scale", choices=[1, 2]), "confidence one of the task"),
            (raw(required=True), "a flag cannot be required"),
            (raw(shown_if="nothing"), "shown_if names 'nothing'"),
            (raw(type="star"), "'star' is not a valid FieldType"),
            (raw(scope="page"), "'page' is not a valid Scope"),
            (raw(colour="red"), "unexpected keyword argument 'colour'"),
        ],
    )
    def test_names_the_field_that_cannot_be_asked(self, field: dict[str, Any], why: str) -> None:
        with pytest.raises(ValueError, match=rf"Field 2 .*{why}"):
            labels.read_schema([raw(key="first"), field])

    def test_a_key_is_taken_once(self) -> None:
        with pytest.raises(ValueError, match="this key is taken"):
            labels.read_schema([raw(), raw(scope="prompt")])

    def test_a_question_depends_on_the_prompt_or_its_own_kind(self) -> None:
        with pytest.raises(ValueError, match="name a flag before it"):
            labels.read_schema([raw(key="a"), raw(key="b", scope="task", shown_if="a")])


class TestReadAnswers:
    def test_keeps_what_was_said_and_leaves_out_what_was_not(self) -> None:
        sent = {"tone": "warm", "stars": "2", "why": " short ", "invents": ""}
        found = labels.read_answers(FIELDS, Scope.OUTPUT, sent)
        assert found.given == {"tone": "warm", "stars": 2, "why": "short"}
        assert not found.problems

    def test_what_is_not_asked_is_left_out(self) -> None:
        sent = {"tone": "dry", "invents": "yes"}
        assert labels.read_answers(FIELDS, Scope.OUTPUT, sent).given == {"tone": "dry"}
        assert labels.read_answers(FIELDS, Scope.OUTPUT, sent, {"closed": True}).given == {
            "tone": "dry",
            "invents": True,
        }

    def test_a_flag_that_is_not_set_is_not_stored(self) -> None:
        assert labels.read_answers(FIELDS, Scope.PROMPT, {"closed": "no"}).given == {}

    @pytest.mark.parametrize(
        ("sent", "key", "why"),
        [
            ({}, "tone", "an answer is needed"),
            ({"tone": "loud"}, "tone", "'loud' came; choose one of dry, warm"),
            ({"tone": "dry", "stars": "4"}, "stars", "choose one of 1, 2, 3"),
            ({"tone": "dry", "stars": "01"}, "stars", "choose one of 1, 2, 3"),
            ({"tone": "dry", "why": "x" * 2001}, "why", "2,000 characters"),
            ({"tone": "dry", "closed": "yes"}, "closed", "no field 'closed' about this"),
            ({"tone": "dry", "<script>": "yes"}, "<script>", "no field '<script>'"),
        ],
    )
    def test_says_what_came_and_what_was_expected(self, sent: dict[str, str], key: str, why: str) -> None:
        problems = labels.read_answers(FIELDS, Scope.OUTPUT, sent).problems
        assert list(problems) == [key]
        assert why in problems[key]

    def test_a_flag_says_yes_or_no(self) -> None:
        field = Field("a", "A", Scope.TASK, FieldType.FLAG)
        assert labels.read_answers([field], Scope.TASK, {"a": "maybe"}).problems == {
            "a": "A: 'maybe' came; set it or leave it."
        }
