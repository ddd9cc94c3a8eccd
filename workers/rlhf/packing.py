"""Which rows share a block, so that little of it is padding. Arithmetic on lengths only; the mask is the caller's."""

from bisect import bisect_left, insort
from collections.abc import Sequence


def best_fit_decreasing(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Indices of `lengths` by block, no block over `capacity`: the longest first, each into the fullest block with room for it.

    At most 11/9 of the fewest blocks that can be, and 4 more (Johnson et al. 1974, SIAM J. Comput. 3(4)); Ding et al. 2024
    (arXiv 2404.10830) pack training rows so. Raises ValueError for a length over `capacity`.
    """
    blocks: list[list[int]] = []
    rooms: list[tuple[int, int]] = []  # tokens left and block, the fullest first
    for index in sorted(range(len(lengths)), key=lambda at: -lengths[at]):
        if lengths[index] > capacity:
            raise ValueError(f"row {index} has {lengths[index]} tokens; a block holds {capacity}")
        place = bisect_left(rooms, (lengths[index], 0))
        if place < len(rooms):
            left, block = rooms.pop(place)
        else:
            left, block = capacity, len(blocks)
            blocks.append([])
        blocks[block].append(index)
        insort(rooms, (left - lengths[index], block))
    return blocks
