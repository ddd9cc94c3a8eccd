"""PPO-ptx: the pretraining text keeps what the reward does not ask for."""

from dataclasses import replace

import pytest
import torch

from tests.workers.training.factories import events, open_run, write_prompts, write_text
from tests.workers.training.ppo_runs import QUICK, even, make_starts, run_ppo
from workers.training import checkpoints, ppo, pretraining
from workers.training.events import CancelledError

MIXED = replace(QUICK, ptx_coef=1.0, ptx_per_episode=2, ptx_tokens=16)


@pytest.fixture
def prompts(tmp_path):
    return write_prompts(tmp_path / "prompts")


@pytest.fixture
def starts(tmp_path):
    return replace(make_starts(tmp_path), text=write_text(tmp_path / "text"))


class TestMix:
    def taught(self, folder):
        """Starts whose policy has learned the text, so that it has something to forget."""
        starts = replace(make_starts(folder), text=write_text(folder / "text"))
        tokenizer, model = checkpoints.load_tokenizer(starts.policy), checkpoints.load_language_model(starts.policy)
        blocks = pretraining.Text.read(starts.text, tokenizer, 16).train
        optimiser = torch.optim.Adam(model.parameters(), 3e-3)
        for step in range(150):
            pretraining.backward(model, tokenizer, blocks[step % 4 :: 4], 1.0, 8192)
            optimiser.step()
            optimiser.zero_grad()
        checkpoints.save(starts.policy, model, tokenizer, "sft", {})
        return starts

    def test_keeps_the_likelihood_of_held_out_text_which_falls_without_it(self, tmp_path, prompts):
        starts = self.taught(tmp_path)
        config = replace(QUICK, episodes=480, batch_size=48, minibatch_size=16, lr=3e-3, kl_coef=0.0, ptx_tokens=16)
        without = run_ppo(tmp_path / "without", starts, prompts, config, even)["metrics"]
        mixed = run_ppo(tmp_path / "mixed", starts, prompts, replace(config, ptx_coef=1.0, ptx_per_episode=4), even)[
            "metrics"
        ]
        assert without["heldout_text_loss_before"] == mixed["heldout_text_loss_before"]
        assert without["heldout_text_loss"] > without["heldout_text_loss_before"] + 0.5
        assert (
            mixed["heldout_text_loss"] < mixed["heldout_text_loss_before"] + 0.1
        )  # nats a token, a fifth of the loss above
        assert mixed["heldout_score"] > mixed["heldout_score_before"]

    def test_reports_the_loss_of_the_text(self, tmp_path, starts, prompts):
        run_ppo(tmp_path / "run", starts, prompts, replace(MIXED, report_every=1))
        values = events(tmp_path / "run", "metrics")[-1]["values"]
        assert {"ptx_loss", "heldout_text_loss"} <= set(values)
        assert events(tmp_path / "run", "start")[0]["counts"]["text_blocks"] > 0

    def test_text_without_a_coefficient_is_measured_and_changes_nothing(self, tmp_path, starts, prompts):
        plain = run_ppo(tmp_path / "plain", replace(starts, text=None), prompts)
        measured = run_ppo(tmp_path / "measured", starts, prompts, replace(QUICK, ptx_tokens=16))
        assert measured["sha256"] == plain["sha256"]
        assert set(measured["metrics"]) - set(plain["metrics"]) == {"heldout_text_loss", "heldout_text_loss_before"}

    def test_a_coefficient_without_text_is_refused(self, tmp_path, starts, prompts):
        with pytest.raises(ValueError, match=r"ptx_coef is 1\.0, but there is no text"):
            run_ppo(tmp_path / "run", replace(starts, text=None), prompts, MIXED)


class TestBlocks:
    def test_each_episode_takes_the_next_ones(self, tmp_path, starts, prompts, monkeypatch):
        taken = []
        plain = pretraining.backward
        monkeypatch.setattr(
            pretraining, "backward", lambda *args: (taken.append([id(block) for block in args[2]]), plain(*args))[1]
        )
        run_ppo(tmp_path / "run", starts, prompts, replace(MIXED, minibatch_size=5))
        assert [len(blocks) for blocks in taken] == [10, 10, 4] * 4
        flat = [block for blocks in taken for block in blocks]
        assert len(set(flat)) == len(flat)  # 96 draws from more blocks than that: none comes twice in the first pass

    def test_resumed_equals_uninterrupted_with_text(self, tmp_path, starts, prompts, monkeypatch):
        straight = run_ppo(tmp_path / "straight", starts, prompts, MIXED)
        plain = ppo.backward
        with open_run(tmp_path / "broken") as run, monkeypatch.context() as patch:
            made = []

            def backward(*args, **options):
                made.append(1)
                if len(made) == 8:
                    run.cancel()
                return plain(*args, **options)

            patch.setattr(ppo, "backward", backward)
            with pytest.raises(CancelledError, match="within step 3 of 4"):
                ppo.train(MIXED, starts, prompts, run)
        resumed = run_ppo(tmp_path / "broken", starts, prompts, MIXED)
        assert (resumed["sha256"], resumed["metrics"]) == (straight["sha256"], straight["metrics"])
