"""Supervised fine-tuning, demonstrations a second: our loop against TRL's SFTTrainer.

    python -m benchmarks.sft_vs_trl [--data FOLDER] [--json FILE|-]

On rasbt_instructions, loss on responses only. A 6-layer Llama of width 256, float32. Both sides start from one model, read the
same token ids and step AdamW with the same settings. Ours is the real loop, `workers.training.sft.train`, at its default batch of
32; it is timed before and after TRL.

`ratio` is against TRL's defaults but for bfloat16 autocast (off: the same number format on both sides), `ratio_best` against the
fastest of its settings tried: no gradient checkpointing, sorted by length, several batch sizes. Its packing needs FlashAttention,
which there is none of on a CPU.
"""

import json
import tempfile
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import torch

from app import snapshot
from benchmarks import peers, report, workload
from workers.training import checkpoints, data, sft

LR = 1e-4
AS_IT_COMES = {"batch_size": 8, "gradient_checkpointing": True, "sorted": False}
TRIED = (8, 32)
"""Batch sizes that TRL is tried at."""


def demonstrations(path: Path, count: int) -> list[snapshot.Row]:
    """The first rows of rasbt_instructions; an input stands behind its instruction."""
    rows = json.loads(path.read_text(encoding="utf-8"))[:count]
    prompts = [row["instruction"] + (f"\n\n{row['input']}" if row["input"] else "") for row in rows]
    return [
        workload.demonstration(at, prompt, row["output"])
        for at, (prompt, row) in enumerate(zip(prompts, rows, strict=True))
    ]


def train_ours(base: Path, folder: Path, epochs: int, options: Any) -> list[float]:
    """Seconds of each of `epochs` passes over the demonstrations; one more, not counted, goes before."""
    config = sft.SFTConfig(epochs=epochs + 1, lr=LR, micro_batch_tokens=options.micro_batch_tokens)
    with workload.TimedRun(folder / "run") as run:
        sft.train(config, base, folder.parent / "snapshot", run)
    per_epoch = len(run.ended) // (epochs + 1)
    ends = run.ended[per_epoch - 1 :: per_epoch]
    return [after - before for before, after in pairwise(ends)]


def measure(options: Any, folder: Path) -> dict[str, Any]:
    """Ours, TRL, ours again."""
    # 1. The data, a tokenizer of it, the model: one folder that both sides load.
    path = report.data_file(options.data, "rasbt_instructions", "instruction-data.json")
    written = demonstrations(path, options.rows)
    texts = [text for row in written for text in (row["prompt"][0]["content"], row["response"])]
    base = workload.make_checkpoint(folder / "base", texts, workload.Shape(), "base")
    snapshot.write(folder / "snapshot", "demonstrations", {"demonstrations.jsonl": written})
    rows = data.read_demonstrations(folder / "snapshot", checkpoints.load_tokenizer(base), 2048).train
    job = {
        "model": str(base),
        "rows": [(row.prompt, row.response) for row in rows],
        "lr": LR,
        "threads": options.threads,
        "variants": {"as it comes": AS_IT_COMES}
        | {f"batch {size}": {"batch_size": size, "gradient_checkpointing": False, "sorted": True} for size in TRIED},
    }

    # 2. Both sides in turn.
    loads = {"before": report.load()}
    seconds = train_ours(base, folder / "first", options.epochs, options)
    loads["ours"] = report.load()
    theirs = peers.run(peers.TRL, "trl_sft", job, options.threads)
    seconds += train_ours(base, folder / "second", options.epochs, options)
    loads["after"] = report.load()

    # 3. Demonstrations a second.
    ours = len(rows) / median(seconds)
    found = {name: variant["rows"] / variant["seconds"] for name, variant in theirs["variants"].items()}
    plain, best = found["as it comes"], max(found.values())
    tokens = sum(map(len, rows))
    return {
        "benchmark": "sft_vs_trl",
        **report.machine(options.threads),
        "peer_versions": theirs["versions"],
        "data": {
            "source": "rasbt_instructions",
            "demonstrations": len(rows),
            "tokens_mean": round(tokens / len(rows), 1),
        },
        "micro_batch_tokens": options.micro_batch_tokens,
        "load_1min": loads,
        "ours_seconds_per_epoch": [round(second, 3) for second in seconds],
        "ours_demonstrations_per_second": round(ours, 2),
        "trl_demonstrations_per_second": round(plain, 2),
        "trl_best_demonstrations_per_second": round(best, 2),
        "trl_variants": theirs["variants"],
        "ratio": round(ours / plain, 2),
        "ratio_best": round(ours / best, 2),
    }


def main() -> None:
    """Measure and report."""
    parser = report.parser(__doc__)
    parser.add_argument("--data", type=Path, help=f"the folder of the data sets; by default what {report.DATA} names")
    parser.add_argument("--rows", type=int, default=512, help="demonstrations")
    parser.add_argument(
        "--epochs", type=int, default=3, help="passes of ours that are timed, before and after the peer"
    )
    parser.add_argument("--micro-batch-tokens", type=int, default=16384, help="ours; memory and cache, not the result")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        report.publish(measure(options, Path(folder)), options.json)


if __name__ == "__main__":
    main()
