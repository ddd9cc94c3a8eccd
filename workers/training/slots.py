"""The key-value cache of a batch that rows leave and join while it runs.

A layer keeps one buffer of (rows, heads, columns, width of a head). Rows lie flush right, so that the next token of all goes into
one column: a row that leaves is overwritten by the last one, a row that joins is written into the columns before the present
one, and neither moves the others. Columns that all rows have left behind are cut off by moving `start`. What a row does not
fill is hidden by the attention mask and holds finite numbers.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import Cache, DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

GROWTH = 64
"""Columns that the buffers grow by at least."""


class Slots:
    """A cache whose rows come and go, for models that keep keys and values of every token and nothing else."""

    joins_while_running = True

    def __init__(self) -> None:
        self.rows = self.start = self.stop = 0
        self.layers: list[_Layer] = []
        self.cache = Cache(layers=self.layers)

    @property
    def width(self) -> int:
        """Columns that the rows lie in."""
        return self.stop - self.start

    def prefill_cache(self) -> DynamicCache:
        """An empty cache for a prompt's pass. Sliding layers keep all columns too; the mask hides what is out of their window."""
        return DynamicCache()

    def join(self, prefilled: Sequence[tuple[DynamicCache, list[int]]], remaining: int) -> None:
        """Append rows: of each cache the rows listed, one may be listed often. They will grow by at most `remaining` columns."""
        rows = self.rows + sum(len(chosen) for _, chosen in prefilled)
        widest = max(cache.get_seq_length() for cache, _ in prefilled)
        if not self.layers:
            self.layers += [_Layer(self, layer) for layer in prefilled[0][0].layers]
        self._reserve(rows, widest, remaining)
        for cache, chosen in prefilled:
            index = torch.tensor(chosen)
            for layer, fresh in zip(self.layers, cache.layers, strict=True):
                layer.write(self.rows, self.stop, index, fresh)
            self.rows += len(chosen)
        self.start = min(self.start, self.stop - widest)

    def keep(self, order: Sequence[int]) -> None:
        """Keep the rows listed, at their new places: `order[i]` is where row i was, and never before i."""
        moved = [(to, at) for to, at in enumerate(order) if to != at]
        self.rows = len(order)
        if moved:
            columns = slice(self.start, self.stop)
            for layer in self.layers:
                for buffer in (layer.keys, layer.values):
                    to, at = torch.tensor(moved, device=buffer.device).T
                    buffer[to, :, columns] = buffer[at, :, columns]

    def make_room(self, longest: int, remaining: Callable[[], int]) -> int:
        """Before a pass over one more token per row, the longest row then having `longest`: the columns it will see."""
        self.start = self.stop - (longest - 1)
        if self.layers[0].columns == self.stop:
            self._reserve(self.rows, 0, remaining())
        return longest

    def advance(self) -> None:
        """After the pass."""
        self.stop += 1

    def _reserve(self, rows: int, left: int, remaining: int) -> None:
        """Make the buffers hold `rows`, `left` columns before the present one and some of the `remaining` ones behind it."""
        width = self.width if self.rows else 0
        have_rows, columns = self.layers[0].rows, self.layers[0].columns
        stop = max(width, left)
        right = min(remaining, max(GROWTH, stop // 2))
        if not self.rows:
            self.start = self.stop = min(left, columns)
        if rows > have_rows or left > self.stop or self.stop == columns:
            for layer in self.layers:
                layer.move(max(rows, have_rows), stop + right, slice(stop - width, stop))
            self.start, self.stop = stop - width, stop


class Wave:
    """A cache for models that keep other things too (recurrent states, an index): rows leave, but none joins before all have."""

    joins_while_running = False

    def __init__(self, config: Any) -> None:
        self.config, self.rows, self.width = config, 0, 0
        self.cache = DynamicCache(config=config)

    def prefill_cache(self) -> DynamicCache:
        """An empty cache for the prompts' pass."""
        return DynamicCache(config=self.config)

    def join(self, prefilled: Sequence[tuple[DynamicCache, list[int]]], remaining: int) -> None:
        """Begin with the rows listed of the one cache given."""
        ((self.cache, chosen),) = prefilled
        self.width = self.cache.get_seq_length()
        self.keep(chosen)

    def keep(self, order: Sequence[int]) -> None:
        """Keep the rows listed, in this order; one may be listed often."""
        if order and list(order) != list(range(self.rows)):
            self.cache.reorder_cache(torch.tensor(order))
        self.rows = len(order)

    def make_room(self, longest: int, remaining: Callable[[], int]) -> int:
        """Before a pass over one more token per row: the columns it will see."""
        return self.width + 1

    def advance(self) -> None:
        """After the pass."""
        self.width += 1


def choose(model: PreTrainedModel) -> Slots | Wave:
    """The cache that a model's layers allow."""
    layers = DynamicCache(config=model.config).layers
    plain = all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in layers)
    return Slots() if plain else Wave(model.config)


class _Layer(DynamicLayer):
    """Keys and values (rows, heads, columns, width of a head) of one layer; which part is alive, its `Slots` knows."""

    keys: Tensor
    values: Tensor

    def __init__(self, slots: Slots, like: DynamicLayer) -> None:
        super().__init__()
        self.slots = slots
        self.lazy_initialization(like.keys, like.values)
        self.keys, self.values = (
            tensor.new_zeros(0, tensor.shape[1], 0, tensor.shape[3]) for tensor in (like.keys, like.values)
        )

    @property
    def rows(self) -> int:
        return self.keys.shape[0]

    @property
    def columns(self) -> int:
        return self.keys.shape[2]

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        slots = self.slots
        stop = slots.stop + key_states.shape[2]
        self.keys[: slots.rows, :, slots.stop : stop] = key_states
        self.values[: slots.rows, :, slots.stop : stop] = value_states
        return self.keys[: slots.rows, :, slots.start : stop], self.values[: slots.rows, :, slots.start : stop]

    def get_seq_length(self) -> int:
        return self.slots.width

    def write(self, first: int, stop: int, index: Tensor, fresh: DynamicLayer) -> None:
        """Rows `first` and on take the rows `index` of `fresh`, flush right before column `stop`."""
        for buffer, new in ((self.keys, fresh.keys), (self.values, fresh.values)):
            columns = slice(stop - new.shape[2], stop)
            buffer[first : first + len(index), :, columns] = new[index.to(new.device)]

    def move(self, rows: int, columns: int, target: slice) -> None:
        """Larger buffers, what is alive at columns `target` of them."""
        slots = self.slots
        for name in ("keys", "values"):
            old = getattr(self, name)
            new = old.new_zeros(rows, old.shape[1], columns, old.shape[3])
            new[: slots.rows, :, target] = old[: slots.rows, :, slots.start : slots.stop]
            setattr(self, name, new)
