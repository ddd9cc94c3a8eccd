"""Make the starter base model and its pre-drawn samples again: `python -m app.starter.build`.

Writes `model/` and `samples.jsonl` beside this file. Needs the worker half (torch), which it runs as the `preferable` command;
about three quarters of an hour on one core. Same versions, same processor: same hash.
"""

import json
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from app import snapshot
from app.starter import corpus, gold
from app.starter.prompts import SEED, StarterPrompt, make_prompts

HERE = Path(__file__).parent
CANDIDATES, DRAWS = 500, 16
"""How many training prompts are sampled, and how often, to find those worth ranking."""
PROMPTS, RESPONSES = 60, 8
"""How many prompts are shipped, each with as many different responses."""
MAX_NEW_TOKENS = 32


def main() -> None:
    """Text, base model, samples, in this order."""
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        text = scratch / "text.jsonl"
        corpus.write(text)
        _preferable(
            "train", "base", "--text", text, "--out", scratch / "run", "--config", HERE / "base.toml", "--threads", 1
        )
        shutil.rmtree(HERE / "model", ignore_errors=True)
        shutil.copytree(scratch / "run" / "checkpoint", HERE / "model")
        draw_samples(scratch)


def draw_samples(scratch: Path) -> None:
    """Sample the base model and write `samples.jsonl`: the prompts whose responses differ most in quality.

    Only prompts of one turn, since a base model reads no more; empty and doubled responses are left out. The gold preference
    chooses what is worth a newcomer's time; the file does not say how it judged.
    """
    prompts = [prompt for prompt in make_prompts() if prompt.split == "train" and not prompt.parent][:CANDIDATES]
    rows = [
        {"id": prompt.key, "prompt": list(prompt.messages), "split": "train", "category": prompt.category}
        for prompt in prompts
    ]
    snapshot.write(
        scratch / "prompts",
        "prompts",
        {"prompts.jsonl": [{**row, "reference": None, "verifier": None} for row in rows]},
    )
    out = scratch / "samples.jsonl"
    _preferable(
        "sample", "--model", HERE / "model", "--data", scratch / "prompts", "--out", out, "--split", "train", "--n", DRAWS,
        "--temperature", 1.0, "--max-new-tokens", MAX_NEW_TOKENS, "--seed", SEED, "--threads", 1,
    )  # fmt: skip
    drawn = {row["id"]: row["responses"] for row in snapshot.read_rows(scratch, out.name)}
    checkpoint = snapshot.folder_sha256(HERE / "model")
    chosen = sorted(prompts, key=lambda prompt: -_spread(prompt, drawn[prompt.key]))[:PROMPTS]
    with (HERE / "samples.jsonl").open("w", encoding="utf-8") as stream:
        for prompt in sorted(chosen, key=lambda prompt: prompt.key):
            for row in _pick(prompt, drawn[prompt.key]):
                sample = {name: row[name] for name in ("text", "seed", "token_count", "finish_reason")}
                stream.write(json.dumps({"prompt_key": prompt.key, **sample, "checkpoint": checkpoint}) + "\n")


def _different(prompt: StarterPrompt, rows: list[dict[str, Any]]) -> list[tuple[float, dict[str, Any]]]:
    """The non-empty, different responses with their gold totals, best first."""
    unique = {row["text"].strip(): row for row in rows if row["text"].strip()}
    judged = [(gold.score(prompt.messages, text, row["finish_reason"]).total, row) for text, row in unique.items()]
    return sorted(judged, key=lambda pair: -pair[0])


def _spread(prompt: StarterPrompt, rows: list[dict[str, Any]]) -> float:
    """How far the good responses of a prompt are from its bad ones; negative where there are too few."""
    totals = [total for total, _ in _different(prompt, rows)]
    return totals[0] + totals[1] + totals[2] - 3 * totals[-1] if len(totals) >= RESPONSES else -1.0


def _pick(prompt: StarterPrompt, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The three best and three others, shuffled."""
    judged = [row for _, row in _different(prompt, rows)]
    rng = random.Random(prompt.key)
    rest = rng.sample(judged[3:], RESPONSES - 3)
    return rng.sample([*judged[:3], *rest], RESPONSES)


def _preferable(*arguments: object) -> None:
    subprocess.run([sys.executable, "-m", "workers.cli", *map(str, arguments)], check=True)


if __name__ == "__main__":
    main()
