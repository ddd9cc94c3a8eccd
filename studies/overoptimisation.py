"""Over-optimisation: what a policy is really worth while it climbs a proxy of it (Gao et al. 2022, arXiv 2210.10760).

    python -m studies.overoptimisation [--json FILE|-] [--plot FILE] [--seed N]

The starter world knows what is true: its gold preference. Its base model is fine-tuned; labellers who slip rank answers; a
reward model, the proxy, learns from the rankings of one half of the prompts, a second one that shall watch from those of the
other half. PPO climbs the proxy at three KL coefficients; best-of-n climbs it by choosing. Every held-out answer is also scored
by gold, which nothing learns from, and shown over the square root of the KL to the fine-tuned model.

Two second models are compared: one that has ranked the same kind of answers as the proxy, those of the fine-tuned model (`twin`),
and one that has ranked answers of the base model among them. The guard in the picture has the latter, and `kl_max`.

No guard ends a run, so that the picture shows what lies behind. What it would have done it tells itself, on the reports of the
run, answer by answer.
"""

import argparse
import math
import random
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from app.starter import StarterPrompt, gold, load_starter
from benchmarks import report, workload
from studies import plots
from workers.rlhf import best_of_n, kl
from workers.training import checkpoints, config, data, ppo, rankings, reward, rewards
from workers.training.data import Prompt
from workers.training.engine import Decoding, Engine, Response
from workers.training.guard import Guard, Report, paired_fall
from workers.training.ppo import PPOConfig
from workers.training.rewards import Reward, RewardModel
from workers.training.starts import Starts

CERTAIN = 2.0
"""Standard errors that gold must have fallen by, answer by answer, to have turned."""
BEST_OF = (1, 2, 4, 8, 16, 32, 64)
"""The last is how many answers are drawn to each held-out prompt."""
MODELS = {"proxy": ("alike", 0), "second": ("mixed", 1), "twin": ("alike", 1)}
"""Reward models: what each learns from, answers of the fine-tuned model alone or mixed with its base's, and on which half of
the prompts. The first is climbed, the second watches, the third is what the second would be without the mix."""
SCORES = (*MODELS, "gold")
"""What every held-out answer gets."""


@dataclass(frozen=True)
class Point:
    """A policy on a path, by its answers to N held-out prompts."""

    kl: float
    """Nats a response to the fine-tuned model."""
    scores: Mapping[str, Tensor]
    """(N,) by SCORES."""
    iteration: int = 0

    def mean(self, name: str) -> float:
        """Mean of one of the scores."""
        return self.scores[name].mean().item()

    def error(self, name: str) -> float:
        """Standard error of that mean, over prompts."""
        return self.scores[name].std().item() / math.sqrt(len(self.scores[name]))


@dataclass
class Climbed:
    """What PPO climbs: the proxy. Of held-out answers it also asks the others, and keeps what each said, answer by answer."""

    models: Mapping[str, Reward]
    """By SCORES."""
    kept: list[Mapping[str, Tensor]] = field(default_factory=list)

    def __call__(self, prompts: Sequence[Prompt], responses: Sequence[Response]) -> dict[str, Tensor]:
        """`score`, (B,) that of the proxy; of held-out answers the other scores as well."""
        is_heldout = prompts[0].split == "valid"
        names = SCORES if is_heldout else SCORES[:1]
        found = {name: rewards.measure(self.models[name], prompts, responses)["score"] for name in names}
        if is_heldout:
            self.kept.append(found)
        return {"score": found["proxy"], **{name: found[name] for name in names[1:]}}


def gold_reward(prompts: Sequence[Prompt], responses: Sequence[Response]) -> dict[str, list[float]]:
    """The gold preference as a reward: totals from 0 to 1."""
    totals = []
    for prompt, said in zip(prompts, responses, strict=True):
        messages = [{"role": turn["role"], "content": turn["content"]} for turn in prompt.messages]
        totals.append(gold.score(messages, said.text, said.finish_reason).total)
    return {"score": totals}


def judge(prompt: StarterPrompt, responses: Sequence[Response], noise: float, seed: int) -> workload.Ranking:
    """A labeller's ranking of responses, with slips."""
    texts = [response.text for response in responses]
    reasons = [response.finish_reason for response in responses]
    slips = random.Random(f"{seed} {prompt.key}")
    tiers = gold.rank(prompt.messages, list(zip(texts, reasons, strict=True)), noise, slips)
    return workload.Ranking(prompt.messages[0]["content"], texts, tiers, reasons)


def make_models(options: argparse.Namespace, folder: Path, prompts: Sequence[StarterPrompt]) -> tuple[Starts, Any]:
    """The fine-tuned model and MODELS, by the starter's settings, in folders of their names; and what these learned from."""
    tuned = workload.fine_tune_starter(folder, prompts)
    asked = random.Random(options.seed).sample(
        [prompt for prompt in prompts if prompt.split == "train"], options.rankings
    )
    settings = config.load(PPOConfig, "ppo", load_starter().config_path)

    def draw(model: Path) -> list[list[Response]]:
        messages = [workload.user(prompt.messages[0]["content"]) for prompt in asked]
        length = settings.max_new_tokens
        return Engine.load(model).sample(
            messages, n=options.outputs, temperature=1.0, max_new_tokens=length, seed=options.seed
        )

    alike, careless, share = draw(tuned), draw(load_starter().base_folder), options.outputs - options.base_outputs
    mixed = [good[:share] + bad[: options.base_outputs] for good, bad in zip(alike, careless, strict=True)]
    for name, drawn in (("alike", alike), ("mixed", mixed)):
        ranked = [judge(prompt, said, options.noise, options.seed) for prompt, said in zip(asked, drawn, strict=True)]
        workload.write_rankings(folder / name, ranked)
    judging = config.load(reward.RewardConfig, "reward", load_starter().config_path)
    counts = {}
    for number, (model, (name, half)) in enumerate(MODELS.items()):
        with workload.WatchedRun(folder / model) as run:
            result = reward.train(replace(judging, half=half, seed=options.seed + number), tuned, folder / name, run)
        sets = rankings.read(folder / name, checkpoints.load_tokenizer(tuned), 10**6).train
        mine = [judgement for element in rankings.of_half(sets, half) for judgement in element.judgements]
        counts[model] = {
            "asked": sum(rankings.half(f"p{at}") == half for at in range(options.rankings)),
            "rankings": len(mine),
            "comparisons": sum(len(judgement.comparisons) for judgement in mine),
            "train_accuracy": result["metrics"]["train_accuracy"],
        }
    return Starts(policy=tuned, reward=folder / "proxy" / "checkpoint", reference=tuned), counts


def score_models(begun: Starts) -> dict[str, Reward]:
    """Who gives each of SCORES."""
    tokenizer = checkpoints.load_tokenizer(begun.policy)
    folder = begun.policy.parent.parent
    models = {name: RewardModel.load(folder / name / "checkpoint", tokenizer) for name in MODELS}
    return {**models, "gold": gold_reward}


def climb(settings: PPOConfig, begun: Starts, prompts: Path, folder: Path) -> tuple[list[Point], dict[str, Any]]:
    """The held-out reports of a PPO run, the first before it, and what it was worth at its end."""
    climbed = Climbed(score_models(begun))
    run = workload.WatchedRun(folder)
    with run:
        metrics = ppo.train(settings, begun, prompts, run, reward=climbed)["metrics"]
    steps = [(0, metrics["heldout_kl_before"])]
    steps += [(at, told["heldout_kl"]) for at, told in enumerate(run.told, start=1) if "heldout_kl" in told]
    # reports come in this order; the one or two of the end, on the policy that is kept, are left over
    return [Point(kl, scores, at) for (at, kl), scores in zip(steps, climbed.kept, strict=False)], metrics


def choose_best(begun: Starts, prompts: Path, options: argparse.Namespace, max_new_tokens: int) -> dict[str, Tensor]:
    """(B, N) scores of N answers of the fine-tuned model to each held-out prompt."""
    engine = Engine.load(begun.policy)
    found, _ = data.read_prompts(prompts, engine.tokenizer, engine.context - max_new_tokens)
    heldout = [prompt for prompt in found if prompt.split == "valid"][: options.heldout]
    decoding = Decoding(options.draws, max_new_tokens=max_new_tokens, seed=options.seed)
    drawn = engine.sample_ids([prompt.ids for prompt in heldout], decoding)
    asked = [prompt for prompt in heldout for _ in range(options.draws)]
    said = [response for responses in drawn for response in responses]
    models = score_models(begun)
    scores = {name: rewards.measure(models[name], asked, said)["score"] for name in SCORES}
    return {name: each.view(len(heldout), options.draws) for name, each in scores.items()}


def best_of(scores: Mapping[str, Tensor], n: int) -> Point:
    """What the best of n by the proxy is worth, prompt by prompt, from all N answers; the KL is a bound where scores tie."""
    doubles = {name: each.double() for name, each in scores.items()}
    expected = {name: best_of_n.expected_gold(doubles["proxy"], each, n) for name, each in doubles.items()}
    return Point(kl.best_of_n_kl(n), expected)


def agreement(scores: Mapping[str, Tensor], name: str) -> float:
    """Share of pairs of answers to a prompt, clearly unequal by gold, that a model orders as gold does; its ties count half."""
    gaps, by_gold = (each[:, :, None] - each[:, None, :] for each in (scores[name], scores["gold"]))
    clear = by_gold >= gold.CLEAR
    right = (gaps > 0).double() + 0.5 * (gaps == 0).double()
    return (right[clear].sum() / clear.sum()).item()


def find_turn(path: Sequence[Point]) -> dict[str, Any]:
    """Where gold was highest, and whether it had fallen by the end: by more than CERTAIN standard errors of the paired fall."""
    top = max(path, key=lambda point: point.mean("gold"))
    fell, error = paired_fall(top.scores["gold"].tolist(), path[-1].scores["gold"].tolist())
    return {
        "first": path[0].mean("gold"),
        "best": top.mean("gold"),
        "best_iteration": top.iteration,
        "best_kl": top.kl,
        "last": path[-1].mean("gold"),
        "fell": fell,
        "fell_error": error,
        "turned": fell > CERTAIN * error,
    }


def watch(path: Sequence[Point], patience: int, second: str = "second", kl_max: float | None = None) -> dict[str, Any]:
    """What the guard does on a path: where it ends the run, which policy it keeps, and what that is worth by gold.

    `share_of_gain` is gold's rise to the kept policy over its rise to its best on the path; none where it never rose.
    """
    guard, nothing = Guard(kl_max, patience, is_watched=True), torch.nn.Module()
    for point in path:
        values = {"heldout_score": point.mean("proxy"), "heldout_kl": point.kl}
        guard.take(point.iteration, Report(values, point.scores[second].tolist()), nothing)
    kept = next(point for point in path if point.iteration == guard.kept_step)
    first, best = path[0].mean("gold"), max(point.mean("gold") for point in path)
    return {
        "stopped_at": guard.last_step if guard.reason else None,
        "reason": guard.reason,
        "kept": kept.iteration,
        "kept_kl": kept.kl,
        "gold": kept.mean("gold"),
        "of_best": kept.mean("gold") / best,
        "share_of_gain": (kept.mean("gold") - first) / (best - first) if best > first else None,
    }


def measure_run(
    settings: PPOConfig, begun: Starts, prompts: Path, folder: Path, options: argparse.Namespace
) -> dict[str, Any]:
    """A run to its end: its path, where gold turned, and what a guard would have done with each second model and with kl_max."""
    path, metrics = climb(settings, begun, prompts, folder)
    return {
        "kl_coef": settings.kl_coef,
        "path": [describe(point) for point in path],
        "gold": find_turn(path),
        "guards": {
            "second": watch(path, options.patience),
            "twin": watch(path, options.patience, "twin"),
            "second_and_kl_max": watch(path, options.patience, kl_max=options.kl_max),
        },
        "length": metrics["heldout_length"],
    }


def describe(point: Point) -> dict[str, float]:
    """A point in figures: mean scores, and standard errors over prompts."""
    means = {name: point.mean(name) for name in SCORES}
    return (
        {"iteration": point.iteration, "kl": point.kl} | means | {f"{name}_error": point.error(name) for name in SCORES}
    )


def rounded(found: Any, digits: int = 4) -> Any:
    """The same with every float rounded."""
    if isinstance(found, dict):
        return {name: rounded(each, digits) for name, each in found.items()}
    if isinstance(found, list):
        return [rounded(each, digits) for each in found]
    return round(found, digits) if isinstance(found, float) else found


def picture(found: Mapping[str, Any]) -> list[plots.Panel]:
    """Best-of-n and PPO over sqrt(KL); scores less the fine-tuned model's mean, in standard deviations of its answers."""
    unit = found["unit"]

    def x(point: Mapping[str, float]) -> float:
        return math.sqrt(max(0.0, point["kl"]))

    def y(point: Mapping[str, float], score: str) -> float:
        return float((point[score] - unit[score]["mean"]) / unit[score]["deviation"])

    def curves(path: Sequence[Mapping[str, float]], name: str, colour: int) -> list[plots.Curve]:
        places = [x(point) for point in path]
        proxy, truth = ([y(point, score) for point in path] for score in ("proxy", "gold"))
        errors = [point["gold_error"] / unit["gold"]["deviation"] for point in path]
        return [
            plots.Curve(f"{name}, proxy", places, proxy, colour, is_dashed=True),
            plots.Curve(f"{name}, gold", places, truth, colour, errors=errors),
        ]

    by_run: list[plots.Curve] = []
    marks: list[plots.Mark] = []
    for number, run in enumerate(found["ppo"]):
        by_run += curves(run["path"], f"KL coef. {run['kl_coef']:g}", number)
        guard, at = run["guards"]["second_and_kl_max"], {point["iteration"]: point for point in run["path"]}
        if guard["reason"]:
            for iteration, name, symbol in ((guard["kept"], "kept", "o"), (guard["stopped_at"], "stopped", "X")):
                point = at[iteration]
                named = "" if any(mark.symbol == symbol for mark in marks) else f"guard: {name}"
                marks.append(plots.Mark(named, x(point), y(point, "gold"), number, symbol))
    axis, height = "√KL to the fine-tuned model (KL in nats a response)", "score (standard deviations of its answers)"
    return [
        plots.Panel("Best-of-n", axis, height, curves(found["best_of_n"], "best of n", 6)),
        plots.Panel("PPO", axis, "", by_run, marks),
    ]


def table(found: Mapping[str, Any]) -> str:
    """The figures in Markdown: gold on each path, and what the guard makes of it, with each second model and with kl_max."""
    rows = [
        "| KL coefficient | gold before, at its best, at the end | best at iteration, KL | turned | second model | stopped at "
        "| kept, KL | gold kept | of the best |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for run in found["ppo"]:
        gold_, coef = run["gold"], f"{run['kl_coef']:g}"
        start = f"| {coef} | {gold_['first']:.3f}, {gold_['best']:.3f}, {gold_['last']:.3f} "
        start += f"| {gold_['best_iteration']}, {gold_['best_kl']:.2f} | {'yes' if gold_['turned'] else 'no'} "
        for name, guard in run["guards"].items():
            stopped = guard["stopped_at"] if guard["reason"] else "never"
            kept = f"{guard['kept']}, {guard['kept_kl']:.2f} | {guard['gold']:.3f} | {100 * guard['of_best']:.1f} %"
            rows.append(f"{start}| {name} | {stopped} | {kept} |")
            start = "| | | | "
    rows += ["", "| best of | KL | proxy | gold |", "|---|---|---|---|"]
    rows += [
        f"| {best['n']} | {best['kl']:.2f} | {best['proxy']:.2f} | {best['gold']:.3f} ± {best['gold_error']:.3f} |"
        for best in found["best_of_n"]
    ]
    return "\n".join(rows)


def study(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Everything, in one folder."""
    # 1. The models; the held-out prompts are split `valid` of the starter world.
    asked = [prompt for prompt in load_starter().prompts if len(prompt.messages) == 1 and prompt.split != "test"]
    begun, learned = make_models(options, folder, asked)
    prompts = workload.write_prompts(
        folder / "prompts", ((prompt.messages[0]["content"], prompt.split) for prompt in asked)
    )
    settings = replace(
        config.load(PPOConfig, "ppo", load_starter().config_path),
        episodes=options.episodes,
        heldout_prompts=options.heldout,
        report_every=options.report_every,
        seed=options.seed,
    )

    # 2. PPO at each coefficient.
    runs = [
        measure_run(replace(settings, kl_coef=coef), begun, prompts, folder / f"ppo-{coef:g}", options)
        for coef in sorted(options.kl_coefs)
    ]

    # 3. Best-of-n; its single answers are what the picture's units are taken from.
    scores = choose_best(begun, prompts, options, settings.max_new_tokens)
    unit = {name: {"mean": each.mean().item(), "deviation": each.std().item()} for name, each in scores.items()}
    agreed = {name: agreement(scores, name) for name in MODELS}
    best = [describe(best_of(scores, n)) | {"n": n} for n in BEST_OF if n <= options.draws]

    return {
        "seed": options.seed,
        "settings": asdict(settings) | {"patience": options.patience, "kl_max": options.kl_max},
        "heldout_prompts": len(scores["gold"]),
        "reward_models": learned,
        "agreement_with_gold": agreed,
        "unit": unit,
        "best_of_n": best,
        "ppo": runs,
    }


def main() -> None:
    """Measure, draw and report."""
    parser = report.parser(__doc__)
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the curves there, as SVG; needs matplotlib")
    parser.add_argument("--seed", type=int, default=0, help="of rankings, slips, reward models, PPO and its draws")
    parser.add_argument(
        "--rankings", type=int, default=300, help="in all; each reward model learns from half of the prompts"
    )
    parser.add_argument("--outputs", type=int, default=4, help="answers in a ranking")
    parser.add_argument(
        "--base-outputs", type=int, default=3, help="of these, the base model's, where answers are mixed"
    )
    parser.add_argument(
        "--noise", type=float, default=0.1, help="probability of a slip between neighbours of a ranking"
    )
    parser.add_argument("--kl-coefs", type=float, nargs="+", default=[0.0, 0.5, 2.0], help="of PPO")
    parser.add_argument("--episodes", type=int, default=4096, help="of each run of PPO")
    parser.add_argument("--report-every", type=int, default=1, help="iterations between held-out reports")
    parser.add_argument(
        "--patience", type=int, default=PPOConfig.guard_reports, help="reports in a row that stop a run"
    )
    parser.add_argument(
        "--kl-max", type=float, default=2.0, help="nats; the guard's other rule, beside the second model"
    )
    parser.add_argument("--heldout", type=int, default=306, help="held-out prompts, answered once at each report")
    parser.add_argument("--draws", type=int, default=BEST_OF[-1], help="answers to each held-out prompt, for best-of-n")
    parser.set_defaults(threads=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        found = rounded(study(options, Path(folder)))
    found = {"study": "overoptimisation", **report.machine(options.threads), **found}
    found["minutes"] = round((time.monotonic() - began) / 60, 1)
    if options.plot:
        plots.draw(options.plot, picture(found), share_y=True)
    print(table(found))
    report.publish(found, options.json)


if __name__ == "__main__":
    main()
