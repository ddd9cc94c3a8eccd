"""The `preferable` command: the web half's commands, and those that learn. torch is imported inside commands only."""

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from app.cli import app
from workers.importing import import_file
from workers.simulate.command import simulate
from workers.training.process import end_rank, pick_device, quiet

if TYPE_CHECKING:
    from workers.training.estimate import Estimate
    from workers.training.events import Run

train_app = typer.Typer(no_args_is_help=True)
app.add_typer(train_app, name="train")

SHARDED = ("sft", "reward", "ppo")
"""What may run in several processes."""

Model = Annotated[str, typer.Option("--model", help="Checkpoint to start from: a folder or a hub id.")]
Data = Annotated[Path, typer.Option("--data", help="Snapshot folder.")]
Out = Annotated[Path, typer.Option("--out", help="Run folder; with a saved state in it, the run continues.")]
Config = Annotated[Path | None, typer.Option("--config", help="TOML file; each command reads its own table.")]
Set = Annotated[list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="One setting; may be repeated.")]
Threads = Annotated[int, typer.Option("--threads", min=0, help="CPU threads; 0 leaves torch's choice.")]
Device = Annotated[str, typer.Option("--device", help="cpu, cuda, cuda:1, ...; auto takes CUDA where there is one.")]
Dtype = Literal["float32", "bfloat16", "float64"]
Estimated = Annotated[
    bool, typer.Option("--estimate", help="Print as JSON what the run would need of memory and time, and do not train.")
]
Supervised = Annotated[bool, typer.Option("--supervised", hidden=True)]
StateSeconds = Annotated[float, typer.Option("--state-seconds", help="Save a resumable state this often.")]
StateSteps = Annotated[int, typer.Option("--state-steps", help="And every so many steps; 0: by time only.")]


@train_app.callback()
def train(
    context: typer.Context,
    processes: Annotated[
        int,
        typer.Option(
            "--processes", min=1, help="Processes on this host, one a GPU: sft, reward and ppo share the work."
        ),
    ] = 1,
    hosts: Annotated[
        int, typer.Option("--hosts", min=1, help="Hosts, the same command started on each, --out in a folder of all.")
    ] = 1,
    meet_at: Annotated[
        str | None, typer.Option("--meet-at", metavar="HOST:PORT", help="Where hosts meet: a free port of one of them.")
    ] = None,
    slurm: Annotated[
        list[str] | None,
        typer.Option(
            "--slurm",
            metavar="PARTITION|NAME=VALUE",
            help="Run as a Slurm job of --hosts nodes; settings of sbatch, time in minutes. May be repeated.",
        ),
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="With --slurm: wait for the run, and cancel the job at Ctrl-C.")
    ] = True,
) -> None:
    """Train one stage from files: no database, no broker."""
    if (processes * hosts == 1 and not slurm) or "--help" in sys.argv:
        return
    refused = "runs in one process" if processes * hosts > 1 and context.invoked_subcommand not in SHARDED else None
    if hosts > 1 and not (meet_at or slurm):
        refused = refused or "on several hosts needs --meet-at"
    if slurm and meet_at:
        refused = refused or "finds its hosts by --slurm; leave out --meet-at"
    if "--estimate" in sys.argv:
        refused = refused or "--estimate speaks of a run in one process; leave out --processes, --hosts and --slurm"
    if refused:
        typer.echo(f"error: train {context.invoked_subcommand} {refused}", err=True)
        raise typer.Exit(1)
    if slurm:
        raise typer.Exit(queue(context, processes, hosts, slurm, wait))
    import torch.distributed

    if not torch.distributed.is_torchelastic_launched():
        from workers.training.launch import launch

        raise typer.Exit(launch(sys.argv[1:], processes, hosts, meet_at))


def queue(context: typer.Context, processes: int, hosts: int, slurm: list[str], wait: bool) -> int:
    """Run the stage that was typed as a Slurm job, after reading its options here: a mistake is told before it is queued."""
    from workers.training.slurm import submit

    group: Any = context.command
    _, stage, _ = group.make_parser(context).parse_args(sys.argv[sys.argv.index("train") + 1 :])
    with group.get_command(context, stage[0]).make_context(stage[0], stage[1:], parent=context) as read:
        folder = read.params["out"] / "slurm"
    try:
        return submit(stage, processes, hosts, slurm, folder, wait=wait)
    except ValueError as error:
        typer.echo(f"error: {error}", err=True)
        return 1


@train_app.command("base")
def train_base(
    out: Out,
    text: Annotated[
        list[Path], typer.Option("--text", help="Text file (documents parted by blank lines) or .jsonl of {text}.")
    ],
    config: Config = None,
    set_: Set = None,
    threads: Threads = 0,
    device: Device = "auto",
    supervised: Supervised = False,
    state_seconds: StateSeconds = 60.0,
    state_steps: StateSteps = 0,
) -> None:
    """Train a small language model from scratch on plain text."""

    def work(open_run: OpenRun) -> dict[str, Any]:
        from app.snapshot import file_sha256
        from workers.training import base
        from workers.training import config as settings

        chosen = settings.load(base.BaseConfig, "base", config, set_ or ())
        with open_run(chosen, {str(number): file_sha256(path) for number, path in enumerate(text)}) as run:
            return run.finished() or base.train(chosen, text, run, pick_device(device))

    execute("base", work, out, threads, supervised, state_seconds, state_steps)


@train_app.command("sft")
def train_sft(
    model: Model,
    data: Data,
    out: Out,
    config: Config = None,
    set_: Set = None,
    reward: Annotated[
        str | None, typer.Option("--reward", help="Reward model that chooses the epoch that is kept.")
    ] = None,
    pretrain: Annotated[Path | None, typer.Option("--pretrain", help="Text snapshot to mix pretraining from.")] = None,
    threads: Threads = 0,
    device: Device = "auto",
    estimated: Estimated = False,
    supervised: Supervised = False,
    state_seconds: StateSeconds = 60.0,
    state_steps: StateSteps = 0,
) -> None:
    """Stage 1: fine-tune a base model on demonstrations."""

    def work(open_run: OpenRun) -> dict[str, Any]:
        from app.snapshot import read_manifest
        from workers.training import checkpoints, estimate, sft
        from workers.training import config as settings

        chosen = settings.load(sft.SFTConfig, "sft", config, set_ or ())
        folder = checkpoints.resolve(model)
        extras = sft.Extras(checkpoints.resolve(reward) if reward else None, pretrain)
        hashes = inputs(data, model=folder, **({"reward": extras.reward} if extras.reward else {}))
        hashes |= {"pretrain": read_manifest(pretrain).sha256} if pretrain else {}
        needs = partial(estimate.sft, chosen, folder, data, pick_device(device), extras.reward)
        if estimated:
            return needs().as_json()
        with open_run(chosen, hashes) as run:
            return unless_finished(
                run, needs, lambda: sft.train(chosen, folder, data, run, pick_device(device), extras)
            )

    execute("sft", work, out, threads, supervised, state_seconds, state_steps)


@train_app.command("reward")
def train_reward(
    model: Model,
    data: Data,
    out: Out,
    config: Config = None,
    set_: Set = None,
    incumbent: Annotated[
        str | None, typer.Option("--incumbent", help="Reward model in use, to be measured on the same comparisons.")
    ] = None,
    threads: Threads = 0,
    device: Device = "auto",
    estimated: Estimated = False,
    supervised: Supervised = False,
    state_seconds: StateSeconds = 60.0,
    state_steps: StateSteps = 0,
) -> None:
    """Stage 2: fit a reward model, from an SFT checkpoint, to rankings."""

    def work(open_run: OpenRun) -> dict[str, Any]:
        from workers.training import checkpoints, estimate, reward
        from workers.training import config as settings

        chosen = settings.load(reward.RewardConfig, "reward", config, set_ or ())
        folder = checkpoints.resolve(model)
        rival = checkpoints.resolve(incumbent) if incumbent else None
        needs = partial(estimate.reward, chosen, folder, data, pick_device(device))
        if estimated:
            return needs().as_json()
        with open_run(chosen, inputs(data, model=folder)) as run:
            return unless_finished(
                run, needs, lambda: reward.train(chosen, folder, data, run, pick_device(device), rival)
            )

    execute("reward", work, out, threads, supervised, state_seconds, state_steps)


@train_app.command("leave-groups-out")
def leave_groups_out(
    model: Model,
    data: Data,
    out: Annotated[Path, typer.Option("--out", help="Folder of the five runs and of their common metrics.json.")],
    config: Config = None,
    set_: Set = None,
    threads: Threads = 0,
    device: Device = "auto",
) -> None:
    """Measure reward models on labellers they never learned from: five, each without a fifth of them."""

    def work(_: OpenRun) -> dict[str, Any]:
        from workers.training import checkpoints, leave_groups_out, reward
        from workers.training import config as settings

        chosen = settings.load(reward.RewardConfig, "reward", config, set_ or ())
        return leave_groups_out.leave_groups_out(chosen, checkpoints.resolve(model), data, out, pick_device(device))

    execute("leave-groups-out", work, out, threads, False, 60.0, 0)


@train_app.command("ppo")
def train_ppo(
    model: Model,
    data: Data,
    out: Out,
    reward: Annotated[str, typer.Option("--reward", help="Reward model: a folder or a hub id.")],
    reference: Annotated[
        str | None, typer.Option("--reference", help="What KL is measured against; default: --model.")
    ] = None,
    watch: Annotated[
        str | None,
        typer.Option(
            "--watch", help="Second reward model, measured and not climbed: a run that only fools the first stops."
        ),
    ] = None,
    pretrain: Annotated[
        Path | None, typer.Option("--pretrain", help="Snapshot of plain text, mixed in at weight ptx_coef (PPO-ptx).")
    ] = None,
    config: Config = None,
    set_: Set = None,
    threads: Threads = 0,
    device: Device = "auto",
    estimated: Estimated = False,
    supervised: Supervised = False,
    state_seconds: StateSeconds = 60.0,
    state_steps: StateSteps = 0,
) -> None:
    """Stage 3: improve a policy against a reward model with PPO."""

    def work(open_run: OpenRun) -> dict[str, Any]:
        from workers.training import checkpoints, estimate, ppo
        from workers.training import config as settings
        from workers.training.starts import Starts

        chosen = settings.load(ppo.PPOConfig, "ppo", config, set_ or ())
        policy, climbed, measure = (checkpoints.resolve(name) for name in (model, reward, reference or model))
        starts = Starts(policy, climbed, measure, checkpoints.resolve(watch) if watch else None, pretrain)
        text = {"text": pretrain} if pretrain else {}
        needs = partial(estimate.ppo, chosen, starts, data, pick_device(device))
        if estimated:
            return needs().as_json()
        with open_run(chosen, inputs(data, **starts.checkpoints(), **text)) as run:
            return unless_finished(run, needs, lambda: ppo.train(chosen, starts, data, run, pick_device(device)))

    execute("ppo", work, out, threads, supervised, state_seconds, state_steps)


@app.command("sample")
def sample(
    model: Model,
    data: Annotated[Path, typer.Option("--data", help="Prompts snapshot, or JSONL of {prompt}.")],
    out: Annotated[Path, typer.Option("--out", help="JSONL to write; interrupted, the same command continues it.")],
    n: Annotated[int, typer.Option("--n", help="Responses a prompt.")] = 1,
    temperature: float = 1.0,
    top_p: float = 1.0,
    top_k: Annotated[int, typer.Option(help="Draw from so many of the likeliest tokens; 0: from all.")] = 0,
    stop: Annotated[list[str] | None, typer.Option(help="End a response before this text; may be repeated.")] = None,
    max_new_tokens: int = 128,
    seed: int = 0,
    split: Annotated[str | None, typer.Option(help="Only prompts of this split.")] = None,
    reference: Annotated[str | None, typer.Option(help="Also measure the divergence from this checkpoint.")] = None,
    best_of: Annotated[int, typer.Option(help="Draw so many for each response and keep the best by --reward.")] = 1,
    reward: Annotated[str | None, typer.Option(help="Reward model that --best-of chooses by.")] = None,
    check_equal: Annotated[
        int, typer.Option(help="Draw so many prompts again, each alone, and report the share of equal responses.")
    ] = 0,
    dtype: Annotated[Dtype, typer.Option(help="Precision of the model.")] = "float32",
    vllm: Annotated[
        str | None, typer.Option(help="Address of a `vllm serve` of the same checkpoint, which then draws.")
    ] = None,
    threads: Threads = 0,
    device: Device = "auto",
) -> None:
    """Answer prompts with a checkpoint and write the responses as JSONL."""

    def work() -> dict[str, Any]:
        import torch

        from workers.training import checkpoints, sampling
        from workers.training.engine import Decoding

        decoding = Decoding(n, temperature, top_p, max_new_tokens, seed, top_k, tuple(stop or ()))
        against, judge = (checkpoints.resolve(name) if name else None for name in (reference, reward))
        return sampling.sample(
            checkpoints.resolve(model),
            data,
            out,
            decoding,
            split=split,
            helpers=sampling.Helpers(against, judge, best_of),
            check_prompts=check_equal,
            device=pick_device(device),
            dtype=getattr(torch, dtype),
            vllm=vllm,
        )

    convert(work, out, threads)


@app.command("score")
def score(
    model: Model,
    data: Annotated[Path, typer.Option("--data", help="JSONL of {prompt, response} or of what `sample` wrote.")],
    out: Annotated[
        Path, typer.Option("--out", help="JSONL to write, with a score on every response; continued like `sample`'s.")
    ],
    threads: Threads = 0,
    device: Device = "auto",
) -> None:
    """Score responses with a reward model; 0 is the mean of the demonstrations."""

    def work() -> dict[str, Any]:
        from workers.training import checkpoints, scoring

        return scoring.score(checkpoints.resolve(model), data, out, pick_device(device))

    convert(work, out, threads)


def convert(work: Callable[[], dict[str, Any]], out: Path, threads: int) -> None:
    """Run a command that turns a file into another: metrics.json beside it, one JSON line last, or one sentence and code 1."""
    quiet()
    import torch

    from workers.training.events import describe, is_run_folder

    if threads:
        torch.set_num_threads(threads)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        if is_run_folder(out.parent):
            raise ValueError(
                f"{out.parent} is the folder of a training run, whose metrics.json is its own; choose another"
            )
        metrics = work()
        line = json.dumps({"metrics": metrics, "out": str(out)})
        (out.parent / "metrics.json").write_text(line + "\n", encoding="utf-8")
    except (ValueError, OSError) as error:
        typer.echo(f"error: {describe(error)}", err=True)
        raise typer.Exit(1) from None
    typer.echo(line)


OpenRun = Callable[[Any, Mapping[str, str]], "Run"]
"""Opens the run folder for a config and the hashes of its inputs."""


def execute(
    stage: str,
    work: Callable[[OpenRun], dict[str, Any]],
    out: Path,
    threads: int,
    supervised: bool,
    state_seconds: float,
    state_steps: int,
) -> None:
    """Run one training command: exit code 0 with one JSON line last, 1 with one sentence, 130 where it was cancelled."""
    quiet()
    import torch

    from workers.training import parallel
    from workers.training.events import CANCELLED, CancelledError, Run, describe

    if threads:
        torch.set_num_threads(threads)
    opened: list[Run] = []

    def open_run(config: Any, hashes: Mapping[str, str]) -> Run:
        settings = {"stage": stage, "config": asdict(config), "inputs": dict(hashes)}
        opened.append(Run(out, settings, supervised=supervised, state_seconds=state_seconds, state_steps=state_steps))
        return opened[-1]

    try:
        with parallel.group():
            if parallel.size() > 1 and stage not in SHARDED:
                raise ValueError(f"train {stage} runs in one process; start it without torchrun")
            result = work(open_run)
            if not supervised and parallel.rank() == 0:
                typer.echo(json.dumps(result))
    except CancelledError as error:
        if parallel.rank() == 0:
            typer.echo(str(error), err=True)
        raise typer.Exit(CANCELLED) from None
    except Exception as error:
        if parallel.is_consequence(error):
            typer.echo(f"process {parallel.rank()}: {describe(error)}", err=True)
            raise typer.Exit(1) from None
        parallel.record(describe(error))
        if parallel.rank() == 0 and supervised and not (opened and opened[-1].was_entered):
            typer.echo(json.dumps({"type": "error", "message": describe(error)}))
        elif parallel.rank() == 0 and not supervised:
            typer.echo(f"error: {describe(error)}", err=True)
        if not isinstance(error, ValueError | OSError):
            raise
        raise typer.Exit(1) from None


def unless_finished(run: "Run", needs: Callable[[], "Estimate"], train: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The result of a run that has finished before; of any other what `train` returns, once the log has what it needs."""
    from workers.training import estimate

    if (result := run.finished()) is not None:
        return result
    estimate.announce(run, needs)
    return train()


def inputs(data: Path, **folders: Path) -> dict[str, str]:
    """The hashes that, with the settings, decide a run's result: of the snapshot and of every folder it starts from."""
    from app.snapshot import folder_sha256, read_manifest

    return {"data": read_manifest(data).sha256, **{role: folder_sha256(folder) for role, folder in folders.items()}}


app.command("import")(import_file)
app.command("simulate")(simulate)


def main() -> None:
    """Entry point of the installed command."""
    try:
        app()
    except SystemExit as ended:
        if (torch := sys.modules.get("torch")) and torch.distributed.is_torchelastic_launched():
            end_rank(ended.code if isinstance(ended.code, int) else 0)
        raise


if __name__ == "__main__":
    main()
