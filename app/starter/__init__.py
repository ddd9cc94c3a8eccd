"""The starter project: a small invented world, its prompts, demonstrations, base model and pre-drawn samples. See README.md.

Everything here runs on the standard library; nothing is fetched.
"""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from app.starter.demonstrations import StarterDemonstration, make_demonstrations
from app.starter.prompts import StarterPrompt, make_prompts

__all__ = ["Starter", "StarterDemonstration", "StarterPrompt", "StarterSample", "load_starter"]
_HERE = Path(__file__).parent


@dataclass(frozen=True)
class StarterSample:
    """A response that the base model gave before it was shipped, so that a newcomer can rank before torch is installed."""

    prompt_key: str
    text: str
    seed: int
    token_count: int
    finish_reason: str
    checkpoint: str


@dataclass(frozen=True)
class Starter:
    """All that the starter project is made of. `base_folder` is the base checkpoint, `config_path` its hyperparameters."""

    prompts: tuple[StarterPrompt, ...]
    demonstrations: tuple[StarterDemonstration, ...]
    guidelines: str
    base_folder: Path
    config_path: Path
    samples: tuple[StarterSample, ...]


@cache
def load_starter() -> Starter:
    """The starter project, the same at every start; takes about a third of a second the first time."""
    prompts = make_prompts()
    lines = (_HERE / "samples.jsonl").read_text(encoding="utf-8").splitlines()
    return Starter(
        prompts=prompts,
        demonstrations=make_demonstrations(prompts),
        guidelines=(_HERE / "guidelines.md").read_text(encoding="utf-8"),
        base_folder=_HERE / "model",
        config_path=_HERE / "config.toml",
        samples=tuple(StarterSample(**json.loads(line)) for line in lines),
    )
