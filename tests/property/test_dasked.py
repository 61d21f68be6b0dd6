"""Masks under dask: any selection as numpy has it, at the cost of the masks that are selected."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr
from dask.base import optimize
from hypothesis import given
from hypothesis import strategies as st
from reference import Source

import maskcube
from maskcube.dasked import MaskRows, Tasks
from maskcube.errors import CorruptMask

N_MASKS = 150


@pytest.fixture(scope="module")
def masks(small_store: Path) -> xr.DataArray:
    return maskcube.open_masks(small_store)


def graph(masks: xr.DataArray) -> dict[Any, Any]:
    return dict(masks.data.dask)


def indexers(size: int) -> st.SearchStrategy[Any]:
    """Return what may select masks: an integer, a slice, a list, or booleans."""
    return st.one_of(
        st.integers(-size, size - 1),
        st.slices(size),
        st.lists(st.integers(-size, size - 1), max_size=9),
        st.lists(st.booleans(), min_size=size, max_size=size).map(np.array),
    )


@given(first=indexers(N_MASKS), data=st.data())
def test_one_selection_after_another(
    masks: xr.DataArray, small: Source, first: Any, data: st.DataObject
) -> None:
    ours, theirs = masks.data[first], small.masks[first]
    assert ours.shape == theirs.shape
    if theirs.ndim == 3 and len(theirs):
        second = data.draw(indexers(len(theirs)))
        ours, theirs = ours[second], theirs[second]
    np.testing.assert_array_equal(ours.compute(scheduler="sync"), theirs)


@given(rows=st.lists(st.integers(0, N_MASKS - 1), min_size=1), y=st.slices(24), x=st.slices(20))
def test_pixels_are_cut_after(
    masks: xr.DataArray, small: Source, rows: list[int], y: slice, x: slice
) -> None:
    found = masks.data[rows, y, x].compute(scheduler="sync")
    np.testing.assert_array_equal(found, small.masks[rows][:, y, x])


class TestCost:
    def test_a_selection_reads_only_its_masks(self, masks: xr.DataArray) -> None:
        picked = masks.isel(mask=[3, 149, 70, 71])
        assert isinstance(picked.data, MaskRows)
        assert picked.data.rows.tolist() == [3, 149, 70, 71]
        assert picked.data.numblocks == (1, 1, 1)
        assert len(graph(picked)) == 2, "one task, and the reader"

    def test_by_labels_too(self, masks: xr.DataArray, small: Source) -> None:
        hands = masks.sel(noun="hand")
        assert isinstance(hands.data, MaskRows)
        expected = np.flatnonzero(small.by_row["noun"] == "hand")
        assert hands.data.rows.tolist() == expected.tolist()
        bright = masks[masks.score > 0.5]
        assert isinstance(bright.data, MaskRows)

    def test_groups_are_read_one_by_one(self, masks: xr.DataArray, small: Source) -> None:
        means = masks.groupby("noun").mean().sortby("noun").compute()
        for noun, mean in zip(means.noun.values, means.values, strict=True):
            wanted = small.masks[(small.by_row["noun"] == noun).to_numpy()]
            np.testing.assert_allclose(mean, wanted.mean(axis=0))

    def test_a_full_scan_is_a_task_for_every_32_masks(self, store: Path) -> None:
        masks = maskcube.open_masks(store)
        assert set(masks.chunksizes["mask"][:-1]) == {32}
        n_tasks = -(-len(masks) // 32)
        assert len(graph(masks)) == n_tasks + 1

    def test_a_large_selection_is_several_tasks(self, masks: xr.DataArray, small: Source) -> None:
        """Of one task's masks that is, and then dask's threads share the work."""
        few = MaskRows(masks.data.reader, masks.data.rows, Tasks(16, 40))
        assert few.numblocks[0] == 10
        assert few[10:50].chunks[0] == (40,)
        assert few[10:51].chunks[0] == (16, 16, 9)
        assert few[10:60][5:30].chunks[0] == (25,)
        np.testing.assert_array_equal(few[10:60][5:30], small.masks[15:40])

    def test_the_graph_pickles_small(self, masks: xr.DataArray) -> None:
        assert len(pickle.dumps(masks.data)) < 6000
        assert len(pickle.dumps(graph(masks))) < 6000

    def test_on_a_cluster_a_task_is_a_shard(self, small_store: Path) -> None:
        with dask.config.set(scheduler="dask.distributed"):
            assert maskcube.open_masks(small_store).chunksizes["mask"] == (64, 64, 22)


class TestIdentity:
    def test_the_same_question_has_the_same_name(self, small_store: Path) -> None:
        one, other = (maskcube.open_masks(small_store).data for _ in range(2))
        assert one.name == other.name
        assert one[[1, 5]].name == other[[1, 5]].name
        assert one[[1, 5]].name != one[[5, 1]].name
        assert one[2:5].name == one[[2, 3, 4]].name

    def test_another_store_has_another(self, small_store: Path, store: Path) -> None:
        assert maskcube.open_masks(small_store).data.name != maskcube.open_masks(store).data.name


class TestStaysItself:
    @pytest.mark.parametrize(
        "same",
        [
            copy.copy,
            copy.deepcopy,
            lambda array: pickle.loads(pickle.dumps(array)),  # noqa: S301 - our own
            lambda array: array[:],
            lambda array: array[...],
        ],
    )
    def test_copied(self, masks: xr.DataArray, small: Source, same: Any) -> None:
        found = same(masks.data)
        assert isinstance(found, MaskRows)
        assert (found.name, found.chunks) == (masks.data.name, masks.data.chunks)
        np.testing.assert_array_equal(found, small.masks)

    def test_no_masks(self, masks: xr.DataArray) -> None:
        none = masks.isel(mask=[])
        assert none.values.shape == (0, 24, 20)
        assert none.isel(mask=slice(0, 0)).sum().compute() == 0

    @pytest.mark.parametrize("rows", [150, [-151], [0, 999]])
    def test_no_such_row(self, masks: xr.DataArray, rows: Any) -> None:
        with pytest.raises(IndexError):
            masks.data[rows]


class TestOwnMemory:
    """An array that is given out is nobody else's."""

    def test_computed_again(self, masks: xr.DataArray, small: Source) -> None:
        picked = masks.data[3:9]
        picked.compute()[:] = 7
        np.testing.assert_array_equal(picked, small.masks[3:9])

    def test_persisted(self, masks: xr.DataArray, small: Source) -> None:
        kept = masks.data[3:9].persist()
        kept.compute()[:] = 7
        np.testing.assert_array_equal(kept, small.masks[3:9])


class TestBecomesOrdinary:
    def test_assigned_to(self, masks: xr.DataArray, small: Source) -> None:
        """Its rows are no longer what it holds: they must not be read again."""
        array = masks.data.copy()
        array[3] = 7
        expected = small.masks.copy()
        expected[3] = 7
        for each in (array, array.copy(), pickle.loads(pickle.dumps(array))):  # noqa: S301 - our own
            np.testing.assert_array_equal(each[2:5], expected[2:5])
            np.testing.assert_array_equal(each, expected)
        np.testing.assert_array_equal(masks.data[3], small.masks[3])

    def test_two_arrays_are_left_to_dask(self, masks: xr.DataArray, small: Source) -> None:
        """For numpy they mean points; xarray takes one after the other."""
        with pytest.raises(NotImplementedError):
            masks.data[[0, 1], [3, 4]]
        found = masks.isel(mask=[0, 1], y=[3, 4])
        np.testing.assert_array_equal(found, small.masks[[0, 1]][:, [3, 4]])

    @pytest.mark.parametrize(
        "change",
        [
            lambda array: array + 1,
            lambda array: array.rechunk((10, 5, 5)),
            lambda array: array[:, None],
            lambda array: array[da.from_array(np.array([1, 3]))],
            lambda array: array[:, [3, 1]],
            lambda array: array.persist(),
            lambda array: optimize(array)[0],
            lambda array: array.vindex[[1, 2], [3, 4], [5, 6]],
            lambda array: array.blocks[1],
            lambda array: da.concatenate([array, array]),
        ],
    )
    def test_anything_else(self, masks: xr.DataArray, small: Source, change: Any) -> None:
        found = change(masks.data)
        assert not isinstance(found, MaskRows)
        expected = change(da.from_array(small.masks, chunks=masks.data.chunks))
        np.testing.assert_array_equal(found, expected)

    @pytest.mark.parametrize("chunks", [10, {"mask": 10, "y": 6}, {"mask": (100, 50)}, {"y": 12}])
    def test_opened_in_other_chunks(self, small_store: Path, small: Source, chunks: Any) -> None:
        masks = maskcube.open_masks(small_store, chunks=chunks)
        assert not isinstance(masks.data, MaskRows)
        np.testing.assert_array_equal(masks.isel(mask=[149, 3]), small.masks[[149, 3]])

    @pytest.mark.parametrize("chunks", [{"mask": 10}, {"mask": 10, "y": -1}, {}, "auto"])
    def test_opened_in_whole_masks(self, small_store: Path, small: Source, chunks: Any) -> None:
        masks = maskcube.open_masks(small_store, chunks=chunks)
        assert isinstance(masks.data, MaskRows)
        np.testing.assert_array_equal(masks, small.masks)


def test_damage_is_told(small_store: Path, tmp_path: Path) -> None:
    broken = tmp_path / "masks.zarr"
    for path in small_store.rglob("*"):
        if path.is_file() and path != small_store / "masks/c/1/0/0":
            (broken / path.relative_to(small_store)).parent.mkdir(parents=True, exist_ok=True)
            (broken / path.relative_to(small_store)).write_bytes(path.read_bytes())
    masks = maskcube.open_masks(broken)
    assert masks[:64].sum().compute()
    with pytest.raises(CorruptMask, match="shard 1: it is missing"):
        masks[60:70].compute()
