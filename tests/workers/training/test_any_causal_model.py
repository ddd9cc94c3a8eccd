"""Bases of every kind pass all three stages with all their weights; what each stage is about is tested beside it."""

from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from tests.workers.training.factories import (
    FAMILIES,
    events,
    make_base,
    open_run,
    user,
    weights,
    write_demonstrations,
    write_prompts,
    write_rankings,
)
from tests.workers.training.ppo_runs import QUICK, run_ppo
from workers.training import checkpoints, conversation, data, reward, sft
from workers.training.reward import RewardConfig
from workers.training.sft import SFTConfig
from workers.training.starts import Starts

BASES = {
    "no beginning token, head of its own": {"begin": False, "tied": False},
    "PAD is the end token": {"pad_is_end": True},
    "template, PAD is the end token, no beginning token": {"template": True, "pad_is_end": True, "begin": False},
}


@pytest.mark.parametrize("options", BASES.values(), ids=BASES.keys())
@pytest.mark.parametrize("family", FAMILIES)
def test_passes_all_three_stages_and_opens_in_plain_transformers(tmp_path, family, options):
    base = make_base(tmp_path / "base", family, **options)
    with open_run(tmp_path / "sft") as run:
        config = SFTConfig(epochs=1, lr=1e-3, batch_size=4, choose="last")
        sft.train(config, base, write_demonstrations(tmp_path / "demos"), run)
    tuned = tmp_path / "sft" / "checkpoint"
    with open_run(tmp_path / "reward") as run:
        found = reward.train(RewardConfig(lr=1e-3, batch_size=8), tuned, write_rankings(tmp_path / "ranks"), run)
    scored = tmp_path / "reward" / "checkpoint"
    assert 0 <= found["metrics"]["accuracy"] <= 1
    begin = Starts(tuned, scored, tuned)
    run_ppo(tmp_path / "ppo", begin, write_prompts(tmp_path / "prompts"), replace(QUICK, episodes=24))
    first, _ = events(tmp_path / "ppo", "metrics")
    assert first["values"]["kl"] == pytest.approx(0.0, abs=1e-4)

    learned = tmp_path / "ppo" / "checkpoint"
    before, after = weights(tuned), weights(learned)
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[name], after[name]) for name in before)
    tokenizer, policy = AutoTokenizer.from_pretrained(learned), AutoModelForCausalLM.from_pretrained(learned)
    judge = AutoModelForSequenceClassification.from_pretrained(scored)
    assert policy.config.pad_token_id == judge.config.pad_token_id == tokenizer.pad_token_id != tokenizer.eos_token_id
    pair = data.encode_pair(tokenizer, user("who likes the cat"), "the dog")
    ours = reward.score_rows(checkpoints.load_reward_model(scored), checkpoints.load_tokenizer(scored), [pair])
    plain = judge(torch.tensor([pair.prompt + pair.response])).logits.item()
    assert ours[0] == pytest.approx(plain, abs=1e-4)
    assert conversation.format_sha256(tokenizer) == conversation.format_sha256(checkpoints.load_tokenizer(scored))
