"""The study of a real model: what it reads, and how it compares."""

import json

import pytest

from studies import real_model


def message(role, text, rank=None, replies=()):
    return {"role": role, "text": text, "rank": rank, "replies": list(replies)}


class TestOasst:
    def test_every_ranked_turn_is_a_ranking_best_first_behind_its_conversation(self, tmp_path):
        later = message("prompter", "and then?", replies=[message("assistant", "c", 1), message("assistant", "d", 0)])
        first = message(
            "prompter", "hello", replies=[message("assistant", "b", 1), message("assistant", "a", 0, [later])]
        )
        path = tmp_path / "tree.jsonl"
        path.write_text(json.dumps({"prompt": first}) + "\n")
        one, two = real_model.oasst(path)
        assert one.responses == ["a", "b"]
        assert two.responses == ["d", "c"]
        assert [turn["content"] for turn in two.prompt] == ["hello", "a", "and then?"]
        assert [turn["role"] for turn in two.prompt] == ["user", "assistant", "user"]
        assert one.split == two.split == real_model.split("hello")

    def test_a_turn_with_one_ranked_reply_says_nothing(self, tmp_path):
        path = tmp_path / "tree.jsonl"
        path.write_text(json.dumps({"prompt": message("prompter", "hello", replies=[message("assistant", "a", 0)])}))
        assert real_model.oasst(path) == []


class TestPolite:
    def test_equal_answers_are_left_out_and_the_input_is_part_of_the_prompt(self, tmp_path):
        rows = [
            {"instruction": "Say", "input": "it", "chosen": "please", "rejected": "now"},
            {"instruction": "Say", "input": "", "chosen": "so", "rejected": "so"},
        ]
        path = tmp_path / "rows.json"
        path.write_text(json.dumps(rows))
        (found,) = real_model.polite(path)
        assert (found.prompt, found.responses) == ("Say\n\nit", ["please", "now"])


def test_a_fifth_of_prompts_is_held_out():
    held = sum(real_model.split(f"prompt {number}") == "valid" for number in range(1000))
    assert 150 < held < 250


def answer(score, tokens, text="text"):
    return {"responses": [{"score": score, "token_count": tokens, "text": text}]}


class TestCompare:
    def test_gain_is_in_standard_deviations_of_the_reward_before(self):
        before = [answer(score, 10) for score in (0.0, 2.0, 4.0)]
        after = [answer(score, 12) for score in (3.0, 1.0, 8.0)]
        found = real_model.compare(before, after)
        assert found["gain"] == pytest.approx((4.0 - 2.0) / 2.0)
        assert found["better"] == pytest.approx(2 / 3)
        assert found["length_ratio"] == pytest.approx(1.2)


def test_the_last_word_of_a_step_that_was_told_twice_counts(tmp_path):
    events = [
        {"type": "metrics", "step": step, "values": {"score": score}} for step, score in ((1, 1.0), (2, 2.0), (2, 3.0))
    ]
    (tmp_path / "events.jsonl").write_text("\n".join(map(json.dumps, [{"type": "log", "text": ""}, *events])))
    assert real_model.curve(tmp_path) == [{"step": 1, "score": 1.0}, {"step": 2, "score": 3.0}]


@pytest.mark.parametrize(
    ("text", "expected"),
    [("one\ntwo", "` one ⏎ two `"), ("`code`", "`` `code` ``"), ("  ", "(nothing)"), ("<script>", "` <script> `")],
)
def test_a_text_is_shown_as_it_stands(text, expected):
    assert real_model._quoted(text) == expected
