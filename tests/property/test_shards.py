"""Any rows in any order, as plain numpy has them, at the cost of the masks asked for."""

from __future__ import annotations

import os
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import Source, write_source

import maskcube
from maskcube import shards
from maskcube.codec import index_bytes
from maskcube.objects import Folder
from maskcube.shards import ShardReader
from maskcube.store import MaskStore

N_MASKS = 150


@pytest.fixture(scope="module")
def reader(small_store: Path) -> ShardReader:
    return ShardReader(MaskStore.open(small_store))


@given(
    rows=st.lists(st.integers(0, N_MASKS - 1), max_size=80), workers=st.sampled_from([None, 1, 3])
)
def test_rows_in_any_order(
    reader: ShardReader, small: Source, rows: list[int], workers: int | None
) -> None:
    wanted = np.array(rows, dtype=int)
    np.testing.assert_array_equal(reader.read(wanted, workers=workers), small.masks[wanted])
    corners = reader.each(lambda mask: mask[0, :3].tolist(), wanted, workers=workers)
    assert corners == small.masks[wanted, 0, :3].tolist()


def test_many_threads_share_a_reader(reader: ShardReader, small: Source) -> None:
    def read(seed: int) -> bool:
        wanted = np.random.default_rng(seed).integers(0, N_MASKS, 40)
        return np.array_equal(reader.read(wanted), small.masks[wanted])

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(read, range(50)))


def test_a_function_of_each_may_read_itself(reader: ShardReader, small: Source) -> None:
    """The threads are shared: were one to wait for another, all could wait for ever."""

    def next_area(mask: np.ndarray[Any, Any]) -> int:
        row = int(np.flatnonzero((small.masks == mask).all(axis=(1, 2)))[0])
        return int(reader.read(np.arange(row, min(row + 9, N_MASKS))).sum())

    areas = small.masks.sum(axis=(1, 2))
    rows = np.arange(N_MASKS)
    # A mask that is there twice is found at its first row.
    firsts = [
        int(np.flatnonzero((small.masks == mask).all(axis=(1, 2)))[0]) for mask in small.masks
    ]
    assert reader.each(next_area, rows) == [int(areas[row : row + 9].sum()) for row in firsts]


def test_a_function_of_each_may_compute_with_dask(small_store: Path, small: Source) -> None:
    """Dask's threads want the same threads that wait for them."""
    picked = maskcube.open_masks(small_store)[3:50]
    expected = small.masks[3:50].sum()
    found = maskcube.map_masks(
        lambda _: int(picked.sum().compute()), maskcube.open_masks(small_store)[:20], workers=2
    )
    assert (found == expected).all()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")
def test_a_forked_child_reads(reader: ShardReader, small: Source) -> None:
    reader.read(np.arange(N_MASKS))
    child = os.fork()
    if not child:
        same = np.array_equal(reader.read(np.arange(N_MASKS)), small.masks)
        os._exit(0 if same else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def axis(size: int) -> st.SearchStrategy[Any]:
    """Return indexers for one axis: an integer, a slice, a list, or a mask."""
    return st.one_of(
        st.integers(-size, size - 1),
        st.slices(size),
        st.lists(st.integers(-size, size - 1), max_size=5).map(
            lambda wanted: np.array(wanted, int)
        ),
        st.lists(st.booleans(), min_size=size, max_size=size).map(np.array),
    )


@given(rows=axis(N_MASKS), y=axis(24), x=axis(20), chunked=st.booleans())
def test_it_reads_what_zarr_reads(
    small_store: Path, rows: Any, y: Any, x: Any, *, chunked: bool
) -> None:
    ours = maskcube.open_masks(small_store, chunks="auto" if chunked else None)
    array: Any = zarr.open_array(small_store / "masks", mode="r")
    theirs: Any = array[:]
    for number, wanted in enumerate((rows, y, x)):
        kept = theirs.ndim - 3 + number
        theirs = theirs[(slice(None),) * kept + (wanted,)]
    np.testing.assert_array_equal(ours.isel(mask=rows, y=y, x=x), theirs)


@settings(max_examples=40)
@given(
    n_masks=st.integers(1, 140),
    shape=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    seed=st.integers(0, 2**31),
)
def test_convert_and_read_back(
    tmp_path_factory: pytest.TempPathFactory, n_masks: int, shape: tuple[int, int], seed: int
) -> None:
    folder = tmp_path_factory.mktemp("any")
    source = write_source(folder, n_masks=n_masks, shape=shape, seed=seed, sorted_rows=False)
    maskcube.convert(folder, folder / "masks.zarr", progress=False)
    np.testing.assert_array_equal(maskcube.open_masks(folder / "masks.zarr"), source.masks)


class Counted(Folder):
    """A folder that counts what is read of it, and may seem far away."""

    def __init__(self, path: Path, *, far: bool = False) -> None:
        super().__init__(path)
        self.has_cheap_ranges = not far
        self.max_concurrency = 16 if far else 1
        self.reads: list[tuple[str, int]] = []

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes | None:
        data = super().get(key, start, length)
        self.reads.append((key, len(data or b"")))
        return data


@pytest.fixture
def counted(small_store: Path) -> tuple[Counted, ShardReader]:
    folder = Counted(small_store)
    reader = ShardReader(MaskStore(folder))
    folder.reads.clear()
    return folder, reader


class TestCost:
    """One shard of `small` holds 64 masks of about 150 bytes."""

    def test_one_mask_is_its_own_bytes(self, counted: tuple[Counted, ShardReader]) -> None:
        folder, reader = counted
        reader.read(np.array([70]))
        assert folder.reads[0] == ("masks/c/1/0/0", index_bytes(64))
        assert folder.reads[1][1] < 200
        reader.read(np.array([71]))
        assert len(folder.reads) == 3, "the index is kept"

    def test_neighbours_are_one_read(self, counted: tuple[Counted, ShardReader]) -> None:
        folder, reader = counted
        reader.read(np.arange(64, 128))
        assert [key for key, _ in folder.reads] == ["masks/c/1/0/0"] * 2

    def test_only_the_shards_asked_for_are_touched(
        self, counted: tuple[Counted, ShardReader]
    ) -> None:
        folder, reader = counted
        reader.read(np.array([149, 3, 148, 3]))
        assert {key for key, _ in folder.reads} == {"masks/c/0/0/0", "masks/c/2/0/0"}
        assert len(folder.reads) == 4

    def test_opening_reads_the_root_only(self, small_store: Path) -> None:
        folder = Counted(small_store)
        MaskStore(folder)
        assert [key for key, _ in folder.reads] == ["zarr.json"]

    def test_from_afar_a_shard_is_one_request(self, small_store: Path, small: Source) -> None:
        folder = Counted(small_store, far=True)
        reader = ShardReader(MaskStore(folder))
        folder.reads.clear()
        np.testing.assert_array_equal(reader.read(np.arange(70, 86)), small.masks[70:86])
        size = (small_store / "masks/c/1/0/0").stat().st_size
        assert folder.reads == [("masks/c/1/0/0", size)]
        everything = np.random.default_rng(0).permutation(N_MASKS)
        np.testing.assert_array_equal(reader.read(everything), small.masks[everything])
        assert sorted(key for key, _ in folder.reads) == [f"masks/c/{k}/0/0" for k in range(3)]

    @pytest.mark.parametrize("workers", [None, 1])
    def test_from_afar_shards_are_asked_for_at_once(
        self, small_store: Path, small: Source, workers: int | None
    ) -> None:
        """However few threads decode: each request waits until all three are under way."""
        together = threading.Barrier(3)

        class Slow(Counted):
            def get(self, key: str, start: int = 0, length: int | None = None) -> bytes | None:
                if key.startswith("masks/"):
                    together.wait(timeout=30)
                return super().get(key, start, length)

        reader = ShardReader(MaskStore(Slow(small_store, far=True)))
        rows = np.array([149, 3, 70])
        np.testing.assert_array_equal(reader.read(rows, workers=workers), small.masks[rows])
        reader = ShardReader(MaskStore(Slow(small_store, far=True)))
        areas = reader.each(np.count_nonzero, np.arange(N_MASKS))
        assert areas == np.count_nonzero(small.masks, axis=(1, 2)).tolist()

    def test_from_afar_nothing_is_asked_for_twice(self, small_store: Path) -> None:
        folder = Counted(small_store, far=True)
        reader = ShardReader(MaskStore(folder))
        folder.reads.clear()
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(reader.mask, range(N_MASKS)))
        assert len(folder.reads) == 3

    def test_what_is_kept_is_bounded(
        self, small_store: Path, small: Source, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder = Counted(small_store, far=True)
        reader = ShardReader(MaskStore(folder))
        sizes = [(small_store / f"masks/c/{k}/0/0").stat().st_size for k in range(3)]
        monkeypatch.setattr(shards, "_CACHED_BYTES", sizes[0] + sizes[1])
        folder.reads.clear()
        for row in (0, 64, 0, 128, 0, 64):
            np.testing.assert_array_equal(reader.read(np.array([row]))[0], small.masks[row])
        # The last shard takes the place of the second, which was not used for longest.
        assert [key[8] for key, _ in folder.reads] == ["0", "1", "2", "1"]

    def test_a_huge_shard_is_not_fetched_whole(
        self, small_store: Path, small: Source, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(shards, "_MOST_WHOLE_BYTES", 100)
        folder = Counted(small_store, far=True)
        reader = ShardReader(MaskStore(folder))
        folder.reads.clear()
        np.testing.assert_array_equal(reader.read(np.array([70]))[0], small.masks[70])
        assert [key for key, _ in folder.reads] == ["masks/c/1/0/0"] * 2 + ["zarr.json"]
        assert max(length for _, length in folder.reads[:2]) < 1100

    def test_copies_in_one_process_are_one(self, counted: tuple[Counted, ShardReader]) -> None:
        """A task for every 32 masks must not read the index of its shard anew."""
        _, reader = counted
        text = pickle.dumps(reader)
        copies = [pickle.loads(text) for _ in range(3)]  # noqa: S301 - our own
        assert copies[0] is copies[1] is copies[2]

    def test_it_pickles_small(self, counted: tuple[Counted, ShardReader]) -> None:
        _, reader = counted
        reader.read(np.arange(150))
        assert len(pickle.dumps(reader)) < 4000
