"""PPO, episodes a second and reward at equal KL: our loop against TRL's PPOTrainer, in the last TRL that has one.

    python -m benchmarks.ppo_vs_trl [--no-learning | --no-speed] [--prompts-of rasbt|qa_feedback] [--responses-per-prompt K]
        [--data FOLDER] [--json FILE|-]

Speed: responses of 53 tokens (TRL's default) to short prompts, those of rasbt_instructions (15 tokens in the mean), or to long
ones, those of qa_feedback that `reward_vs_trl` learns from: a question and passages, 763 tokens in the mean and from 87 to
1193. The policy is a 6-layer Llama of width 256, reward model and value function of the same shape, float32. An iteration is 64
episodes (16 where prompts are long) and four passes over them, one update each. That is TRL's default, and all it does, whatever
its number of minibatches, where it accumulates gradients. No response ends before its last token: the weights put the end token
and PAD out of reach. Timed are whole iterations, ours before and after TRL, behind one that is not counted.

With `--responses-per-prompt K` an iteration asks a Kth of its episodes' number of prompts, each K times. Ours computes such a
prompt once for its responses; TRL, which has no such setting, is given each prompt K times.

`ratio` is against TRL's defaults but for bfloat16 autocast (off: the same number format on both sides), `ratio_best` against
the fastest of its settings tried: several device batches, no generations for show. Its gradient checkpointing has no effect
on PPO.

Learning: the starter world. Its base model is fine-tuned, a reward model learns what the gold preference says of samples, and
PPO goes on from there with the starter's settings but for `kl_coef`: at its 2 both sides settle within a few iterations, and
the path of a policy that has settled does not tell what it would be worth at another KL. TRL's policies are kept as it trains;
those of both sides are measured on held-out prompts by `workers.training.ppo.report`. A side's score at a KL is read off its
path, linear between reports; `difference` is ours less TRL's at the smaller of both final KLs, `objective_difference` that of
score - kl_coef * KL at the end, which needs no path.

Settings are alike as far as TRL has them: one constant learning rate for policy and value function, no warm-up, gradients not
clipped, no average of the weights. Each model has Adam to itself, so that `vf_coef` would only move its eps; it is 1. What
still differs: TRL lays the score on the place behind the end token where there is one, divides variances by n - 1, may draw
PAD, scores the tokens drawn where we read their text anew, and trusts the sampler's log-probabilities where we compute them
again, at our cost.
"""

import argparse
import math
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

import torch

from app.starter import StarterPrompt, gold, load_starter
from benchmarks import peers, report, sft_vs_trl, workload
from workers.training import checkpoints, config, conversation, ppo, reward, starts
from workers.training.data import Pair
from workers.training.engine import Engine, Response
from workers.training.events import Run
from workers.training.learner import ADAM_EPS
from workers.training.ppo import PPOConfig
from workers.training.starts import Starts


@dataclass(frozen=True)
class PromptSet:
    """What the speed part asks, and how much at a time."""

    file: tuple[str, str]
    """Data set and file."""
    read: Callable[[Path], tuple[list[str], list[str]]]
    """Prompts and responses of the file; the responses serve the tokenizer alone."""
    batch: int
    """Episodes an iteration."""
    micro_batch_tokens: int
    """Padded tokens in one pass of ours: 2048 took less than 8192 where prompts are long, as much as one row at a time."""
    peer_batches: tuple[int, ...]
    """Device batches that TRL is tried at."""


def read_rasbt(path: Path) -> tuple[list[str], list[str]]:
    """Prompts and responses of rasbt_instructions."""
    rows = sft_vs_trl.demonstrations(path, 1100)
    return [row["prompt"][0]["content"] for row in rows], [row["response"] for row in rows]


def read_qa_feedback(path: Path) -> tuple[list[str], list[str]]:
    """Prompts and responses of qa_feedback, of those rankings that `reward_vs_trl` reads."""
    rankings = workload.qa_feedback(path, 4, 198)
    return [ranking.prompt for ranking in rankings], [text for ranking in rankings for text in ranking.responses]


PROMPT_SETS = {
    "rasbt": PromptSet(("rasbt_instructions", "instruction-data.json"), read_rasbt, 64, 8192, (16, 64)),
    "qa_feedback": PromptSet(("qa_feedback", "feedback_300.json"), read_qa_feedback, 16, 2048, (2, 4)),
}
MATCHED: dict[str, Any] = {"warmup": 0, "ema": 0.0, "max_grad_norm": math.inf}
"""Ours that TRL has not, off."""
SPEED = PPOConfig(lr=1e-5, value_lr=1e-5, kl_coef=0.05, max_new_tokens=53, **MATCHED)
FAR = 4.0
"""What all embeddings but two share in the speed part: more than a hundred times what else tells them apart."""
RANKED, DRAWN, LONGEST = 400, 6, 32
"""Prompts that the reward model of the learning part learns from, responses drawn to each, and their most tokens."""
REPORTS = 6
"""Held-out reports along a run, the last at its end."""

Point = Mapping[str, float]
"""A held-out report: iteration, kl, score, length, ended."""


def peer_settings(settings: PPOConfig) -> dict[str, Any]:
    """Our settings in TRL's words."""
    return {
        "total_episodes": settings.episodes,
        "num_ppo_epochs": settings.inner_epochs,
        "num_mini_batches": settings.batch_size // settings.minibatch_size,
        "response_length": settings.max_new_tokens,
        "temperature": settings.temperature,
        "learning_rate": settings.lr,
        "adam_epsilon": ADAM_EPS,
        "vf_coef": 1.0,
        "kl_coef": settings.kl_coef,
        "cliprange": settings.cliprange,
        "cliprange_value": settings.cliprange_value,
        "gamma": settings.gamma,
        "lam": settings.lam,
    }


def ask_peer(settings: PPOConfig, begun: Starts, prompts: Path, threads: int, **of_job: Any) -> dict[str, Any]:
    """TRL's answer. It ends the program unless both sides score the first prompt alike: the same weights on the same tokens."""
    parts = starts.load(begun, "cpu")
    asked = ppo.read_material(settings, begun, prompts, parts).prompts
    ids = [prompt.ids for prompt in asked for _ in range(settings.responses_per_prompt)]
    job = {"policy": str(begun.policy), "reward": str(begun.reward), "prompts": ids, "threads": threads}
    theirs = peers.run(peers.TRL_WITH_PPO, "trl_ppo", job | {"settings": peer_settings(settings)} | of_job, threads)
    (raw,) = reward.score_rows(parts.value, parts.tokenizer, [Pair(ids[0][:-1], ids[0][-1:])])
    ours = raw - parts.value.config.reward_mean
    if not math.isclose(ours, theirs["first_score"], abs_tol=1e-4):
        sys.exit(f"TRL scores the first prompt {theirs['first_score']}, we {ours}: not the same model or tokens")
    return theirs


def make_models(folder: Path, texts: Sequence[str]) -> Starts:
    """A random policy that never draws the end token or PAD, and a random reward model.

    Embeddings are tied to the head. FAR stands in their first column and so outweighs all else in every hidden state; in the rows
    of those two tokens it is negative, which leaves them a hundred nats behind the others.
    """
    plain = workload.make_checkpoint(folder / "plain", texts, workload.Shape(), "sft")
    tokenizer, policy = checkpoints.load_tokenizer(plain), checkpoints.load_language_model(plain)
    with torch.no_grad():
        first = policy.get_input_embeddings().weight[:, 0]
        first.fill_(FAR)
        first[[tokenizer.eos_token_id, tokenizer.pad_token_id]] = -FAR
    checkpoints.save(folder / "sft", policy, tokenizer, "sft", {})
    model = checkpoints.reward_model_from(folder / "sft", seed=0)
    model.config.reward_mean = 0.0
    checkpoints.save(folder / "reward", model, tokenizer, "reward", {"sft": folder / "sft"})
    return Starts(policy=folder / "sft", reward=folder / "reward", reference=folder / "sft")


def time_ours(settings: PPOConfig, begun: Starts, prompts: Path, folder: Path) -> list[float]:
    """Seconds of each iteration but the first; it ends the program where a response was shorter than the rest."""
    with workload.WatchedRun(folder) as run:
        ppo.train(settings, begun, prompts, run)
    if short := [told["length"] for told in run.told if told["length"] != settings.max_new_tokens]:
        sys.exit(f"responses of ours have {short[0]} tokens in the mean; expected {settings.max_new_tokens} in each")
    return [after - before for before, after in pairwise(run.ended)]


def measure_speed(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Ours, TRL, ours again."""
    # 1. The data, a tokenizer of it, the models: folders that both sides load.
    chosen = PROMPT_SETS[options.prompts_of]
    asked, answered = chosen.read(report.data_file(options.data, *chosen.file))
    batch = options.batch or chosen.batch
    several = options.responses_per_prompt
    if len(asked) * several < (needed := (options.iterations + 2) * batch):
        # accelerate steps at every device batch once a pass over the prompts is in its last batch
        sys.exit(
            f"{options.iterations} iterations take {needed} episodes, one batch kept back; {len(asked)} prompts give "
            f"{len(asked) * several}"
        )
    begun = make_models(folder, [*asked, *answered])
    prompts = workload.write_prompts(folder / "prompts", ((text, "train") for text in asked))
    settings = replace(SPEED, batch_size=batch, minibatch_size=batch, episodes=(options.iterations + 1) * batch)
    settings = replace(settings, responses_per_prompt=several)
    tokens = options.micro_batch_tokens or chosen.micro_batch_tokens
    settings = replace(settings, inner_epochs=options.inner_epochs, micro_batch_tokens=tokens)
    variants = {"as it comes": device_batch(settings, 8)}
    variants |= {
        f"batch {size}": device_batch(settings, size) | {"num_sample_generations": 0, "gradient_checkpointing": False}
        for size in options.peer_batches or chosen.peer_batches
    }

    # 2. Both sides in turn.
    loads = {"before": report.load()}
    seconds = time_ours(settings, begun, prompts, folder / "first")
    loads["ours"] = report.load()
    theirs = ask_peer(settings, begun, prompts, options.threads, variants=variants)
    if drawn := sum(told["end_tokens"] for variant in theirs["variants"].values() for told in variant["told"]):
        sys.exit(f"TRL drew {drawn:.0f} end tokens; expected none")
    seconds += time_ours(settings, begun, prompts, folder / "second")
    loads["after"] = report.load()

    # 3. Episodes a second.
    ours = settings.batch_size / median(seconds)
    found = {name: settings.batch_size / median(variant["seconds"]) for name, variant in theirs["variants"].items()}
    plain, best = found["as it comes"], max(found.values())
    tokenizer = checkpoints.load_tokenizer(begun.policy)
    lengths = [len(conversation.encode_prompt(tokenizer, workload.user(text))) for text in asked]
    return {
        "peer_versions": theirs["versions"],
        "data": {
            "source": chosen.file[0],
            "prompts": len(lengths),
            "prompt_tokens_mean": round(mean(lengths), 1),
            "prompt_tokens_min": min(lengths),
            "prompt_tokens_max": max(lengths),
            "response_tokens": settings.max_new_tokens,
        },
        "batch": settings.batch_size,
        "minibatch": settings.minibatch_size,
        "responses_per_prompt": several,
        "inner_epochs": settings.inner_epochs,
        "micro_batch_tokens": settings.micro_batch_tokens,
        "load_1min": loads,
        "ours_seconds_per_iteration": [round(second, 3) for second in seconds],
        "ours_episodes_per_second": round(ours, 3),
        "trl_episodes_per_second": round(plain, 3),
        "trl_best_episodes_per_second": round(best, 3),
        "trl_variants": theirs["variants"],
        "ratio": round(ours / plain, 2),
        "ratio_best": round(ours / best, 2),
    }


def device_batch(settings: PPOConfig, size: int) -> dict[str, int]:
    """TRL's settings for passes over `size` episodes at a time."""
    return {"per_device_train_batch_size": size, "gradient_accumulation_steps": settings.batch_size // size}


def rank(prompt: StarterPrompt, responses: Sequence[Response]) -> workload.Ranking:
    """The responses that ended by themselves, best first; of those that the gold preference holds for equal, one."""
    texts = {response.text for response in responses if response.finish_reason == "stop"}
    kept: list[str] = []
    bound = math.inf
    for total, text in sorted(((gold.score(prompt.messages, text).total, text) for text in texts), reverse=True):
        if total > 0 and bound - total >= gold.CLEAR:
            kept.append(text)
            bound = total
    return workload.Ranking(prompt.messages[0]["content"], kept)


def make_world(folder: Path, prompts: Sequence[StarterPrompt]) -> tuple[Starts, float]:
    """The starter's base model fine-tuned, and a reward model of it with its accuracy in training; by the starter's settings."""
    begun = workload.fine_tune_starter(folder, prompts)
    asked = [prompt for prompt in prompts if prompt.split == "train"][:RANKED]
    drawn = Engine.load(begun).sample(
        [prompt.messages for prompt in asked], n=DRAWN, temperature=1.0, max_new_tokens=LONGEST, seed=0
    )
    rankings = [rank(prompt, responses) for prompt, responses in zip(asked, drawn, strict=True)]
    workload.write_rankings(folder / "rankings", [ranking for ranking in rankings if len(ranking.responses) > 1])
    with Run(folder / "reward", {}) as run:
        judging = config.load(reward.RewardConfig, "reward", load_starter().config_path)
        result = reward.train(judging, begun, folder / "rankings", run)
    starts_at = Starts(policy=begun, reward=folder / "reward" / "checkpoint", reference=begun)
    return starts_at, result["metrics"]["train_accuracy"]


def point(iteration: int, values: Mapping[str, float]) -> Point:
    """A held-out report of PPO's, or the one before training (`_before`)."""
    end = "" if iteration else "_before"
    names = ("kl", "score", "length", "ended")
    return {"iteration": iteration} | {name: round(values[f"heldout_{name}{end}"], 4) for name in names}


def learn_ours(settings: PPOConfig, begun: Starts, prompts: Path, folder: Path) -> list[Point]:
    """The held-out reports of a run of ours, the first before it."""
    with workload.WatchedRun(folder) as run:
        metrics = ppo.train(settings, begun, prompts, run)["metrics"]
    reports = [(at, told) for at, told in enumerate(run.told, start=1) if "heldout_kl" in told]
    return [point(0, metrics), *(point(at, told) for at, told in reports)]


def measure_kept(settings: PPOConfig, begun: Starts, prompts: Path, folder: Path) -> list[Point]:
    """The same reports on policies of TRL's that lie at `folder` by iteration, but for the one before training."""
    parts = starts.load(begun, "cpu")
    material = ppo.read_material(settings, begun, prompts, parts)
    found = []
    for kept in sorted(folder.iterdir(), key=lambda kept: int(kept.name)):
        policy = checkpoints.load_language_model(kept)
        found.append(point(int(kept.name), ppo.report(settings, replace(parts, policy=policy), material).values))
    return found


def score_at(path: Sequence[Point], kl: float) -> float:
    """The score where a path last had this KL, linear between reports: at its final KL, the final score."""
    for before, after in reversed(list(pairwise(path))):
        low, high = before["kl"], after["kl"]
        if min(low, high) <= kl <= max(low, high):
            share = (kl - low) / (high - low) if high != low else 1.0
            return before["score"] + share * (after["score"] - before["score"])
    raise ValueError(
        f"no report lies on both sides of a KL of {kl}; the path goes from {path[0]['kl']} to {path[-1]['kl']}"
    )


def compare(ours: Sequence[list[Point]], theirs: Sequence[list[Point]], kl_coef: float) -> dict[str, Any]:
    """Scores at equal KL by seed; and ours less TRL's over seeds, in these and in what both maximise, score - kl_coef * KL."""
    by_seed, objectives = [], []
    for one, other in zip(ours, theirs, strict=True):
        kl = min(one[-1]["kl"], other[-1]["kl"])
        scores = {"ours": score_at(one, kl), "trl": score_at(other, kl)}
        by_seed.append({"kl": kl} | scores | {"difference": scores["ours"] - scores["trl"]})
        mine, its = (path[-1]["score"] - kl_coef * path[-1]["kl"] for path in (one, other))
        objectives.append(mine - its)
    differences = [seed["difference"] for seed in by_seed]
    return {"at_equal_kl": by_seed, "difference": spread(differences), "objective_difference": spread(objectives)}


def spread(values: Sequence[float]) -> dict[str, float | None]:
    """Their mean and its standard error, none of a single value."""
    error = stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None
    return {"mean": mean(values), "standard_error": error}


def measure_learning(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Ours and TRL on the starter world, seed by seed."""
    # 1. SFT model, reward model, prompts; both held-out splits measure.
    asked = [prompt for prompt in load_starter().prompts if len(prompt.messages) == 1]
    begun, accuracy = make_world(folder, asked)
    splits = ["train" if prompt.split == "train" else "valid" for prompt in asked]
    texts = [prompt.messages[0]["content"] for prompt in asked]
    prompts = workload.write_prompts(folder / "prompts", zip(texts, splits, strict=True))
    settings = config.load(PPOConfig, "ppo", load_starter().config_path)
    settings = replace(settings, value_lr=settings.lr, kl_coef=options.kl_coef, **MATCHED)
    settings = replace(settings, heldout_prompts=splits.count("valid"))
    settings = replace(settings, report_every=max(1, settings.episodes // settings.batch_size // REPORTS))

    # 2. Both sides.
    loads = {"before": report.load()}
    runs = [replace(settings, seed=seed) for seed in range(options.seeds)]
    ours = [learn_ours(run, begun, prompts, folder / f"ours-{run.seed}") for run in runs]
    whole = device_batch(settings, settings.batch_size)
    whole |= {"local_rollout_forward_batch_size": settings.batch_size, "num_sample_generations": 0, "stop_token": "eos"}
    answer = ask_peer(
        settings,
        begun,
        prompts,
        options.threads,
        variants={str(run.seed): whole | {"seed": run.seed} for run in runs},
        save=str(folder / "theirs"),
        save_every=settings.report_every,
    )
    theirs = [
        [one[0], *measure_kept(run, begun, prompts, folder / "theirs" / str(run.seed))]
        for run, one in zip(runs, ours, strict=True)
    ]
    loads["after"] = report.load()
    return {
        "peer_versions": answer["versions"],
        "learning": {
            "settings": peer_settings(settings) | {"batch": settings.batch_size},
            "prompts": splits.count("train"),
            "heldout_prompts": splits.count("valid"),
            "reward_train_accuracy": round(accuracy, 4),
            "load_1min": loads,
            "ours": ours,
            "trl": theirs,
            **compare(ours, theirs, settings.kl_coef),
        },
    }


def main() -> None:
    """Measure and report."""
    parser = report.parser(__doc__)
    parser.add_argument("--data", type=Path, help=f"the folder of the data sets; by default what {report.DATA} names")
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--no-speed", action="store_true", help="learning alone")
    only.add_argument("--no-learning", action="store_true", help="speed alone")
    parser.add_argument("--prompts-of", choices=PROMPT_SETS, default="rasbt", help="prompts of the speed part")
    parser.add_argument(
        "--batch", type=int, help="episodes an iteration of the speed part; by default the prompts' own"
    )
    parser.add_argument(
        "--iterations",
        type=int,
        default=2,
        help="iterations that are timed: of ours before and after the peer, of the peer",
    )
    parser.add_argument(
        "--inner-epochs", type=int, default=4, help="passes over an iteration's episodes, of the speed part"
    )
    parser.add_argument(
        "--responses-per-prompt",
        type=int,
        default=1,
        help="of the speed part: responses to each prompt of an iteration",
    )
    parser.add_argument(
        "--micro-batch-tokens", type=int, help="ours; memory and cache, not the result; by default the prompts'"
    )
    parser.add_argument(
        "--peer-batches", type=int, nargs="+", help="device batches TRL is tried at; by default the prompts'"
    )
    parser.add_argument("--seeds", type=int, default=3, help="of the learning part")
    parser.add_argument("--kl-coef", type=float, default=0.5, help="of the learning part")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    found: dict[str, Any] = {"benchmark": "ppo_vs_trl", **report.machine(options.threads)}
    with tempfile.TemporaryDirectory() as folder:
        if not options.no_speed:
            found |= measure_speed(options, Path(folder) / "speed")
        if not options.no_learning:
            found |= measure_learning(options, Path(folder) / "learning")
    report.publish(found, options.json)


if __name__ == "__main__":
    main()
