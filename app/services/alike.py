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
"""Of a project, once an import is over: then they are packed into one."""


class Finder:
    """The keys of a project's prompts, in memory for as long as an import takes."""

    def __init__(self, project_id: int) -> None:
        self._project_id = project_id
        self._index = Index()
        self._newest_segment = 0

    def refresh(self, session: Session) -> None:
        """Take in what is new since the last look. The caller holds the lock."""
        while rows := queries.list_unindexed(session, self._project_id, limit=_CATCH_UP):
            ids = [prompt_id for prompt_id, _ in rows]
            segment = _pack(ids, likeness.sketch([last_turn(messages) for _, messages in rows]))
            queries.insert_segment(session, self._project_id, segment, prompts=len(ids))
            queries.mark_indexed(session, ids)
        for segment_id, segment in queries.list_segments(session, self._project_id, after=self._newest_segment):
            self._index.add_segment(segment)
            self._newest_segment = segment_id

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
            self._newest_segment = queries.insert_segment(session, self._project_id, segment, prompts=len(ids))
            self._index.add_segment(segment)


def pack_segments(session: Session, project_id: int) -> None:
    """Make one segment of many, where there are; the caller holds the lock."""
    segments = queries.list_segments(session, project_id, after=0)
    if len(segments) > MOST_SEGMENTS:
        prompts = queries.delete_segments(session, [segment_id for segment_id, _ in segments])
        merged = Segment.merge([segment for _, segment in segments])
        queries.insert_segment(session, project_id, merged, prompts=prompts)


def _pack(ids: Sequence[int], keys: "NDArray[uint64]") -> Segment:
    import numpy as np

    return Segment.pack(np.asarray(ids, dtype=np.int64), keys)


def last_turn(messages: Sequence[Mapping[str, str]]) -> str:
    """The user's turn that is to be answered."""
    return messages[-1]["content"]
