"""A real language model learns from people's preferences: reward model, PPO, and what it says before and after.

    python -m studies.real_model polite --model FOLDER --out FOLDER [--data FOLDER] [--json FILE]

`polite`: rasbt_instructions, 1,100 instructions with a polite and a less polite answer. `oasst`: oasst_en_100, people's rankings
of two to nine replies to a turn of a conversation. The model is one that answers already (SmolLM2-135M-Instruct here), so that
there is no SFT stage. The commands run are those a user would type, with the settings of `studies/real_model.toml` (and, for PPO,
the few of `SETS`):

    preferable train reward --model MODEL --data OUT/rankings --out OUT/reward
    preferable train ppo --model MODEL --reward OUT/reward/checkpoint --data OUT/prompts --out OUT/ppo
    preferable sample --model MODEL --data OUT/prompts --split valid --out OUT/before/samples.jsonl
    preferable score --model OUT/reward/checkpoint --data OUT/before/samples.jsonl --out OUT/before-scored/scores.jsonl

and the last two again for the policy, which `sample` also measures against MODEL. Each resumes where it was. A fifth of the
prompts, by a hash of their text, is held out from both stages. The report compares one answer to each held-out prompt before and
after: `gain` is the difference of the mean rewards in standard deviations of the reward before.
"""

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from app import snapshot
from benchmarks import report, workload
from benchmarks.workload import Ranking
from studies import plots
from workers.training import config
from workers.training.conversation import Message
from workers.training.ppo import PPOConfig

CONFIG = Path(__file__).with_suffix(".toml")
LONGEST = 1600
"""Characters of a prompt that PPO answers, at most: two cores have to read it about fifteen times."""
SHOWN = 20
"""Prompts whose answers before and after the report holds."""


def split(text: str) -> str:
    """`valid` for a fifth of all prompts."""
    return "train" if hashlib.sha256(text.encode()).digest()[0] % 5 else "valid"


def polite(path: Path) -> list[Ranking]:
    """The instructions of rasbt_instructions with both answers; those whose answers are the same left out."""
    found = []
    for row in json.loads(path.read_text(encoding="utf-8")):
        prompt = "\n\n".join(filter(None, (row["instruction"], row["input"])))
        if row["chosen"] != row["rejected"]:
            found.append(Ranking(prompt, [row["chosen"], row["rejected"]], split=split(prompt)))
    return found


def oasst(path: Path) -> list[Ranking]:
    """Every turn of oasst_en_100 whose replies people ranked, the conversation before it as its prompt; split by conversation."""
    trees = (json.loads(line)["prompt"] for line in path.read_text(encoding="utf-8").splitlines())
    return [ranking for tree in trees for ranking in _ranked(tree, [], split(tree["text"]))]


def _ranked(message: dict[str, Any], before: list[Message], where: str) -> Iterator[Ranking]:
    role = "user" if message["role"] == "prompter" else "assistant"
    turns = [*before, Message(role=role, content=message["text"])]
    ranked = [reply for reply in message["replies"] if reply.get("rank") is not None]
    if role == "user" and len(ranked) > 1:
        yield Ranking(turns, [reply["text"] for reply in sorted(ranked, key=lambda reply: reply["rank"])], split=where)
    for reply in message["replies"]:
        yield from _ranked(reply, turns, where)


SETS = {
    # Half of the answers end within the limit. One that does not is worth less than most that do: the policy learns to end.
    "polite": (polite, ("rasbt_instructions", "instruction-data-with-preference.json"), ("missing_end_score=-3.3",)),
    # Hardly any reply of a chat ends within the limit: each is worth what the reward model says of it as far as it goes.
    "oasst": (oasst, ("oasst_en_100", "en_100_tree.jsonl"), ()),
}
"""By name: how the rankings are read, the file's place among the data, and settings of PPO for them alone."""


def prompts(rankings: Sequence[Ranking]) -> Iterator[tuple[str | list[Message], str]]:
    """The rankings' prompts that are not too long, each once, with their split."""
    seen = set()
    for ranking in rankings:
        conversation = workload.messages(ranking.prompt)
        key, length = json.dumps(conversation), sum(len(turn["content"]) for turn in conversation)
        if key not in seen and length <= LONGEST:
            seen.add(key)
            yield ranking.prompt, ranking.split


def preferable(*arguments: str | Path) -> dict[str, Any]:
    """The metrics of a command of ours; the program ends with its error."""
    done = subprocess.run(
        [sys.executable, "-m", "workers.cli", *map(str, arguments)], stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode:
        sys.exit(done.returncode)
    return dict(json.loads(done.stdout.strip().splitlines()[-1])["metrics"])


def answers(model: str, out: Path, tokens: int, *options: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """One answer to each held-out prompt, scored by the reward model: rows, and what `sample` says of them."""
    told = preferable(
        *("sample", "--model", model, "--data", out.parent / "prompts", "--split", "valid"),
        *("--out", out / "samples.jsonl", "--max-new-tokens", str(tokens), "--seed", "1", *options),
    )
    scored = out.with_name(f"{out.name}-scored") / "scores.jsonl"
    preferable(
        *("score", "--model", out.parent / "reward/checkpoint", "--data", out / "samples.jsonl", "--out", scored)
    )
    return list(snapshot.read_rows(scored.parent, scored.name)), told


def compare(before: list[dict[str, Any]], after: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean reward and length of the answers before and after; `gain` in standard deviations of the reward before."""
    scores, lengths = (
        [[row["responses"][0][name] for row in rows] for rows in (before, after)] for name in ("score", "token_count")
    )
    deviation = stdev(scores[0])
    return {
        "prompts": len(before),
        "reward_before": fmean(scores[0]),
        "reward_after": fmean(scores[1]),
        "reward_deviation_before": deviation,
        "gain": (fmean(scores[1]) - fmean(scores[0])) / deviation,
        "better": fmean(now > then for then, now in zip(*scores, strict=True)),
        "length_before": fmean(lengths[0]),
        "length_after": fmean(lengths[1]),
        "length_ratio": fmean(lengths[1]) / fmean(lengths[0]),
    }


def curve(run: Path) -> list[dict[str, float]]:
    """What every iteration of a run told, in order; of a step told twice (a run that was resumed) the last."""
    steps = {}
    for line in (run / "events.jsonl").read_text(encoding="utf-8").splitlines():
        event = json.loads(line)
        if event["type"] == "metrics":
            steps[event["step"]] = {"step": event["step"]} | event["values"]
    return [steps[step] for step in sorted(steps)]


def picture(found: Mapping[str, Any]) -> list[plots.Panel]:
    """Reward, KL and length along the run, of the answers it learned from and of held-out ones."""
    panels = []
    for name, unit in (
        ("score", "reward"),
        ("kl", "KL to the start, nats a response"),
        ("length", "tokens a response"),
    ):
        steps = found["curve"]
        held = [step for step in steps if f"heldout_{name}" in step]
        before = found["ppo"][f"heldout_{name}_before"]
        curves = [
            plots.Curve("answers learned from", [each["step"] for each in steps], [each[name] for each in steps], 0),
            plots.Curve(
                "held-out prompts, averaged policy",
                [0, *(each["step"] for each in held)],
                [before, *(each[f"heldout_{name}"] for each in held)],
                1,
                is_dashed=True,
            ),
        ]
        panels.append(plots.Panel(unit, "iteration", "", curves))
    return panels


def page(found: Mapping[str, Any]) -> str:
    """The figures as a table, then the first answers before and after, as Markdown."""
    measured, reward = found["comparison"], found["reward"]
    lines = [
        "| | before | after |",
        "|---|---:|---:|",
        f"| reward, mean of {measured['prompts']} held-out prompts | {measured['reward_before']:.2f} | "
        f"{measured['reward_after']:.2f} |",
        f"| tokens a response | {measured['length_before']:.1f} | {measured['length_after']:.1f} |",
        f"| KL to the model before, nats a response | 0 | {measured['kl']:.2f} |",
        "",
        f"The reward rose by {measured['gain']:.2f} standard deviations of the reward before "
        f"({measured['reward_deviation_before']:.2f}); {measured['better']:.0%} of the prompts have a better answer, and "
        f"lengths are {measured['length_ratio']:.2f} times what they were. The reward model orders {reward['accuracy']:.1%} of "
        f"{reward['heldout_comparisons']} held-out comparisons as people did ({reward['accuracy_low']:.1%} to "
        f"{reward['accuracy_high']:.1%}), longer-wins {reward['longer_wins']:.1%}.",
        "",
    ]
    for number, sample in enumerate(found["samples"], start=1):
        lines += [f"**{number}.** {_quoted(sample['prompt'])}", ""]
        for when in ("before", "after"):
            lines += [f"- *{when}, {sample[f'score_{when}']:.2f}*: {_quoted(sample[f'text_{when}'])}"]
        lines += [""]
    return "\n".join(lines)


def _quoted(text: str) -> str:
    """A model's or a person's text on one line of Markdown, as it stands."""
    flat = " ⏎ ".join(text.strip().splitlines())
    fence = "``" if "`" in flat else "`"
    return f"{fence} {flat} {fence}" if flat else "(nothing)"


def main() -> None:
    """Train, sample and report."""
    parser = report.parser(__doc__ or "")
    parser.add_argument("name", choices=SETS, help="preferences to learn from")
    parser.add_argument("--model", required=True, help="checkpoint to start from: a folder or a hub id")
    parser.add_argument("--out", required=True, type=Path, help="folder of all runs; what is there is not done again")
    parser.add_argument("--data", type=Path, help=f"the folder of the data sets; by default what {report.DATA} names")
    parser.add_argument("--page", metavar="FILE", type=Path, help="write figures and samples there, as Markdown")
    parser.add_argument("--plot", metavar="FILE", type=Path, help="draw the curves there, as SVG")
    options = parser.parse_args()
    read, where, own = SETS[options.name]
    rankings = read(report.data_file(options.data, *where))
    out: Path = options.out
    if not (out / "rankings").exists():
        workload.write_rankings(out / "rankings", rankings, demonstrations=len(rankings))
    if not (out / "prompts").exists():
        workload.write_prompts(out / "prompts", prompts(rankings))
    common = ("--config", CONFIG, "--threads", str(options.threads))
    reward = preferable(
        *("train", "reward", "--model", options.model, "--data", out / "rankings", "--out", out / "reward", *common)
    )
    ppo = preferable(
        *("train", "ppo", "--model", options.model, "--reward", out / "reward/checkpoint"),
        *("--data", out / "prompts", "--out", out / "ppo", *common),
        *(part for setting in own for part in ("--set", setting)),
    )
    tokens = config.load(PPOConfig, "ppo", CONFIG).max_new_tokens
    threads = ("--threads", str(options.threads))
    before, _ = answers(options.model, out / "before", tokens, *threads)
    policy = str(out / "ppo/checkpoint")
    after, told = answers(policy, out / "after", tokens, *threads, "--reference", options.model)
    shown = [
        {
            "prompt": then["prompt"][-1]["content"],
            **{
                f"{name}_{when}": row["responses"][0][name]
                for when, row in (("before", then), ("after", now))
                for name in ("text", "score")
            },
        }
        for then, now in list(zip(before, after, strict=True))[:SHOWN]
    ]
    found = {"study": f"real_model {options.name}", **report.machine(options.threads)}
    found |= {"comparison": compare(before, after) | {"kl": told["kl"]}, "reward": reward, "ppo": ppo}
    found |= {"curve": curve(out / "ppo"), "samples": shown}
    if options.page:
        options.page.write_text(page(found), encoding="utf-8")
    if options.plot:
        plots.draw(options.plot, picture(found))
    report.publish(found, options.json)


if __name__ == "__main__":
    main()
