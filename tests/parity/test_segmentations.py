"""Every call of Segmentations against straight h5py and pandas, on every kind of source."""

from __future__ import annotations

import multiprocessing
import os
import pickle
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest
from reference import COLUMNS, Source, read_table, write_source

import maskcube
from maskcube import Segmentations

KINDS: dict[str, dict[str, Any]] = {
    "one mask a chunk": {"chunks": (1, 24, 20)},
    "automatic chunks": {"chunks": True},
    "unsorted": {"chunks": True, "sorted_rows": False, "seed": 4},
    "unsorted, one mask a chunk": {"chunks": (1, 24, 20), "sorted_rows": False, "seed": 5},
    "65 masks": {"n_masks": 65, "chunks": (13, 9, 9)},
}


class Case:
    """A source, its table as pandas reads it, and Segmentations over it or its store."""

    def __init__(self, source: Source, place: Path) -> None:
        self.source = source
        self.table = read_table(source.csv)
        self.place = place
        with h5py.File(source.hdf5, "r") as file:
            self.masks = file["masks"][:]

    @property
    def images(self) -> list[str]:
        return list(dict.fromkeys(self.table["image_name"]))


@pytest.fixture(scope="module", params=KINDS)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Source:
    return write_source(tmp_path_factory.mktemp("data"), **KINDS[request.param])


@pytest.fixture(scope="module", params=["HDF5", "store", "store in the folder"])
def case(
    request: pytest.FixtureRequest, made: Source, tmp_path_factory: pytest.TempPathFactory
) -> Case:
    if request.param == "HDF5":
        return Case(made, made.folder)
    folder = tmp_path_factory.mktemp("store")
    maskcube.convert(made.folder, folder / "masks.zarr", progress=False)
    return Case(made, folder if "folder" in request.param else folder / "masks.zarr")


def test_metadata(case: Case) -> None:
    found = Segmentations(case.place).metadata
    assert list(found.columns) == COLUMNS
    pd.testing.assert_frame_equal(found, case.table, check_dtype=False)
    for name in COLUMNS:
        assert found[name].dtype.kind == case.table[name].dtype.kind, name


def test_lengths_and_lists(case: Case) -> None:
    segmentations = Segmentations(case.place)
    assert len(segmentations) == len(case.table)
    assert segmentations.images() == case.images
    assert all(segmentations.has_image(image) for image in case.images)
    assert not segmentations.has_image("unique_1.jpg")
    assert segmentations.data_dir == case.place


def test_every_row(case: Case) -> None:
    segmentations = Segmentations(case.place)
    for row in range(len(case.table)):
        found = segmentations[row]
        assert found.shape == (24, 20)
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found, case.masks[row])
    np.testing.assert_array_equal(segmentations[-1], case.masks[-1])
    np.testing.assert_array_equal(segmentations[np.int64(3)], case.masks[3])
    for row in (len(case.table), -len(case.table) - 1):
        with pytest.raises(IndexError, match=f"mask_row={row} is outside"):
            _ = segmentations[row]


def test_every_key(case: Case) -> None:
    segmentations = Segmentations(case.place)
    keys = case.table[["image_name", "noun", "instance_id", "mask_row"]].to_numpy()
    for image, noun, instance, row in keys:
        found = segmentations.get(image, noun, instance=instance)
        np.testing.assert_array_equal(found, case.masks[row])
    first = case.table[case.table["instance_id"] == 0].iloc[-1]
    np.testing.assert_array_equal(
        segmentations.get(first["image_name"], first["noun"]), case.masks[first["mask_row"]]
    )


def test_every_image(case: Case) -> None:
    segmentations = Segmentations(case.place)
    for image in case.images:
        rows = case.table[case.table["image_name"] == image]
        pd.testing.assert_frame_equal(
            segmentations.for_image(image), rows.reset_index(drop=True), check_dtype=False
        )
        assert segmentations.nouns(image, localized_only=False) == list(dict.fromkeys(rows["noun"]))
        localized = rows[rows["localized"] == 1]
        assert segmentations.nouns(image) == list(dict.fromkeys(localized["noun"]))


def test_an_image_without_masks(case: Case) -> None:
    segmentations = Segmentations(case.place)
    empty = segmentations.for_image("unique_1.jpg")
    assert (list(empty.columns), len(empty)) == (COLUMNS, 0)
    assert segmentations.nouns("unique_1.jpg") == []
    with pytest.raises(KeyError, match=r"no mask has image 'unique_1.jpg'; only the shared"):
        segmentations.get("unique_1.jpg", "hand")


def test_a_key_that_no_mask_has(case: Case) -> None:
    segmentations = Segmentations(case.place)
    image = case.images[0]
    with pytest.raises(KeyError, match=f"image '{image}' has no mask of 'Hand'; it has '"):
        segmentations.get(image, "Hand")
    noun = segmentations.nouns(image, localized_only=False)[0]
    with pytest.raises(maskcube.LabelNotFound, match=f"has no instance 99 of '{noun}'; it has"):
        segmentations.get(image, noun, 99)


def test_answers_do_not_depend_on_what_the_caller_changes(case: Case) -> None:
    segmentations = Segmentations(case.place)
    assert segmentations.metadata is segmentations.metadata
    for table in (segmentations.metadata, segmentations.for_image(case.images[0])):
        table["noun"] = "spoilt"
    mask = segmentations[0]
    mask[:] = 9
    assert "spoilt" not in segmentations.nouns(case.images[0], localized_only=False)
    np.testing.assert_array_equal(segmentations[0], case.masks[0])


def test_it_opens_again_after_close(case: Case) -> None:
    with Segmentations(case.place) as segmentations:
        segmentations[0]
    np.testing.assert_array_equal(segmentations[1], case.masks[1])
    segmentations.close()
    segmentations.close()
    assert len(segmentations) == len(case.table)


def test_it_pickles(case: Case) -> None:
    segmentations = Segmentations(case.place)
    segmentations[0]
    again = pickle.loads(pickle.dumps(segmentations))  # noqa: S301 - our own bytes
    np.testing.assert_array_equal(again[5], case.masks[5])
    pd.testing.assert_frame_equal(again.metadata, segmentations.metadata)


def test_threads_share_it(case: Case) -> None:
    segmentations = Segmentations(case.place)
    with ThreadPoolExecutor(4) as pool:
        for row, mask in enumerate(pool.map(segmentations.__getitem__, range(len(case.table)))):
            np.testing.assert_array_equal(mask, case.masks[row])


def test_spawned_processes_share_it(case: Case) -> None:
    segmentations = Segmentations(case.place)
    segmentations[0]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        found = pool.submit(segmentations.__getitem__, 7).result(timeout=120)
    np.testing.assert_array_equal(found, case.masks[7])


def test_it_survives_a_fork(case: Case) -> None:
    """As in a data loader: opened and used before the fork, used in parent and child after it."""
    segmentations = Segmentations(case.place)
    segmentations[0]
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:  # pragma: no cover - another process
        os.write(writing, segmentations[9].tobytes())
        os._exit(0)
    parent = segmentations[8]
    data = os.read(reading, 10_000)
    os.waitpid(child, 0)
    os.close(reading)
    os.close(writing)
    np.testing.assert_array_equal(parent, case.masks[8])
    assert data == case.masks[9].tobytes()


def test_the_masks_as_an_array(case: Case) -> None:
    masks = Segmentations(case.place).masks
    assert masks.dims == ("mask", "y", "x")
    assert masks.chunks is not None
    np.testing.assert_array_equal(masks, case.masks)
    record = case.table.iloc[11]
    found = masks.sel(
        image=record["image_name"], noun=record["noun"], instance=record["instance_id"]
    )
    np.testing.assert_array_equal(found, case.masks[record["mask_row"]])


class TestPlaces:
    def test_nothing_there(self, tmp_path: Path) -> None:
        for place in (tmp_path, tmp_path / "none", tmp_path / "none.zarr"):
            with pytest.raises(FileNotFoundError):
                Segmentations(place)

    def test_half_a_dataset(self, tmp_path: Path) -> None:
        source = write_source(tmp_path)
        source.csv.unlink()
        with pytest.raises(FileNotFoundError, match="no CSV at"):
            Segmentations(tmp_path)

    def test_several_stores_are_ambiguous(self, tmp_path: Path, small: Source) -> None:
        for name in ("a.zarr", "stimuli/b.zarr"):
            maskcube.convert(small.folder, tmp_path / name, progress=False)
        with pytest.raises(maskcube.InvalidOption, match=r"several mask stores: .*a\.zarr'"):
            Segmentations(tmp_path)

    def test_a_foreign_zarr_in_the_folder_is_no_store(self, tmp_path: Path) -> None:
        import zarr

        source = write_source(tmp_path)
        zarr.create_group(tmp_path / "betas.zarr")
        np.testing.assert_array_equal(Segmentations(tmp_path)[3], source.masks[3])

    def test_without_a_folder_laion_fmri_is_asked(self) -> None:
        with pytest.raises(maskcube.MissingDependency, match="laion_fmri is not installed"):
            Segmentations()

    def test_duplicates_give_the_first_as_laion_fmri_does(self, tmp_path: Path) -> None:
        def twice(table: pd.DataFrame) -> pd.DataFrame:
            keys = ["image_name", "noun", "instance_id"]
            table.loc[8, keys] = table.loc[7, keys]
            return table

        source = write_source(tmp_path, change=twice)
        key = source.table.loc[7, ["image_name", "noun", "instance_id"]]
        maskcube.convert(tmp_path, tmp_path / "masks.zarr", allow_duplicates=True, progress=False)
        np.testing.assert_array_equal(Segmentations(tmp_path).get(*key), source.masks[7])
