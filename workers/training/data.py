"""Snapshot rows as token ids, and batches of them as tensors in one layout that every stage shares.

A row is a prompt and a response. In a batch rows are padded on the left only, so that responses lie in the last T columns:
logits are computed for these only, and a batch is no wider than its longest row. What is computed per response token is
then shifted flush left (`models.flush_left`), into plain (B, T) tensors. Lengths come from the rows, never from a search
for PAD.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from app import snapshot
from workers.training import conversation

WORTHWHILE = 384
"""Tokens from which a forward pass of a small model on a CPU costs what its tokens cost, and no more."""


@dataclass(frozen=True)
class Pair:
    """A prompt and a response as token ids; a response that ended carries the end token."""

    prompt: list[int]
    response: list[int]

    def __len__(self) -> int:
        """Tokens in all."""
        return len(self.prompt) + len(self.response)


@dataclass(frozen=True)
class Batch:
    """B rows flush right in W columns; the longest response has T tokens, and every response ends in the last column."""

    input_ids: Tensor
    """(B, W) int64"""
    attention_mask: Tensor
    """(B, W) int64, 1 on tokens, 0 on padding"""
    position_ids: Tensor
    """(B, W) int64, the first token of each row at 0, so that padding moves no token"""
    response_mask: Tensor
    """(B, T) bool, flush left, True on response tokens, the end token included"""

    @property
    def response_width(self) -> int:
        """T."""
        return self.response_mask.shape[1]

    @property
    def last_tokens(self) -> Tensor:
        """(B, T) int64, the last T tokens of each row: its response, flush right."""
        return self.input_ids[:, self.input_ids.shape[1] - self.response_width :]


def collate(rows: Sequence[Pair], pad_id: int, device: str | torch.device = "cpu") -> Batch:
    """Pad rows into one batch. An empty prompt is refused: its first response token would have nothing to be predicted from."""
    if any(not row.prompt for row in rows):
        raise ValueError("a prompt has no tokens; the first token of a response needs one before it")
    width, response_width = max(map(len, rows)), max(len(row.response) for row in rows)
    ids = [[pad_id] * (width - len(row)) + row.prompt + row.response for row in rows]
    mask = [[0] * (width - len(row)) + [1] * len(row) for row in rows]
    lengths = torch.tensor([[len(row.response)] for row in rows], device=device)
    attention = torch.tensor(mask, dtype=torch.int64, device=device)
    return Batch(
        input_ids=torch.tensor(ids, dtype=torch.int64, device=device),
        attention_mask=attention,
        position_ids=(attention.cumsum(1) - 1).clamp(min=0),
        response_mask=torch.arange(response_width, device=device) < lengths,
    )


def shuffled_batches(count: int, batch_size: int, generator: torch.Generator) -> list[list[int]]:
    """One epoch's batches of row indices, every index once, the last batch perhaps short.

    Not sorted by length: rows of one length are often of one kind, and a batch of one kind pulls the weights to and fro.
    """
    order: list[int] = torch.randperm(count, generator=generator).tolist()
    return [order[at : at + batch_size] for at in range(0, count, batch_size)]


def endless(count: int, size: int, step: int, seed: int) -> list[int]:
    """The rows of a step that takes `size` of `count`, in a new order each pass: a pure function of step and seed."""
    numbers = (divmod(number, count) for number in range(step * size, (step + 1) * size))
    return [_shuffled(count, seed * 1_000_003 + passed)[at] for passed, at in numbers]


def micro_batches(indices: Sequence[int], lengths: Sequence[int], max_tokens: int) -> Iterator[list[int]]:
    """Cut a batch into runs of rows alike in length, at least one row each, within `max_tokens` padded tokens.

    A run of `WORTHWHILE` tokens is also closed where another row would leave a fifth of it to padding.
    """
    run: list[int] = []
    tokens = 0
    for index in sorted(indices, key=lambda at: lengths[at]):
        padded = (len(run) + 1) * lengths[index]
        wasteful = tokens >= WORTHWHILE and tokens + lengths[index] < 0.8 * padded
        if run and (padded > max_tokens or wasteful):
            yield run
            run, tokens = [], 0
        run.append(index)
        tokens += lengths[index]
    if run:
        yield run


def padded_tokens(lengths: Sequence[int], max_tokens: int) -> int:
    """Tokens that are computed for rows of these lengths in `micro_batches`, padding included."""
    return sum(len(run) * lengths[run[-1]] for run in micro_batches(range(len(lengths)), lengths, max_tokens))


@dataclass(frozen=True)
class Demonstrations:
    """Demonstrations of a snapshot as token ids, by split, and how many were left out for what reason."""

    train: list[Pair]
    valid: list[Pair]
    left_out: Mapping[str, int]

    @property
    def dropped(self) -> int:
        """How many were left out."""
        return sum(self.left_out.values())


def read_demonstrations(folder: Path, tokenizer: PreTrainedTokenizerBase, context: int) -> Demonstrations:
    """The demonstrations of a snapshot; rows over `context` tokens and empty ones are left out and counted by reason.

    Split `test` is never read. Raises ValueError, naming file and row, for a response that is no text and for a prompt that is
    no conversation or that the chat template refuses.
    """
    name = "demonstrations.jsonl"
    rows: dict[str, list[Pair]] = {"train": [], "valid": []}
    left_out: Counter[str] = Counter()
    for row in snapshot.read_rows(folder, name):
        if row["split"] not in rows:
            continue
        if not isinstance(response := row.get("response"), str):
            raise ValueError(f"{_place(folder, name, row)}: the response is {response!r}; expected text")
        prompt = _encode_prompt(folder, name, row, tokenizer)
        pair = Pair(prompt, conversation.encode_response(tokenizer, response))
        if not response.strip():
            left_out["with an empty response"] += 1
        elif len(prompt) >= context:
            left_out[f"with a prompt that fills the model's context of {context} tokens"] += 1
        elif len(pair) > context:
            left_out[f"longer than the model's context of {context} tokens"] += 1
        else:
            rows[row["split"]].append(pair)
    return Demonstrations(rows["train"], rows["valid"], left_out)


@dataclass(frozen=True)
class Prompt:
    """A prompt of a snapshot: its row there, and its tokens."""

    id: str
    messages: list[conversation.Message]
    ids: list[int]
    split: str
    category: str | None = None
    reference: str | None = None
    """A right answer, for rewards that check."""
    verifier: str | None = None
    """Name of the check that compares an answer with the reference."""


def read_prompts(folder: Path, tokenizer: PreTrainedTokenizerBase, longest: int) -> tuple[list[Prompt], list[str]]:
    """The prompts of a snapshot, and the ids of those left out for having more than `longest` tokens.

    Raises ValueError, naming file and row, for a prompt that is no conversation or that the chat template refuses.
    """
    prompts, dropped = [], []
    for row in snapshot.read_rows(folder, "prompts.jsonl"):
        ids = _encode_prompt(folder, "prompts.jsonl", row, tokenizer)
        if len(ids) > longest:
            dropped.append(str(row["id"]))
        else:
            notes = (row.get(name) for name in ("category", "reference", "verifier"))
            prompts.append(Prompt(str(row["id"]), row["prompt"], ids, row["split"], *notes))
    return prompts, dropped


def read_text(folder: Path, tokenizer: PreTrainedTokenizerBase, block_tokens: int) -> list[list[int]]:
    """The documents of a text snapshot, the end token behind each, laid end to end and cut into blocks of `block_tokens`.

    Documents share blocks unmasked, as in pretraining (Brown et al. 2020, appendix B); what is left behind the last whole block
    is not used. Raises ValueError for text that is no string, and where there is less than a block.
    """
    stream: list[int] = []
    for number, row in enumerate(snapshot.read_rows(folder, "text.jsonl"), start=1):
        if not isinstance(text := row.get("text"), str):
            raise ValueError(f"{folder / 'text.jsonl'}, row {number}: the text is {text!r}; expected a string")
        if text.strip():
            stream.extend(conversation.encode_text(tokenizer, text))
    if len(stream) < block_tokens:
        raise ValueError(
            f"{folder / 'text.jsonl'} has {len(stream)} tokens; expected at least one block of {block_tokens}"
        )
    return [stream[at : at + block_tokens] for at in range(0, len(stream) - block_tokens + 1, block_tokens)]


def encode_pair(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[conversation.Message], text: str, *, ended: bool = True
) -> Pair:
    """A prompt and a response from their text."""
    return Pair(
        conversation.encode_prompt(tokenizer, messages), conversation.encode_response(tokenizer, text, ended=ended)
    )


def context_length(config: Any) -> int:
    """The longest sequence a model was built for, in tokens."""
    length = getattr(config.get_text_config(), "max_position_embeddings", None)
    if length is None:
        raise ValueError("config.json states no max_position_embeddings; the model's context length is unknown")
    return int(length)


@lru_cache(maxsize=2)
def _shuffled(count: int, seed: int) -> list[int]:
    order: list[int] = torch.randperm(count, generator=torch.Generator().manual_seed(seed)).tolist()
    return order


def _encode_prompt(folder: Path, name: str, row: snapshot.Row, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    prompt = row.get("prompt")
    if not isinstance(prompt, list) or not all(_is_turn(turn) for turn in prompt):
        raise ValueError(f"{_place(folder, name, row)}: the prompt is {prompt!r}; expected turns of role and content")
    try:
        return conversation.encode_prompt(tokenizer, prompt)
    except ValueError as error:
        raise ValueError(f"{_place(folder, name, row)}: {error}") from error


def _is_turn(turn: Any) -> bool:
    return isinstance(turn, dict) and isinstance(turn.get("role"), str) and isinstance(turn.get("content"), str)


def _place(folder: Path, name: str, row: snapshot.Row) -> str:
    return f"{folder / name}, row {row.get('id')}"
