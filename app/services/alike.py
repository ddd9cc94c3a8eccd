"""Which stored prompts a new one may be alike, without a look at each: the keys of `app.intake.likeness`, kept in segments.

A finder reads a project's segments once and then only what others have added since; it is for one import, which looks and adds
under the lock of `queries.lock_imports`.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from sqlalchemy.orm import Session

from app.intake import likeness
from app.intake.segments import Index, Segment
from app.queries import imports as queries

if TYPE_CHECKING:
    from numpy import uint64
    from numpy.typing import NDArray

_CATCH_UP = 5000
"""Prompts without keys that are given theirs at a time."""

MOST_SEGMENTS = 8
"""Small ones of a project, once an import is over: more are packed into one."""

LARGEST_PACKED = 500_000
"""Prompts of a packed segment: 42 MB, far below what one value of the database may have."""


class Finder:
    """The keys of a project's prompts, in memory for as long as an import takes."""

    def __init__(self, project_id: int) -> None:
        self._project_id = project_id
        self._index = Index()
        self._loaded: set[int] = set()
        """Ids of the segments in the index."""

    def refresh(self, session: Session) -> None:
        """Take in what is new since the last look. The caller holds the lock."""
        while catch_up(session, self._project_id):
            pass
        present = set(queries.list_segment_ids(session, self._project_id))
        if self._loaded - present:  # another import has packed some into one
            self._index, self._loaded = Index(), set()
        for segment_id in sorted(present - self._loaded):
            self._index.add_segment(queries.get_segment(session, segment_id))
            self._loaded.add(segment_id)

    def find(self, keys: "NDArray[uint64]") -> tuple[list[list[int]], list[list[int]]]:
        """Per row of keys: ids of stored prompts that may be alike, and numbers of earlier rows that may be."""
        import numpy as np

        numbers = np.arange(len(keys))
        within = Index()
        within.add(numbers, keys)
        return self._index.candidates(keys), within.candidates(keys, before=numbers)

    def add(self, session: Session, ids: Sequence[int], keys: "NDArray[uint64]") -> None:
        """Remember prompts that were stored with `is_indexed`."""
        if ids:
            segment = _pack(ids, keys)
            self._loaded.add(queries.insert_segment(session, self._project_id, segment, prompts=len(ids)))
            self._index.add_segment(segment)


def catch_up(session: Session, project_id: int) -> bool:
    """Give some prompts that came otherwise their keys; whether there were any. The caller holds the lock.

    A project with very many is best caught up in transactions of their own: each holds the rows it marks.
    """
    rows = queries.list_unindexed(session, project_id, limit=_CATCH_UP)
    if rows:
        ids = [prompt_id for prompt_id, _ in rows]
        segment = _pack(ids, likeness.sketch([last_turn(messages) for _, messages in rows]))
        queries.insert_segment(session, project_id, segment, prompts=len(ids))
        queries.mark_indexed(session, ids)
    return bool(rows)


def pack_segments(session: Session, project_id: int) -> None:
    """Make one segment of many small ones, where there are; the caller holds the lock."""
    sizes = queries.list_segment_sizes(session, project_id)
    small = [segment_id for segment_id, prompts in sizes if prompts < LARGEST_PACKED]
    if len(small) <= MOST_SEGMENTS:
        return
    packed, prompts = [], 0
    for segment_id, count in sizes:
        if segment_id in small and prompts + count <= LARGEST_PACKED:
            packed.append(segment_id)
            prompts += count
    merged = Segment.merge([queries.get_segment(session, segment_id) for segment_id in packed])
    queries.delete_segments(session, packed)
    queries.insert_segment(session, project_id, merged, prompts=prompts)


def _pack(ids: Sequence[int], keys: "NDArray[uint64]") -> Segment:
    import numpy as np

    return Segment.pack(np.asarray(ids, dtype=np.int64), keys)


def last_turn(messages: Sequence[Mapping[str, str]]) -> str:
    """The user's turn that is to be answered."""
    return messages[-1]["content"]
