import random

import pytest

from workers.rlhf.packing import best_fit_decreasing


def naive(lengths, capacity):
    """The definition, block by block."""
    blocks = []
    for index in sorted(range(len(lengths)), key=lambda at: (-lengths[at], at)):
        rooms = [capacity - sum(lengths[at] for at in block) for block in blocks]
        fitting = [block for block, room in enumerate(rooms) if room >= lengths[index]]
        if fitting:
            blocks[min(fitting, key=lambda block: (rooms[block], block))].append(index)
        else:
            blocks.append([index])
    return blocks


class TestBestFitDecreasing:
    def test_by_hand(self):
        # 8 opens a block; 4 and 4 share the next; 2 fits the first exactly; the 1s fill the second
        assert best_fit_decreasing([4, 8, 1, 4, 2, 1], 10) == [[1, 4], [0, 3, 2, 5]]

    @pytest.mark.parametrize("seed", range(20))
    def test_equals_the_definition(self, seed):
        rng = random.Random(seed)
        lengths = [rng.randint(1, 30) for _ in range(rng.randint(1, 60))]
        assert best_fit_decreasing(lengths, 30) == naive(lengths, 30)

    @pytest.mark.parametrize("seed", range(20))
    def test_loses_nothing_overfills_nothing_and_leaves_no_two_blocks_that_would_fit_in_one(self, seed):
        rng = random.Random(seed)
        lengths = [int(rng.paretovariate(1.1)) % 100 + 1 for _ in range(200)]
        blocks = best_fit_decreasing(lengths, 128)
        sums = sorted(sum(lengths[at] for at in block) for block in blocks)
        assert sorted(at for block in blocks for at in block) == list(range(200))
        assert sums[-1] <= 128 < sums[0] + sums[1]

    def test_of_nothing_is_nothing(self):
        assert best_fit_decreasing([], 8) == []

    def test_refuses_a_row_longer_than_a_block(self):
        with pytest.raises(ValueError, match="row 1 has 9 tokens; a block holds 8"):
            best_fit_decreasing([3, 9], 8)
