"""Scoring: K responses of a prompt in one row against one by one, and the latency of one response under the starter's model.

    python -m benchmarks.scoring [--k 9] [--json FILE|-]

The sets are random words, prompt and response lengths as printed; the model is a 6-layer Llama of width 256, float32. The latency
is that of one response to one prompt, tokens to score, under a reward model on the starter project's base.
"""

import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from app.starter import corpus
from benchmarks import report, workload
from workers.training import checkpoints, conversation, data, rankings, reward
from workers.training.kwise import SetScorer

STARTER = report.ROOT / "app" / "starter" / "model"
LENGTHS = ((256, 64), (800, 100))
"""Tokens of prompt and of response."""


def timed(work: Callable[[], object], times: int) -> list[float]:
    """Seconds of each of some calls; one more, not counted, goes before."""
    found = []
    for _ in range(times + 1):
        began = time.perf_counter()
        work()
        found.append(time.perf_counter() - began)
    return found[1:]


def one_by_one(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, outputs: Sequence[data.Pair]) -> list[float]:
    """Scores of responses, a forward pass each."""
    return [reward.score_rows(model, tokenizer, [output])[0] for output in outputs]


def measure_sets(options: Any, folder: Path) -> list[dict[str, Any]]:
    """One row against one by one, at each pair of lengths."""
    sft = workload.make_checkpoint(folder / "sft", list(corpus.documents(count=400)), workload.Shape(), "sft")
    tokenizer, model = checkpoints.load_tokenizer(sft), checkpoints.reward_model_from(sft, seed=0)
    checkpoints.prepare(model, tokenizer)
    found = []
    for prompt, response in LENGTHS:
        chosen = workload.of_lengths(tokenizer, options.k, 1, prompt, response)
        snapshot = workload.write_rankings(folder / f"{prompt}", chosen)
        sets = rankings.read(snapshot, tokenizer, workload.Shape().context).train
        scorer = SetScorer.choose(model, tokenizer, sets)
        together = median(timed(partial(scorer.score_all, sets), options.times))
        alone = median(timed(partial(one_by_one, model, tokenizer, sets[0].outputs), options.times))
        found.append(
            {
                "prompt_tokens": prompt,
                "response_tokens": response,
                "one_row_ms": round(1000 * together, 2),
                "one_by_one_ms": round(1000 * alone, 2),
                "ratio": round(alone / together, 2),
            }
        )
    return found


def measure_latency(options: Any) -> dict[str, Any]:
    """Milliseconds of one score under the starter's model."""
    tokenizer, model = checkpoints.load_tokenizer(STARTER), checkpoints.reward_model_from(STARTER, seed=0)
    conversation.write_template(tokenizer)
    checkpoints.prepare(model, tokenizer)
    pair = data.encode_pair(tokenizer, workload.user("What colour is the fox?"), "The fox is red.")
    seconds = timed(lambda: reward.score_rows(model, tokenizer, [pair]), 20 * options.times)
    return {
        "tokens": len(pair),
        "p50_ms": round(1000 * median(seconds), 2),
        "p95_ms": round(1000 * quantiles(seconds, n=20)[-1], 2),
    }


def main() -> None:
    """Measure and report."""
    parser = report.parser(__doc__)
    parser.add_argument("--k", type=int, default=9, choices=range(2, 10))
    parser.add_argument("--times", type=int, default=20, help="calls that are timed, of which the median counts")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    before = report.load()
    with tempfile.TemporaryDirectory() as folder:
        found = {"sets": measure_sets(options, Path(folder)), "one_starter_response": measure_latency(options)}
    loads = {"before": before, "after": report.load()}
    about = {"benchmark": "scoring", **report.machine(options.threads), "k": options.k, "load_1min": loads}
    report.publish(about | found, options.json)


if __name__ == "__main__":
    main()
