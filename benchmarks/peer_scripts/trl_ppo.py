"""TRL's PPOTrainer, timed: a job as JSON on standard input, the answer as JSON in the last line of standard output.

The job: folders of `policy` and `reward`, `prompts` (token ids), `settings` of PPOConfig that all variants share, and `variants`
by name, each with further settings. Every variant trains afresh. Where the job names a folder under `save`, the policy of every
`save_every`th iteration is kept there, at variant/iteration.

The scores of the reward model and of the value function that begins as it are taken less its `reward_mean`, as on our side.
"""

import contextlib
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import accelerate
import torch
import transformers
import trl
from datasets import Dataset
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    TrainerCallback,
    set_seed,
)
from trl.experimental.ppo import PPOConfig, PPOTrainer

LOGGED = {"objective/scores": "score", "objective/kl": "kl", "val/num_eos_tokens": "end_tokens"}


class Watch(TrainerCallback):
    """When each iteration ended, what was logged of it, and the policy of some."""

    def __init__(self, folder: Path | None, every: int) -> None:
        self.folder, self.every = folder, every
        self.ended: list[float] = []
        self.told: list[dict[str, float]] = []

    def on_step_end(self, _: Any, state: Any, __: Any, model: Any = None, **___: Any) -> None:
        """Note the time, keep the policy."""
        self.ended.append(time.perf_counter())
        if self.folder is not None and state.global_step % self.every == 0:
            model.policy.save_pretrained(self.folder / str(state.global_step))

    def on_log(self, _: Any, __: Any, ___: Any, logs: dict[str, float] | None = None, **____: Any) -> None:
        """Note what both sides can tell of an iteration."""
        self.told.append({name: float((logs or {})[key]) for key, name in LOGGED.items()})


def load_policy(job: dict[str, Any]) -> Any:
    """The policy in float32."""
    return AutoModelForCausalLM.from_pretrained(job["policy"], dtype=torch.float32)


def load_reward(job: dict[str, Any]) -> Any:
    """The reward model in float32, less its mean."""
    model = AutoModelForSequenceClassification.from_pretrained(job["reward"], num_labels=1, dtype=torch.float32)
    model.score.bias = torch.nn.Parameter(torch.tensor([-model.config.reward_mean]), requires_grad=False)
    return model.eval()


def train(job: dict[str, Any], name: str, variant: dict[str, Any]) -> dict[str, Any]:
    """Seconds of each iteration but the first, what was logged, and the load of one variant."""
    set_seed(variant.get("seed", 0))  # the trainer itself leaves the order of its minibatches unseeded
    watch = Watch(Path(job["save"]) / name if "save" in job else None, job.get("save_every", 1))
    tokenizer = AutoTokenizer.from_pretrained(job["policy"], padding_side="left")
    with tempfile.TemporaryDirectory() as folder:
        settings = PPOConfig(
            output_dir=folder,
            bf16=False,
            adam_beta1=0.9,
            adam_beta2=0.95,
            weight_decay=0.0,
            lr_scheduler_type="constant",
            use_cpu=True,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            **job["settings"],
            **variant,
        )
        trainer = PPOTrainer(
            args=settings,
            processing_class=tokenizer,
            model=load_policy(job),
            ref_model=load_policy(job),
            reward_model=load_reward(job),
            value_model=load_reward(job),
            train_dataset=Dataset.from_dict({"input_ids": job["prompts"]}),
            callbacks=[watch],
        )
        trainer.train()
    seconds = [after - before for before, after in zip(watch.ended, watch.ended[1:], strict=False)]
    return {**variant, "seconds": seconds, "told": watch.told, "load": round(os.getloadavg()[0], 2)}


def main() -> None:
    """Answer one job."""
    job = json.load(sys.stdin)
    torch.set_num_threads(job["threads"])
    with contextlib.redirect_stdout(sys.stderr):
        with torch.no_grad():
            first_score = load_reward(job)(torch.tensor([job["prompts"][0]])).logits.item()
        found = {name: train(job, name, variant) for name, variant in job["variants"].items()}
    versions = {module.__name__: module.__version__ for module in (trl, transformers, torch, accelerate)}
    print(json.dumps({"versions": versions, "first_score": first_score, "variants": found}))


if __name__ == "__main__":
    main()
