"""Finds the stored prompts that share a key with new ones, among a million in milliseconds, without a database index.

Sorted arrays: a batch's keys are looked up by binary search in each of a few, and arrays of like size are merged as they come
(the logarithmic method, Bentley and Saxe 1980). A segment is such an array as bytes, so that loading one sorts nothing.
"""

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from app.intake.words import ALGORITHM

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

    Keys = NDArray[numpy.uint64]
    Ids = NDArray[numpy.int64]

MOST_CANDIDATES = 8
"""Prompts found for one at most, and looked at for one key: templates may share a key with everything."""

_HEADER = struct.Struct("<IIq")  # algorithm, bytes of an offset, the id that offsets are added to


@dataclass(frozen=True, slots=True)
class _Run:
    """Keys in ascending order, equal ones by id. Ids are offsets to a base, which takes half the memory."""

    keys: "Keys"
    offsets: "NDArray[numpy.unsignedinteger]"
    base: int

    @classmethod
    def of(cls, keys: "Keys", ids: "Ids") -> Self:
        """A run of what is sorted already."""
        import numpy as np

        base = int(ids.min()) if ids.size else 0
        spread = int(ids.max()) - base if ids.size else 0
        return cls(keys, (ids - base).astype(np.uint32 if spread < 2**32 else np.uint64), base)

    def ids(self, places: "Ids | slice" = slice(None)) -> "Ids":
        """Ids at these places."""
        import numpy as np

        return self.offsets[places].astype(np.int64) + self.base


@dataclass(frozen=True, slots=True)
class Segment:
    """Keys of some prompts as bytes to store. What is in them is this module's alone."""

    keys: bytes
    """Keys but the zeros, ascending, 8 bytes each, little-endian."""
    ids: bytes
    """The algorithm the keys are of and, for each key, the id of its prompt in 4 bytes, or 8 where ids lie far apart."""

    @classmethod
    def pack(cls, ids: "Ids", keys: "Keys") -> Self:
        """A segment of prompts: ids (N,) and their keys (N, KEYS_PER_PROMPT). Raises ValueError where the two differ in N."""
        return cls._of(_sort(ids, keys))

    @classmethod
    def merge(cls, segments: Iterable["Segment"]) -> Self:
        """One segment in place of several. Raises ValueError as `Index.add_segment` does."""
        return cls._of(_merge([_load(segment) for segment in segments]))

    @classmethod
    def _of(cls, run: _Run) -> Self:
        offsets = run.offsets.astype(run.offsets.dtype.newbyteorder("<"), copy=False)
        header = _HEADER.pack(ALGORITHM, offsets.dtype.itemsize, run.base)
        return cls(run.keys.astype("<u8", copy=False).tobytes(), header + offsets.tobytes())


class Index:
    """The keys of a project's prompts and of those of an import, in memory: 12 bytes a key."""

    def __init__(self) -> None:
        self._runs: list[_Run] = []

    def add_segment(self, segment: Segment) -> None:
        """Add what is stored. Raises ValueError for bytes that are no segment, or one of another algorithm."""
        self._push(_load(segment))

    def add(self, ids: "Ids", keys: "Keys") -> None:
        """Add prompts: ids (N,), larger ones younger, and keys (N, KEYS_PER_PROMPT)."""
        self._push(_sort(ids, keys))

    def candidates(self, keys: "Keys", before: "Ids | None" = None) -> list[list[int]]:
        """For each row of keys the ids of prompts that share one with it, oldest first.

        With `before` (N,), only ids below the row's own: a batch that is added first is so compared with itself too, and
        batches of any size find the same. Of more than `MOST_CANDIDATES`, those that share most keys, then the oldest.
        """
        import numpy as np

        found: list[list[int]] = [[] for _ in range(len(keys))]
        rows, bands = np.nonzero(keys)
        sought, which = np.unique(keys[rows, bands], return_inverse=True)
        offsets, ids = self._look_up(sought)
        counts = np.diff(offsets)[which]
        begins = np.repeat(offsets[which] - np.cumsum(counts) + counts, counts)
        hit_rows, hit_ids = np.repeat(rows, counts), ids[begins + np.arange(len(begins))]
        if before is not None:
            is_earlier = hit_ids < before[hit_rows]
            hit_rows, hit_ids = hit_rows[is_earlier], hit_ids[is_earlier]
        for row, id_ in zip(*_choose(hit_rows, hit_ids), strict=True):
            found[row].append(id_)
        return found

    def _look_up(self, sought: "Keys") -> "tuple[Ids, Ids]":
        """Offsets by sought key, which must be ascending, and the oldest ids of each, `MOST_CANDIDATES` at most."""
        import numpy as np

        none = np.empty(0, dtype=np.int64)
        which, ids = [none], [none]
        for run in self._runs:
            places = np.searchsorted(run.keys, sought)
            alive = np.arange(len(sought))
            for step in range(MOST_CANDIDATES):
                alive = alive[places[alive] + step < len(run.keys)]
                alive = alive[run.keys[places[alive] + step] == sought[alive]]
                if not alive.size:
                    break
                which.append(alive)
                ids.append(run.ids(places[alive] + step))
        every, all_ids = np.concatenate(which), np.concatenate(ids)
        order = np.lexsort((all_ids, every))
        every, all_ids = every[order], all_ids[order]
        is_kept = _rank(every) < MOST_CANDIDATES
        return np.searchsorted(every[is_kept], np.arange(len(sought) + 1)), all_ids[is_kept]

    def _push(self, run: _Run) -> None:
        if not run.keys.size:
            return
        self._runs.append(run)
        while len(self._runs) > 1 and len(self._runs[-1].keys) * 2 > len(self._runs[-2].keys):
            self._runs[-2:] = [_merge(self._runs[-2:])]


def _choose(rows: "Ids", ids: "Ids") -> tuple[list[int], list[int]]:
    """Rows and ids without repetitions, for each row the ids found most often, in ascending order."""
    import numpy as np

    order = np.lexsort((ids, rows))
    rows, ids = rows[order], ids[order]
    is_first = np.ones(len(rows), dtype=bool)
    is_first[1:] = (rows[1:] != rows[:-1]) | (ids[1:] != ids[:-1])
    firsts = np.flatnonzero(is_first)
    shared = np.diff(firsts, append=len(rows))
    rows, ids = rows[firsts], ids[firsts]
    order = np.lexsort((ids, -shared, rows))
    chosen = np.sort(order[_rank(rows[order]) < MOST_CANDIDATES])
    return rows[chosen].tolist(), ids[chosen].tolist()


def _rank(groups: "Ids") -> "Ids":
    """Place of each within its group, from 0; the same groups must stand together."""
    import numpy as np

    places = np.arange(len(groups))
    is_first = np.ones(len(groups), dtype=bool)
    is_first[1:] = groups[1:] != groups[:-1]
    return places - np.maximum.accumulate(np.where(is_first, places, 0))


def _sort(ids: "Ids", keys: "Keys") -> _Run:
    import numpy as np

    if keys.ndim != 2 or len(keys) != len(ids):
        raise ValueError(f"{len(ids)} ids came with keys of shape {keys.shape}; expected one row of keys for each id")
    rows, bands = np.nonzero(keys)
    return _order(keys[rows, bands], ids[rows])


def _order(keys: "Keys", ids: "Ids") -> _Run:
    """A run of keys in any order."""
    import numpy as np

    is_aging = bool((ids[1:] >= ids[:-1]).all())
    order = np.argsort(keys, kind="stable") if is_aging else np.lexsort((ids, keys))
    return _Run.of(keys[order], ids[order])


def _merge(runs: Sequence[_Run]) -> _Run:
    import numpy as np

    if not runs:
        return _Run.of(np.empty(0, dtype=np.uint64), np.empty(0, dtype=np.int64))
    keys, ids = np.concatenate([run.keys for run in runs]), np.concatenate([run.ids() for run in runs])
    order = np.argsort(keys, kind="stable")  # quick, for it makes use of runs that are sorted already
    keys, ids = keys[order], ids[order]
    if bool(((keys[1:] == keys[:-1]) & (ids[1:] < ids[:-1])).any()):
        return _order(keys, ids)
    return _Run.of(keys, ids)


def _load(segment: Segment) -> _Run:
    """The run that a segment holds, without a copy. Raises ValueError for what `Segment.pack` did not write."""
    import numpy as np

    if len(segment.ids) < _HEADER.size:
        raise ValueError(
            f"a segment's ids are {len(segment.ids)} bytes; expected {_HEADER.size} at least. Rebuild the project's segments."
        )
    algorithm, width, base = _HEADER.unpack_from(segment.ids)
    if algorithm != ALGORITHM:
        raise ValueError(
            f"a segment is of likeness algorithm {algorithm}; this is {ALGORITHM}. Rebuild the project's segments."
        )
    count = len(segment.keys) // 8
    if width not in (4, 8) or len(segment.keys) != count * 8 or len(segment.ids) != _HEADER.size + count * width:
        raise ValueError(
            f"a segment has {len(segment.keys)} bytes of keys and {len(segment.ids)} of ids, each {width} wide; expected 8 for "
            "a key and 4 or 8 for its id. Rebuild the project's segments."
        )
    keys = np.frombuffer(segment.keys, dtype="<u8")
    if not bool((keys[1:] >= keys[:-1]).all()):
        raise ValueError("a segment's keys are not in ascending order. Rebuild the project's segments.")
    return _Run(keys, np.frombuffer(segment.ids, dtype=f"<u{width}", offset=_HEADER.size), base)
