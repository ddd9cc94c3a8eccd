import io
from dataclasses import replace

import pytest
import torch

from tests.workers.training.factories import write_prompts
from tests.workers.training.ppo_runs import even, make_starts, odd, read
from workers.training import rollouts
from workers.training.engine import Decoding, Response


@pytest.fixture
def parts_and_prompts(tmp_path):
    return read(make_starts(tmp_path), write_prompts(tmp_path / "prompts"), reward=even)


class TestCollect:
    def test_groups_the_responses_by_prompt_wherever_it_stands(self, parts_and_prompts):
        parts, (one, other, *_) = parts_and_prompts
        found = rollouts.collect(parts, [one, other, one], Decoding(n=2, max_new_tokens=4), 8192)
        assert found.groups[0] == found.groups[1] == found.groups[4] == found.groups[5]
        assert found.groups[2] == found.groups[3] != found.groups[0]

    def test_carries_what_a_method_without_a_critic_needs(self, parts_and_prompts):
        parts, prompts = parts_and_prompts
        found = rollouts.collect(parts, prompts[:3], Decoding(n=4, max_new_tokens=6), 8192)
        # leave-one-out (RLOO): the score less the mean of the other responses to the same prompt
        same = (found.groups[:, None] == found.groups[None]).float().fill_diagonal_(0)
        advantages = found.scores - same @ found.scores / same.sum(1)
        for row, advantage in enumerate(advantages.tolist()):
            others = [at for at in range(12) if at // 4 == row // 4 and at != row]
            expected = found.scores[row] - sum(found.scores[at] for at in others) / 3
            assert advantage == pytest.approx(expected.item(), abs=1e-5)
        assert torch.allclose(found.sampler_logprobs, found.logprobs, atol=1e-5)
        assert found.components["length"].tolist() == [len(row.response) for row in found.rows]
        assert found.metrics()["length_score"] == pytest.approx(found.metrics()["length"])

    def test_asks_the_second_reward_model_on_held_out_prompts_only(self, parts_and_prompts):
        parts, prompts = parts_and_prompts
        parts = replace(parts, watch=odd)
        decoding = Decoding(max_new_tokens=4)
        heldout = rollouts.collect(parts, prompts[:3], decoding, 8192, is_heldout=True)
        assert torch.allclose(heldout.components["watch"], 4 - heldout.scores)
        assert heldout.values.abs().sum() == 0
        assert "watch" not in rollouts.collect(parts, prompts[:3], decoding, 8192).components

    def test_a_sampler_that_lies_about_its_log_probabilities_is_noticed(self, parts_and_prompts, monkeypatch):
        parts, prompts = parts_and_prompts
        lie = [[Response("x", [7, 8], [-1.0, -1.0], "length", 0)] for _ in prompts]
        monkeypatch.setattr(rollouts.Engine, "sample_ids", lambda *_: lie)
        with pytest.raises(RuntimeError, match=r"sampler and trainer disagree by .* nats a token"):
            rollouts.collect(parts, prompts, Decoding(max_new_tokens=4), 8192)


class TestState:
    def test_comes_back_from_a_file_that_holds_plain_values_only(self, parts_and_prompts):
        parts, prompts = parts_and_prompts
        found = rollouts.collect(parts, prompts[:3], Decoding(max_new_tokens=4), 8192)
        stream = io.BytesIO()
        torch.save(found.state(), stream)
        stream.seek(0)
        again = rollouts.Rollouts.load(torch.load(stream, weights_only=True))
        assert (again.rows, again.ended, again.entropy) == (found.rows, found.ended, found.entropy)
        assert torch.equal(again.components["score"], found.scores)
        assert torch.equal(again.logprobs, found.logprobs)
