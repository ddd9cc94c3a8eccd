"""Stage 2, the reward model: a scalar head on the SFT model learns to order outputs as people did (InstructGPT 3.5, C.2)."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from app import snapshot, statistics
from workers.rlhf import losses, schedules
from workers.training import checkpoints, data, models, optimisers, rankings
from workers.training.data import Pair
from workers.training.events import Run
from workers.training.kwise import SetScorer
from workers.training.rankings import RankedSet


@dataclass(frozen=True)
class RewardConfig:
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
    micro_batch_tokens: int = 16384
    """Padded tokens in one forward pass: memory only, the result does not depend on it."""
    seed: int = 0
    """The new head and the order of the data."""


def train(
    config: RewardConfig,
    model_folder: Path,
    data_folder: Path,
    run: Run,
    device: str = "cpu",
    incumbent: Path | None = None,
) -> dict[str, Any]:
    """Fit a reward model, from an SFT checkpoint, to the rankings of a snapshot; the run's result.

    With `incumbent`, the reward model in use, its accuracy on the very same held-out comparisons is reported too.

    Raises ValueError where no training judgement holds a comparison, CheckpointError for an unusable checkpoint.
    """
    # 1. The SFT model without its unembedding, under a new head r(x, y) that is read at the last token. Dropout off.
    manifest = snapshot.read_manifest(data_folder)
    tokenizer = checkpoints.load_tokenizer(model_folder)
    if not tokenizer.chat_template:
        raise checkpoints.CheckpointError(
            f"{model_folder} has no chat template; fine-tune it with `preferable train sft` first"
        )
    model = checkpoints.reward_model_from(model_folder, config.seed)
    checkpoints.prepare(model, tokenizer)
    model.to(device).eval()

    # 2. Ranked sets: K outputs encoded once each, with every judgement of them.
    context = data.context_length(model.config)
    sets = rankings.read(data_folder, tokenizer, context)
    demonstrations = data.read_demonstrations(data_folder, tokenizer, context).train
    if not sets.train:
        raise ValueError(
            f"{data_folder} has no comparison in split 'train' ({sets.dropped_judgements} judgements are tied throughout "
            "or not rankable); the reward model has nothing to learn from"
        )
    run.start(asdict(config), _counts(sets, len(demonstrations)))
    if sets.dropped_outputs:
        run.log(
            f"{sets.dropped_outputs} outputs are longer than the model's context of {context} tokens and were left out"
        )
    if not demonstrations:
        run.log("no demonstrations to normalise on: the mean score of the training outputs is taken instead")

    # 3. Adam, betas (0.9, 0.95), cosine to 10 %.
    order = [batch for epoch in range(config.epochs) for batch in _epoch(config, sets.train, epoch)]
    optimiser = optimisers.adamw(model, config.lr, config.weight_decay)
    first = 0
    if (saved := run.load_state()) is not None:
        first, state = saved
        model.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])

    # 4. One step a batch of prompts: all comparisons of a ranking in one element, each judgement weighing the same.
    scorer = SetScorer.choose(model, tokenizer, sets.train, config.micro_batch_tokens)
    if scorer.why_alone:
        run.log(f"each response is encoded by itself: this model does not take K in one row ({scorer.why_alone})")
    for step in range(first, len(order)):
        batch = [sets.train[at] for at in order[step]]
        weight = sum(element.weight for element in batch)
        loss = 0.0
        for elements in scorer.micro_batches(batch):
            index, preferred, weights = (tensor.to(device) for tensor in rankings.tensors(elements))
            part = losses.ranking_loss(scorer.score(elements)[index], preferred, weights) / weight
            part.backward()
            loss += part.item()
        lr = config.lr * schedules.cosine(step, len(order))
        norm = optimisers.update(optimiser, model, lr, config.max_grad_norm)
        run.step(
            step + 1,
            len(order),
            {"loss": loss, "lr": lr, "grad_norm": norm},
            lambda: {"model": model.state_dict(), "optimiser": optimiser.state_dict()},
        )

    # 5. The offset that makes demonstrations score 0 on average; then the held-out report.
    anchors = demonstrations or [output for element in sets.train for output in element.outputs]
    model.config.reward_mean = sum(score_rows(model, tokenizer, anchors, config.micro_batch_tokens)) / len(anchors)
    metrics = evaluate(scorer, sets.valid)
    metrics |= {"train_accuracy": evaluate(scorer, sets.train).get("accuracy")}
    if incumbent is not None:
        try:
            metrics |= _incumbent_report(incumbent, model_folder, sets.valid, config, device)
        except checkpoints.CheckpointError as error:
            run.log(f"the reward model in use cannot be measured beside this one: {error}")
    folder = run.folder / "checkpoint"
    identity = checkpoints.save(folder, model, tokenizer, "reward", {"sft": model_folder})
    metrics |= {"reward_mean": model.config.reward_mean, "steps": len(order), "snapshot": manifest.sha256}
    return run.finish(metrics, folder, identity)


def score_rows(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: Sequence[Pair], max_tokens: int = 16384
) -> list[float]:
    """The raw score of each row, in order; less `config.reward_mean` it is the reward."""
    scores = [0.0] * len(rows)
    with models.evaluation(model):
        for chunk in data.micro_batches(range(len(rows)), [len(row) for row in rows], max_tokens):
            batch = data.collate([rows[at] for at in chunk], tokenizer.pad_token_id, model.device)
            values = models.end_scores(model, batch).tolist()
            for at, value in zip(chunk, values, strict=True):
                scores[at] = value
    return scores


def evaluate(scorer: SetScorer, sets: Sequence[RankedSet]) -> dict[str, Any]:
    """Accuracy on the comparisons of `sets` and the longer-wins baseline, with intervals; empty without sets."""
    if not sets:
        return {}
    scores = scorer.score_all(sets)
    lengths = [[float(len(output.response)) for output in element.outputs] for element in sets]
    found = rankings.comparisons(sets, scores)
    accuracy, longer = statistics.accuracy(found), statistics.accuracy(rankings.comparisons(sets, lengths))
    return {
        "accuracy": accuracy.value,
        "accuracy_low": accuracy.low,
        "accuracy_high": accuracy.high,
        "longer_wins": longer.value,
        "heldout_prompts": accuracy.count,
        "heldout_comparisons": len(found),
    }


def _incumbent_report(
    incumbent: Path, model_folder: Path, sets: Sequence[RankedSet], config: RewardConfig, device: str
) -> dict[str, Any]:
    """`incumbent_accuracy` on `sets`. The held-out set grows and hardens from run to run, so an old figure says little."""
    if not sets:
        return {}
    checkpoints.require_same_format(model_folder, incumbent)
    tokenizer = checkpoints.load_tokenizer(incumbent)
    model = checkpoints.load_reward_model(incumbent).to(device)
    scorer = SetScorer.choose(model, tokenizer, sets, config.micro_batch_tokens)
    return {"incumbent_accuracy": evaluate(scorer, sets)["accuracy"]}


def _epoch(config: RewardConfig, sets: Sequence[RankedSet], epoch: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(config.seed * 1_000_003 + epoch)
    return data.shuffled_batches(len(sets), config.batch_size, generator)


def _counts(sets: rankings.Rankings, demonstrations: int) -> dict[str, int]:
    return {
        "sets": len(sets.train),
        "judgements": sum(len(element.weights) for element in sets.train),
        "comparisons": sum(int((m > m.T).sum()) for element in sets.train for m in element.preferred),
        "heldout_sets": len(sets.valid),
        "demonstrations": demonstrations,
        "dropped_outputs": sets.dropped_outputs,
        "dropped_judgements": sets.dropped_judgements,
    }
