import json
import math

import pytest
import torch

from tests.workers.training.factories import make_reward, make_sft, prompt_row, user, write_prompts
from workers.training import sampling, scoring
from workers.training.bulk import Output
from workers.training.engine import Decoding
from workers.training.sampling import Helpers

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
        zero = sampling.sample(sft, folder, tmp_path / "a.jsonl", DECODING, helpers=Helpers(sft))["kl"]
        some = sampling.sample(sft, folder, tmp_path / "b.jsonl", DECODING, helpers=Helpers(other))["kl"]
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

    def test_reports_how_many_responses_do_not_depend_on_their_batch(self, tmp_path, sft):
        folder = write_prompts(tmp_path / "prompts")
        out, exact = tmp_path / "out.jsonl", tmp_path / "exact.jsonl"
        metrics = sampling.sample(sft, folder, exact, DECODING, check_prompts=4, dtype=torch.float64)
        assert metrics["equal_alone"] == 1.0
        metrics = sampling.sample(sft, folder, out, DECODING, check_prompts=4, dtype=torch.bfloat16)
        assert 0.0 <= metrics["equal_alone"] <= 1.0


class TestResume:
    @pytest.fixture(autouse=True)
    def small_chunks(self, monkeypatch):
        monkeypatch.setattr(sampling, "RESPONSES_AT_ONCE", 12)  # four prompts

    def run(self, tmp_path, sft, name):
        folder, reward = tmp_path / "prompts", tmp_path / "reward"
        helpers = Helpers(reference=sft, reward=reward, best_of=2)
        decoding = Decoding(n=2, max_new_tokens=6, seed=4)
        return sampling.sample(sft, folder, tmp_path / name, decoding, helpers=helpers)

    def test_resumed_equals_unbroken_to_the_byte(self, tmp_path, sft, monkeypatch):
        rows = [prompt_row(at, "who" if at % 3 else f"who has the {at}") for at in range(10)]
        write_prompts(tmp_path / "prompts", rows)
        make_reward(tmp_path / "reward", sft)
        expected = self.run(tmp_path, sft, "whole")
        whole = (tmp_path / "whole").read_bytes()
        write, chunks = Output.write, []

        def write_two_then_break(output, chunk, rows):
            if len(chunks) == 2:
                raise KeyboardInterrupt
            chunks.append(chunk)
            write(output, chunk, rows)

        monkeypatch.setattr(Output, "write", write_two_then_break)
        with pytest.raises(KeyboardInterrupt):
            self.run(tmp_path, sft, "broken")
        monkeypatch.setattr(Output, "write", write)
        begun = (tmp_path / "broken").read_bytes()
        assert whole.startswith(begun)
        assert 0 < len(begun) < len(whole)
        assert self.run(tmp_path, sft, "broken") == expected
        assert (tmp_path / "broken").read_bytes() == whole

    @pytest.mark.parametrize("share", [0.0, 0.3, 0.52, 0.99, 1.0])
    def test_resumes_from_wherever_the_file_was_cut(self, tmp_path, sft, share):
        write_prompts(tmp_path / "prompts", [prompt_row(at, f"who has the {at}") for at in range(10)])
        make_reward(tmp_path / "reward", sft)
        expected = self.run(tmp_path, sft, "out")
        whole = (tmp_path / "out").read_bytes()
        (tmp_path / "out").write_bytes(whole[: round(share * len(whole))])
        assert self.run(tmp_path, sft, "out") == expected
        assert (tmp_path / "out").read_bytes() == whole

    def test_does_not_resume_a_file_of_other_settings_or_origin(self, tmp_path, sft):
        folder, out = write_prompts(tmp_path / "prompts"), tmp_path / "out"
        sampling.sample(sft, folder, out, DECODING)
        before = out.read_bytes()
        with pytest.raises(
            ValueError, match=r"other settings \(seed, temperature\); choose another --out, or remove it"
        ):
            sampling.sample(sft, folder, out, Decoding(n=3, max_new_tokens=6, seed=5, temperature=0.5))
        (tmp_path / "out.job.json").unlink()
        with pytest.raises(ValueError, match="no job of ours is noted beside it"):
            sampling.sample(sft, folder, out, DECODING)
        assert out.read_bytes() == before


class TestBestOf:
    def test_keeps_the_best_by_the_reward_model_of_those_drawn(self, tmp_path, sft):
        folder, reward = write_prompts(tmp_path / "prompts"), make_reward(tmp_path / "reward", sft)
        drawn, scored, best = (tmp_path / name for name in ("drawn", "scored", "best"))
        sampling.sample(sft, folder, drawn, Decoding(n=6, max_new_tokens=6, seed=4))
        scoring.score(reward, drawn, scored)
        metrics = sampling.sample(
            sft, folder, best, Decoding(n=2, max_new_tokens=6, seed=4), helpers=Helpers(reward=reward, best_of=3)
        )
        for row, of_row in zip(read(best), read(scored), strict=True):
            groups = of_row["responses"][:3], of_row["responses"][3:]
            for response, group in zip(row["responses"], groups, strict=True):
                highest = max(group, key=lambda one: one["score"])
                assert response["text"] == highest["text"]
                assert response["score"] == pytest.approx(highest["score"], abs=1e-5)
        scores = [response["score"] for row in read(best) for response in row["responses"]]
        assert metrics["score"] == pytest.approx(sum(scores) / len(scores))
        assert metrics["best_of_kl"] == pytest.approx(math.log(3) - 2 / 3)

    @pytest.mark.parametrize("helpers", [Helpers(best_of=2), Helpers(reward="reward"), Helpers(best_of=0)])
    def test_refuses_one_without_the_other(self, tmp_path, sft, helpers):
        with pytest.raises(ValueError, match="give a reward model and a number above 1"):
            sampling.sample(sft, write_prompts(tmp_path / "prompts"), tmp_path / "out", DECODING, helpers=helpers)
