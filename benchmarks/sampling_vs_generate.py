"""Sampling, tokens a second: our engine against transformers' `generate`, several responses to each prompt.

    python -m benchmarks.sampling_vs_generate --model FOLDER [--dense] [--json FILE|-]

Responses end at stated lengths, spread evenly over 1 to the maximum (mean: half of it), or with --dense all at the maximum. Both
sides keep the same number of rows at once, run in a process of their own, and report its peak of resident memory. float32,
temperature 1, the whole vocabulary. Counted are the tokens of responses, the end token included; what `generate` computes behind
it is not.
"""

import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch

from app.starter import corpus
from benchmarks import peers, report
from benchmarks.peer_scripts.ends import Ends, peak_mib
from workers.training import checkpoints
from workers.training.engine import Decoding, Engine


def sample(job: dict[str, Any]) -> dict[str, Any]:
    """Our side of a job, in a process of its own; the answer as the peer gives it."""
    torch.set_num_threads(job["threads"])
    engine = Engine.load(job["model"], max_rows=job["rows"])
    end = engine.tokenizer.eos_token_id
    ends = Ends(end, len(job["prompts"][0]), job["max_new_tokens"], dense=job["dense"])
    engine.model.register_forward_hook(ends, with_kwargs=True)
    began = time.perf_counter()
    answers = engine.sample_ids(job["prompts"], Decoding(job["responses"], max_new_tokens=job["max_new_tokens"]))
    seconds = time.perf_counter() - began
    tokens = sum(len(answer.token_ids) for of_prompt in answers for answer in of_prompt)
    return {"tokens": tokens, "seconds": seconds, "peak_mib": peak_mib(), "load": report.load()}


def measure(options: Any) -> dict[str, Any]:
    """Ours, theirs, ours again."""
    tokenizer = checkpoints.load_tokenizer(options.model)
    text = tokenizer("\n\n".join(corpus.documents(count=40 * options.prompts)))["input_ids"]
    size = options.prompt_tokens
    job = {
        "model": str(options.model),
        "prompts": [text[at * size : (at + 1) * size] for at in range(options.prompts)],
        "responses": options.responses,
        "max_new_tokens": options.max_new_tokens,
        "rows": options.rows,
        "dense": options.dense,
        "threads": options.threads,
    }
    before = report.load()
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"), max_tasks_per_child=1) as processes:
        ours = [processes.submit(sample, job).result()]
        theirs = [peers.run(peers.TRL, "generate", job, options.threads)]
        ours.append(processes.submit(sample, job).result())
    theirs.append(peers.run(peers.TRL, "generate", job, options.threads))
    speed, peer_speed = (
        sum(run["tokens"] for run in runs) / sum(run["seconds"] for run in runs) for runs in (ours, theirs)
    )
    return {
        "benchmark": "sampling_vs_generate",
        **report.machine(options.threads),
        "peer_versions": theirs[0]["versions"],
        "dense": options.dense,
        "prompts": options.prompts,
        "prompt_tokens": size,
        "responses": options.responses,
        "max_new_tokens": options.max_new_tokens,
        "rows": options.rows,
        "load_1min_before": before,
        "ours": ours,
        "generate": theirs,
        "ours_tokens_per_second": round(speed, 1),
        "generate_tokens_per_second": round(peer_speed, 1),
        "peak_mib": {
            side: round(max(run["peak_mib"] for run in runs)) for side, runs in (("ours", ours), ("generate", theirs))
        },
        "ratio": round(speed / peer_speed, 2),
    }


def main() -> None:
    """Measure and report."""
    parser = report.parser(__doc__)
    parser.add_argument("--model", type=Path, required=True, help="a language model's folder, such as SmolLM2's")
    parser.add_argument("--dense", action="store_true", help="all responses run to the maximum")
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--prompt-tokens", type=int, default=128)
    parser.add_argument("--responses", type=int, default=8, help="to each prompt")
    parser.add_argument("--max-new-tokens", type=int, default=64)
    parser.add_argument("--rows", type=int, default=32, help="responses drawn side by side, on both sides")
    options = parser.parse_args()
    report.publish(measure(options), options.json)


if __name__ == "__main__":
    main()
