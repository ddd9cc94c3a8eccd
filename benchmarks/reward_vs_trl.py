"""Reward-model training, comparisons a second: K responses in one row here, pairs in TRL's RewardTrainer.

    python -m benchmarks.reward_vs_trl [--k 4] [--data FOLDER] [--json FILE|-]

Up to K = 4 on qa_feedback (prompts of about 800 tokens, responses of about 100, people's rankings without ties); above on random
words of 256 + K x 64 tokens. A 6-layer Llama of width 256, float32. Both sides start from one model, read the same token ids and
step AdamW with the same settings. Ours is the real loop, `workers.training.reward.train`; it is timed before and after TRL.

`ratio` is against TRL's defaults but for bfloat16 autocast (off: the same number format on both sides), `ratio_best` against the
fastest of its settings tried: no gradient checkpointing, sorted by length, several batch sizes.
"""

import sys
import tempfile
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import torch

from app.starter import corpus
from benchmarks import peers, report, workload
from workers.training import checkpoints, rankings, reward
from workers.training.kwise import SetScorer
from workers.training.rankings import RankedSet

LR = 1e-4
AS_IT_COMES = {"batch_size": 8, "gradient_checkpointing": True, "sorted": False}


def train_ours(sft: Path, snapshot: Path, folder: Path, micro_batch_tokens: int, steps: int) -> list[float]:
    """Seconds of each of `steps` updates over all sets; one more, not counted, goes before."""
    config = reward.RewardConfig(epochs=steps + 1, lr=LR, batch_size=1_000_000, micro_batch_tokens=micro_batch_tokens)
    with workload.TimedRun(folder) as run:
        reward.train(config, sft, snapshot, run)
    return [after - before for before, after in pairwise(run.ended)]


def check_scores(sft: Path, sets: list[RankedSet], theirs: list[float]) -> None:
    """End the program unless both sides score the first comparison alike: the same weights on the same tokens."""
    tokenizer, model = checkpoints.load_tokenizer(sft), checkpoints.reward_model_from(sft, seed=0)
    checkpoints.prepare(model, tokenizer)
    ours = SetScorer.choose(model, tokenizer, sets).score_all(sets[:1])[0][:2]
    if not torch.allclose(torch.tensor(ours), torch.tensor(theirs), atol=1e-4):
        sys.exit(f"TRL scores the first comparison {theirs}, we {ours}: not the same model or tokens")


def describe(sets: list[RankedSet]) -> dict[str, Any]:
    """How large the work is."""
    prompts = [len(element.outputs[0].prompt) for element in sets]
    responses = [len(output.response) for element in sets for output in element.outputs]
    return {
        "sets": len(sets),
        "comparisons": len(workload.pairs(sets)),
        "prompt_tokens_mean": round(sum(prompts) / len(prompts), 1),
        "response_tokens_mean": round(sum(responses) / len(responses), 1),
    }


def measure(options: Any, folder: Path) -> dict[str, Any]:
    """Ours, TRL, ours again."""
    # 1. The data, a tokenizer of it, the model: one folder that both sides load.
    if options.k <= 4:
        path = report.data_file(options.data, "qa_feedback", "feedback_300.json")
        texts = [text for row in workload.qa_feedback(path, 4, 198) for text in (row.prompt, *row.responses)]
    else:
        texts = list(corpus.documents(count=2000))
    sft = workload.make_checkpoint(folder / "sft", texts, workload.Shape(), "sft")
    tokenizer = checkpoints.load_tokenizer(sft)
    if options.k <= 4:
        chosen = workload.qa_feedback(path, options.k, options.sets)
    else:
        chosen = workload.of_lengths(tokenizer, options.k, options.sets, 256, 64)
    snapshot = workload.write_rankings(folder / "snapshot", chosen)
    sets = rankings.read(snapshot, tokenizer, workload.Shape().context).train
    model = checkpoints.reward_model_from(sft, seed=0)
    checkpoints.prepare(model, tokenizer)
    model.save_pretrained(folder / "peer")
    tokenizer.save_pretrained(folder / "peer")

    # 2. Both sides in turn, the machine's peak between them.
    loads = {"before": report.load()}
    seconds = train_ours(sft, snapshot, folder / "first", options.micro_batch_tokens, options.steps)
    peak = report.peak_flops()
    loads["ours"] = report.load()
    variants = {"as it comes": AS_IT_COMES}
    variants |= {
        f"batch {size}": {"batch_size": size, "gradient_checkpointing": False, "sorted": True}
        for size in options.peer_batches
    }
    job = {
        "model": str(folder / "peer"),
        "pairs": workload.pairs(sets),
        "lr": LR,
        "threads": options.threads,
        "variants": variants,
    }
    theirs = peers.run(peers.TRL, "trl_reward", job, options.threads)
    check_scores(sft, sets, theirs["first_scores"])
    seconds += train_ours(sft, snapshot, folder / "second", options.micro_batch_tokens, options.steps)
    peak = median([peak, report.peak_flops()])
    loads["after"] = report.load()

    # 3. Comparisons a second.
    ours = len(workload.pairs(sets)) / median(seconds)
    found = {name: variant["comparisons"] / variant["seconds"] for name, variant in theirs["variants"].items()}
    plain, best = found["as it comes"], max(found.values())
    return {
        "benchmark": "reward_vs_trl",
        **report.machine(options.threads),
        "peer_versions": theirs["versions"],
        "k": options.k,
        "data": describe(sets) | {"source": "qa_feedback" if options.k <= 4 else "random words"},
        "micro_batch_tokens": options.micro_batch_tokens,
        "load_1min": loads,
        "ours_seconds_per_update": [round(second, 3) for second in seconds],
        "ours_comparisons_per_second": round(ours, 2),
        "trl_comparisons_per_second": round(plain, 3),
        "trl_best_comparisons_per_second": round(best, 3),
        "trl_variants": theirs["variants"],
        "ratio": round(ours / plain, 2),
        "ratio_best": round(ours / best, 2),
        "peak_gflops": round(peak / 1e9, 1),
        "mfu": round(workload.step_flops(model.config, sets) / median(seconds) / peak, 3),
    }


def main() -> None:
    """Measure and report."""
    parser = report.parser(__doc__)
    parser.add_argument("--k", type=int, default=4, choices=range(2, 10))
    parser.add_argument("--data", type=Path, help=f"the folder of the data sets; by default what {report.DATA} names")
    parser.add_argument("--sets", type=int, default=8, help="prompts an update")
    parser.add_argument(
        "--steps", type=int, default=5, help="updates of ours that are timed, before and after the peer"
    )
    parser.add_argument("--micro-batch-tokens", type=int, default=16384, help="ours; memory and cache, not the result")
    parser.add_argument("--peer-batches", type=int, nargs="+", default=[1, 2, 8], help="batch sizes TRL is tried at")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        report.publish(measure(options, Path(folder)), options.json)


if __name__ == "__main__":
    main()
