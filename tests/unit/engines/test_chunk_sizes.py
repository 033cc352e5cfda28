"""How many tasks travel together."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speedy_utils._engines.chunk_sizes import (
    CHUNK_S,
    CHUNKS_LEFT,
    MAX_CHUNK,
    MAX_CHUNK_BYTES,
    MAX_CHUNK_S,
    MIN_CHUNK_S,
    ChunkSizes,
)

seconds = st.floats(1e-8, 1e4)


@given(left=st.integers(1, 10**9), workers=st.integers(1, 10_000))
def test_a_task_travels_alone_until_one_has_ended(left: int, workers: int) -> None:
    """Nothing is known of how long one takes: it may hang, or take hours."""
    assert ChunkSizes().next(left, workers) == 1


@given(each=seconds, left=st.none() | st.integers(1, 10**9), workers=st.integers(1, 10_000))
def test_a_chunk_is_neither_long_nor_unfair(each: float, left: int | None, workers: int) -> None:
    """It takes 0.2 s at the most, and leaves another one for each worker unless it takes milliseconds."""
    sizes = ChunkSizes()
    sizes.observe(1, each)
    size = sizes.next(left, workers)
    assert 1 <= size <= MAX_CHUNK
    assert size == 1 or size * each <= CHUNK_S * 1.001
    if left is not None:
        fair = math.ceil(left / (workers * CHUNKS_LEFT))
        assert size <= max(fair, 1, MIN_CHUNK_S / each)


@given(each=seconds, workers=st.integers(1, 64), count=st.integers(1, 10**7))
def test_each_task_travels_once(each: float, workers: int, count: int) -> None:
    """The chunks come to an end: as many as the time asks for, and a few for each worker at the end."""
    sizes, left, chunks = ChunkSizes(), count, 0
    sizes.observe(1, each)
    size_of_most = min(max(1, int(CHUNK_S / each)), MAX_CHUNK)
    for _ in range(100_000 // workers):
        if left <= 0:
            break
        left -= min(left, sizes.next(left, workers))
        chunks += 1
    if left <= 0:
        ends = workers * CHUNKS_LEFT * (2 + math.log(max(2, size_of_most)))
        assert chunks <= count / size_of_most + ends + 1


@given(fixed=st.integers(1, 10**6), left=st.none() | st.integers(1, 10**6), each=seconds)
def test_a_number_that_is_given_holds(fixed: int, left: int | None, each: float) -> None:
    """Whatever the tasks take: and then none is handed back in the middle."""
    sizes = ChunkSizes(fixed)
    sizes.observe(1, each)
    assert (sizes.next(left, 4), sizes.most_seconds) == (fixed, None)


def test_tasks_that_are_slower_than_expected_make_smaller_chunks() -> None:
    """Half-way after each chunk; faster ones count at once, as the first of a worker are slow."""
    sizes = ChunkSizes()
    found = []
    for each in (1.0, 0.001, 0.01, 0.01, 0.0001):
        sizes.observe(10, 10 * each)
        found.append(sizes.next(None, 2))
    assert found == [1, 200, 36, 25, 2000]
    assert sizes.most_seconds == pytest.approx(MAX_CHUNK_S)


def test_large_items_and_results_make_smaller_chunks() -> None:
    """At once when they grow, and half-way back after each chunk when they shrink; at least one travels."""
    sizes = ChunkSizes()
    found = []
    for each in (10, 1_000_000, 0, 2 * MAX_CHUNK_BYTES):
        sizes.observe(10, 0.001, 10 * each)
        found.append(sizes.next(None, 2))
    assert found == [2_000, 32, 64, 1]
