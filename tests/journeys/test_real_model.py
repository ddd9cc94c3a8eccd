"""Show 6: a real language model as the base. Its samples reach the ranking page, a reward model and PPO learn from rankings.

Needs the folder that `../shared/tools/small_model.py OUT` writes (SmolLM2-135M-Instruct), named by REAL_MODEL.
"""

import json
import math
import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from app.settings import Settings
from workers.simulate import stack
from workers.simulate.browser import Browser
from workers.simulate.labellers import Labeller, ShownTask, read_task
from workers.simulate.owner import Owner

MODEL = os.environ.get("REAL_MODEL", "")
CONFIG = """
[sft]
epochs = 2
batch_size = 2
lr = 1e-5
dropout = 0.0
[reward]
epochs = 6
batch_size = 2
lr = 2e-5
[ppo]
episodes = 24
batch_size = 8
minibatch_size = 4
max_new_tokens = 24
heldout_prompts = 2
lr = 2e-6
ema = 0.0
"""
SETTINGS = {
    "automation-is_on": None,
    "automation-ready_tasks": "6",
    "automation-judgements_per_reward_model": "6",
    "sampling-max_new_tokens": "24",
    "sampling-valid_share": "0",
    "training_config": CONFIG,
}
ASKS = (
    "Name a bird that can swim.",
    "What is the capital of France?",
    "Write one line about the sea.",
    "Give me a word that rhymes with light.",
    "Why is the sky blue?",
    "Say good morning to a friend.",
    "How many legs has a spider?",
    "Suggest a name for a cat.",
)
SECONDS = 900.0


@pytest.fixture
def owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Owner]:
    """The owner of a project on the real model, in a running installation."""
    monkeypatch.setenv("PREFERABLE_BASE_MODEL", MODEL)
    with ExitStack() as open_:
        link = open_.enter_context(stack.running(Settings(home=tmp_path / "home"), tmp_path / "up.log"))
        browser = open_.enter_context(Browser(link.partition("/enter/")[0]))
        starter = Owner(browser, "starter")
        starter.enter(link)
        starter.change_settings(**{"automation-is_on": None})  # both cores for the real model
        yield Owner(browser, Path(MODEL).name.lower())


class Brief(Labeller):
    """Prefers the shorter of two responses."""

    def decide(self, task: ShownTask) -> tuple[list[int | None], dict[str, str]]:
        lengths = sorted({len(output.text) for output in task.outputs})
        tiers: list[int | None] = [lengths.index(len(output.text)) + 1 for output in task.outputs]
        return tiers, {f"tier-{output.name}": str(tier) for output, tier in zip(task.outputs, tiers, strict=True)}


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.skipif(not MODEL, reason="REAL_MODEL names no folder; see the docstring of this file (2026-11-23)")
def test_a_real_model_goes_through_the_loop(owner: Owner, tmp_path: Path) -> None:
    owner.change_settings(**SETTINGS)
    import_prompts(owner, tmp_path / "prompts.jsonl")
    write_demonstrations(owner, 4)

    # Its samples reach the ranking page; people rank them once SFT has learned from the demonstrations.
    owner.change_settings(**{"automation-is_on": "true"})
    person = Brief(owner.browser, owner.project, "", "", seed=1, noise=0.0)
    page = owner.wait("task", person.next_task, seconds=SECONDS)
    assert len(read_task(page).outputs) == 4
    owner.wait("SFT model", lambda: owner.active("SFT"), seconds=SECONDS)
    for _ in range(6):
        page = owner.wait("task", person.next_task, seconds=SECONDS)
        person.judge(page)

    # The reward model's loss falls, PPO's divergence stays finite.
    owner.wait("policy", lambda: owner.newest("P"), seconds=SECONDS)
    loss = curve(owner, "Reward model run 1", "loss")
    assert sum(loss[-3:]) < sum(loss[:3])
    divergence = curve(owner, "PPO run 1", "kl")
    assert divergence and all(map(math.isfinite, divergence))
    assert abs(divergence[0]) < 1e-3, "the first iteration samples from the reference itself"


def import_prompts(owner: Owner, file: Path) -> None:
    """Import the prompts as a file, all of them for training but the last two."""
    splits = ["train"] * (len(ASKS) - 2) + ["valid"] * 2
    lines = [
        {"prompt": ask, "split": split, "source": f"writer-{split}"} for ask, split in zip(ASKS, splits, strict=True)
    ]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    page = owner.browser.open(f"/p/{owner.project}/imports/new")
    page = owner.browser.upload(page.form("/imports"), page, {"file": file}, kind="prompts")
    address = owner.browser.submit(page.form("/start"), page, pool="Real").url
    owner.wait("import", lambda: "Done:" in owner.browser.text(address), seconds=SECONDS)


def write_demonstrations(owner: Owner, count: int) -> None:
    """Write demonstrations, each as the next task asks."""
    page = owner.browser.open(f"/p/{owner.project}/demonstrate")
    page = owner.browser.submit(page.form("/demonstrate/next"), page)
    for number in range(count):
        page = owner.browser.submit(page.form("/submit"), page, text=f"A short, friendly answer, number {number}.")


def curve(owner: Owner, run: str, name: str) -> list[float]:
    """The values of one curve of a run, by the run's name on the runs page."""
    page = owner.browser.open(f"/p/{owner.project}/runs")
    path = next(link.attributes["href"] for link in page.root.all("a", href=None) if link.text() == run)
    data = json.loads(owner.browser.text(f"{path}/metrics.json"))
    (values,) = (one["values"] for one in data["curves"] if one["name"] == name)
    return [value for value in values if value is not None]
