"""TRL's RewardTrainer, timed: a job as JSON on standard input, the answer as JSON in the last line of standard output.

The job: `model` and `pairs` (token ids of chosen and rejected), optimiser settings, and `variants` by name, each a batch size
and whether to checkpoint gradients and to sort by length. Every variant trains afresh on all pairs once, behind one batch that
is not counted.
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
from transformers import AutoModelForSequenceClassification, AutoTokenizer, TrainerCallback


class Clock(TrainerCallback):
    """When each step ended."""

    def __init__(self) -> None:
        self.ended: list[float] = []

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Note the time."""
        self.ended.append(time.perf_counter())


def load(job: dict[str, Any]) -> Any:
    """The model in float32."""
    return AutoModelForSequenceClassification.from_pretrained(job["model"], num_labels=1, dtype=torch.float32)


def train(job: dict[str, Any], variant: dict[str, Any]) -> dict[str, Any]:
    """Comparisons, seconds and load of one variant."""
    size = variant["batch_size"]
    rows = list(job["pairs"])
    if variant["sorted"]:
        rows.sort(key=lambda pair: max(map(len, pair)))
    else:
        random.Random(0).shuffle(rows)
    rows = rows[:size] + rows  # the first batch warms up
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        settings = trl.RewardConfig(
            output_dir=folder,
            per_device_train_batch_size=size,
            gradient_checkpointing=variant["gradient_checkpointing"],
            bf16=variant.get("bf16", False),
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
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        trainer = trl.RewardTrainer(
            model=load(job),
            args=settings,
            train_dataset=Dataset.from_dict(
                {"chosen_ids": [row[0] for row in rows], "rejected_ids": [row[1] for row in rows]}
            ),
            processing_class=AutoTokenizer.from_pretrained(job["model"]),
            callbacks=[clock],
        )
        trainer.train()
    seconds = clock.ended[-1] - clock.ended[0]
    return {**variant, "comparisons": len(rows) - size, "seconds": seconds, "load": round(os.getloadavg()[0], 2)}


def main() -> None:
    """Answer one job."""
    job = json.load(sys.stdin)
    torch.set_num_threads(job["threads"])
    with contextlib.redirect_stdout(sys.stderr):
        model = load(job).eval()
        with torch.no_grad():
            scores = [model(torch.tensor([ids])).logits.item() for ids in job["pairs"][0]]
        found = {name: train(job, variant) for name, variant in job["variants"].items()}
    versions = {module.__name__: module.__version__ for module in (trl, transformers, torch, accelerate)}
    print(json.dumps({"versions": versions, "first_scores": scores, "variants": found}))


if __name__ == "__main__":
    main()
