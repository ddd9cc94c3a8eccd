"""Stage 2, the reward model: a scalar head on the SFT model learns to order outputs as people did (InstructGPT 3.5, C.2)."""

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from app import snapshot
from workers.rlhf import losses, schedules
from workers.training import (
    checkpoints,
    data,
    frozen,
    lora,
    models,
    optimisers,
    parallel,
    precision,
    rankings,
    reward_report,
)
from workers.training.data import Pair
from workers.training.events import Run
from workers.training.kwise import SetScorer
from workers.training.rankings import RankedSet

TIES = {"dropped": 0.0, "half": 0.5}
"""What `RewardConfig.ties` may be, and the target probability that it gives to two tied outputs; 0 is no target."""


@dataclass(frozen=True)
class RewardConfig(lora.Settings):
    """Settings of the reward model; the defaults are InstructGPT's for 6B parameters (C.2)."""

    epochs: int = 1
    """Passes over the rankings; the paper finds the result very sensitive to this and overfit after one."""
    lr: float = 9e-6
    """Peak learning rate; cosine to 10 %. The paper finds plus or minus 50 % harmless."""
    batch_size: int = 64
    """Prompts a step, each with all comparisons of its K outputs."""
    weight_decay: float = 0.0
    """Decoupled weight decay; the paper names none."""
    max_grad_norm: float = 1.0
    """Gradient norm that is clipped to; the paper names none."""
    ties: str = "dropped"
    """Whether tied outputs are `dropped`, as in the paper, or learned from as equally likely to be better (`half`)."""
    margin: float = 0.0
    """Score units by which each level of graded strength above the slightest moves two outputs apart (Llama 2: 1/3 or 1)."""
    half: int | None = None
    """Train on one half of the prompts, 0 or 1 by a hash of their ids, so that a second model can watch PPO; none: on all."""
    frozen_blocks: int = 0
    """Lowest blocks that do not learn, nor does the embedding: what they put out is computed once and kept. 0: all learn."""
    micro_batch_tokens: int = 16384
    """Padded tokens in one forward pass: memory only, the result does not depend on it."""
    compute: str = "auto"
    """float32, bfloat16 (weights stay float32), or auto: bfloat16 on CUDA that has it, else float32."""
    seed: int = 0
    """The new head and the order of the data."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.ties not in TIES:
            raise ValueError(f"ties is {self.ties!r}; expected {' or '.join(TIES)}")
        if not 0 <= self.margin < math.inf:
            raise ValueError(f"margin is {self.margin}; expected score units of 0 or more")
        if self.half not in (None, 0, 1):
            raise ValueError(f"half is {self.half}; expected 0, 1 or none")
        precision.require_known(self.compute)
        if self.frozen_blocks < 0:
            raise ValueError(f"frozen_blocks is {self.frozen_blocks}; expected 0 or more")
        if self.frozen_blocks and self.lora_rank:
            raise ValueError(
                f"frozen_blocks is {self.frozen_blocks} and lora_rank {self.lora_rank}, but adapters lie in all blocks; set one "
                "of them to 0"
            )


def train(
    config: RewardConfig,
    model_folder: Path,
    data_folder: Path,
    run: Run,
    device: str = "cpu",
    incumbent: Path | None = None,
    without: Collection[str | None] = (),
) -> dict[str, Any]:
    """Fit a reward model, from an SFT checkpoint, to the rankings of a snapshot; the run's result.

    With `incumbent`, the reward model in use, its accuracy on the very same held-out comparisons is reported too. The training
    judgements of the labellers in `without` are left out.

    Raises ValueError where no training judgement holds a comparison, or scores overflow; CheckpointError for an unusable
    checkpoint; SnapshotError for a bad row.
    """
    # 1. The SFT model without its unembedding, under a new head r(x, y) that is read at the last token. Dropout off.
    manifest = snapshot.read_manifest(data_folder)
    compute = precision.compute_dtype(config.compute, device)
    model, tokenizer = _open(config, model_folder, compute)
    model = models.place(model, device).eval()
    lower = frozen.freeze(model, config.frozen_blocks) if config.frozen_blocks else None

    # 2. Ranked sets: K outputs encoded once each, with every judgement of them.
    context = data.context_length(model.config)
    sets = rankings.read(data_folder, tokenizer, context, tie=TIES[config.ties])
    ranked = rankings.without(sets.train, without)
    if config.half is not None:
        ranked = rankings.of_half(ranked, config.half)
    demonstrations = data.read_demonstrations(data_folder, tokenizer, context)
    if not any(judgement.comparisons for element in ranked for judgement in element.judgements):
        raise ValueError(
            f"{data_folder} has no comparison in split 'train' to learn from: {sets.dropped_judgements} judgements were left out "
            f"(tied throughout or not rankable), {len(ranked)} of {len(sets.train)} ranked sets are this model's"
        )
    run.start(asdict(config), _counts(sets, ranked, len(demonstrations.train)))
    means = (lora.sentence(model, config), precision.sentence(model, compute))
    for line in filter(None, (*_left_out(sets, ranked, demonstrations, context, config), *means)):
        run.log(line)

    # 3. Adam, betas (0.9, 0.95), cosine to 10 %.
    order = [batch for epoch in range(config.epochs) for batch in _epoch(config, ranked, epoch)]
    optimiser = optimisers.adamw(model, config.weight_decay)
    first = 0
    if (saved := run.load_state(device)) is not None:
        first, state = saved
        lora.load_state(model, state["model"])
        optimiser.load_state_dict(state["optimiser"])

    # 4. One step a batch of prompts: all comparisons of a ranking in one element, each judgement weighing the same.
    scorer = SetScorer.choose(model, tokenizer, ranked, config.micro_batch_tokens, compute)
    if scorer.why_alone:
        run.log(f"each response is encoded by itself: this model does not take K in one row ({scorer.why_alone})")
    if lower is not None:
        scorer = scorer.freeze(lower, ranked)
        run.log(lower.sentence(model))
    for step in range(first, len(order)):
        loss = backward(scorer, [ranked[at] for at in order[step]], config.margin)
        lr = config.lr * schedules.cosine(step, len(order))
        norm = optimisers.update(optimiser, model, lr, config.max_grad_norm)
        run.step(
            step + 1,
            len(order),
            {"loss": loss, "lr": lr, "grad_norm": norm},
            lambda: {"model": lora.state(model), "optimiser": optimiser.state_dict()},
        )

    # 5. The offset that makes demonstrations score 0 on average; then the held-out report.
    anchors = demonstrations.train or [output for element in ranked for output in element.outputs]
    mean = _mean_score(model, tokenizer, anchors, config.micro_batch_tokens, compute)
    if not math.isfinite(mean):
        raise ValueError(f"the mean score is {mean} after training: it diverged; lower lr or max_grad_norm")
    model.config.reward_mean = mean
    metrics = reward_report.evaluate(scorer, sets.valid)
    metrics |= {"train_accuracy": reward_report.accuracy(scorer, ranked)}
    if incumbent is not None:
        try:
            metrics |= _incumbent_report(incumbent, model_folder, sets.valid, config, device)
        except checkpoints.CheckpointError as error:
            run.log(f"the reward model in use cannot be measured beside this one: {error}")
    folder = run.folder / "checkpoint"
    identity = checkpoints.save(folder, model, tokenizer, "reward", {"sft": model_folder})
    metrics |= {"reward_mean": mean, "steps": len(order), "snapshot": manifest.sha256}
    return run.finish(metrics, folder, identity)


def backward(scorer: SetScorer, batch: Sequence[RankedSet], margin: float = 0.0) -> float:
    """Add the gradient of a batch's loss to the model's and return the loss: nats, a weighted mean over its judgements.

    However the batch is cut into micro-batches, value and gradient are the same. `margin` as in `RewardConfig`.
    """
    device = scorer.model.device
    weight = sum(element.weight for element in batch)
    parts = []
    for elements, counts in scorer.micro_batches(batch):
        places, preferred, strength, weights = (tensor.to(device) for tensor in rankings.targets(elements))
        scores = scorer.score(elements)[places]
        part = counts * losses.ranking_loss(scores, preferred, weights, margin * strength) / weight
        part.backward()
        parts.append(part.detach())
    return parallel.total(torch.stack(parts).sum()).item()


def score_rows(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Pair],
    max_tokens: int = 16384,
    compute: torch.dtype = torch.float32,
) -> list[float]:
    """The raw score of each row, in order; less `config.reward_mean` it is the reward. `compute` as in `SetScorer`."""
    scores = [0.0] * len(rows)
    with models.evaluation(model):
        for chunk in data.micro_batches(range(len(rows)), [len(row) for row in rows], max_tokens):
            batch = data.collate([rows[at] for at in chunk], tokenizer.pad_token_id, model.device)
            with precision.autocast(model.device, compute):
                values = models.end_scores(model, batch).tolist()
            for at, value in zip(chunk, values, strict=True):
                scores[at] = value
    return scores


def _open(config: RewardConfig, folder: Path, compute: torch.dtype) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """An SFT model as a reward model that is to learn, and its tokenizer."""
    tokenizer = checkpoints.load_tokenizer(folder)
    if not tokenizer.chat_template:
        raise checkpoints.CheckpointError(
            f"{folder} has no chat template; fine-tune it with `preferable train sft` first"
        )
    model = checkpoints.reward_model_from(folder, config.seed)
    checkpoints.prepare(model, tokenizer)
    lora.attach(model, config, config.seed, compute=compute)
    return model, tokenizer


def _mean_score(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Pair],
    max_tokens: int,
    compute: torch.dtype,
) -> float:
    scores = parallel.spread(lambda mine: score_rows(model, tokenizer, mine, max_tokens, compute), rows)
    return sum(scores) / len(rows)


def _incumbent_report(
    incumbent: Path, model_folder: Path, sets: Sequence[RankedSet], config: RewardConfig, device: str
) -> dict[str, Any]:
    """`incumbent_accuracy` on `sets`. The held-out set grows and hardens from run to run, so an old figure says little."""
    if not sets:
        return {}
    checkpoints.require_same_format(model_folder, incumbent)
    tokenizer = checkpoints.load_tokenizer(incumbent)
    model = models.place(checkpoints.load_reward_model(incumbent), device)
    compute = precision.compute_dtype(config.compute, device)
    scorer = SetScorer.choose(model, tokenizer, sets, config.micro_batch_tokens, compute)
    return {"incumbent_accuracy": reward_report.accuracy(scorer, sets)}


def _epoch(config: RewardConfig, sets: Sequence[RankedSet], epoch: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(config.seed * 1_000_003 + epoch)
    return data.shuffled_batches(len(sets), config.batch_size, generator)


def _counts(sets: rankings.Rankings, ranked: Sequence[RankedSet], demonstrations: int) -> dict[str, int]:
    judgements = [judgement for element in ranked for judgement in element.judgements]
    return {
        "sets": len(ranked),
        "judgements": len(judgements),
        "tokens": sum(
            len(element.outputs[0].prompt) + sum(len(output.response) for output in element.outputs)
            for element in ranked
        ),
        "comparisons": sum(len(judgement.comparisons) for judgement in judgements),
        "left_out_sets": len(sets.train) - len(ranked),
        "heldout_sets": len(sets.valid),
        "demonstrations": demonstrations,
        "dropped_outputs": sets.dropped_outputs,
        "dropped_judgements": sets.dropped_judgements,
    }


def _left_out(
    sets: rankings.Rankings,
    ranked: Sequence[RankedSet],
    demonstrations: data.Demonstrations,
    context: int,
    config: RewardConfig,
) -> Iterator[str]:
    """What was dropped or cut and why, a line for each reason that applies."""
    outputs, judgements = sets.outputs, sets.judgements
    lines = {
        f"outputs are longer than the model's context of {context} tokens and were left out": outputs["too_long"],
        "outputs have no token to score (empty, and cut at the length limit) and were left out": outputs[
            "without_tokens"
        ],
        "outputs are empty and were kept: their end token is scored": outputs["empty"],
        "outputs were cut at the length limit and were kept: they carry no end token": outputs["cut"],
        "judgements were left out: fewer than two of their outputs can be scored": judgements["one_output"],
        "judgements were left out: all their outputs are tied": judgements["tied"],
        "judgements were left out: they rank fewer than two outputs": judgements["unranked"],
        "judgements were left out: their weight is 0": judgements["no_weight"],
        f"demonstrations were left out (empty, or longer than the context of {context} tokens)": demonstrations.dropped,
    }
    yield from (f"{count} {what}" for what, count in lines.items() if count)
    if config.half is not None:
        yield f"training on half {config.half} of the prompts: {len(ranked)} of {len(sets.train)} sets of outputs"
    if not demonstrations.train:
        yield "no demonstrations to normalise on: the mean score of the training outputs is taken instead"
