"""Lower blocks of a reward model that do not learn, and what they put out, computed once (`RewardConfig.frozen_blocks`).

What a row is behind blocks that stay as they are never changes. It is kept, and every later pass begins there: the frozen blocks
are called as ever, but put out what was kept. So masks, positions and all other code of the model stay as they are, and scores
and gradients are those of the whole pass. Blocks are found, not named, and what learns is read off the model's own computation.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from workers.training import lora, parallel, precision
from workers.training.data import Pair

Key = tuple[tuple[int, ...], ...]
"""What a row holds: its prompt and the responses behind it."""


@dataclass(frozen=True)
class Lower:
    """The frozen blocks of a model, lowest first, and what they put out for the rows seen so far."""

    blocks: Sequence[nn.Module]
    others: int | None = None
    """How many values a block puts out behind its states; None where it puts out the states alone, in no tuple"""
    kept: dict[Key, Tensor] = field(default_factory=dict)
    """(W, D) by row, without padding, in memory of the host and in the precision it was computed in"""

    def keep(self, rows: Sequence[Sequence[Pair]], tokens: Tensor, run: Callable[[], Any]) -> None:
        """Run a pass of `rows` up to the last frozen block, and keep what that puts out.

        A row is responses to one prompt; `tokens` (B, W) bool says where in the batch the rows' tokens lie, row by row.
        """

        def stop(_: nn.Module, __: Any, output: Any) -> None:
            raise _ReachedError(_states(output))

        hook = self.blocks[-1].register_forward_hook(stop)
        try:
            run()
        except _ReachedError as reached:
            found = reached.states[tokens].cpu()
        finally:
            hook.remove()
        self.kept.update(zip(map(_key, rows), found.split([_length(row) for row in rows]), strict=True))

    def knows(self, rows: Sequence[Sequence[Pair]]) -> bool:
        """Whether what the frozen blocks put out is kept of each of these rows."""
        return all(_key(row) in self.kept for row in rows)

    @contextmanager
    def skipped(self, rows: Sequence[Sequence[Pair]], tokens: Tensor) -> Iterator[None]:
        """Inside, in a pass of known `rows`, frozen blocks compute nothing and put out what is kept; arguments as of `keep`."""
        known = torch.cat([self.kept[_key(row)] for row in rows]).to(tokens.device)
        states = known.new_zeros(*tokens.shape, known.shape[1])
        states[tokens] = known
        output = states if self.others is None else (states, *[None] * self.others)
        for block in self.blocks:
            block.forward = lambda *_, **__: output
        try:
            yield
        finally:
            for block in self.blocks:
                del block.forward

    def sentence(self, model: PreTrainedModel) -> str:
        """What learns and what is kept, for a run's log."""
        learned, whole = sum(each.numel() for each in lora.learned(model)), model.num_parameters()
        tokens = sum(map(len, self.kept.values()))
        size = sum(each.numel() * each.element_size() for each in self.kept.values())
        dtype = precision.say(next(iter(self.kept.values())).dtype)
        return (
            f"the lowest {len(self.blocks)} of {len(find_blocks(model))} blocks and the embedding stay as they are: {learned:,} "
            f"of {whole:,} parameters learn; their output is kept, {size / 1e6:,.0f} MB for {tokens:,} tokens in {dtype}"
        )


def freeze(model: PreTrainedModel, count: int) -> Lower:
    """Let the lowest `count` blocks of a reward model, and all that they alone depend on, learn no more.

    What learns is what a score still depends on where the output of these blocks is a constant: told by a pass of one token.

    Raises ValueError where the model has no block to spare, or a weight of it acts both below and above.
    """
    if parallel.size() > 1:
        raise ValueError(
            f"frozen_blocks is {count} in a run of {parallel.size()} processes, but blocks are frozen in one process only; "
            "start it with one, or set frozen_blocks to 0"
        )
    if count >= len(blocks := find_blocks(model)):
        raise ValueError(
            f"frozen_blocks is {count}, but the model has {len(blocks)} blocks; expected fewer, so that one learns"
        )
    below: set[nn.Parameter] = set()
    others: list[int | None] = []

    def cut(_: nn.Module, __: Any, output: Any) -> Any:
        states = _states(output)
        below.update(_sources(states))
        others.append(None if output is states else len(output) - 1)
        return states.detach() if output is states else (states.detach(), *output[1:])

    hook = blocks[count - 1].register_forward_hook(cut)
    try:
        inputs = {"input_ids": torch.zeros(1, 1, dtype=torch.int64, device=model.device)}
        if model.device.type == "meta":  # without numbers no mask can be made
            inputs |= {"attention_mask": torch.zeros(1, 1, 1, 1), "position_ids": inputs["input_ids"]}
        above = _sources(model.score(model.base_model(**inputs, use_cache=False).last_hidden_state))
    finally:
        hook.remove()
    if shared := [name for name, parameter in model.named_parameters() if parameter in below & above]:
        raise ValueError(
            f"frozen_blocks is {count}, but {shared[0]} acts below the {count + 1}th block and above it; expected a model whose "
            "blocks have weights of their own, or frozen_blocks of 0"
        )
    for parameter in model.parameters():
        parameter.requires_grad_(parameter in above)
    return Lower(blocks[:count], others[0])


def find_blocks(model: PreTrainedModel) -> list[nn.Module]:
    """The blocks of a model, lowest first: of its lists of modules the one with most parameters."""
    lists: list[nn.ModuleList] = [each for each in model.base_model.modules() if isinstance(each, nn.ModuleList)]
    if not lists:
        raise ValueError(f"{type(model).__name__} has no list of blocks; set frozen_blocks to 0")
    sizes = [sum(parameter.numel() for parameter in each.parameters()) for each in lists]
    return list(lists[sizes.index(max(sizes))])


class _ReachedError(Exception):
    """Ends a pass at the last frozen block."""

    def __init__(self, states: Tensor) -> None:
        self.states = states


def _states(output: Any) -> Tensor:
    """(B, W, D) of what a block puts out: the states, or a tuple that begins with them."""
    found: Tensor = output if isinstance(output, Tensor) else output[0]
    return found


def _sources(result: Tensor) -> set[nn.Parameter]:
    """The parameters that a result was computed from."""
    found: set[Any] = set()
    seen: set[Any] = set()
    waiting: list[Any] = [result.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            found |= {node.variable} if hasattr(node, "variable") else set()
            waiting += [each for each, _ in node.next_functions]
    return found


def _key(row: Sequence[Pair]) -> Key:
    return (tuple(row[0].prompt), *(tuple(output.response) for output in row))


def _length(row: Sequence[Pair]) -> int:
    return len(row[0].prompt) + sum(len(output.response) for output in row)
