import math

import pytest
import torch

from tests.workers.training.factories import (
    demonstration,
    events,
    make_base,
    open_run,
    weights,
    write_demonstrations,
)
from workers.training import checkpoints, data, sft
from workers.training.checkpoints import CheckpointError
from workers.training.events import CancelledError
from workers.training.sft import SFTConfig

QUICK = SFTConfig(epochs=3, lr=3e-3, batch_size=4)


def run_sft(folder, base, demos, config=QUICK, **options):
    with open_run(folder, **options) as run:
        return sft.train(config, base, demos, run)


@pytest.fixture
def base(tmp_path):
    return make_base(tmp_path / "base")


@pytest.fixture
def demos(tmp_path):
    return write_demonstrations(tmp_path / "demos")


class TestTrain:
    @pytest.mark.parametrize("options", [{}, {"template": True, "pad_is_end": True}])
    @pytest.mark.parametrize("family", ["llama", "gpt2"])
    def test_loss_falls_and_the_checkpoint_follows_the_format(self, tmp_path, demos, family, options):
        base = make_base(tmp_path / "base", family, **options)
        result = run_sft(tmp_path / "run", base, demos, SFTConfig(epochs=12, lr=3e-3, batch_size=4))
        losses = [event["values"]["loss"] for event in events(tmp_path / "run", "metrics")]
        assert (
            result["metrics"]["train_loss"] < 0.6 * math.log(300) < losses[0]
        )  # log of the vocabulary's size: knowing nothing
        tokenizer = checkpoints.load_tokenizer(tmp_path / "run" / "checkpoint")
        assert tokenizer.pad_token_id != tokenizer.eos_token_id
        assert bool(tokenizer.chat_template)

    def test_learns_to_end(self, tmp_path, base, demos):
        from workers.training.engine import Engine

        run_sft(tmp_path / "run", base, demos, SFTConfig(epochs=25, lr=5e-3, batch_size=4))
        engine = Engine.load(tmp_path / "run" / "checkpoint")
        answers = engine.sample(
            [[{"role": "user", "content": "who likes the cat"}]], n=20, temperature=1.0, max_new_tokens=30, seed=0
        )[0]
        assert sum(answer.finish_reason == "stop" for answer in answers) >= 18

    def test_same_seed_same_checkpoint(self, tmp_path, base, demos):
        identities = [run_sft(tmp_path / name, base, demos)["sha256"] for name in ("one", "two")]
        assert identities[0] == identities[1]

    def test_does_not_depend_on_micro_batches(self, tmp_path, base, demos):
        run_sft(tmp_path / "whole", base, demos, SFTConfig(epochs=1, lr=1e-3, batch_size=8))
        run_sft(tmp_path / "cut", base, demos, SFTConfig(epochs=1, lr=1e-3, batch_size=8, micro_batch_tokens=20))
        whole, cut = weights(tmp_path / "whole" / "checkpoint"), weights(tmp_path / "cut" / "checkpoint")
        # Adam divides by the gradient's size, so that rounding of tiny gradients shows at up to the learning rate
        assert max((whole[name] - cut[name]).abs().max().item() for name in whole) < 1e-3

    def test_resumed_equals_uninterrupted_bit_for_bit_with_dropout(self, tmp_path, demos):
        base = make_base(tmp_path / "base", "gpt2")
        straight = run_sft(tmp_path / "straight", base, demos)
        with open_run(tmp_path / "broken") as run:
            step = run.step
            run.step = lambda at, *rest: (run.cancel() if at == 4 else None, step(at, *rest))
            with pytest.raises(CancelledError, match="after step 4 of 9"):
                sft.train(QUICK, base, demos, run)
        assert run_sft(tmp_path / "broken", base, demos)["sha256"] == straight["sha256"]
        assert not (tmp_path / "broken" / "state").exists()

    def test_counts_demonstrations_that_are_too_long(self, tmp_path, base):
        rows = [demonstration(0, "who", "cat"), demonstration(1, "who", "dog " * 200)]
        result = run_sft(tmp_path / "run", base, write_demonstrations(tmp_path / "demos", rows))
        assert result["metrics"]["dropped"] == 1
        assert "longer than the model's context" in events(tmp_path / "run", "log")[0]["text"]
        assert result["metrics"]["valid_loss"] is None


class TestBadInput:
    def test_no_demonstrations(self, tmp_path, base):
        demos = write_demonstrations(tmp_path / "demos", [demonstration(0, "who", "cat", "valid")])
        with pytest.raises(ValueError, match="no demonstrations in split 'train'"):
            run_sft(tmp_path / "run", base, demos)
        assert events(tmp_path / "run", "error")

    def test_a_pickle_for_a_checkpoint(self, tmp_path, base, demos):
        (base / "model.safetensors").rename(base / "pytorch_model.bin")
        with pytest.raises(CheckpointError, match="pickled"):
            run_sft(tmp_path / "run", base, demos)

    def test_a_snapshot_changed_after_it_was_taken(self, tmp_path, base, demos):
        with (demos / "demonstrations.jsonl").open("a") as stream:
            stream.write("{}\n")
        with pytest.raises(ValueError, match="was changed after the snapshot"):
            run_sft(tmp_path / "run", base, demos)

    def test_a_learning_rate_that_blows_up(self, tmp_path, base, demos, monkeypatch):
        from workers.rlhf import losses

        monkeypatch.setattr(losses, "nll", lambda logprobs, mask: (logprobs * float("nan")).sum())
        with pytest.raises(RuntimeError, match="gradient's norm is nan"):
            run_sft(tmp_path / "run", base, demos)


class TestEvaluate:
    def test_is_the_mean_over_tokens_whatever_the_batches(self, base, demos):
        tokenizer, model = checkpoints.load_tokenizer(base), checkpoints.load_language_model(base)
        rows = data.read_demonstrations(demos, tokenizer, 96).train
        with torch.no_grad():
            whole, cut = sft.evaluate(model, tokenizer, rows), sft.evaluate(model, tokenizer, rows, max_tokens=1)
        assert whole == pytest.approx(cut, abs=1e-5)
