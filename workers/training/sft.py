"""Stage 1, supervised fine-tuning: the base model learns to answer as the demonstrations do (InstructGPT, section 3.5, C.1).

With a text snapshot a share of pretraining is mixed in, which makes the model that PPO begins from (C.3: 2 epochs, 10 %).
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from app import snapshot
from workers.rlhf import schedules
from workers.training import (
    checkpoints,
    conversation,
    data,
    lora,
    models,
    optimisers,
    parallel,
    precision,
    selection,
)
from workers.training.data import Pair
from workers.training.engine import Decoding
from workers.training.events import Run, State
from workers.training.packed import Likelihood
from workers.training.selection import Judge, Kept


@dataclass(frozen=True)
class SFTConfig(lora.Settings):
    """Settings of supervised fine-tuning; the defaults are InstructGPT's for 1.3B and 6B parameters (C.1)."""

    epochs: int = 16
    """Passes over the demonstrations; the paper goes on though validation loss rises, as reward and preference still improve."""
    lr: float = 9.65e-6
    """Peak learning rate; cosine to 10 %, no warm-up."""
    batch_size: int = 32
    """Demonstrations a step."""
    dropout: float = 0.2
    """Residual dropout, where the architecture has one (GPT-2 does, Llama does not)."""
    lora_dropout: float = 0.0
    """Dropout of what the adapters read, where `lora_rank` sets them; reward model and PPO train without any."""
    weight_decay: float = 0.0
    """Decoupled weight decay; the paper names none."""
    max_grad_norm: float = 1.0
    """Gradient norm that is clipped to; the paper names none."""
    micro_batch_tokens: int = 16384
    """Padded tokens in one forward pass: memory only, the result does not depend on it."""
    packing: bool = True
    """Several demonstrations in a row, none seeing another, where that saves padding: speed only, as above."""
    compute: str = "auto"
    """float32, bfloat16 (weights stay float32), or auto: bfloat16 on CUDA that has it, else float32."""
    choose: str = "auto"
    """Epoch that is kept: last, valid_loss, reward, or auto: by the reward model where one is given, else by validation loss."""
    choose_prompts: int = 256
    """Validation prompts that the policy answers at each epoch's end for the reward model, the first ones of the snapshot."""
    max_new_tokens: int = 128
    """Length limit of those answers."""
    pretrain_share: float = 0.1
    """Weight of the pretraining text in the loss, and its share of a step's rows, where text is given (C.3)."""
    pretrain_tokens: int = 512
    """Tokens in a row of pretraining text, at most the model's context."""
    seed: int = 0
    """Order of the data, dropout and the draws of answers."""

    def __post_init__(self) -> None:
        super().__post_init__()
        precision.require_known(self.compute)
        if self.choose not in selection.RULES:
            raise ValueError(f"setting choose is {self.choose!r}; expected one of {', '.join(selection.RULES)}")
        if not 0 < self.pretrain_share < 1:
            raise ValueError(f"pretrain_share is {self.pretrain_share}; expected a share above 0 and below 1")


@dataclass(frozen=True)
class Extras:
    """What supervised fine-tuning can do without."""

    reward: Path | None = None
    """A reward model that chooses the epoch."""
    text: Path | None = None
    """A text snapshot for the pretraining mix."""


def train(
    config: SFTConfig, model_folder: Path, data_folder: Path, run: Run, device: str = "cpu", extras: Extras = Extras()
) -> dict[str, Any]:
    """Fine-tune a base checkpoint on the demonstrations of a snapshot; the run's result.

    Raises ValueError for a snapshot without training demonstrations, CheckpointError for an unusable base.
    """
    # 1. The base model, our template and PAD written into its tokenizer if it has none.
    torch.manual_seed(config.seed)
    manifest = snapshot.read_manifest(data_folder)
    model, tokenizer = _open(config, model_folder, device)

    # 2. Demonstrations as prompt and response ids; the loss sees responses only. The text of the mix, if any.
    context = data.context_length(model.config)
    rows = data.read_demonstrations(data_folder, tokenizer, context)
    if not rows.train:
        raise ValueError(
            f"{data_folder} has no demonstrations in split 'train' that fit the model; SFT has nothing to learn from"
        )
    text = _read_text(config, extras.text, tokenizer, context) if extras.text else []
    by, why = selection.rule(config.choose, has_reward=extras.reward is not None, validation=len(rows.valid))
    judge = _judge(config, extras.reward, tokenizer, rows.valid, context, device) if by == "reward" else None
    likelihood = _likelihood(config, model, tokenizer, [*rows.train, *text])
    run.start(asdict(config), _counts(rows, text))
    means = (_means(config, likelihood), _no_dropout(config, model), lora.sentence(model, config))
    for sentence in (_left_out(rows), *means, why):
        if sentence:
            run.log(sentence)

    # 3. Adam, betas (0.9, 0.95), cosine to 10 %.
    order = [batch for epoch in range(config.epochs) for batch in _epoch(config, len(rows.train), epoch)]
    optimiser = optimisers.adamw(model, config.weight_decay)
    first, kept = 0, Kept(by)
    if (saved := run.load_state(device)) is not None:
        first, state = saved
        lora.load_state(model, state["model"])
        optimiser.load_state_dict(state["optimiser"])
        kept.load(state["kept"])

    # 4. One step a batch: the mean negative log-likelihood of its response tokens, and that of the text at its share.
    model.train()
    share, epoch_steps = config.pretrain_share if text else 0.0, math.ceil(len(rows.train) / config.batch_size)
    for step in range(first, len(order)):
        losses = {"loss": backward(likelihood, [rows.train[at] for at in order[step]], 1 - share)}
        if text:
            losses["text_loss"] = backward(likelihood, [text[at] for at in _text(config, len(text), step)], share)
        lr = config.lr * schedules.cosine(step, len(order))
        norm = optimisers.update(optimiser, model, lr, config.max_grad_norm)
        values = {name: loss.item() for name, loss in losses.items()} | {"lr": lr, "grad_norm": norm}

        # 5. At an epoch's end: keep the weights if they are the best so far.
        if kept.by != "last" and (step + 1) % epoch_steps == 0:
            values |= (seen := _heldout(likelihood, rows.valid, judge))
            kept.take((step + 1) // epoch_steps, seen["valid_reward" if judge else "valid_loss"], model)
        run.step(step + 1, len(order), values, partial(_state, model, optimiser, kept))

    # 6. The checkpoint: the weights kept, and what they are worth on held-out prompts.
    models.set_residual_dropout(model, 0.0)
    if kept.epoch:
        run.log(kept.sentence(config.epochs))
        kept.restore(model)
    metrics: dict[str, Any] = {"train_loss": likelihood.mean(rows.train)} | _heldout(likelihood, rows.valid, judge)
    folder = run.folder / "checkpoint"
    identity = checkpoints.save(folder, model, tokenizer, "sft", {"base": model_folder})
    metrics |= {"steps": len(order), "kept_epoch": kept.epoch or config.epochs, "kept_by": kept.by}
    metrics |= {"dropped": rows.dropped, "snapshot": manifest.sha256}
    return run.finish(metrics, folder, identity)


def backward(likelihood: Likelihood, rows: Sequence[Pair], weight: float = 1.0) -> Tensor:
    """Leave the gradient of `weight` times the rows' mean negative log-likelihood per response token in the model.

    Returns that mean (), unweighted, in nats. Nothing waits for the device; the gradient does not depend on how rows were cut.
    """
    tokens = sum(len(row.response) for row in rows)
    parts = []
    for part in likelihood.parts(rows):
        (weight * part / tokens).backward()
        parts.append(part.detach())
    return parallel.total(torch.stack(parts).sum()) / tokens


def _open(config: SFTConfig, folder: Path, device: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A base model as it begins to learn, and its tokenizer with a template and a PAD."""
    tokenizer, model = checkpoints.load_tokenizer(folder), checkpoints.load_language_model(folder)
    known = len(tokenizer)
    conversation.write_template(tokenizer)
    checkpoints.prepare(model, tokenizer, known)
    models.set_residual_dropout(model, config.dropout)
    markers = [token for token in range(known, len(tokenizer)) if token != tokenizer.pad_token_id]
    lora.attach(model, config, config.seed, dropout=config.lora_dropout, new_tokens=markers)
    return models.place(model, device), tokenizer


def _read_text(config: SFTConfig, folder: Path, tokenizer: PreTrainedTokenizerBase, context: int) -> list[Pair]:
    """Blocks of text as rows whose prompt is their first token."""
    snapshot.read_manifest(folder)
    blocks = data.read_text(folder, tokenizer, min(context, config.pretrain_tokens))
    return [Pair(block[:1], block[1:]) for block in blocks]


def _judge(
    config: SFTConfig,
    folder: Path | None,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Pair],
    context: int,
    device: str,
) -> Judge | None:
    if folder is None:
        return None
    decoding = Decoding(max_new_tokens=config.max_new_tokens, seed=config.seed)
    asked = rows[: config.choose_prompts]
    return Judge.load(folder, tokenizer, asked, context, decoding, config.micro_batch_tokens, device)


def _likelihood(
    config: SFTConfig, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: Sequence[Pair]
) -> Likelihood:
    compute = precision.compute_dtype(config.compute, model.device)
    if not config.packing:
        return Likelihood(model, tokenizer, config.micro_batch_tokens, compute)
    likelihood = Likelihood.choose(model, tokenizer, rows, config.micro_batch_tokens, compute)
    return replace(likelihood, why_unpacked=parallel.agree(likelihood.why_unpacked))


def _heldout(likelihood: Likelihood, rows: Sequence[Pair], judge: Judge | None) -> dict[str, Any]:
    seen = {"valid_loss": likelihood.mean(rows)}
    return seen | ({"valid_reward": judge.score(likelihood.model)} if judge else {})


def _epoch(config: SFTConfig, count: int, epoch: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(config.seed * 1_000_003 + epoch)
    return data.shuffled_batches(count, config.batch_size, generator)


def _text(config: SFTConfig, count: int, step: int) -> list[int]:
    """The rows of text of a step: their share of its rows, at least one."""
    size = max(1, round(config.batch_size * config.pretrain_share / (1 - config.pretrain_share)))
    return data.endless(count, size, step, config.seed)


def _state(model: PreTrainedModel, optimiser: torch.optim.Optimizer, kept: Kept) -> State:
    return {"model": lora.state(model), "optimiser": optimiser.state_dict(), "kept": kept.state()}


def _counts(rows: data.Demonstrations, text: Sequence[Pair]) -> dict[str, int]:
    counts = {
        "demonstrations": len(rows.train),
        "validation": len(rows.valid),
        "dropped": rows.dropped,
        "tokens": sum(map(len, rows.train)),
        "response_tokens": sum(len(row.response) for row in rows.train),
    }
    return counts | ({"text_tokens": sum(map(len, text))} if text else {})


def _left_out(rows: data.Demonstrations) -> str | None:
    reasons = ", ".join(f"{count} {reason}" for reason, count in rows.left_out.items())
    return f"{rows.dropped} demonstrations were left out: {reasons}" if reasons else None


def _no_dropout(config: SFTConfig, model: PreTrainedModel) -> str:
    """That residual dropout is set and there is no module to set it on; else nothing."""
    if not config.dropout or models.residual_dropouts(model):
        return ""
    return (
        f"this architecture has no dropout module on its residual stream: dropout {config.dropout:g} changes nothing, what "
        "its own config asks for stays"
    )


def _means(config: SFTConfig, likelihood: Likelihood) -> str:
    """By what means the run computes: device, dtypes, and whether rows are packed."""
    text = precision.sentence(likelihood.model, likelihood.compute)
    if config.packing and likelihood.why_unpacked:
        return f"{text}; each row by itself, as this model does not take several in one ({likelihood.why_unpacked})"
    return f"{text}; rows packed where that saves padding" if config.packing else text
