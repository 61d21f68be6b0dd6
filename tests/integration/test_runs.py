"""Runs beside the masks: what plain readers see, what is read, what is found when it is wrong."""

from __future__ import annotations

import shutil
import threading
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorstore
import xarray as xr
import zarr
from reference import Source, write_source

import maskcube
from maskcube import ragged
from maskcube.catalog import Catalog
from maskcube.objects import Folder
from maskcube.ragged import RunReader
from maskcube.reader import mask_dataset
from maskcube.shards import ShardReader
from maskcube.store import MaskStore


def expected(masks: np.ndarray[Any, Any]) -> list[list[int]]:
    """Return the boundaries of each mask, by a plain loop."""
    found = []
    for mask in masks:
        pixels = [0, *mask.reshape(-1).tolist(), 0]
        found.append([i for i in range(len(pixels) - 1) if pixels[i] != pixels[i + 1]])
    return found


def as_lists(runs: tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]) -> list[list[int]]:
    boundaries, offsets = runs
    assert (boundaries.dtype, offsets.dtype) == (np.int32, np.int64)
    return (
        [part.tolist() for part in np.split(boundaries, offsets[1:-1])] if len(offsets) > 1 else []
    )


SELECTIONS: dict[str, Any] = {
    "all": lambda masks: masks,
    "a slice": lambda masks: masks[20:100],
    "backwards": lambda masks: masks[100:20:-3],
    "scattered": lambda masks: masks[[149, 3, 3, 70]],
    "twice selected": lambda masks: masks[50:][[1, 9]][1:],
    "labels": lambda masks: masks.sel(noun=["hand", "fingers"]),
    "scores": lambda masks: masks[masks.score > 0.5],
    "none": lambda masks: masks[:0],
    "a corner": lambda masks: masks[5:9, :7, 3:],
    "upside down": lambda masks: masks[5:9, ::-1],
    "in memory": lambda masks: masks[5:9].load(),
    "computed": lambda masks: masks[5:9].astype("uint8") * (masks[5:9] > 0),
}


@pytest.mark.parametrize("chunks", [None, "auto"])
@pytest.mark.parametrize("select", SELECTIONS.values(), ids=SELECTIONS)
def test_the_runs_are_those_of_the_pixels(small_store: Path, select: Any, chunks: Any) -> None:
    masks = select(maskcube.open_masks(small_store, chunks=chunks))
    assert as_lists(maskcube.runs(masks)) == expected(masks.values)


def test_and_back(store: Path) -> None:
    masks = maskcube.open_masks(store, chunks=None)[30:50]
    found = maskcube.masks_from_runs(*maskcube.runs(masks), masks.shape[1:])
    np.testing.assert_array_equal(found, masks)


@pytest.mark.parametrize("masks", ["(y, x)", "(mask, x, y)"])
def test_other_dims_are_refused(small_store: Path, masks: str) -> None:
    opened = maskcube.open_masks(small_store)
    wrong = opened[0] if masks == "(y, x)" else opened.transpose("mask", "x", "y")
    for function in (maskcube.runs, lambda each: maskcube.map_masks(np.sum, each)):
        with pytest.raises(maskcube.InvalidOption, match="masks are"):
            function(wrong)


@pytest.mark.parametrize("masks", ["masks.zarr", np.zeros((2, 3, 4)), None, xr.Dataset()])
def test_what_are_no_masks_is_refused(masks: Any) -> None:
    for function in (maskcube.runs, lambda each: maskcube.map_masks(np.sum, each)):
        with pytest.raises(maskcube.InvalidOption, match="give a DataArray"):
            function(masks)


def test_runs_are_of_zeros_and_ones(small_store: Path, small: Source) -> None:
    masks = maskcube.open_masks(small_store, chunks=None)[:5]
    assert as_lists(maskcube.runs(masks > 0)) == expected(small.masks[:5])
    with pytest.raises(maskcube.InvalidOption, match="dtype float"):
        maskcube.runs(masks.where(masks.area > 3))
    with pytest.raises(maskcube.InvalidOption, match="other than 0 and 1"):
        maskcube.runs(masks * np.uint8(2))


class Counted(Folder):
    """A folder that counts what is read of it."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.reads: list[str] = []

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes | None:
        self.reads.append(key)
        return super().get(key, start, length)


def test_no_mask_is_decoded(small_store: Path) -> None:
    folder = Counted(small_store)
    opened = MaskStore(folder)
    masks = mask_dataset(ShardReader(opened), Catalog.of_store(opened), {}).masks
    folder.reads.clear()
    maskcube.runs(masks.sel(noun="hand"))
    assert folder.reads == ["runs/offsets/c/0", "runs/steps/c/0"]


def test_only_the_chunks_that_hold_them_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """About 240 boundaries a mask, in chunks of 1000."""
    monkeypatch.setattr(ragged, "_CHUNK_STEPS", 1000)
    source = write_source(tmp_path, n_masks=60, shape=(30, 30))
    maskcube.convert(tmp_path, tmp_path / "masks.zarr", progress=False)
    folder = Counted(tmp_path / "masks.zarr")
    reader = RunReader(MaskStore(folder))
    wanted = expected(source.masks)
    ends = np.cumsum([0, *map(len, wanted)])
    assert ends[-1] > 3000
    assert as_lists(reader.read(np.arange(60))) == wanted
    for rows in ([7], [59, 0, 30], [8, 7, 8]):
        folder.reads.clear()
        assert as_lists(reader.read(np.array(rows))) == [wanted[row] for row in rows]
        chunks = {place // 1000 for row in rows for place in range(ends[row], ends[row + 1])}
        assert sorted(folder.reads[1:]) == sorted(f"runs/steps/c/{each}" for each in chunks)
    assert maskcube.verify(tmp_path / "masks.zarr", tmp_path).n_masks == 60


@pytest.mark.parametrize("value", [0, 1])
def test_masks_of_one_value(tmp_path: Path, value: int) -> None:
    """Without a single boundary, or with none but the edges."""
    source = write_source(tmp_path, n_masks=70)
    source.masks[:] = value
    import h5py

    with h5py.File(source.hdf5, "r+") as file:
        file["masks"][:] = value
    maskcube.convert(tmp_path, tmp_path / "masks.zarr", progress=False)
    masks = maskcube.open_masks(tmp_path / "masks.zarr")
    assert as_lists(maskcube.runs(masks)) == [[0, 480] if value else []] * 70
    assert maskcube.verify(tmp_path / "masks.zarr", tmp_path).n_masks == 70
    steps: Any = zarr.open_array(tmp_path / "masks.zarr/runs/steps", mode="r")
    assert steps[:].tolist() == ([0, 480] * 70 if value else [])


class TestPlainReaders:
    def test_zarr(self, small_store: Path, small: Source) -> None:
        group: Any = zarr.open_group(small_store, mode="r")
        steps, offsets = group["runs/steps"][:], group["runs/offsets"][:]
        found = [np.cumsum(steps[first:last]).tolist() for first, last in pairwise(offsets)]
        assert found == expected(small.masks)
        assert "cumsum" in group["runs"].attrs["comment"]

    def test_tensorstore(self, small_store: Path, small: Source) -> None:
        path = small_store / "runs/steps"
        spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(path)}}
        steps = tensorstore.open(spec, open=True, read=True).result().read().result()
        wanted = [np.diff(each, prepend=0) for each in expected(small.masks)]
        np.testing.assert_array_equal(steps, np.concatenate(wanted))

    def test_the_root_shows_masks_only(self, small_store: Path) -> None:
        dataset = xr.open_zarr(small_store, chunks=None)
        assert list(dataset.data_vars) == ["masks"]
        assert set(dataset.dims) == {"mask", "y", "x"}


class TestDamage:
    @pytest.fixture
    def copy(self, small_store: Path, tmp_path: Path) -> Path:
        return Path(shutil.copytree(small_store, tmp_path / "masks.zarr"))

    @pytest.mark.parametrize("key", ["steps", "offsets"])
    @pytest.mark.parametrize("damage", ["missing", "flipped", "cut"])
    def test_is_told_and_found(self, copy: Path, key: str, damage: str) -> None:
        path = copy / f"runs/{key}/c/0"
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        if damage == "missing":
            path.unlink()
        else:
            path.write_bytes(data if damage == "flipped" else data[:-9])
        masks = maskcube.open_masks(copy)
        with pytest.raises(maskcube.CorruptStore, match=f"runs/{key}"):
            maskcube.runs(masks)
        with pytest.raises(maskcube.VerificationError, match=f"runs/{key}"):
            maskcube.verify(copy)
        assert masks.any(), "the masks themselves are not concerned"

    @pytest.mark.parametrize("key", ["runs", "runs/steps", "runs/offsets"])
    def test_metadata(self, copy: Path, key: str) -> None:
        (copy / key / "zarr.json").unlink()
        with pytest.raises(maskcube.VerificationError, match=f"metadata of '{key}'"):
            maskcube.verify(copy)

    def test_runs_of_other_masks(self, small_store: Path, tmp_path: Path) -> None:
        """Each piece is whole, but they are not those of these pixels."""
        write_source(tmp_path, n_masks=150, seed=5)
        maskcube.convert(tmp_path, tmp_path / "other.zarr", progress=False)
        runs = RunReader(MaskStore.open(tmp_path / "other.zarr"))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("maskcube.verification.RunReader", lambda _store: runs)
            with pytest.raises(maskcube.VerificationError, match="runs are not those") as raised:
                maskcube.verify(small_store)
        assert len(raised.value.masks) > 100


class TestMapMasks:
    @pytest.mark.parametrize("chunks", [None, "auto"])
    @pytest.mark.parametrize("select", SELECTIONS.values(), ids=SELECTIONS)
    def test_a_number_of_each(self, small_store: Path, select: Any, chunks: Any) -> None:
        masks = select(maskcube.open_masks(small_store, chunks=chunks))
        areas = maskcube.map_masks(np.count_nonzero, masks)
        assert areas.dims == ("mask",)
        np.testing.assert_array_equal(areas, np.count_nonzero(masks.values, axis=(1, 2)))
        np.testing.assert_array_equal(areas.noun, masks.noun)

    def test_an_array_of_each(self, small_store: Path, small: Source) -> None:
        masks = maskcube.open_masks(small_store)
        lines = maskcube.map_masks(lambda mask: mask.any(axis=1), masks, workers=3)
        assert lines.dims == ("mask", "dim_1")
        np.testing.assert_array_equal(lines, small.masks.any(axis=2))
        hands = lines.sel(noun="hand")
        np.testing.assert_array_equal(hands.noun, "hand")

    def test_a_few_masks_are_shared_by_threads_too(self, small_store: Path) -> None:
        """The function may be slow: each call waits until there is another one."""
        together = threading.Barrier(2)
        masks = maskcube.open_masks(small_store, chunks=None)[:2]
        found = maskcube.map_masks(lambda _: together.wait(timeout=30), masks, workers=2)
        assert sorted(found.values) == [0, 1]

    @pytest.mark.parametrize("select", [lambda masks: masks, lambda masks: masks.load()])
    def test_a_mask_that_is_kept(self, small_store: Path, small: Source, select: Any) -> None:
        masks = select(maskcube.open_masks(small_store, chunks=None))
        kept = maskcube.map_masks(lambda mask: mask[3:9], masks)
        np.testing.assert_array_equal(kept, small.masks[:, 3:9])

    def test_a_mask_that_is_written_to(self, small_store: Path, small: Source) -> None:
        masks = maskcube.open_masks(small_store).load()
        maskcube.map_masks(lambda mask: mask.fill(1), masks)
        np.testing.assert_array_equal(masks, small.masks)

    def test_what_it_raises_comes_out(self, small_store: Path) -> None:
        def fail(mask: np.ndarray[Any, Any]) -> None:
            raise ZeroDivisionError(mask.shape)

        with pytest.raises(ZeroDivisionError):
            maskcube.map_masks(fail, maskcube.open_masks(small_store))
        with pytest.raises(maskcube.InvalidOption, match="workers=0"):
            maskcube.map_masks(np.sum, maskcube.open_masks(small_store), workers=0)


def test_a_store_without_runs() -> None:
    """The first stores of format_version 1 have none: they are computed."""
    golden = Path(__file__).parents[1] / "data" / "format-1.zarr"
    masks = maskcube.open_masks(golden)
    assert as_lists(maskcube.runs(masks)) == expected(masks.values)
    assert ShardReader(MaskStore.open(golden)).runs is None
