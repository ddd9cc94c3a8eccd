"""Stage 0, plain language-model training of a small Llama from scratch: how the starter's base model is made.

The text is all there is: no prompts, no answers. What comes out continues text; it does not follow instructions.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from app import snapshot
from workers.rlhf import schedules
from workers.training import checkpoints, data, optimisers
from workers.training.events import Run

BEGIN, END, PAD = "<|begin|>", "<|end|>", "<|pad|>"


@dataclass(frozen=True)
class BaseConfig:
    """Shape and training of the base model; the defaults give about a million parameters."""

    vocab_size: int = 1024
    """Byte-level BPE tokens, the 256 bytes and three special ones included."""
    hidden_size: int = 128
    """Width."""
    layers: int = 5
    """Depth."""
    heads: int = 4
    """Attention heads."""
    intermediate_size: int = 352
    """Width of the feed-forward layers."""
    context: int = 256
    """Longest sequence in tokens."""
    steps: int = 2000
    """Updates."""
    batch_size: int = 32
    """Blocks a step."""
    block_tokens: int = 128
    """Tokens a block."""
    lr: float = 3e-3
    """Peak learning rate; 100 steps of warm-up, cosine to 10 %."""
    weight_decay: float = 0.1
    """Decoupled weight decay of matrices (GPT-3, appendix B)."""
    seed: int = 0
    """Initial weights and order of the blocks."""


def train(config: BaseConfig, texts: Sequence[Path], run: Run, device: str = "cpu") -> dict[str, Any]:
    """Train tokenizer and model on text files; the run's result. Same seed, files and threads give the same checkpoint.

    A `.jsonl` file holds one {"text"} a line, any other file documents parted by blank lines. Raises ValueError without text.
    """
    # 1. Documents, tokenizer, and one stream of tokens: begin, text, end, begin, ...
    documents = [document for path in texts for document in read_documents(path)]
    if not documents:
        raise ValueError(f"no text in {', '.join(map(str, texts))}")
    tokenizer = train_tokenizer(documents, config.vocab_size)
    ids = tokenizer([document + END for document in documents])["input_ids"]
    stream = torch.tensor([token for document in ids for token in document])
    blocks = (len(stream) - 1) // config.block_tokens
    if blocks < 1:
        raise ValueError(f"the text has {len(stream)} tokens; expected at least one block of {config.block_tokens}")

    # 2. The model.
    torch.manual_seed(config.seed)
    model = LlamaForCausalLM(_architecture(config, tokenizer)).to(device)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    run.start(asdict(config), {"documents": len(documents), "tokens": len(stream), "parameters": parameters})
    optimiser = optimisers.adamw(model, config.weight_decay)
    first = 0
    if (saved := run.load_state()) is not None:
        first, state = saved
        model.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])

    # 3. Next-token cross-entropy on blocks in shuffled order.
    model.train()
    loss = torch.zeros(())
    for step in range(first, config.steps):
        starts = _starts(config, step, blocks)
        inputs = torch.stack([stream[at : at + config.block_tokens] for at in starts]).to(device)
        targets = torch.stack([stream[at + 1 : at + 1 + config.block_tokens] for at in starts]).to(device)
        loss = F.cross_entropy(model(input_ids=inputs, use_cache=False).logits.flatten(0, 1), targets.flatten())
        loss.backward()
        lr = config.lr * schedules.cosine(step, config.steps, warmup=100)
        norm = optimisers.update(optimiser, model, lr, 1.0)
        run.step(
            step + 1,
            config.steps,
            {"loss": loss.item(), "lr": lr, "grad_norm": norm},
            lambda: {"model": model.state_dict(), "optimiser": optimiser.state_dict()},
        )

    # 4. The checkpoint.
    folder = run.folder / "checkpoint"
    identity = checkpoints.save(folder, model.eval(), tokenizer, "base", {})
    metrics = {"loss": loss.item(), "steps": config.steps, "tokens": len(stream), "parameters": parameters}
    return run.finish(metrics, folder, identity)


def read_documents(path: Path) -> Iterator[str]:
    """The documents of a text file, without empty ones."""
    if path.suffix == ".jsonl":
        documents = [str(row["text"]) for row in snapshot.read_rows(path.parent, path.name)]
    else:
        documents = path.read_text(encoding="utf-8").split("\n\n")
    yield from (document.strip("\n") for document in documents if document.strip())


def train_tokenizer(documents: Sequence[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer: any text is representable, digits stand alone, a begin token opens each document."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[PAD, BEGIN, END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    core.train_from_iterator(documents, trainer)
    begin = core.token_to_id(BEGIN)
    core.post_processor = processors.TemplateProcessing(single=f"{BEGIN} $A", special_tokens=[(BEGIN, begin)])
    return PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token=BEGIN, eos_token=END, pad_token=PAD, clean_up_tokenization_spaces=False
    )


def _architecture(config: BaseConfig, tokenizer: PreTrainedTokenizerFast) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        max_position_embeddings=config.context,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def _starts(config: BaseConfig, step: int, blocks: int) -> list[int]:
    """Where the blocks of a step begin: a pure function of seed and step, in a new order each pass over the text."""
    return [at * config.block_tokens for at in data.endless(blocks, config.batch_size, step, config.seed)]
