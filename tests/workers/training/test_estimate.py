"""What a run will need: by hand, beside what a pass really takes, by law, and as a sentence that helps."""

from dataclasses import replace

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from tests.workers.training.factories import (
    FAMILIES,
    WORDS,
    demonstration,
    events,
    make_base,
    open_run,
    write_demonstrations,
    write_prompts,
    write_rankings,
)
from tests.workers.training.ppo_runs import QUICK, make_starts
from workers.training import data, estimate, sft
from workers.training.estimate import Footprint, Plan
from workers.training.lora import Settings
from workers.training.reward import RewardConfig
from workers.training.sft import SFTConfig

EMBEDDING, LAYER = 300 * 32, 4 * 32 * 32 + 3 * 32 * 48
"""Weights of the factories' Llama: tied embedding; linear layers of one of its two blocks."""

LARGE = Footprint(
    parameters=7_000_000_000,
    learned=7_000_000_000,
    matrices=6_500_000_000,
    layers=32,
    width=4096,
    vocabulary=32_000,
    token_bytes=12e6,
    score_bytes=0.0,
    cache_bytes=1_048_576,
)
PLAN = Plan((LARGE,), frozen=0, copies=0, tokens=2048, row_tokens=1024, scored_tokens=1024, cached_tokens=0, flops=1e18)


@pytest.fixture
def base(tmp_path):
    return make_base(tmp_path / "base", template=True)


@pytest.fixture
def demos(tmp_path):
    return write_demonstrations(tmp_path / "demos")


@pytest.fixture
def small(monkeypatch):
    """A device with so many bytes."""
    return lambda size: monkeypatch.setattr(estimate, "capacity", lambda device: size)


def peak_bytes(work):
    """The most memory that tensors made in `work` held at one time."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        work()
    found = seen.profiler.kineto_results.events()
    held = peak = 0
    for _, size in sorted((event.start_ns(), event.nbytes()) for event in found if event.name() == "[memory]"):
        held += size
        peak = max(peak, held)
    return peak


class TestFootprint:
    def test_by_hand(self, tmp_path):
        found = Footprint.of(make_base(tmp_path / "plain"), Settings())
        assert found.parameters == found.learned == EMBEDDING + 2 * (LAYER + 2 * 32) + 32
        assert found.matrices == 2 * LAYER
        # A layer keeps: each norm's input, its inverse root, what it normed and its output; q, k, v and what attention gives;
        # gate, its activation, up and their product. Then the last norm, sine and cosine, and the ids in 8 bytes.
        layer = 2 * (3 * 32 + 1) + 4 * 32 + 4 * 48
        assert found.token_bytes == 4 * (2 * layer + (2 * 32 + 1) + 2 * 16 + 2)
        assert found.score_bytes == 0
        assert found.cache_bytes == 2 * 4 * 2 * 32
        assert found.flops(10) == 2 * 2 * LAYER + 4 * 2 * 32 * 10
        assert found.training_passes == 3

    def test_of_adapters_by_hand(self, tmp_path):
        found = Footprint.of(make_base(tmp_path / "plain"), Settings(2))
        adapters = 2 * 2 * (4 * (32 + 32) + 3 * (32 + 48))
        assert found.learned == adapters
        assert found.parameters == EMBEDDING + 2 * (LAYER + 2 * 32) + 32 + adapters
        assert found.training_passes == 2

    def test_a_scalar_head_takes_the_place_of_an_unembedding(self, tmp_path):
        folder = make_base(tmp_path / "plain", "untied")
        model, scorer = Footprint.of(folder, Settings()), Footprint.of(folder, Settings(), is_scalar=True)
        assert model.parameters - scorer.parameters == EMBEDDING - 32

    def test_attention_that_keeps_its_scores_is_seen(self, tmp_path):
        assert Footprint.of(make_base(tmp_path / "gemma", "gemma"), Settings()).score_bytes > 0

    @pytest.mark.parametrize("family", FAMILIES)
    def test_of_frozen_blocks_by_count(self, tmp_path, family):
        folder = make_base(tmp_path / "plain", family)
        whole = Footprint.of(folder, Settings(), is_scalar=True)
        upper = Footprint.of(folder, Settings(), is_scalar=True, frozen_blocks=1)
        assert upper.parameters == whole.parameters
        assert upper.matrices == whole.matrices
        assert upper.learned >= whole.matrices / 2
        assert upper.learned < whole.learned - whole.matrices / 2
        assert upper.token_bytes < 0.7 * whole.token_bytes


class TestPlan:
    def test_by_hand(self):
        parts = PLAN.parts()
        assert parts["weights"] == parts["gradients"] == 28_000_000_000
        assert parts["adam"] == 56_000_000_000
        assert parts["activations"] == 2048 * 12_000_000
        assert parts["logits"] == 4 * 4 * 1024 * 32_000
        assert PLAN.total == sum(parts.values())
        assert PLAN.certain == 28_000_000_000 + 56_000_000_000 + 28_000_000_000

    def test_chunks_bound_the_logits(self):
        assert replace(PLAN, scored_tokens=100_000).parts()["logits"] == 4 * 4 * 2**26
        assert replace(PLAN, scored_tokens=100_000, cached_tokens=2**20).parts()["logits"] == 3 * 4 * 2**26

    def test_answers_may_need_more_than_updates(self):
        parts = replace(PLAN, cached_tokens=256 * 1024).parts()
        assert parts["cache"] == 256 * 1024 * 1_048_576
        assert "gradients" not in parts
        assert replace(PLAN, cached_tokens=256 * 1024).certain == PLAN.certain

    def test_bfloat16_saves_activations_and_costs_a_copy_of_the_matrices(self):
        plain, half = PLAN.parts(), replace(PLAN, compute=torch.bfloat16).parts()
        assert half["activations"] == 0.75 * plain["activations"] + 2 * 6_500_000_000
        many = replace(PLAN, tokens=16_384)
        assert replace(many, compute=torch.bfloat16).total < many.total


class TestAgainstTheRealPass:
    @pytest.mark.parametrize(
        ("family", "rank", "compute"),
        [
            *((family, 0, "float32") for family in FAMILIES),
            ("llama", 4, "float32"),
            ("gpt2", 4, "float32"),
            ("llama", 0, "bfloat16"),
            ("neox", 0, "bfloat16"),
        ],
    )
    def test_an_update_takes_about_what_was_said(self, tmp_path, family, rank, compute):
        base = make_base(tmp_path / "base", family, template=True, context=256)
        line = " ".join(WORDS)
        demos = write_demonstrations(
            tmp_path / "demos", [demonstration(i, f"who {line}", f"the {line} {line}") for i in range(16)]
        )
        config = SFTConfig(batch_size=16, choose="last", lora_rank=rank, compute=compute)
        model, tokenizer = sft._open(config, base, "cpu")
        model.train()
        rows = data.read_demonstrations(demos, tokenizer, 256).train
        likelihood = sft._likelihood(config, model, tokenizer, rows)
        measured = peak_bytes(lambda: sft.backward(likelihood, rows))
        parts = estimate.sft(config, base, demos, "cpu").plan.parts()
        said = sum(parts[name] for name in ("gradients", "activations", "logits", "mask"))
        # kernels' own scratch memory, and tensors of the backward pass that live for an instant, are not counted
        assert said == pytest.approx(measured, rel=0.3)


class TestLaws:
    def totals(self, config, make):
        return make(config).plan.total, make(replace(config, lora_rank=2)).plan.total

    def test_adapters_need_less_in_every_stage(self, tmp_path, base, demos):
        begin, ranks, prompts = (
            make_starts(tmp_path, "llama"),
            write_rankings(tmp_path / "r"),
            write_prompts(tmp_path / "p"),
        )
        for config, make in (
            (SFTConfig(), lambda config: estimate.sft(config, base, demos, "cpu")),
            (RewardConfig(), lambda config: estimate.reward(config, begin.policy, ranks, "cpu")),
            (QUICK, lambda config: estimate.ppo(config, begin, prompts, "cpu")),
        ):
            full, adapted = self.totals(config, make)
            assert adapted < full

    def test_frozen_blocks_need_less_and_save_time(self, tmp_path):
        begin, ranks = make_starts(tmp_path, "llama"), write_rankings(tmp_path / "r")

        def plan(**settings):
            return estimate.reward(RewardConfig(epochs=4, **settings), begin.policy, ranks, "cpu").plan

        whole, upper = plan(), plan(frozen_blocks=1)
        assert upper.total < whole.total
        assert upper.kept > 0 and "kept_states" in upper.parts()
        # One of two blocks: all learn in 4 x 3 passes; half of them in as many, and one more of the other half.
        assert upper.flops == pytest.approx(whole.flops * (4 * 3 / 2 + 1 / 2) / (4 * 3))
        assert plan(compute="bfloat16").compute is torch.bfloat16

    def test_adapters_keep_frozen_weights_of_ppo_once(self, tmp_path):
        begin, prompts = make_starts(tmp_path, "llama"), write_prompts(tmp_path / "prompts")
        full = estimate.ppo(QUICK, begin, prompts, "cpu").plan
        assert full.frozen == 4 * sum(model.parameters for model in full.learning)
        half = estimate.ppo(replace(QUICK, compute="bfloat16"), begin, prompts, "cpu").plan
        assert half.frozen == full.frozen - 2 * sum(model.matrices for model in full.learning)
        assert estimate.ppo(replace(QUICK, lora_rank=2), begin, prompts, "cpu").plan.frozen == 0
        watched = replace(begin, watch=begin.policy)
        plan = estimate.ppo(QUICK, watched, prompts, "cpu").plan
        assert plan.frozen > full.frozen
        assert plan.copies == full.copies + 1

    def test_smaller_passes_need_less_down_to_one_row(self, base, demos):
        longest = estimate.sft(SFTConfig(), base, demos, "cpu").plan.row_tokens
        sizes = [16384, 2 * longest, 1]
        plans = [estimate.sft(SFTConfig(micro_batch_tokens=size), base, demos, "cpu").plan for size in sizes]
        assert plans[0].total > plans[1].total > plans[2].total
        assert plans[2].tokens == plans[2].row_tokens
        assert plans[0].tokens == 32 * plans[0].row_tokens

    def test_time_grows_with_epochs_and_shrinks_with_adapters(self, base, demos):
        plans = [
            estimate.sft(config, base, demos, "cpu").plan
            for config in (SFTConfig(epochs=1), SFTConfig(epochs=2), SFTConfig(epochs=1, lora_rank=1))
        ]
        assert plans[1].flops == 2 * plans[0].flops
        assert plans[2].flops == pytest.approx(plans[0].flops * 2 / 3)


class TestSentences:
    def test_name_the_parts_and_a_time(self, base, demos):
        memory, time = estimate.sft(SFTConfig(), base, demos, "cpu").sentences()
        assert memory.startswith("memory: about ")
        assert "on cpu, weights and optimiser in float32, computing in float32 (weights 0.109 MB" in memory
        assert "adam" in memory
        assert "frozen" not in memory
        assert "GFLOP/s, just measured" in time

    def test_a_run_that_will_hardly_fit_says_how_to_need_less(self, base, demos, small):
        needs = estimate.sft(SFTConfig(), base, demos, "cpu")
        small(needs.plan.total - 1)
        tight = estimate.sft(SFTConfig(), base, demos, "cpu")
        tight.require_room()
        (advice,) = [line for line in tight.sentences() if "would need less" in line]
        assert "the run needs about" in advice
        assert tight.alternatives()
        assert all(f"--set {setting} (" in advice for setting in tight.alternatives())
        assert max(tight.alternatives().values()) < tight.plan.total

    def test_a_run_that_cannot_fit_is_refused(self, tmp_path, base, demos, small):
        small(estimate.sft(SFTConfig(), base, demos, "cpu").plan.certain - 1)
        with open_run(tmp_path / "run") as run, pytest.raises(ValueError, match=r"the run needs about .* and cpu has"):
            estimate.announce(run, lambda: estimate.sft(SFTConfig(), base, demos, "cpu"))

    def test_what_cannot_be_estimated_runs_all_the_same(self, tmp_path, base):
        empty = write_demonstrations(tmp_path / "demos", [demonstration(0, "who", "cat", "valid")])
        with open_run(tmp_path / "run") as run:
            estimate.announce(run, lambda: estimate.sft(SFTConfig(), base, empty, "cpu"))
        (line,) = events(tmp_path / "run", "log")
        assert line["text"].startswith("memory and time cannot be estimated: ")
