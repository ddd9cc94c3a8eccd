import json
import random

import pytest
import torch

from tests.workers.training.factories import make_reward, make_sft, user
from workers.training import checkpoints, conversation, data, models, scoring
from workers.training.bulk import Output
from workers.training.data import Pair
from workers.training.engine import Response
from workers.training.kwise import SetScorer
from workers.training.scoring import Judge


@pytest.fixture
def sft(tmp_path):
    return make_sft(tmp_path / "sft")


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def random_sets(count):
    rng = random.Random(count)

    def tokens(least, most):
        return [rng.randrange(8, 200) for _ in range(rng.randint(least, most))]

    sets = []
    for size in (1, *(rng.randint(2, 9) for _ in range(count - 1))):
        prompt = tokens(1, 12)
        sets.append([Pair(prompt, tokens(0, 9)) for _ in range(size)])
    return sets


class TestJudge:
    @pytest.mark.parametrize("family", ["llama", "gpt2", "qwen", "neox", "sliding"])
    def test_responses_in_one_pass_score_as_one_by_one(self, tmp_path, family):
        judge = Judge.load(make_reward(tmp_path / "reward", make_sft(tmp_path / "sft", family)))
        judge.model.double()
        sets = random_sets(12)
        assert any(not pair.response for pairs in sets for pair in pairs), "a response without tokens is among them"
        with torch.no_grad():
            expected = [
                [models.end_scores(judge.model, data.collate([pair], 0)).item() - 0.25 for pair in pairs]
                for pairs in sets
            ]
        for found, wanted in zip(judge.score(sets), expected, strict=True):
            assert found == pytest.approx(wanted, abs=1e-6)  # scores pass through float32

    def test_reads_a_prompt_once(self, tmp_path, sft, monkeypatch):
        judge = Judge.load(make_reward(tmp_path / "reward", sft))
        rows = []
        score = SetScorer.score
        monkeypatch.setattr(
            SetScorer, "score", lambda self, sets: rows.append((self.why_alone, len(sets))) or score(self, sets)
        )
        judge.score([[Pair([5] * 9, [at + 6, 7]) for at in range(4)] for _ in range(3)])
        assert rows[-1] == (None, 3)

    def test_of_many_responses_are_spread_over_rows(self, tmp_path, sft, monkeypatch):
        judge = Judge.load(make_reward(tmp_path / "reward", sft))
        sets = random_sets(8)
        expected = judge.score(sets)
        monkeypatch.setattr(scoring, "MAX_ROW_TOKENS", 20)
        assert max(len(part) for pairs in sets for part in scoring._parts(pairs)) < 9
        for found, wanted in zip(judge.score(sets), expected, strict=True):
            assert found == pytest.approx(wanted, abs=1e-5)

    def test_a_text_that_outgrows_the_context_is_cut(self, tmp_path, sft):
        judge = Judge.load(make_reward(tmp_path / "reward", sft))
        pair = judge.read([5] * 90, Response("the cat " * 20, [1], [0.0], "stop", 0))
        assert len(pair) == judge.context == 96


class TestResume:
    @pytest.mark.parametrize("share", [0.0, 0.4, 0.61, 1.0])
    def test_resumed_scores_equal_unbroken_to_the_byte(self, tmp_path, sft, monkeypatch, share):
        monkeypatch.setattr(scoring, "ROWS_AT_ONCE", 4)
        reward, source, out = make_reward(tmp_path / "reward", sft), tmp_path / "in.jsonl", tmp_path / "out.jsonl"
        rows = [
            {
                "prompt": f"who {at}",
                "responses": [{"text": "the cat"}, {"text": f"hat {at}", "finish_reason": "length"}],
            }
            for at in range(11)
        ]
        source.write_text("".join(json.dumps(row) + "\n" for row in rows))
        expected = scoring.score(reward, source, out)
        whole = out.read_bytes()
        out.write_bytes(whole[: round(share * len(whole))])
        assert scoring.score(reward, source, out) == expected
        assert out.read_bytes() == whole

    def test_chunks_do_not_depend_on_where_it_was_interrupted(self, tmp_path):
        output = Output(tmp_path / "x", 5)
        assert [*output.chunks(10, 4)] == [range(4, 8), range(8, 10)]
        output.write(range(4, 8), [{"n": at} for at in range(4, 8)])
        assert [row["n"] for row in output.rows()] == [5, 6, 7]


class TestScore:
    def test_of_samples_and_of_single_responses_agree_with_plain_transformers(self, tmp_path, sft):
        import torch
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        folder = make_reward(tmp_path / "reward", sft)
        rows = [
            {"prompt": "who", "response": "the cat"},
            {"prompt": user("who"), "responses": [{"text": "the cat"}, {"text": "hat", "finish_reason": "length"}]},
        ]
        (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        metrics = scoring.score(folder, tmp_path / "in.jsonl", tmp_path / "out.jsonl")
        single, several = read(tmp_path / "out.jsonl")
        tokenizer, model = (
            AutoTokenizer.from_pretrained(folder),
            AutoModelForSequenceClassification.from_pretrained(folder),
        )
        ids = (
            conversation.encode_prompt(checkpoints.load_tokenizer(folder), user("who"))
            + tokenizer("the cat", add_special_tokens=False)["input_ids"]
        )
        expected = model(torch.tensor([[*ids, tokenizer.eos_token_id]])).logits.item() - model.config.reward_mean
        assert single["score"] == pytest.approx(expected, abs=1e-5)
        assert several["responses"][0]["score"] == pytest.approx(expected, abs=1e-5)
        assert several["responses"][1]["score"] != several["responses"][0]["score"]
        assert metrics["responses"] == 3

    @pytest.mark.parametrize(
        ("answer", "why"),
        [
            ({"responses": [{"text": 7}]}, "expected a response's text as a string, found 7"),
            ({"responses": ["the cat"]}, 'expected a response as an object with `text`, found "the cat"'),
            ({"response": 7}, "expected a response's text as a string, found 7"),
            ({"response": "cat " * 200}, "the reward model's context is"),
        ],
    )
    def test_a_response_that_cannot_be_read_is_named_with_its_row(self, tmp_path, sft, answer, why):
        rows = [{"id": "a", "prompt": "who", "response": "the cat"}, {"id": "b", "prompt": "who", **answer}]
        (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        with pytest.raises(ValueError, match=rf"row 2 \(b\): .*{why}"):
            scoring.score(make_reward(tmp_path / "reward", sft), tmp_path / "in.jsonl", tmp_path / "out.jsonl")

    def test_rows_without_a_response_are_refused(self, tmp_path, sft):
        (tmp_path / "in.jsonl").write_text('{"prompt": "who"}\n')
        with pytest.raises(ValueError, match="row 1: expected `prompt` with `response` or `responses`"):
            scoring.score(make_reward(tmp_path / "reward", sft), tmp_path / "in.jsonl", tmp_path / "out.jsonl")
