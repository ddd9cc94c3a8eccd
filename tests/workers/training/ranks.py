"""The three stages in as many processes as this is started in: `python -m tests.workers.training.ranks FOLDER`.

In float64, so that what several processes compute differs from what one does by the order of additions alone. Each process goes
through the same runs; `FOLDER/inputs` is made beforehand by `prepare`.
"""

import contextlib
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from tests.workers.training.factories import (
    make_base,
    make_reward,
    make_sft,
    open_run,
    write_demonstrations,
    write_prompts,
    write_rankings,
    write_text,
)
from tests.workers.training.ppo_runs import QUICK
from workers.training import checkpoints, parallel, ppo, reward, sft
from workers.training.events import CancelledError
from workers.training.process import end_rank

SFT = sft.SFTConfig(epochs=3, lr=1e-3, batch_size=5, micro_batch_tokens=60, pretrain_tokens=16, max_new_tokens=6)
"""Batches that do not divide by two, and micro-batches of a single row."""
REWARD = reward.RewardConfig(lr=1e-3, batch_size=7, micro_batch_tokens=90)
PPO = replace(
    QUICK, ptx_coef=1.0, ptx_tokens=16, report_every=2, kl_target=1.0, kl_horizon=100, inner_epochs=2, kl_max=100.0
)


def prepare(folder):
    """What the runs begin from."""
    inputs = folder / "inputs"
    make_base(inputs / "base")
    make_reward(inputs / "rm", make_sft(inputs / "sft"))
    write_demonstrations(inputs / "demonstrations")
    write_rankings(inputs / "rankings")
    write_prompts(inputs / "prompts")
    write_text(inputs / "text")


def run_sft(inputs, out, **options):
    extras = sft.Extras(inputs / "rm", inputs / "text")
    with open_run(out, **options) as run:
        return sft.train(SFT, inputs / "base", inputs / "demonstrations", run, extras=extras)


def run_reward(inputs, out, **options):
    with open_run(out, **options) as run:
        return reward.train(REWARD, inputs / "sft", inputs / "rankings", run, incumbent=inputs / "rm")


def run_ppo(inputs, out, **options):
    starts = ppo.Starts(inputs / "sft", inputs / "rm", inputs / "sft", inputs / "rm", inputs / "text")
    with open_run(out, **options) as run:
        return ppo.train(PPO, starts, inputs / "prompts", run)


STAGES = {"sft": run_sft, "reward": run_reward, "ppo": run_ppo}
LOOKS = {"sft": 5, "reward": 2, "ppo": 10}
"""After how many looks at the order to stop it comes: in the fifth step of SFT, an early one of the reward
model, within the second iteration of PPO."""


class Interrupted:
    """Asks one process of a run to stop, the last one, when that run has looked at the order to stop `looks` times."""

    def __init__(self, looks):
        self.looks, self.anywhere = looks, parallel.anywhere

    def __call__(self, *facts):
        self.looks -= 1
        is_asked = self.looks == 0 and parallel.rank() == parallel.size() - 1
        return self.anywhere(facts[0] or is_asked, *facts[1:])


def interrupted(stage, looks, inputs, out):
    """Leave a run with its state saved."""
    order = parallel.anywhere = Interrupted(looks)
    try:
        stage(inputs, out)
    except CancelledError:
        return
    finally:
        parallel.anywhere = order.anywhere
    raise AssertionError(f"{out} was not interrupted")


@contextlib.contextmanager
def in_float64():
    """Every model is loaded, and every new tensor made, in float64."""
    loaders = {name: getattr(checkpoints, name) for name in ("load_language_model", "load_reward_model")}
    from_policy, dtype = checkpoints.reward_model_from, torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    for name, load in loaders.items():
        setattr(checkpoints, name, partial(load, dtype=torch.float64))
    checkpoints.reward_model_from = partial(from_policy, dtype=torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(dtype)
        checkpoints.reward_model_from = from_policy
        for name, load in loaders.items():
            setattr(checkpoints, name, load)


def main(folder):
    """Each stage unbroken; interrupted and continued; interrupted and left."""
    torch.set_num_threads(1)
    inputs, out = folder / "inputs", folder / str(parallel.size())
    with in_float64():
        for name, stage in STAGES.items():
            stage(inputs, out / name)
        for name, looks in LOOKS.items():
            interrupted(STAGES[name], looks, inputs, out / f"{name}-left")
            interrupted(STAGES[name], looks, inputs, out / f"{name}-resumed")
            STAGES[name](inputs, out / f"{name}-resumed")


if __name__ == "__main__":
    with parallel.group():
        main(Path(sys.argv[1]))
    end_rank(0)
