"""Any rows in any order, as plain numpy has them, at the cost of the masks asked for."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import Source, write_source

import maskcube
from maskcube.codec import index_bytes
from maskcube.objects import Folder
from maskcube.shards import ShardReader
from maskcube.store import MaskStore

N_MASKS = 150


@pytest.fixture(scope="module")
def reader(small_store: Path) -> ShardReader:
    return ShardReader(MaskStore.open(small_store))


@given(rows=st.lists(st.integers(0, N_MASKS - 1), max_size=80))
def test_rows_in_any_order(reader: ShardReader, small: Source, rows: list[int]) -> None:
    wanted = np.array(rows, dtype=int)
    np.testing.assert_array_equal(reader.read(wanted), small.masks[wanted])


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
    """A folder that counts what is read of it."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
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

    def test_it_pickles_small(self, counted: tuple[Counted, ShardReader]) -> None:
        _, reader = counted
        reader.read(np.arange(150))
        assert len(pickle.dumps(reader)) < 4000
