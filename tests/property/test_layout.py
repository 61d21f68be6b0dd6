"""Layout arithmetic: every row is in exactly one place, and budgets hold."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskcube.errors import InvalidOption
from maskcube.layout import Layout, block_rows, blocks, memory_bytes, worker_count

layouts = st.builds(
    Layout,
    n_masks=st.integers(1, 3000),
    height=st.integers(1, 2000),
    width=st.integers(1, 2000),
    shard_masks=st.sampled_from([1, 2, 7, 64, 100]),
)


@given(layouts)
def test_shards_hold_every_row_once(layout: Layout) -> None:
    rows = [
        row
        for shard in range(layout.n_shards)
        for row in range(layout.shard_rows(shard).start, layout.shard_rows(shard).stop)
    ]
    assert rows == list(range(layout.n_masks))
    assert all(len(layout.shard_rows(shard)) > 0 for shard in range(layout.n_shards))


@given(layouts)
def test_tasks_never_cross_shards_and_stay_small(layout: Layout) -> None:
    assert layout.shard_masks % layout.task_masks == 0
    assert layout.task_masks == 1 or layout.task_masks * layout.mask_bytes <= 32 * 2**20


@given(st.integers(0, 500), st.integers(0, 500), st.integers(1, 90))
def test_blocks_cover_a_range_and_end_at_multiples(start: int, length: int, rows: int) -> None:
    found = list(blocks(start, start + length, rows))
    covered = [row for block in found for row in range(block.start, block.stop)]
    assert covered == list(range(start, start + length))
    assert all(0 < len(block) <= rows for block in found)
    assert all(block.stop % rows == 0 for block in found[:-1])


@given(
    layouts,
    st.integers(1, 400),
    st.integers(200 * 2**20, 2**31),
    st.integers(1, 8),
    st.sampled_from([1, 8]),
)
def test_two_blocks_fit_into_the_budget(
    layout: Layout, chunk_rows: int, memory: int, workers: int, packed: int
) -> None:
    chunks = (chunk_rows, 64, 64)
    held = max(1, layout.mask_bytes // packed)
    fixed = 192 * 2**20 + (workers + 1) * (chunk_rows * 64 * 64 + 3 * layout.mask_bytes)
    if memory < fixed + 2 * held:
        with pytest.raises(InvalidOption, match="give at least memory="):
            block_rows(layout, chunks, held, memory, workers)
        return
    rows = block_rows(layout, chunks, held, memory, workers)
    assert 1 <= rows <= max(layout.n_masks, chunk_rows)
    assert fixed + 2 * rows * held <= memory
    # Each HDF5 chunk is inflated once whenever the budget allows it.
    assert rows % chunk_rows == 0 or rows < chunk_rows or rows == layout.n_masks


@pytest.mark.parametrize(
    ("text", "expected"),
    [("1GiB", 2**30), ("500 MB", 500_000_000), (12345, 12345), ("64MiB", 2**26)],
)
def test_memory_is_read_as_dask_reads_it(text: str | int, expected: int) -> None:
    assert memory_bytes(text) == expected


@pytest.mark.parametrize("text", ["much", "1 parsec", "1,5 GiB"])
def test_memory_that_is_no_number_is_refused(text: str) -> None:
    with pytest.raises(InvalidOption, match="say for example memory='1GiB'"):
        memory_bytes(text)


def test_workers() -> None:
    assert worker_count(3) == 3
    assert worker_count(None) >= 1
    with pytest.raises(InvalidOption, match="at least one thread"):
        worker_count(0)
