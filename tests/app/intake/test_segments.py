"""The index of keys: the same as a slow search through everything, from memory or from bytes, whatever the data."""

import random
import time
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from app.intake import likeness, segments
from app.intake.likeness import KEYS_PER_PROMPT
from app.intake.segments import MOST_CANDIDATES, Index, Segment
from tests.app.intake import naive
from tests.app.intake.test_likeness import sentence, vary

Ids = NDArray[np.int64]
Keys = NDArray[np.uint64]

NUMBERS = np.random.default_rng(1)


def random_keys(rows: int, of: int = 2**64) -> Keys:
    """Random keys, `of` different ones for each band, and some zeros."""
    keys = NUMBERS.integers(0, of, size=(rows, KEYS_PER_PROMPT), dtype=np.uint64)
    return np.where(keys == 0, keys, keys * np.uint64(7) + np.arange(KEYS_PER_PROMPT, dtype=np.uint64))


def ascending(rows: int) -> Ids:
    return np.cumsum(NUMBERS.integers(1, 50, size=rows))


def crowded() -> tuple[Ids, Keys]:
    """Prompts of which many share keys, some with more others than are kept."""
    keys = random_keys(400, of=60)
    keys[100:200] = random_keys(100)
    keys[250:300, 6] = 13
    return ascending(400), keys


def index_of(*parts: tuple[Ids, Keys]) -> Index:
    index = Index()
    for ids, keys in parts:
        index.add(ids, keys)
    return index


def pieces(ids: Ids, keys: Keys, size: int) -> list[tuple[Ids, Keys]]:
    return [(ids[at : at + size], keys[at : at + size]) for at in range(0, len(ids), size)]


class TestCandidates:
    def test_are_those_of_the_naive_twin(self) -> None:
        ids, keys = crowded()
        stored = list(zip(ids.tolist(), keys.tolist(), strict=True))
        found = index_of((ids, keys)).candidates(keys, ids)
        assert found == [naive.candidates(stored, row, before, MOST_CANDIDATES) for before, row in stored]
        assert sum(len(row) == MOST_CANDIDATES for row in found) > 50
        strangers = random_keys(50, of=60)
        assert index_of((ids, keys)).candidates(strangers) == [
            naive.candidates(stored, row, None, MOST_CANDIDATES) for row in strangers.tolist()
        ]

    @pytest.mark.parametrize("size", [1, 7, 100])
    def test_batches_of_any_size_find_the_same(self, size: int) -> None:
        ids, keys = crowded()
        index, found = Index(), []
        for part in pieces(ids, keys, size):
            index.add(*part)
            found += index.candidates(part[1], part[0])
        assert found == index_of((ids, keys)).candidates(keys, ids)

    def test_the_order_of_adding_does_not_count(self) -> None:
        ids, keys = crowded()
        parts = pieces(ids, keys, 30)
        random.Random(2).shuffle(parts)
        shuffled = NUMBERS.permutation(len(ids))
        expected = index_of((ids, keys)).candidates(keys, ids)
        assert index_of(*parts).candidates(keys, ids) == expected
        assert index_of((ids[shuffled], keys[shuffled])).candidates(keys, ids) == expected

    def test_zero_is_no_key(self) -> None:
        nothing = np.zeros((3, KEYS_PER_PROMPT), dtype=np.uint64)
        assert index_of((np.arange(3), nothing)).candidates(nothing) == [[], [], []]

    def test_of_an_empty_index_and_of_no_rows(self) -> None:
        assert Index().candidates(random_keys(2)) == [[], []]
        assert index_of((ascending(5), random_keys(5))).candidates(random_keys(0)) == []
        assert Index().candidates(random_keys(0), ascending(0)) == []

    def test_the_one_that_shares_most_is_among_the_kept(self) -> None:
        keys = random_keys(100)
        keys[:, 6] = 5  # one template for all
        near = keys[90:91].copy()
        near[0, 0] = 99
        found = index_of((np.arange(100), keys)).candidates(near)[0]
        assert 90 in found
        assert found == sorted(found)
        assert len(found) == MOST_CANDIDATES

    @pytest.mark.parametrize("same", [KEYS_PER_PROMPT, 4, 1])
    def test_a_hundred_thousand_from_one_template_are_quick(self, same: int) -> None:
        index, one = Index(), random_keys(1)
        begun = time.process_time()
        for at in range(0, 100_000, 5000):
            keys = random_keys(5000)
            keys[:, :same] = one[0, :same]
            ids = np.arange(at, at + 5000)
            index.add(ids, keys)
            found = index.candidates(keys, ids)
            assert max(map(len, found)) <= MOST_CANDIDATES
        assert found[-1] == list(range(MOST_CANDIDATES))
        assert time.process_time() - begun < 6

    def test_planted_near_prompts_are_found_and_nothing_else_is_accepted(self) -> None:
        chance = random.Random(3)
        texts = [sentence(chance, chance.randrange(25, 80)) for _ in range(500)]
        texts += [vary(chance, text, chance.randrange(4)) for text in texts]
        keys, ids = likeness.sketch(texts), np.arange(len(texts))
        pairs = [
            (at, earlier)
            for at, earliers in enumerate(index_of((ids, keys)).candidates(keys, ids))
            for earlier in earliers
        ]
        turns = [[{"role": "user", "content": text}] for text in texts]
        verdicts = likeness.compare([(turns[first], turns[second]) for first, second in pairs])
        accepted = {pair for pair, verdict in zip(pairs, verdicts, strict=True) if verdict is likeness.Likeness.NEAR}
        assert all(naive.jaccard(texts[first], texts[second]) >= likeness.THRESHOLD for first, second in accepted)
        planted = [(at + 500, at) for at in range(500) if naive.jaccard(texts[at], texts[at + 500]) >= 0.85]
        assert len(planted) > 200
        assert len(accepted & set(planted)) >= 0.97 * len(planted)


class TestIndex:
    def test_from_segments_is_the_one_that_was_added_to(self) -> None:
        ids, keys = crowded()
        reloaded, merged = Index(), Index()
        packed = [Segment.pack(*part) for part in pieces(ids, keys, 30)]
        for segment in packed:
            reloaded.add_segment(segment)
        merged.add_segment(Segment.merge(packed))
        expected = index_of((ids, keys)).candidates(keys, ids)
        assert reloaded.candidates(keys, ids) == merged.candidates(keys, ids) == expected

    def test_many_small_parts_stay_few_arrays(self) -> None:
        index = index_of(*pieces(ascending(2000), random_keys(2000), 10))
        assert len(index._runs) <= 9
        assert sum(len(run.keys) for run in index._runs) == 2000 * KEYS_PER_PROMPT

    def test_a_million_prompts_load_and_answer_quickly(self) -> None:
        rows = 1_000_000
        keys = np.sort(NUMBERS.integers(1, 2**64, size=rows * KEYS_PER_PROMPT, dtype=np.uint64))
        segment = Segment._of(segments._Run.of(keys, NUMBERS.integers(1, rows, size=len(keys))))
        assert len(segment.keys) + len(segment.ids) <= 85 * rows
        index, batch, ids = Index(), random_keys(5000), np.arange(rows, rows + 5000)
        begun = time.process_time()
        index.add_segment(segment)
        loaded = time.process_time()
        index.add(ids, batch)
        index.candidates(batch, ids)
        assert loaded - begun < 0.5
        assert time.process_time() - loaded < 0.3


class TestPack:
    def test_is_the_same_in_any_order_of_rows(self) -> None:
        ids, keys = crowded()
        order = NUMBERS.permutation(len(ids))
        assert Segment.pack(ids[order], keys[order]) == Segment.pack(ids, keys)

    def test_leaves_out_zeros(self) -> None:
        keys = random_keys(10)
        keys[:, 6] = 0
        assert len(Segment.pack(ascending(10), keys).keys) == 10 * 6 * 8

    def test_ids_far_apart_are_kept(self) -> None:
        ids, keys = np.array([-5, 3, 2**62]), random_keys(3)
        index = Index()
        index.add_segment(Segment.pack(ids, keys))
        index.add(np.array([2**62 + 1]), random_keys(1))
        assert index.candidates(keys) == [[-5], [3], [2**62]]

    def test_large_ids_close_together_take_four_bytes(self) -> None:
        segment = Segment.pack(2**61 + np.arange(100), random_keys(100))
        assert len(segment.ids) == 16 + 700 * 4

    def test_of_nothing_is_a_segment(self) -> None:
        segment = Segment.pack(ascending(0), random_keys(0))
        index = Index()
        index.add_segment(segment)
        assert segment.keys == b""
        assert index._runs == []

    def test_bytes_are_what_they_were(self) -> None:
        keys = np.zeros((2, KEYS_PER_PROMPT), dtype=np.uint64)
        keys[0, 0], keys[1, 0], keys[1, 6] = 0x0102030405060708, 0x0102030405060708, 3
        segment = Segment.pack(np.array([1000, 1002]), keys)
        assert segment.keys.hex() == "030000000000000008070605040302010807060504030201"
        assert segment.ids.hex() == "0100000004000000e803000000000000" + "020000000000000002000000"

    @pytest.mark.parametrize("shape", [(3, 7), (14,), (2, 7, 1)])
    def test_refuses_keys_that_do_not_fit_the_ids(self, shape: tuple[int, ...]) -> None:
        with pytest.raises(ValueError, match="2 ids came with keys of shape"):
            Segment.pack(np.array([1, 2]), np.ones(shape, dtype=np.uint64))


class TestMerge:
    @pytest.mark.parametrize("size", [1, 13, 400])
    def test_is_as_if_packed_at_once(self, size: int) -> None:
        ids, keys = crowded()
        packed = [Segment.pack(*part) for part in pieces(ids, keys, size)]
        assert Segment.merge(packed) == Segment.merge(reversed(packed)) == Segment.pack(ids, keys)

    def test_of_none_is_empty(self) -> None:
        assert Segment.merge([]) == Segment.pack(ascending(0), random_keys(0))


class TestAddSegment:
    SEGMENT = Segment.pack(np.array([1, 2, 3]), np.arange(21, dtype=np.uint64).reshape(3, 7))

    @pytest.mark.parametrize(
        ("broken", "message"),
        [
            (replace(SEGMENT, ids=b"short"), "a segment's ids are 5 bytes; expected 16 at least"),
            (replace(SEGMENT, ids=b"\x63" + SEGMENT.ids[1:]), "is of likeness algorithm 99; this is 1. Rebuild"),
            (replace(SEGMENT, keys=SEGMENT.keys[:-3]), "a segment has 157 bytes of keys and 96 of ids, each 4 wide"),
            (replace(SEGMENT, ids=SEGMENT.ids + b"x"), "a segment has 160 bytes of keys and 97 of ids"),
            (replace(SEGMENT, ids=SEGMENT.ids[:4] + b"\0" + SEGMENT.ids[5:]), "each 0 wide; expected 8 for a key"),
            (replace(SEGMENT, keys=SEGMENT.keys[::-1]), "a segment's keys are not in ascending order"),
        ],
    )
    def test_refuses_what_is_no_segment(self, broken: Segment, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            Index().add_segment(broken)
        with pytest.raises(ValueError, match=message):
            Segment.merge([broken])
