"""TRL's SFTTrainer, timed: a job as JSON on standard input, the answer as JSON in the last line of standard output.

The job: `model`, `rows` (token ids of prompt and of response), optimiser settings, and `variants` by name, each a batch size and
whether to checkpoint gradients and to sort by length. The loss sees responses only. Every variant trains afresh on all
rows once, behind one batch that is not counted.
"""

import contextlib
import json
import os
import random
import sys
import tempfile
import time
from typing import Any

import accelerate
import torch
import transformers
import trl
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback


class Clock(TrainerCallback):
    """When each step ended, and the loss that was logged for it."""

    def __init__(self) -> None:
        self.ended: list[float] = []
        self.losses: list[float] = []

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Note the time."""
        self.ended.append(time.perf_counter())

    def on_log(self, _: Any, __: Any, ___: Any, logs: dict[str, float] | None = None, **____: Any) -> None:
        """Note the loss."""
        if logs and "loss" in logs:
            self.losses.append(float(logs["loss"]))


def load(job: dict[str, Any]) -> Any:
    """The model in float32."""
    return AutoModelForCausalLM.from_pretrained(job["model"], dtype=torch.float32)


def train(job: dict[str, Any], variant: dict[str, Any]) -> dict[str, Any]:
    """Rows, seconds, first loss and load of one variant."""
    size = variant["batch_size"]
    rows = list(job["rows"])
    if variant["sorted"]:
        rows.sort(key=lambda row: len(row[0]) + len(row[1]))
    else:
        random.Random(0).shuffle(rows)
    rows = rows[:size] + rows  # the first batch warms up
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        settings = trl.SFTConfig(
            output_dir=folder,
            per_device_train_batch_size=size,
            gradient_checkpointing=variant["gradient_checkpointing"],
            bf16=False,
            learning_rate=job["lr"],
            adam_beta1=0.9,
            adam_beta2=0.95,
            weight_decay=0.0,
            max_grad_norm=1.0,
            lr_scheduler_type="cosine",
            num_train_epochs=1,
            max_length=None,
            train_sampling_strategy="sequential",
            use_cpu=True,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        trainer = trl.SFTTrainer(
            model=load(job),
            args=settings,
            train_dataset=Dataset.from_dict(
                {
                    "input_ids": [prompt + response for prompt, response in rows],
                    "labels": [[-100] * len(prompt) + response for prompt, response in rows],
                }
            ),
            processing_class=AutoTokenizer.from_pretrained(job["model"]),
            callbacks=[clock],
        )
        trainer.train()
    seconds = clock.ended[-1] - clock.ended[0]
    load_now = round(os.getloadavg()[0], 2)
    return {**variant, "rows": len(rows) - size, "seconds": seconds, "first_loss": clock.losses[0], "load": load_now}


def main() -> None:
    """Answer one job."""
    job = json.load(sys.stdin)
    torch.set_num_threads(job["threads"])
    with contextlib.redirect_stdout(sys.stderr):
        found = {name: train(job, variant) for name, variant in job["variants"].items()}
    versions = {module.__name__: module.__version__ for module in (trl, transformers, torch, accelerate)}
    print(json.dumps({"versions": versions, "variants": found}))


if __name__ == "__main__":
    main()
