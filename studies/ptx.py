"""PPO-ptx: what PPO does to the likelihood of plain text, without pretraining text mixed in and with it.

    python -m studies.ptx [--seeds 3] [--json FILE|-]
    python -m studies.ptx --choose [--json FILE|-]

InstructGPT, section 3.5 and Eq. 2: PPO alone costs abilities that pretraining gave; gamma E[log pi(x)] over pretraining text x
is there to keep them. Here both are run from one SFT model and one reward model of the starter world, seed by seed with the same
prompts; all that differs is `ptx_coef`. The text that is mixed in is what the starter's base was trained on; measured is
`heldout_text_loss` on documents of the same generator under another seed, on which nothing was trained.

`--choose` is how the coefficient was found: the first of `CANDIDATES`, the smallest, that leaves the text's loss no higher than
the SFT model's, by a seed, held-out prompts and held-out text that the figures reported are not measured on.
"""

import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from app import snapshot
from app.starter import StarterPrompt, corpus, load_starter
from benchmarks import ppo_vs_trl, report, workload
from workers.training import checkpoints, config, ppo, pretraining
from workers.training.events import Run
from workers.training.ppo import PPOConfig
from workers.training.starts import Starts

HARDER: Mapping[str, Any] = {"kl_coef": 0.1, "lr": 1e-3}
"""A twentieth of the starter's KL coefficient and thrice its rate, so that the policy goes far enough to forget."""
PTX_COEF = 0.3
CANDIDATES = (0.1, 0.3, 1.0, 3.0)
"""Coefficients that `--choose` tries, one after the other."""
PTX: Mapping[str, Any] = {"ptx_per_episode": 1, "ptx_tokens": 64}
"""Less text than the paper's eight examples for each episode, which would be most of the time on a CPU."""
CHOOSING = 100
"""Seed of `--choose`; those reported count from 0."""
MIXED, HELDOUT = 12_000, 400
"""Documents to mix in, somewhat more than a run takes, and documents behind them: the last blocks of a text are held out."""
MEASURED = ("text_loss", "score", "kl", "length")
"""What a row holds beside seed and coefficient: nats a token, reward model's score, nats and tokens a response."""

Row = Mapping[str, Any]
"""A policy on held-out prompts and text: of a seed, and of a `ptx_coef`, which the SFT model has not."""


def write_text(folder: Path, split: str, mixed: int = MIXED) -> Path:
    """A snapshot of text: `mixed` documents that the base was trained on, then some of another seed for each split."""
    documents = [*islice(corpus.documents(), mixed), *corpus.documents({"valid": 1, "test": 2}[split], HELDOUT)]
    snapshot.write(folder, "text", {"text.jsonl": ({"text": text} for text in documents)})
    return folder


def write_prompts(folder: Path, prompts: Sequence[StarterPrompt], split: str) -> Path:
    """A snapshot of the training prompts and, held out, those of one other split."""
    kept = [prompt for prompt in prompts if prompt.split in ("train", split)]
    rows = [(prompt.messages[0]["content"], "train" if prompt.split == "train" else "valid") for prompt in kept]
    return workload.write_prompts(folder, rows)


def row(seed: int, ptx_coef: float | None, metrics: Mapping[str, float], end: str = "") -> Row:
    """What PPO's result says of a policy, that before training with `end` "_before"."""
    return {"seed": seed, "ptx_coef": ptx_coef} | {name: metrics[f"heldout_{name}{end}"] for name in MEASURED}


def measure(
    settings: PPOConfig, coefficients: Sequence[float], seeds: Sequence[int], begun: Starts, prompts: Path, folder: Path
) -> list[Row]:
    """A row of the SFT model and one of each coefficient, for each seed."""
    rows = []
    for seed in seeds:
        for coefficient in coefficients:
            setting = replace(settings, seed=seed, ptx_coef=coefficient)
            with Run(folder / f"{seed}-{coefficient}", {}) as run:
                metrics = ppo.train(setting, begun, prompts, run)["metrics"]
            if coefficient == coefficients[0]:
                rows.append(row(seed, None, metrics, "_before"))
            rows.append(row(seed, coefficient, metrics))
    return rows


def of(rows: Sequence[Row], ptx_coef: float | None, name: str) -> list[float]:
    """A figure seed by seed."""
    return [row[name] for row in rows if row["ptx_coef"] == ptx_coef]


def differences(rows: Sequence[Row], one: float | None, other: float | None) -> dict[str, Any]:
    """Each figure of coefficient `one` less that of `other` with the same seed: mean and standard error over seeds."""
    pairs = {name: zip(of(rows, one, name), of(rows, other, name), strict=True) for name in MEASURED}
    return {name: ppo_vs_trl.spread([mine - its for mine, its in pair]) for name, pair in pairs.items()}


def search(settings: PPOConfig, seed: int, begun: Starts, prompts: Path, folder: Path) -> list[Row]:
    """The rows of PPO alone, and of one candidate after the other until one is chosen."""
    rows = measure(settings, [0.0], [seed], begun, prompts, folder)
    for coefficient in CANDIDATES:
        rows += measure(settings, [coefficient], [seed], begun, prompts, folder)[1:]
        if choose(rows) is not None:
            break
    return rows


def choose(rows: Sequence[Row]) -> float | None:
    """The smallest coefficient whose text loss is no higher than the SFT model's; none where all are."""
    (bound,) = of(rows, None, "text_loss")
    kept = [row["ptx_coef"] for row in rows if row["ptx_coef"] and row["text_loss"] <= bound]
    return min(kept, default=None)


def table(found: Mapping[str, Any]) -> Iterator[str]:
    """The report in Markdown: policy by policy, seed by seed; then the differences."""
    yield "| seed | policy | text loss, nats a token | perplexity | score | KL, nats a response | tokens a response |"
    yield "|---|---|---|---|---|---|---|"
    for each in found["rows"]:
        yield _line(str(each["seed"]), each["ptx_coef"], [each[name] for name in MEASURED])
    several = len({each["seed"] for each in found["rows"]}) > 1
    for coefficient in dict.fromkeys(each["ptx_coef"] for each in found["rows"] if several):
        yield _line("mean", coefficient, [fmean(of(found["rows"], coefficient, name)) for name in MEASURED])
    yield ""
    yield "| difference | text loss | score | KL | tokens |"
    yield "|---|---|---|---|---|"
    for name, spreads in found["differences"].items():
        cells = [_with_error(spreads[each]) for each in MEASURED]
        yield f"| {name} | {' | '.join(cells)} |"


def _line(seed: str, ptx_coef: float | None, values: Sequence[float]) -> str:
    loss, score, kl, length = values
    cells = [f"{loss:.3f}", f"{math.exp(loss):.2f}", f"{score:.2f}", f"{kl:.2f}", f"{length:.1f}"]
    return f"| {seed} | {_name(ptx_coef)} | {' | '.join(cells)} |"


def _name(ptx_coef: float | None) -> str:
    if ptx_coef is None:
        return "SFT"
    return f"PPO-ptx {ptx_coef:g}" if ptx_coef else "PPO"


def _with_error(spread: Mapping[str, float | None]) -> str:
    error = spread["standard_error"]
    return f"{spread['mean']:+.3f}" + (f" ± {error:.3f}" if error is not None else "")


def main() -> None:
    """Measure and report."""
    parser = report.parser(__doc__)
    parser.set_defaults(threads=1)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--choose", action="store_true", help="find the coefficient, by a seed that is not reported")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    split = "valid" if options.choose else "test"
    starter = load_starter()
    asked = [prompt for prompt in starter.prompts if len(prompt.messages) == 1]
    settings = config.load(PPOConfig, "ppo", starter.config_path)
    settings = replace(settings, heldout_prompts=len(asked), **HARDER, **PTX)

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # 1. SFT model and reward model, made once; prompts and text.
        begun, accuracy = ppo_vs_trl.make_world(folder, asked)
        begun = replace(begun, text=write_text(folder / "text", split))
        tokenizer, base = checkpoints.load_tokenizer(begun.policy), checkpoints.load_language_model(starter.base_folder)
        text = pretraining.Text.read(folder / "text", tokenizer, settings.ptx_tokens)
        base_loss = pretraining.loss(base, tokenizer, text.heldout, settings.micro_batch_tokens)
        # 2. PPO, without the mix and with it.
        prompts = write_prompts(folder / "prompts", asked, split)
        if options.choose:
            rows = search(settings, CHOOSING, begun, prompts, folder / "runs")
        else:
            rows = measure(settings, [0.0, PTX_COEF], range(options.seeds), begun, prompts, folder / "runs")

    found = {"study": "ptx", **report.machine(options.threads)}
    found |= {"settings": asdict(settings), "heldout_split": split}
    found |= {"reward_train_accuracy": round(accuracy, 4), "base_text_loss": base_loss, "rows": rows}
    tried = list(dict.fromkeys(row["ptx_coef"] for row in rows if row["ptx_coef"]))
    pairs = [(0.0, None), *((mixed, other) for mixed in tried for other in (None, 0.0))]
    found["differences"] = {f"{_name(one)} less {_name(other)}": differences(rows, one, other) for one, other in pairs}
    if options.choose:
        found["chosen"] = choose(rows)
    print("\n".join(table(found)))
    report.publish(found, options.json)


if __name__ == "__main__":
    main()
