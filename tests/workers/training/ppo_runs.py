"""Tiny runs of PPO for its tests: settings that take a second, starts, rewards that are plain functions."""

from tests.workers.training.factories import make_reward, make_sft, open_run
from workers.training import ppo
from workers.training.ppo import PPOConfig, Starts

QUICK = PPOConfig(
    episodes=48, batch_size=12, minibatch_size=4, lr=1e-3, value_lr=1e-3, warmup=1, max_new_tokens=8, ema=0.5
)
"""Four iterations of three updates."""


def make_starts(folder, family="untied", **options):
    """A policy with a reward model, the policy its own reference."""
    sft = make_sft(folder / "sft", family, **options)
    return Starts(sft, make_reward(folder / "reward", sft), sft)


def run_ppo(folder, starts, prompts, config=QUICK, reward=None, **options):
    with open_run(folder, **options) as run:
        return ppo.train(config, starts, prompts, run, reward=reward)


def read(starts, prompts, config=QUICK, reward=None):
    """The models of a run and its training prompts."""
    parts = ppo.load(starts, "cpu", reward)
    return parts, ppo.read_material(config, starts, prompts, parts).prompts


def even(prompts, responses):
    """A reward: the share of even tokens, times four. 2 for a random policy, 4 at best."""
    shares = [sum(token % 2 == 0 for token in each.token_ids) / len(each.token_ids) for each in responses]
    return {"score": [4 * share for share in shares], "length": [len(each.token_ids) for each in responses]}


def odd(prompts, responses):
    """The opposite of `even`."""
    return {"score": [4 - score for score in even(prompts, responses)["score"]]}
