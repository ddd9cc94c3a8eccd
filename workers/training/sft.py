"""Stage 1, supervised fine-tuning: the base model learns to answer as the demonstrations do (InstructGPT, section 3.5, C.1)."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from app import snapshot
from workers.rlhf import losses, schedules
from workers.training import checkpoints, conversation, data, models, optimisers
from workers.training.events import Run


@dataclass(frozen=True)
class SFTConfig:
    """Settings of supervised fine-tuning; the defaults are InstructGPT's for 1.3B and 6B parameters (C.1)."""

    epochs: int = 16
    """Passes over the demonstrations; the paper goes on though validation loss rises, as reward and preference still improve."""
    lr: float = 9.65e-6
    """Peak learning rate; cosine to 10 %, no warm-up."""
    batch_size: int = 32
    """Demonstrations a step."""
    dropout: float = 0.2
    """Residual dropout, where the architecture has one (GPT-2 does, Llama does not)."""
    weight_decay: float = 0.0
    """Decoupled weight decay; the paper names none."""
    max_grad_norm: float = 1.0
    """Gradient norm that is clipped to; the paper names none."""
    micro_batch_tokens: int = 16384
    """Padded tokens in one forward pass: memory only, the result does not depend on it."""
    seed: int = 0
    """Order of the data and dropout."""


def train(config: SFTConfig, model_folder: Path, data_folder: Path, run: Run, device: str = "cpu") -> dict[str, Any]:
    """Fine-tune a base checkpoint on the demonstrations of a snapshot; the run's result.

    Raises ValueError for a snapshot without training demonstrations, CheckpointError for an unusable base.
    """
    # 1. The base model, our template and PAD written into its tokenizer if it has none.
    torch.manual_seed(config.seed)
    manifest = snapshot.read_manifest(data_folder)
    tokenizer = checkpoints.load_tokenizer(model_folder)
    model = checkpoints.load_language_model(model_folder)
    known = len(tokenizer)
    conversation.write_template(tokenizer)
    checkpoints.prepare(model, tokenizer, known)
    models.set_residual_dropout(model, config.dropout)
    model.to(device)

    # 2. Demonstrations as prompt and response ids; the loss sees responses only.
    rows = data.read_demonstrations(data_folder, tokenizer, data.context_length(model.config))
    if not rows.train:
        raise ValueError(
            f"{data_folder} has no demonstrations in split 'train' that fit the model; SFT has nothing to learn from"
        )
    run.start(
        asdict(config), {"demonstrations": len(rows.train), "validation": len(rows.valid), "dropped": rows.dropped}
    )
    if rows.dropped:
        run.log(f"{rows.dropped} demonstrations are longer than the model's context and were left out")

    # 3. Adam, betas (0.9, 0.95), cosine to 10 %.
    order = [batch for epoch in range(config.epochs) for batch in _epoch(config, rows.train, epoch)]
    optimiser = optimisers.adamw(model, config.lr, config.weight_decay)
    first = 0
    if (saved := run.load_state()) is not None:
        first, state = saved
        model.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])

    # 4. One step a batch: the mean negative log-likelihood of its response tokens.
    model.train()
    lengths = [len(row) for row in rows.train]
    for step in range(first, len(order)):
        tokens = sum(len(rows.train[at].response) for at in order[step])
        loss = 0.0
        for chunk in data.micro_batches(order[step], lengths, config.micro_batch_tokens):
            batch = data.collate([rows.train[at] for at in chunk], tokenizer.pad_token_id, device)
            part = losses.nll(models.response_logprobs(model, batch), batch.response_mask) / tokens
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

    # 5. The checkpoint, and the loss on demonstrations of held-out prompts.
    models.set_residual_dropout(model, 0.0)
    metrics: dict[str, Any] = {
        "train_loss": evaluate(model, tokenizer, rows.train),
        "valid_loss": evaluate(model, tokenizer, rows.valid),
    }
    folder = run.folder / "checkpoint"
    identity = checkpoints.save(folder, model, tokenizer, "sft", {"base": model_folder})
    metrics |= {"steps": len(order), "dropped": rows.dropped, "snapshot": manifest.sha256}
    return run.finish(metrics, folder, identity)


def evaluate(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: Sequence[data.Pair], max_tokens: int = 16384
) -> float | None:
    """Mean negative log-likelihood per response token, in nats; None without rows."""
    if not rows:
        return None
    total = 0.0
    with models.evaluation(model):
        for chunk in data.micro_batches(range(len(rows)), [len(row) for row in rows], max_tokens):
            batch = data.collate([rows[at] for at in chunk], tokenizer.pad_token_id, model.device)
            total += losses.nll(models.response_logprobs(model, batch), batch.response_mask).item()
    return total / sum(len(row.response) for row in rows)


def _epoch(config: SFTConfig, rows: Sequence[data.Pair], epoch: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(config.seed * 1_000_003 + epoch)
    return data.shuffled_batches(len(rows), config.batch_size, generator)
