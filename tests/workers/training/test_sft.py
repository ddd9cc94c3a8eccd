import math
from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.workers.training.factories import (
    FAMILIES,
    WORDS,
    demonstration,
    events,
    make_base,
    make_reward,
    make_sft,
    open_run,
    weights,
    write_demonstrations,
    write_text,
)
from workers.rlhf import schedules
from workers.training import checkpoints, conversation, data, models, optimisers, sft
from workers.training.checkpoints import CheckpointError
from workers.training.data import Pair
from workers.training.events import CancelledError
from workers.training.packed import Likelihood
from workers.training.sft import Extras, SFTConfig

QUICK = SFTConfig(epochs=3, lr=3e-3, batch_size=4)
OVERFIT = {"epochs": 8, "lr": 2e-2, "batch_size": 4}
"""So high a rate that the loss on other prompts rises again."""


def run_sft(folder, base, demos, config=QUICK, extras=Extras(), **options):
    with open_run(folder, **options) as run:
        return sft.train(config, base, demos, run, extras=extras)


def interrupt(folder, base, demos, config, extras, step):
    """A run that is asked to stop after `step` steps, and saves its state."""
    with open_run(folder) as run:
        report = run.step
        run.step = lambda at, *rest: (run.cancel() if at == step else None, report(at, *rest))
        with pytest.raises(CancelledError, match=f"after step {step} of"):
            sft.train(config, base, demos, run, extras=extras)


def metrics(folder):
    """What the run reported step by step."""
    return [event["values"] for event in events(folder, "metrics")]


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
        config = SFTConfig(epochs=12, lr=3e-3, batch_size=4, choose="last")
        result = run_sft(tmp_path / "run", base, demos, config)
        losses = [event["values"]["loss"] for event in events(tmp_path / "run", "metrics")]
        assert (
            result["metrics"]["train_loss"] < 0.6 * math.log(300) < losses[0]
        )  # log of the vocabulary's size: knowing nothing
        tokenizer = checkpoints.load_tokenizer(tmp_path / "run" / "checkpoint")
        assert tokenizer.pad_token_id != tokenizer.eos_token_id
        assert bool(tokenizer.chat_template)

    def test_learns_to_end(self, tmp_path, base, demos):
        from workers.training.engine import Engine

        run_sft(tmp_path / "run", base, demos, SFTConfig(epochs=25, lr=5e-3, batch_size=4, choose="last"))
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

    @pytest.mark.parametrize("family", ["gpt2", "llama"])  # GPT-2 has dropout
    def test_resume_equals_an_unbroken_run_bit_for_bit(self, tmp_path, demos, family):
        base = make_base(tmp_path / "base", family)
        straight = run_sft(tmp_path / "straight", base, demos)
        interrupt(tmp_path / "broken", base, demos, QUICK, Extras(), 4)
        assert run_sft(tmp_path / "broken", base, demos)["sha256"] == straight["sha256"]
        assert not (tmp_path / "broken" / "state").exists()

    def test_resume_keeps_the_best_epoch_so_far_and_the_place_in_the_text(self, tmp_path, demos):
        base = make_base(tmp_path / "base", "gpt2")
        reward = make_reward(tmp_path / "reward", make_sft(tmp_path / "sft", "gpt2"))
        extras = Extras(reward, write_text(tmp_path / "text"))
        # so high a rate that the first epoch is the best by any measure, and has to outlast the interruption
        config = SFTConfig(epochs=3, lr=0.3, batch_size=4, max_new_tokens=4, pretrain_tokens=16)
        straight = run_sft(tmp_path / "straight", base, demos, config, extras)
        interrupt(tmp_path / "broken", base, demos, config, extras, 7)
        resumed = run_sft(tmp_path / "broken", base, demos, config, extras)
        assert resumed["sha256"] == straight["sha256"]
        assert resumed["metrics"] == straight["metrics"]

    def test_counts_demonstrations_that_are_too_long(self, tmp_path, base):
        rows = [demonstration(0, "who", "cat"), demonstration(1, "who", "dog " * 200)]
        result = run_sft(tmp_path / "run", base, write_demonstrations(tmp_path / "demos", rows))
        assert result["metrics"]["dropped"] == 1
        assert events(tmp_path / "run", "log")[0]["text"] == (
            "1 demonstrations were left out: 1 longer than the model's context of 96 tokens"
        )
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


def naive_loss(base, rows):
    """Mean negative log-likelihood per response token, row by row, from the text as it is written in the template."""
    tokenizer, model = checkpoints.load_tokenizer(base), checkpoints.load_language_model(base)
    conversation.write_template(tokenizer)
    checkpoints.prepare(model, tokenizer)
    total = tokens = 0
    for row in rows:
        text = f"<|begin|><|user|>{row['prompt'][0]['content']}<|assistant|>"
        prompt = tokenizer(text, add_special_tokens=False)["input_ids"]
        response = [*tokenizer(row["response"], add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
        with torch.no_grad():
            logits = model(torch.tensor([prompt + response])).logits[0].double()
        logits[:, tokenizer.pad_token_id] = -float("inf")
        for at, token in enumerate(response, start=len(prompt)):
            total -= logits[at - 1].log_softmax(-1)[token].item()
            tokens += 1
    return total / tokens


class TestFirstStep:
    @pytest.mark.parametrize("packing", [True, False])
    @pytest.mark.parametrize("family", FAMILIES)
    def test_loss_of_the_first_step_is_that_of_a_naive_loop(self, tmp_path, family, packing):
        rows = [demonstration(at, f"who {'likes ' * at}", "the cat " * (at % 5 + 1)) for at in range(12)]
        base, demos = make_base(tmp_path / "base", family), write_demonstrations(tmp_path / "demos", rows)
        run_sft(tmp_path / "run", base, demos, SFTConfig(epochs=1, batch_size=12, dropout=0.0, packing=packing))
        (first_step,) = metrics(tmp_path / "run")
        if family != "gpt2":  # whose attention has dropout of its own
            assert first_step["loss"] == pytest.approx(naive_loss(base, rows), abs=1e-5)


class TestSchedule:
    def test_is_a_cosine_to_a_tenth_without_warm_up(self, tmp_path, base, demos):
        run_sft(tmp_path / "run", base, demos)
        rates = [values["lr"] for values in metrics(tmp_path / "run")]
        assert rates == [QUICK.lr * schedules.cosine(step, len(rates)) for step in range(len(rates))]
        assert rates[0] == QUICK.lr

    def test_is_that_of_the_updates(self, tmp_path, base, demos, monkeypatch):
        told, update = [], optimisers.update
        monkeypatch.setattr(optimisers, "update", lambda *args: (told.append(args[2]), update(*args))[1])
        run_sft(tmp_path / "run", base, demos)
        assert told == [values["lr"] for values in metrics(tmp_path / "run")]


class TestDropout:
    def test_is_set_where_it_is_found_and_changes_the_first_loss(self, tmp_path, demos):
        base = make_base(tmp_path / "base", "gpt2")
        model, _ = sft._open(QUICK, base, "cpu")
        assert {module.p for module in models.residual_dropouts(model)} == {0.2}
        losses = []
        for dropout in (0.2, 0.0):
            out = tmp_path / f"run-{dropout}"
            run_sft(out, base, demos, replace(QUICK, epochs=1, dropout=dropout))
            losses.append(metrics(out)[0]["loss"])
        assert losses[0] != losses[1]

    def test_that_an_architecture_has_none_is_said(self, tmp_path, demos):
        for family, told in (("llama", 1), ("gpt2", 0)):
            base = make_base(tmp_path / family, family)
            run_sft(tmp_path / f"run-{family}", base, demos, replace(QUICK, epochs=1))
            lines = [event["text"] for event in events(tmp_path / f"run-{family}", "log")]
            assert sum("dropout 0.2 changes nothing" in line for line in lines) == told


class TestAnyCausalModel:
    BASES = (
        {},
        {"template": True, "tied": False},
        {"pad_is_end": True, "tied": False},
        {"template": True, "pad_is_end": True},
        {"begin": False, "tied": False},
        {"begin": False, "template": True, "pad_is_end": True},
    )

    @pytest.mark.parametrize("options", BASES)
    @pytest.mark.parametrize("family", FAMILIES)
    def test_learns_and_opens_in_plain_transformers(self, tmp_path, demos, family, options):
        base = make_base(tmp_path / "base", family, **options)
        config = SFTConfig(epochs=2, lr=3e-3, batch_size=4, choose="last")
        result = run_sft(tmp_path / "run", base, demos, config)
        losses = [values["loss"] for values in metrics(tmp_path / "run")]
        assert result["metrics"]["train_loss"] < losses[0]
        tokenizer = AutoTokenizer.from_pretrained(tmp_path / "run" / "checkpoint")
        model = AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "checkpoint")
        assert model.config.pad_token_id == tokenizer.pad_token_id != tokenizer.eos_token_id
        is_tied = model.get_input_embeddings().weight is model.get_output_embeddings().weight
        assert is_tied is options.get("tied", True)
        ids = conversation.encode_prompt(tokenizer, [{"role": "user", "content": "who likes the cat"}])
        begins = 0 if tokenizer.bos_token_id is None or options.get("template") else 1
        assert ids.count(tokenizer.bos_token_id) == begins
        assert model(torch.tensor([ids])).logits.shape[-1] >= len(tokenizer)


class TestChoose:
    def test_keeps_the_epoch_of_the_lowest_validation_loss(self, tmp_path, base, demos):
        result = run_sft(tmp_path / "run", base, demos, SFTConfig(**OVERFIT))
        found = [values["valid_loss"] for values in metrics(tmp_path / "run") if "valid_loss" in values]
        epoch = found.index(min(found)) + 1
        assert len(found) == 8
        assert epoch < 8
        assert (result["metrics"]["kept_epoch"], result["metrics"]["kept_by"]) == (epoch, "valid_loss")
        assert result["metrics"]["valid_loss"] == min(found)
        assert (
            f"kept the weights of epoch {epoch} of 8: lowest validation loss"
            in events(tmp_path / "run", "log")[-1]["text"]
        )

    def test_keeps_the_epoch_that_the_reward_model_likes_best(self, tmp_path, base, demos):
        extras = Extras(reward=make_reward(tmp_path / "reward", make_sft(tmp_path / "sft")))
        result = run_sft(tmp_path / "run", base, demos, SFTConfig(**OVERFIT, max_new_tokens=8), extras)
        found = [values["valid_reward"] for values in metrics(tmp_path / "run") if "valid_reward" in values]
        epoch = found.index(max(found)) + 1
        assert (result["metrics"]["kept_epoch"], result["metrics"]["kept_by"]) == (epoch, "reward")
        assert result["metrics"]["valid_reward"] == max(found)

    def test_last_measures_nothing_on_the_way_and_gives_the_same_as_without_validation(self, tmp_path, base, demos):
        rows = [demonstration(at, f"who likes the {w}", f"the {w} is {w}") for at, w in enumerate(WORDS) if at % 4 != 3]
        alike = write_demonstrations(tmp_path / "alike", rows)
        last = run_sft(tmp_path / "last", base, demos, SFTConfig(**OVERFIT, choose="last"))
        without = run_sft(tmp_path / "without", base, alike, SFTConfig(**OVERFIT))
        assert not any("valid_loss" in values for values in metrics(tmp_path / "last"))
        assert last["sha256"] == without["sha256"]
        assert (without["metrics"]["kept_epoch"], without["metrics"]["kept_by"]) == (8, "last")
        assert "the last weights become the checkpoint" in events(tmp_path / "without", "log")[-1]["text"]

    def test_refuses_a_rule_it_does_not_know(self):
        with pytest.raises(
            ValueError, match="setting choose is 'best'; expected one of auto, last, valid_loss, reward"
        ):
            SFTConfig(choose="best")


class TestPretrainingMix:
    CONFIG = SFTConfig(epochs=1, lr=1e-3, batch_size=4, dropout=0.0, pretrain_tokens=16, choose="last")

    def test_the_text_becomes_likelier_than_without_it(self, tmp_path, base, demos):
        text = write_text(tmp_path / "text", ["hat hat one two dog dog one two " * 3] * 6)
        config = replace(self.CONFIG, epochs=12, lr=3e-3)
        run_sft(tmp_path / "mixed", base, demos, config, Extras(text=text))
        run_sft(tmp_path / "plain", base, demos, config)
        found = []
        for name in ("mixed", "plain"):
            tokenizer = checkpoints.load_tokenizer(tmp_path / name / "checkpoint")
            model = checkpoints.load_language_model(tmp_path / name / "checkpoint")
            blocks = [Pair(block[:1], block[1:]) for block in data.read_text(text, tokenizer, 16)]
            found.append(Likelihood(model, tokenizer).mean(blocks))
        assert found[0] < found[1] - 0.5

    def test_the_gradient_is_the_weighted_sum_of_both(self, base):
        tokenizer, model = checkpoints.load_tokenizer(base), checkpoints.load_language_model(base).double()
        likelihood = Likelihood(model, tokenizer)
        answers, text = [Pair([5, 6], [7, 8, 9])], [Pair([1], [10, 11])]
        sft.backward(likelihood, answers, 0.9)
        sft.backward(likelihood, text, 0.1)
        mixed = model.get_input_embeddings().weight.grad.clone()
        model.zero_grad()
        loss = 0.9 * sum(likelihood.parts(answers)) / 3 + 0.1 * sum(likelihood.parts(text)) / 2
        loss.backward()
        assert torch.allclose(mixed, model.get_input_embeddings().weight.grad, rtol=0, atol=1e-12)

    def test_is_counted_and_reported(self, tmp_path, base, demos):
        run_sft(tmp_path / "run", base, demos, self.CONFIG, Extras(text=write_text(tmp_path / "text")))
        assert events(tmp_path / "run", "start")[0]["counts"]["text_tokens"] > 100
        assert all(values["text_loss"] > 0 for values in metrics(tmp_path / "run"))

    def test_refuses_a_share_that_is_none(self):
        with pytest.raises(ValueError, match=r"pretrain_share is 1\.0"):
            SFTConfig(pretrain_share=1.0)


class TestStart:
    def test_says_device_dtypes_tokens_and_packing(self, tmp_path, base, demos):
        run_sft(tmp_path / "run", base, demos)
        counts = events(tmp_path / "run", "start")[0]["counts"]
        assert counts["demonstrations"] == 12
        assert 12 < counts["response_tokens"] < counts["tokens"]
        assert events(tmp_path / "run", "log")[0]["text"] == (
            "on cpu, weights that learn and optimiser in float32, computing in float32; rows packed where that saves padding"
        )

    def test_says_why_rows_stay_unpacked(self, tmp_path, demos):
        base = make_base(tmp_path / "base", "sliding")
        run_sft(tmp_path / "run", base, demos)
        assert (
            "does not take several in one (log-probabilities would differ" in events(tmp_path / "run", "log")[0]["text"]
        )

    def test_computes_in_bfloat16_where_asked_and_keeps_float32_weights(self, tmp_path, base, demos):
        run_sft(tmp_path / "run", base, demos, replace(QUICK, compute="bfloat16"))
        assert "computing in bfloat16" in events(tmp_path / "run", "log")[0]["text"]
        assert {tensor.dtype for tensor in weights(tmp_path / "run" / "checkpoint").values()} == {torch.float32}
