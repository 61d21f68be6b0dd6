"""Every kind of selection from a store against straight h5py and pandas."""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from reference import Source, read_table, write_source

import maskcube

Pixels = np.ndarray[Any, np.dtype[np.uint8]]


@pytest.fixture(scope="module", params=[True, False], ids=["sorted", "unsorted"])
def source(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Source:
    return write_source(tmp_path_factory.mktemp("data"), sorted_rows=request.param, seed=9)


@pytest.fixture(scope="module")
def place(source: Source, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("store") / "masks.zarr"
    maskcube.convert(source.folder, path, progress=False)
    return path


@pytest.fixture(params=["auto", None, {}, {"mask": 10, "y": 7}, 9], ids=str)
def masks(request: pytest.FixtureRequest, place: Path) -> xr.DataArray:
    return maskcube.open_masks(place, chunks=request.param)


@pytest.fixture(scope="module")
def table(source: Source) -> pd.DataFrame:
    """Return the CSV in the order of the HDF5."""
    return read_table(source.csv).sort_values("mask_row", ignore_index=True)


def expected(source: Source, wanted: pd.Series[bool]) -> Pixels:
    return source.masks[wanted.to_numpy()]


def test_scalars(masks: xr.DataArray, source: Source, table: pd.DataFrame) -> None:
    for image in table["image_name"].unique()[:4]:
        found = masks.sel(image=image)
        np.testing.assert_array_equal(found, expected(source, table["image_name"] == image))
    for noun in table["noun"].unique():
        np.testing.assert_array_equal(masks.sel(noun=noun), expected(source, table["noun"] == noun))


def test_full_keys(masks: xr.DataArray, source: Source, table: pd.DataFrame) -> None:
    keys = table[["image_name", "noun", "instance_id"]].to_numpy()
    for row in range(0, len(keys), 17):
        image, noun, instance = keys[row]
        found = masks.sel(image=image, noun=noun, instance=instance)
        assert found.dims == ("y", "x")
        np.testing.assert_array_equal(found, source.masks[row])


def test_combinations(masks: xr.DataArray, source: Source, table: pd.DataFrame) -> None:
    images = table["image_name"].unique()[[2, 0, 5]].tolist()
    nouns = ["hand", "nan", "person"]
    found = masks.sel(image=images, noun=nouns)
    wanted = table["image_name"].isin(images) & table["noun"].isin(nouns)
    np.testing.assert_array_equal(found, expected(source, wanted))
    assert found.mask_row.to_numpy().tolist() == table.index[wanted].tolist()


def test_ranges_and_callables(masks: xr.DataArray, source: Source, table: pd.DataFrame) -> None:
    found = masks.sel(noun=slice("hand", "person"), instance=slice(None, 1))
    wanted = table["noun"].between("hand", "person") & (table["instance_id"] <= 1)
    np.testing.assert_array_equal(found, expected(source, wanted))
    found = masks.sel(noun=re.compile("^n|music").search)
    np.testing.assert_array_equal(found, expected(source, table["noun"].str.contains("^n|music")))


def test_ordinary_coordinates(masks: xr.DataArray, source: Source, table: pd.DataFrame) -> None:
    found = masks[masks.score > 0.5]
    np.testing.assert_array_equal(found, expected(source, table["score"] > 0.5))
    found = masks[masks.localized == 1].sel(noun="hand")
    wanted = (table["localized"] == 1) & (table["noun"] == "hand")
    np.testing.assert_array_equal(found, expected(source, wanted))


ROWS: list[Any] = [
    0,
    -1,
    slice(None),
    slice(60, 70),
    slice(140, 3, -7),
    slice(5, 5),
    [3, 149, 3, 64, 63],
    np.array([], int),
    np.arange(150) % 3 == 0,
]
CUTS: list[Any] = [slice(None), 5, -2, slice(3, 11), slice(None, None, -2), [4, 1, 4]]


@pytest.mark.parametrize("rows", ROWS, ids=str)
@pytest.mark.parametrize("chunks", ["auto", None])
def test_positions(place: Path, source: Source, rows: Any, chunks: Any) -> None:
    """Rows and cuts in y and x, each on its own axis as xarray has it."""
    masks = maskcube.open_masks(place, chunks=chunks)
    for y in CUTS:
        for x in CUTS:
            found = masks.isel(mask=rows, y=y, x=x)
            assert not found.variable._in_memory  # noqa: SLF001 - nothing may be read yet
            by_rows = source.masks[rows]
            axis = by_rows.ndim - 2
            by_y = by_rows[(slice(None),) * axis + (y,)]
            wanted = by_y[..., x]
            np.testing.assert_array_equal(found, wanted)


def test_vectorized_positions(place: Path, source: Source) -> None:
    masks = maskcube.open_masks(place, chunks=None)
    points = xr.DataArray([3, 149, 64], dims="point")
    found = masks.isel(mask=points, y=points * 0 + 2, x=xr.DataArray([1, 2, 3], dims="point"))
    np.testing.assert_array_equal(found, source.masks[[3, 149, 64], 2, [1, 2, 3]])


def test_reductions_and_groups(masks: xr.DataArray, source: Source, table: pd.DataFrame) -> None:
    np.testing.assert_array_equal(masks.sum(("y", "x")), source.masks.sum(axis=(1, 2)))
    np.testing.assert_array_equal(masks.area, source.masks.sum(axis=(1, 2)))
    if masks.chunks is None:
        return
    means = masks.groupby("noun").mean()
    assert means.dims == ("noun", "y", "x")
    for noun in ("hand", "nan"):
        np.testing.assert_allclose(
            means.sel(noun=noun), expected(source, table["noun"] == noun).mean(axis=0)
        )


def test_it_pickles_without_pixels(masks: xr.DataArray, source: Source) -> None:
    data = pickle.dumps(masks)
    assert len(data) < 80_000
    again = pickle.loads(data)  # noqa: S301 - our own bytes
    np.testing.assert_array_equal(again.sel(noun="hand"), masks.sel(noun="hand"))
    assert again.sizes["mask"] == len(source.masks)


def test_a_selection_round_trips_through_zarr(
    masks: xr.DataArray, source: Source, table: pd.DataFrame, tmp_path: Path
) -> None:
    found = masks.sel(noun=["hand", "crème brûlée"])
    found.drop_encoding().to_zarr(tmp_path / "hands.zarr", zarr_format=3)
    with xr.open_zarr(tmp_path / "hands.zarr", chunks=None) as dataset:
        again = dataset.load().set_xindex(["image", "noun", "instance"], maskcube.MaskIndex).masks
    wanted = table["noun"].isin(["hand", "crème brûlée"])
    np.testing.assert_array_equal(again, expected(source, wanted))
    np.testing.assert_array_equal(
        again.sel(noun="crème brûlée"), expected(source, table["noun"] == "crème brûlée")
    )


def test_two_chunkings_may_meet_in_one_graph(place: Path, source: Source) -> None:
    """Tasks are named for what they read: two cuts of one store must not share a name."""
    one, other = (maskcube.open_masks(place, chunks={"mask": size}) for size in (10, 25))
    np.testing.assert_array_equal((one.data + other.data).compute(), source.masks * 2)


def test_chunks_that_mean_nothing_are_refused(place: Path) -> None:
    for chunks in ("big", {"masks": 3}, 2.5, True):
        with pytest.raises(maskcube.InvalidOption, match="give 'auto', a number, None"):
            maskcube.open_masks(place, chunks=chunks)  # type: ignore[arg-type]


def test_storage_options_are_for_urls(place: Path) -> None:
    with pytest.raises(maskcube.InvalidOption, match="storage_options are for URLs"):
        maskcube.open_masks(place, storage_options={"anon": True})


class TestAsAnArrayInMemory:
    """What xarray does with an array in memory, it does with ours."""

    @pytest.mark.parametrize("chunks", ["auto", None])
    def test_outer_alignment(self, place: Path, source: Source, chunks: Any) -> None:
        masks = maskcube.open_masks(place, chunks=chunks)
        one, other = xr.align(masks[:20], masks[10:40], join="outer", fill_value=7)
        assert one.sizes["mask"] == other.sizes["mask"] == 40
        np.testing.assert_array_equal(one[:20], source.masks[:20])
        np.testing.assert_array_equal(one[20:], np.full((20, 24, 20), 7))
        np.testing.assert_array_equal(other[10:], source.masks[10:40])

    def test_a_run_of_masks_round_trips_through_zarr(
        self, place: Path, source: Source, tmp_path: Path
    ) -> None:
        masks = maskcube.open_masks(place)
        masks[5:120].to_zarr(tmp_path / "run.zarr", zarr_format=3)
        with xr.open_zarr(tmp_path / "run.zarr", chunks=None) as dataset:
            np.testing.assert_array_equal(dataset.masks, source.masks[5:120])
            assert "maskcube" not in dataset.attrs

    def test_it_can_be_changed_without_changing_the_store(
        self, place: Path, source: Source
    ) -> None:
        masks = maskcube.open_masks(place, chunks=None)
        masks[3] = 1
        assert bool((masks[3] == 1).all())
        np.testing.assert_array_equal(maskcube.open_masks(place, chunks=None)[3], source.masks[3])

    def test_it_stays_when_the_process_moves(
        self, place: Path, source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(place.parent)
        masks = maskcube.open_masks(place.name)
        monkeypatch.chdir(tmp_path)
        np.testing.assert_array_equal(masks[3], source.masks[3])


@pytest.mark.parametrize("chunks", [0, -5, {"mask": "x"}, {"mask": 0}], ids=str)
def test_sizes_that_are_none_are_refused(place: Path, chunks: Any) -> None:
    with pytest.raises(maskcube.InvalidOption, match="give 'auto', a number, None"):
        maskcube.open_masks(place, chunks=chunks)
