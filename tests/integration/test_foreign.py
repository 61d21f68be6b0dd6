"""Stores that somebody has rewritten with plain zarr or xarray: read, but never as zeros."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr
from reference import Source
from zarr.codecs import BloscCodec, GzipCodec

import maskcube
from maskcube.foreign import ZarrReader
from maskcube.shards import ShardReader

LAYOUTS: dict[str, dict[str, Any]] = {
    "no shards": {"chunks": (1, 24, 20)},
    "many masks a chunk": {"chunks": (16, 24, 20)},
    "parts of masks": {"chunks": (7, 10, 20)},
    "other shards": {"chunks": (1, 24, 20), "shards": (10, 24, 20)},
    "chunks in shards": {"chunks": (2, 12, 20), "shards": (64, 24, 20)},
    "blosc": {"chunks": (1, 24, 20), "compressors": BloscCodec(cname="lz4")},
    "gzip": {"chunks": (1, 24, 20), "shards": (64, 24, 20), "compressors": GzipCodec()},
    "raw": {"chunks": (1, 24, 20), "shards": (64, 24, 20), "compressors": None},
}


def rewritten(store: Path, target: Path, layout: dict[str, Any]) -> Path:
    """Copy a store, and write its masks anew with plain zarr."""
    shutil.copytree(store, target)
    masks: Any = zarr.open_array(store / "masks", mode="r")
    array = zarr.create_array(
        target / "masks",
        shape=masks.shape,
        dtype="uint8",
        dimension_names=("mask", "y", "x"),
        overwrite=True,
        **layout,
    )
    array[:] = masks[:]
    zarr.consolidate_metadata(target)
    return target


@pytest.fixture(scope="module", params=LAYOUTS)
def foreign(
    small_store: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Path:
    target = tmp_path_factory.mktemp("foreign") / "masks.zarr"
    return rewritten(small_store, target, LAYOUTS[request.param])


@pytest.mark.parametrize("chunks", [None, "auto"])
def test_any_layout_is_read(foreign: Path, small: Source, chunks: Any) -> None:
    masks = maskcube.open_masks(foreign, chunks=chunks)
    np.testing.assert_array_equal(masks, small.masks)
    rows = [149, 3, 4, 5, 3]
    np.testing.assert_array_equal(masks.isel(mask=rows), small.masks[rows])
    np.testing.assert_array_equal(masks[70, 3:9, ::-2], small.masks[70, 3:9, ::-2])
    areas = maskcube.map_masks(np.count_nonzero, masks)
    np.testing.assert_array_equal(areas, np.count_nonzero(small.masks, axis=(1, 2)))
    again = pickle.loads(pickle.dumps(masks))  # noqa: S301 - our own
    np.testing.assert_array_equal(again[60:70], small.masks[60:70])


def test_segmentations_and_verify_too(foreign: Path, small: Source) -> None:
    assert maskcube.verify(foreign, small.folder).n_masks == 150
    with maskcube.Segmentations(foreign) as segmentations:
        np.testing.assert_array_equal(segmentations[149], small.masks[149])


def test_the_usual_layout_is_read_fast(small_store: Path, tmp_path: Path) -> None:
    layout = {"chunks": (1, 24, 20), "shards": (64, 24, 20)}
    for store, kind in (
        (small_store, ShardReader),
        (rewritten(small_store, tmp_path / "masks.zarr", layout), ZarrReader),
    ):
        assert type(maskcube.open_masks(store).data.reader) is kind


class TestDamage:
    @pytest.fixture
    def store(self, small_store: Path, tmp_path: Path) -> Path:
        return rewritten(small_store, tmp_path / "masks.zarr", LAYOUTS["no shards"])

    def test_a_missing_mask_is_no_empty_mask(self, store: Path, small: Source) -> None:
        """Plain zarr shows zeros without a word."""
        (store / "masks/c/7/0/0").unlink()
        masks = maskcube.open_masks(store, chunks=None)
        with pytest.raises(maskcube.CorruptMask, match="not those that were converted") as raised:
            masks[5:9].load()
        assert raised.value.rows == (7,)
        np.testing.assert_array_equal(masks[8:20], small.masks[8:20])
        with pytest.raises(maskcube.VerificationError, match=r"mask 7 .*it cannot be read"):
            maskcube.verify(store)

    def test_bytes_that_do_not_decode(self, store: Path) -> None:
        (store / "masks/c/7/0/0").write_bytes(b"no zstd")
        masks = maskcube.open_masks(store, chunks=None)
        with pytest.raises(maskcube.CorruptMask, match="zarr cannot read it"):
            masks[7].load()
        with pytest.raises(maskcube.VerificationError, match="it cannot be read"):
            maskcube.verify(store)

    def test_without_checksums_nothing_is_trusted(self, store: Path) -> None:
        (store / "crc32c/c/0").write_bytes(b"damaged")
        masks = maskcube.open_masks(store, chunks=None)
        with pytest.raises(maskcube.CorruptStore, match="crc32c"):
            masks[7].load()
        with pytest.raises(maskcube.VerificationError, match="coordinate 'crc32c'"):
            maskcube.verify(store)

    def test_a_codec_that_nobody_knows(self, store: Path) -> None:
        for path in (store / "zarr.json", store / "masks/zarr.json"):
            text = path.read_text()
            record = json.loads(text)
            masks = record
            if "consolidated_metadata" in record:
                masks = record["consolidated_metadata"]["metadata"]["masks"]
            masks["codecs"][-1]["name"] = "unheard-of"
            path.write_text(json.dumps(record))
        with pytest.raises(maskcube.NotAMaskStore, match="unheard-of"):
            maskcube.open_masks(store)


def test_rewritten_by_plain_xarray(small_store: Path, small: Source, tmp_path: Path) -> None:
    """Coordinates and all, in xarray's own chunks and codecs."""
    dataset = xr.open_zarr(small_store, chunks={})
    for variable in dataset.variables.values():
        variable.encoding.clear()
    dataset.to_zarr(tmp_path / "again.zarr", zarr_format=3, consolidated=True)
    masks = maskcube.open_masks(tmp_path / "again.zarr")
    np.testing.assert_array_equal(masks, small.masks)
    table = small.by_row
    for name, column in (("noun", "noun"), ("score", "score"), ("mask_file", "mask_file")):
        np.testing.assert_array_equal(masks[name], table[column])
    hands = masks.sel(noun="hand")
    np.testing.assert_array_equal(hands, small.masks[(table["noun"] == "hand").to_numpy()])
    with maskcube.Segmentations(tmp_path / "again.zarr") as segmentations:
        assert segmentations.record(5)["image_name"] == table["image_name"][5]
    assert maskcube.verify(tmp_path / "again.zarr", small.folder).n_masks == 150


class TestCoordinates:
    """Rewritten ones have no checksum of ours, and zarr shows what is missing as empty texts."""

    @pytest.fixture
    def store(self, small_store: Path, tmp_path: Path) -> Path:
        dataset = xr.open_zarr(small_store, chunks={})
        for variable in dataset.variables.values():
            variable.encoding.clear()
        dataset = dataset.chunk({"mask": 50})
        dataset.to_zarr(tmp_path / "again.zarr", zarr_format=3, consolidated=True)
        return tmp_path / "again.zarr"

    def test_as_they_were(self, store: Path, small: Source) -> None:
        masks = maskcube.open_masks(store)
        np.testing.assert_array_equal(masks.image, small.by_row["image_name"])
        assert maskcube.verify(store, small.folder).n_masks == 150

    @pytest.mark.parametrize("name", ["image", "noun", "instance", "score", "mask_row", "crc32c"])
    @pytest.mark.parametrize("damage", ["missing", "swapped"])
    def test_not_as_they_were(self, store: Path, name: str, damage: str) -> None:
        first, second = store / name / "c/0", store / name / "c/1"
        if damage == "missing":
            second.unlink()
        else:
            one, other = first.read_bytes(), second.read_bytes()
            first.write_bytes(other)
            second.write_bytes(one)
        with pytest.raises(maskcube.VerificationError, match=f"coordinate '{name}'"):
            maskcube.verify(store)
        with pytest.raises(maskcube.CorruptStore, match=f"coordinate '{name}' was rewritten"):
            maskcube.open_masks(store)[name].load()

    @pytest.mark.parametrize("name", ["masks", "score", "noun", "crc32c"])
    def test_its_own_metadata_say_something_else(self, store: Path, name: str) -> None:
        path = store / name / "zarr.json"
        record = json.loads(path.read_text())
        record["shape"][0] = 250_000_000
        path.write_text(json.dumps(record))
        # The root's copy leads: nothing of that size is allocated.
        masks = maskcube.open_masks(store, chunks=None)
        assert len((masks if name == "masks" else masks[name])[:3].load()) == 3
        with pytest.raises(maskcube.VerificationError, match=f"metadata of '{name}' is missing or"):
            maskcube.verify(store)


def test_a_selection_that_plain_xarray_saved_is_refused(small_store: Path, tmp_path: Path) -> None:
    """Its attributes speak of masks that are not there."""
    dataset = xr.open_zarr(small_store, chunks={}).isel(mask=slice(10))
    for variable in dataset.variables.values():
        variable.encoding.clear()
    dataset.to_zarr(tmp_path / "some.zarr", zarr_format=3, consolidated=True)
    with pytest.raises(maskcube.NotAMaskStore, match="for 150 masks"):
        maskcube.open_masks(tmp_path / "some.zarr")
