"""Does a reward model know what people prefer, or what its own labellers do? Leave-groups-out, InstructGPT appendix E.2.

Labellers are split into five groups. For each group a reward model learns from the judgements of the others and is measured on
held-out prompts: on the judgements of the group it never saw, and on those of the labellers it learned from. The paper has
69.6 ± 0.9 % and 72.4 ± 0.4 %, over three seeds.
"""

import hashlib
import json
from collections.abc import Collection
from dataclasses import asdict
from pathlib import Path

from app import snapshot, statistics
from workers.training import checkpoints, data, precision, rankings, reward
from workers.training.events import Run
from workers.training.kwise import SetScorer
from workers.training.reward import RewardConfig
from workers.training.reward_report import Measured, Report, in_brief, measure

GROUPS = 5
"""The paper's number of groups."""


def leave_groups_out(
    config: RewardConfig, model_folder: Path, data_folder: Path, out: Path, device: str = "cpu", groups: int = GROUPS
) -> Report:
    """Train one reward model for each group of labellers, in `out`/group-N, without it; accuracy on `seen` and `unseen` people.

    Judgements of unknown labellers are neither learned from nor measured. `gap` is the accuracy lost on unseen people, prompt by
    prompt. Stopped and called again, it goes on where it was. Written to `out`/metrics.json too.

    Raises ValueError for fewer labellers than groups, or no held-out judgement of any, and whatever `reward.train` raises.
    """
    inputs = {"data": snapshot.read_manifest(data_folder).sha256, "model": snapshot.folder_sha256(model_folder)}
    parts = split(_labellers(data_folder), groups)
    seen: list[Measured] = []
    unseen: list[Measured] = []
    reports = []
    for number, part in enumerate(parts):
        settings = {"stage": "reward", "config": asdict(config), "inputs": inputs, "without": part}
        with Run(out / f"group-{number}", settings) as run:
            result = run.finished() or reward.train(
                config, model_folder, data_folder, run, device, without={*part, None}
            )
        found = _held_out(Path(result["checkpoint"]), data_folder, config, device)
        others = [one for one in found if one.judgement.labeller not in {*part, None}]
        theirs = [one for one in found if one.judgement.labeller in part]
        reports.append({"labellers": len(part), "seen": in_brief(others), "unseen": in_brief(theirs)})
        seen += others
        unseen += theirs
    gap = statistics.accuracy_difference((one.by_score for one in seen), (one.by_score for one in unseen))
    report = {"seen": in_brief(seen), "unseen": in_brief(unseen), "gap": asdict(gap), "groups": reports}
    (out / "metrics.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return report


def split(labellers: Collection[str], groups: int) -> list[list[str]]:
    """Labellers in groups that differ in size by at most one, by a hash of their names: the same ones always fall together.

    Raises ValueError for fewer labellers than groups.
    """
    if len(labellers) < groups:
        raise ValueError(f"there are {len(labellers)} labellers; expected at least one for each of {groups} groups")
    order = sorted(labellers, key=lambda name: hashlib.sha256(name.encode()).digest())
    return [sorted(order[at::groups]) for at in range(groups)]


def _labellers(data_folder: Path) -> set[str]:
    """Everyone known who judged; raises ValueError where no held-out judgement is theirs."""
    rows = [(row["split"], row["labeller"]) for row in snapshot.read_rows(data_folder, rankings.FILE)]
    if not any(part == "valid" and labeller is not None for part, labeller in rows):
        raise ValueError(
            f"{data_folder} has no judgement of a known labeller in split 'valid'; there is nothing to measure on"
        )
    return {labeller for part, labeller in rows if part in ("train", "valid") and labeller is not None}


def _held_out(checkpoint: Path, data_folder: Path, config: RewardConfig, device: str) -> list[Measured]:
    tokenizer = checkpoints.load_tokenizer(checkpoint)
    model = checkpoints.load_reward_model(checkpoint).to(device)
    sets = rankings.read(data_folder, tokenizer, data.context_length(model.config)).valid
    compute = precision.compute_dtype(config.compute, device)
    return measure(SetScorer.choose(model, tokenizer, sets, config.micro_batch_tokens, compute), sets) if sets else []
