import json

import pytest

from tests.workers.training.factories import make_reward, make_sft, prompt_row, user, write_prompts
from workers.training import checkpoints, conversation, sampling
from workers.training.engine import Decoding

DECODING = Decoding(n=3, max_new_tokens=6, seed=4)


@pytest.fixture
def sft(tmp_path):
    return make_sft(tmp_path / "sft")


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


class TestSample:
    def test_answers_the_prompts_of_a_split(self, tmp_path, sft):
        folder = write_prompts(tmp_path / "prompts", [prompt_row(0, "who"), prompt_row(1, "what", "valid")])
        metrics = sampling.sample(sft, folder, tmp_path / "out.jsonl", DECODING, split="valid")
        (row,) = read(tmp_path / "out.jsonl")
        assert (row["id"], row["prompt"], len(row["responses"])) == ("q1", user("what"), 3)
        assert metrics["prompts"] == 1
        assert metrics["distinct"] == 1.0

    def test_reads_plain_text_prompts_and_is_reproducible(self, tmp_path, sft):
        (tmp_path / "in.jsonl").write_text(
            '{"prompt": "who"}\n{"id": "x", "prompt": [{"role": "user", "content": "what"}]}\n'
        )
        for name in ("one", "two"):
            sampling.sample(sft, tmp_path / "in.jsonl", tmp_path / name, DECODING)
        assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
        assert [row["id"] for row in read(tmp_path / "one")] == ["1", "x"]

    def test_divergence_from_itself_is_zero_and_from_another_is_not(self, tmp_path, sft):
        folder = write_prompts(tmp_path / "prompts")
        other = make_sft(tmp_path / "other", "untied")
        zero = sampling.sample(sft, folder, tmp_path / "a.jsonl", DECODING, reference_folder=sft)["kl"]
        some = sampling.sample(sft, folder, tmp_path / "b.jsonl", DECODING, reference_folder=other)["kl"]
        assert zero == pytest.approx(0.0, abs=1e-4)
        assert some > 0.01
        kls = [response["kl"] for row in read(tmp_path / "b.jsonl") for response in row["responses"]]
        assert sum(kls) / len(kls) == pytest.approx(some)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("", "has no prompts"),
            ('{"text": "who"}\n', "row 1: no `prompt`"),
            ("{\n", "line 1: not JSON"),
            ('{"prompt": []}', "empty"),
        ],
    )
    def test_bad_files(self, tmp_path, sft, text, message):
        (tmp_path / "in.jsonl").write_text(text)
        with pytest.raises(ValueError, match=message):
            sampling.sample(sft, tmp_path / "in.jsonl", tmp_path / "out.jsonl", DECODING)
        assert not (tmp_path / "out.jsonl").exists()

    def test_a_prompt_longer_than_the_context(self, tmp_path, sft):
        (tmp_path / "in.jsonl").write_text(json.dumps({"prompt": "dog " * 200}))
        with pytest.raises(ValueError, match=r"prompt 1 .* exceeds the model's context of 96"):
            sampling.sample(sft, tmp_path / "in.jsonl", tmp_path / "out.jsonl", DECODING)


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
        metrics = sampling.score(folder, tmp_path / "in.jsonl", tmp_path / "out.jsonl")
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

    def test_rows_without_a_response_are_refused(self, tmp_path, sft):
        (tmp_path / "in.jsonl").write_text('{"prompt": "who"}\n')
        with pytest.raises(ValueError, match="row 1: expected `prompt` with `response` or `responses`"):
            sampling.score(make_reward(tmp_path / "reward", sft), tmp_path / "in.jsonl", tmp_path / "out.jsonl")
