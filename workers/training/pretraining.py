"""PPO-ptx: plain text as blocks of tokens, which of them an update takes, and the gradient of their likelihood.

InstructGPT, Eq. 2, second term, and C.4: gamma E[log pi(x)] over pretraining text x, its gradient accumulated with PPO's.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from app import snapshot
from workers.rlhf import losses
from workers.training import data, models, parallel, precision
from workers.training.data import Pair

HELDOUT = 64
"""Most blocks that are kept out of training for `heldout_text_loss`; of a small text it is a twentieth."""


@dataclass(frozen=True)
class Text:
    """The blocks of a text snapshot, its last ones held out."""

    train: list[Pair]
    heldout: list[Pair]

    @classmethod
    def read(cls, folder: Path, tokenizer: PreTrainedTokenizerBase, tokens: int) -> "Text":
        """Blocks of `tokens` tokens. Raises ValueError where the text does not fill one to train on and one to hold out."""
        snapshot.read_manifest(folder)
        # Of a block the first token is given and the others are predicted.
        blocks = [Pair(block[:1], block[1:]) for block in data.read_text(folder, tokenizer, tokens)]
        if len(blocks) < 2:
            raise ValueError(f"the text of {folder} fills {len(blocks)} blocks of {tokens} tokens; expected 2 or more")
        heldout = min(HELDOUT, max(1, len(blocks) // 20))
        return cls(blocks[:-heldout], blocks[-heldout:])

    def of_update(self, iteration: int, number: int, sizes: Sequence[int], seed: int) -> list[Pair]:
        """The blocks that update `number` of an iteration takes, `sizes` being how many each of its updates does.

        A pure function of the seed and these numbers; all blocks in a new order each pass over them.
        """
        ends = [0, *accumulate(sizes)]
        chosen = data.endless(len(self.train), ends[-1], iteration, seed)[ends[number] : ends[number + 1]]
        return [self.train[at] for at in chosen]


def backward(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    blocks: Sequence[Pair],
    ptx_coef: float,
    max_tokens: int,
    compute: torch.dtype = torch.float32,
) -> float:
    """Add the gradient of ptx_coef times the mean negative log-likelihood of a token of the blocks; that mean, in nats."""
    tokens = sum(len(block.response) for block in blocks)
    total = torch.zeros((), device=model.device)
    for part in _parts(model, tokenizer, blocks, max_tokens, compute):
        (ptx_coef * part / tokens).backward()
        total += part.detach()
    return parallel.total(total).item() / tokens


def loss(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    blocks: Sequence[Pair],
    max_tokens: int,
    compute: torch.dtype = torch.float32,
) -> float:
    """Mean negative log-likelihood of a token of the blocks, in nats; no gradient."""
    with models.evaluation(model):
        total = sum(parallel.total(torch.stack(list(_parts(model, tokenizer, blocks, max_tokens, compute)))).tolist())
    return total / sum(len(block.response) for block in blocks)


def _parts(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    blocks: Sequence[Pair],
    max_tokens: int,
    compute: torch.dtype,
) -> Iterator[Tensor]:
    """The loss summed over this rank's share of each micro-batch.

    At temperature 1, whatever the policy answers at: this is language modelling.
    """
    for chunk, counts in parallel.micro_batches(range(len(blocks)), [len(block) for block in blocks], max_tokens):
        batch = data.collate([blocks[at] for at in chunk], tokenizer.pad_token_id, model.device)
        with precision.autocast(model.device, compute):
            logprobs = models.response_logprobs(model, batch)
        yield counts * losses.nll(logprobs, batch.response_mask)
