"""Adapters: what learns and what stays, the merged checkpoint, resuming, and all three stages on every family."""

from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.workers.training.factories import (
    FAMILIES,
    events,
    make_base,
    make_reward,
    make_sft,
    open_run,
    weights,
    write_demonstrations,
    write_prompts,
    write_rankings,
)
from tests.workers.training.ppo_runs import QUICK as QUICK_PPO
from tests.workers.training.ppo_runs import make_starts, run_ppo
from workers.training import checkpoints, conversation, lora, ppo, reward, sft, starts
from workers.training.events import CancelledError
from workers.training.lora import Settings
from workers.training.reward import RewardConfig
from workers.training.sft import SFTConfig

SFT = SFTConfig(epochs=2, lr=1e-2, batch_size=4, lora_rank=2)
REWARD = RewardConfig(epochs=1, lr=1e-2, batch_size=8, lora_rank=2)
PPO = replace(QUICK_PPO, lr=1e-2, value_lr=1e-2, lora_rank=2, kl_target=1.0)
IDS = torch.tensor([[1, 5, 9, 60, 7]])


def run_sft(folder, base, demos, config=SFT):
    with open_run(folder) as run:
        return sft.train(config, base, demos, run)


def run_reward(folder, start, snapshot, config=REWARD):
    with open_run(folder) as run:
        return reward.train(config, start, snapshot, run)


def cancel_after(folder, step, work):
    with open_run(folder) as run:
        report = run.step
        run.step = lambda at, *rest: (run.cancel() if at == step else None, report(at, *rest))
        with pytest.raises(CancelledError, match=f"after step {step} of"):
            work(run)


@torch.no_grad()  # with gradients attention takes another kernel, and its last digits are others
def answer(model):
    return model(IDS).logits


def stir(model):
    """Learned parameters as training might leave them."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in lora.learned(model):
            parameter.add_(0.1 * torch.randn_like(parameter))


def changed(before, after):
    """Names of the tensors of two checkpoints that differ; both must have the same ones."""
    before, after = weights(before), weights(after)
    assert before.keys() == after.keys()
    return {name for name in before if not before[name].equal(after[name])}


def with_base(tmp_path, family="llama", rank=3, **options):
    """A base model in float64 under adapters, and its tokenizer, our markers added as SFT does."""
    base = make_base(tmp_path / "base", family, **options)
    tokenizer = checkpoints.load_tokenizer(base)
    model = checkpoints.load_language_model(base, torch.float64)
    known = len(tokenizer)
    conversation.write_template(tokenizer)
    checkpoints.prepare(model, tokenizer, known)
    before = answer(model)
    lora.attach(model, Settings(rank), seed=0, new_tokens=range(known, len(tokenizer)))
    return model, tokenizer, before


class TestSettings:
    @pytest.mark.parametrize("options", [{"lora_rank": -1}, {"lora_rank": 4, "lora_alpha": 0}])
    def test_refuses_what_makes_no_adapter(self, options):
        with pytest.raises(ValueError, match="expected at least 0 and 1"):
            SFTConfig(**options)

    def test_off_by_default(self):
        assert [kind().lora_rank for kind in (SFTConfig, RewardConfig, ppo.PPOConfig)] == [0, 0, 0]


class TestAttach:
    @pytest.mark.parametrize("family", FAMILIES)
    def test_begins_at_the_model_it_was_given(self, tmp_path, family):
        model, _, before = with_base(tmp_path, family)
        assert answer(model).equal(before)

    @pytest.mark.parametrize("family", FAMILIES)
    def test_covers_every_linear_layer_of_the_blocks_and_freezes_all_else(self, tmp_path, family):
        model = checkpoints.load_language_model(make_base(tmp_path / "base", family))
        matrices = {
            name.removesuffix(".weight")
            for name, parameter in model.base_model.named_parameters(prefix=model.base_model_prefix)
            if parameter.ndim == 2 and not any(table in name for table in ("embed", "wte", "wpe"))
        }
        assert set(lora.linear_layers(model)) == matrices
        sizes = sum(3 * sum(model.get_submodule(name).weight.shape) for name in matrices)
        lora.attach(model, Settings(3), seed=0)
        assert sum(parameter.numel() for parameter in lora.learned(model)) == sizes
        assert all("lora_" in name for name, each in model.named_parameters() if each.requires_grad)

    def test_the_seed_decides_the_adapters_and_nothing_else_moves(self, tmp_path):
        base = make_base(tmp_path / "base")

        def first(seed):
            model = checkpoints.load_language_model(base)
            torch.manual_seed(5)
            lora.attach(model, Settings(3), seed)
            assert torch.rand(()).item() == torch.rand((), generator=torch.Generator().manual_seed(5)).item()
            return torch.cat([parameter.flatten() for parameter in lora.learned(model)])

        assert first(0).equal(first(0))
        assert not first(0).equal(first(1))

    def test_rank_0_leaves_all_weights_learning(self, tmp_path):
        model = checkpoints.load_language_model(make_base(tmp_path / "base"))
        lora.attach(model, Settings(0), seed=0)
        assert len(lora.learned(model)) == len(list(model.parameters()))
        assert lora.state(model).keys() == model.state_dict().keys()
        assert lora.merged(model) is None
        assert lora.sentence(model, Settings(0)) is None

    def test_a_scalar_head_learns_beside_them(self, tmp_path):
        model = checkpoints.reward_model_from(make_sft(tmp_path / "sft"), seed=0)
        lora.attach(model, Settings(3), seed=0)
        assert model.score.weight.requires_grad
        assert all("lora_" in name or name == "score.weight" for name in lora.state(model))

    def test_alpha_over_rank_scales_what_they_add(self, tmp_path):
        model, _, _ = with_base(tmp_path, rank=2)
        stir(model)
        layer = model.base_model.layers[0].mlp.up_proj
        added = layer.lora_B["default"].weight @ layer.lora_A["default"].weight
        found = lora.merged(model)["model.layers.0.mlp.up_proj.weight"] - layer.base_layer.weight
        assert (found - 32 / 2 * added).abs().max() < 1e-14

    def test_is_refused_in_a_run_of_several_processes(self, tmp_path, monkeypatch):
        model = checkpoints.load_language_model(make_base(tmp_path / "base"))
        monkeypatch.setattr(lora.parallel, "size", lambda: 2)
        with pytest.raises(ValueError, match=r"lora_rank is 2 in a run of 2 processes.*set lora_rank to 0"):
            lora.attach(model, Settings(2), 0)


class TestMerged:
    @pytest.mark.parametrize("tied", [True, False])
    @pytest.mark.parametrize("family", FAMILIES)
    def test_opens_in_plain_transformers_and_says_the_same(self, tmp_path, family, tied):
        model, tokenizer, before = with_base(tmp_path, family, tied=tied)
        stir(model)
        ids = torch.cat([IDS, torch.tensor([[len(tokenizer) - 1, len(tokenizer) - 2]])], 1)
        expected, own = model(ids).logits, lora.state(model)
        checkpoints.save(tmp_path / "merged", model, tokenizer, "sft", {})
        plain = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float64)
        assert (plain(ids).logits - expected).abs().max() < 1e-12
        assert (plain(IDS).logits - before).abs().max() > 1e-3
        assert weights(tmp_path / "merged").keys() == weights(tmp_path / "base").keys()
        assert all(own[name].equal(tensor) for name, tensor in lora.state(model).items())
        assert model(ids).logits.equal(expected)

    def test_of_the_embeddings_the_new_rows_alone_move(self, tmp_path):
        model, tokenizer, _ = with_base(tmp_path)
        known = len(tokenizer) - 3
        before = model.get_input_embeddings().original_module.weight.clone()
        stir(model)
        after = lora.merged(model)["model.embed_tokens.weight"]
        assert after[:known].equal(before[:known])
        assert (after[known:] != before[known:]).any(1).all()

    def test_a_folder_of_adapters_is_no_checkpoint(self, tmp_path):
        base = make_base(tmp_path / "base")
        (base / "adapter_config.json").write_text('{"base_model_name_or_path": "elsewhere"}')
        with pytest.raises(checkpoints.CheckpointError, match="merge them into the model first"):
            checkpoints.load_language_model(base)


class TestStages:
    @pytest.mark.parametrize("family", FAMILIES)
    def test_each_family_passes_all_three(self, tmp_path, family):
        base = make_base(tmp_path / "base", family, template=True)
        tuned = tmp_path / "sft" / "checkpoint"
        losses = run_sft(tmp_path / "sft", base, write_demonstrations(tmp_path / "demos"))["metrics"]
        # The base's template stands, so there are no markers to learn: matrices of the blocks, nothing else.
        model = checkpoints.load_language_model(base)
        matrices = {f"{name}.weight" for name in lora.linear_layers(model)}
        assert changed(base, tuned) == matrices
        run_reward(tmp_path / "reward", tuned, write_rankings(tmp_path / "ranks"))
        scored = tmp_path / "reward" / "checkpoint"
        assert {name for name in changed_trunk(tuned, scored)} == matrices
        begin = starts.Starts(tuned, scored, tuned)
        run_ppo(tmp_path / "ppo", begin, write_prompts(tmp_path / "prompts"), PPO)
        assert changed(tuned, tmp_path / "ppo" / "checkpoint") == matrices
        assert losses["train_loss"] < events(tmp_path / "sft", "metrics")[0]["values"]["loss"]

    def test_what_a_layer_gains_has_the_rank_asked_for(self, tmp_path):
        base = make_base(tmp_path / "base")
        run_sft(tmp_path / "run", base, write_demonstrations(tmp_path / "demos"))
        name = "model.layers.1.self_attn.o_proj.weight"
        gained = weights(tmp_path / "run" / "checkpoint")[name] - weights(base)[name]
        singular = torch.linalg.svdvals(gained.double())
        assert singular[1] > 1e-3
        assert singular[2] < 1e-6  # float32 rounding of the sum

    def test_markers_of_our_template_are_learnt(self, tmp_path):
        base = make_base(tmp_path / "base")
        run_sft(tmp_path / "run", base, write_demonstrations(tmp_path / "demos"))
        folder = tmp_path / "run" / "checkpoint"
        markers = checkpoints.load_tokenizer(folder).convert_tokens_to_ids(
            [f"<|{role}|>" for role in conversation.ROLES]
        )
        old, new = weights(base)["model.embed_tokens.weight"], weights(folder)["model.embed_tokens.weight"]
        assert new[: len(old)].equal(old)
        assert all(not torch.allclose(new[marker], old.mean(0), atol=1e-4) for marker in markers)

    def test_the_log_says_what_learns(self, tmp_path):
        run_sft(tmp_path / "run", make_base(tmp_path / "base"), write_demonstrations(tmp_path / "demos"))
        assert any("adapters of rank 2: " in event["text"] for event in events(tmp_path / "run", "log"))


def changed_trunk(tuned, scored):
    """`changed` of a language model and a reward model, which have no head in common."""
    before, after = weights(tuned), weights(scored)
    assert after.keys() - before.keys() == {"score.weight"}
    return {name for name in before.keys() & after.keys() if not before[name].equal(after[name])}


class TestResume:
    """A run that goes on is the unbroken one, bit for bit, and its state holds no frozen weight."""

    def test_sft_with_dropout_of_both_kinds(self, tmp_path):
        base, demos = make_base(tmp_path / "base", "gpt2"), write_demonstrations(tmp_path / "demos")
        config = replace(SFT, epochs=3, lora_dropout=0.1)
        straight = run_sft(tmp_path / "straight", base, demos, config)
        cancel_after(tmp_path / "broken", 4, lambda run: sft.train(config, base, demos, run))
        self.assert_small(tmp_path / "broken", "model")
        assert run_sft(tmp_path / "broken", base, demos, config) == straight | {
            "checkpoint": str(tmp_path / "broken" / "checkpoint")
        }

    def test_reward(self, tmp_path):
        start, ranks = make_sft(tmp_path / "sft"), write_rankings(tmp_path / "ranks")
        straight = run_reward(tmp_path / "straight", start, ranks)
        cancel_after(tmp_path / "broken", 2, lambda run: reward.train(REWARD, start, ranks, run))
        self.assert_small(tmp_path / "broken", "model")
        assert run_reward(tmp_path / "broken", start, ranks)["sha256"] == straight["sha256"]

    def test_ppo(self, tmp_path):
        begin, prompts = make_starts(tmp_path, "llama"), write_prompts(tmp_path / "prompts")
        straight = run_ppo(tmp_path / "straight", begin, prompts, PPO)
        cancel_after(tmp_path / "broken", 2, lambda run: ppo.train(PPO, begin, prompts, run))
        self.assert_small(tmp_path / "broken", "policy", "value")
        assert run_ppo(tmp_path / "broken", begin, prompts, PPO)["sha256"] == straight["sha256"]

    def assert_small(self, folder, *roles):
        loop = torch.load(folder / "state" / "state.pt", weights_only=True)["loop"]
        learner = loop.get("learner", loop)
        names = {name for role in roles for name in learner[role]}
        assert names
        assert all("lora_" in name or "trainable_tokens" in name or name == "score.weight" for name in names)
        moments = [each for key in learner if "optimiser" in key for each in learner[key]["state"].values()]
        assert len(moments) == sum(len(learner[role]) for role in roles) - self.tied(learner, roles)

    def tied(self, learner, roles):
        """Learned rows of a tied embedding stand under two names and have one state; peft's copies of the old rows have none."""
        return sum("lm_head.token_adapter" in name or "_original" in name for role in roles for name in learner[role])


class TestPPO:
    @pytest.fixture
    def parts(self, tmp_path):
        return starts.load(make_starts(tmp_path, "llama"), "cpu", adapters=Settings(2))

    def test_frozen_weights_are_in_memory_once(self, parts):
        policy = {id(each) for each in parts.policy.parameters() if not each.requires_grad}
        assert {id(each) for each in parts.reference.parameters()} == policy
        value = {id(each) for each in parts.value.parameters() if not each.requires_grad}
        climbed = {id(each) for each in parts.reward.model.base_model.parameters()}
        assert climbed == value
        assert parts.reward.model.score.weight is not parts.value.score.weight

    def test_reference_and_reward_stay_while_the_others_learn(self, parts):
        before = [answer(parts.reference), answer(parts.reward.model)]
        assert answer(parts.policy).equal(before[0])
        assert (answer(parts.value) - before[1]).abs() < 1e-6  # heads elsewhere in memory add up in another order
        for model in (parts.policy, parts.value):
            stir(model)
        assert answer(parts.reference).equal(before[0])
        assert answer(parts.reward.model).equal(before[1])
        assert not answer(parts.policy).equal(before[0])
        assert not answer(parts.value).equal(before[1])

    def test_a_reference_of_its_own_is_loaded(self, tmp_path):
        begin = make_starts(tmp_path, "llama")
        other = make_sft(tmp_path / "other")
        parts = starts.load(replace(begin, reference=other), "cpu", adapters=Settings(2))
        policy = {id(each) for each in parts.policy.parameters()}
        assert not policy & {id(each) for each in parts.reference.parameters()}

    def test_the_average_is_of_what_learns(self, parts):
        learner = ppo.Learner.begin(parts.policy, parts.value, kl=ppo.kl.FixedKL(0.1), ema=0.5, max_grad_norm=1.0)
        begun = [parameter.detach().clone() for parameter in lora.learned(parts.policy)]
        assert len(learner.average) == len(begun)
        (parts.policy(IDS).logits.square().sum() + parts.value(IDS).logits.sum()).backward()
        learner.update(1e-2, 1e-2)
        for mean, first, now in zip(learner.average, begun, lora.learned(parts.policy), strict=True):
            assert mean.equal(first.lerp(now.detach(), 0.5))

    def test_a_reward_that_is_a_function_leaves_the_value_function_its_head(self, tmp_path):
        begin, prompts = replace(make_starts(tmp_path), reward=None), write_prompts(tmp_path / "prompts")
        run_ppo(tmp_path / "run", begin, prompts, PPO, lambda asked, given: {"score": [1.0] * len(given)})
        assert changed(begin.policy, tmp_path / "run" / "checkpoint")

    def test_the_value_function_begins_as_the_reward_model(self, tmp_path):
        begin = make_starts(tmp_path, "gpt2")
        parts = starts.load(begin, "cpu", adapters=Settings(2))
        plain = checkpoints.load_reward_model(make_reward(tmp_path / "again", begin.policy))
        assert (answer(parts.value) - answer(plain)).abs() < 1e-6
