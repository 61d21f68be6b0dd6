"""Masks that stay in their HDF5: every pixel and label is there, and what it costs is told."""

from __future__ import annotations

import os
import pickle
import sys
import warnings
from pathlib import Path
from typing import Any

import h5py
import icechunk
import numpy as np
import pytest
import xarray as xr
import zarr
from reference import Source, put_value, write_source

import maskcube

WHOLE = (1, 24, 20)
"""An HDF5 chunk for each mask: nothing to warn of."""

LOCAL = getattr(icechunk.credentials, "LocalFileSystemAccess", None)
"""The word for a folder of this machine; icechunk 1 has none."""


@pytest.fixture
def source(tmp_path: Path) -> Source:
    """Return masks in a folder whose name is no plain one."""
    return write_source(tmp_path / "ä b", sorted_rows=False, chunks=WHOLE)


def _opened(target: Path, *sources: Source) -> Any:
    access = {f"file://{source.hdf5.parent.resolve()}/": LOCAL for source in sources}
    return icechunk.Repository.open(
        icechunk.local_filesystem_storage(str(target)), authorize_virtual_chunk_access=access
    )


def _store(target: Path, *sources: Source) -> Any:
    return _opened(target, *sources).readonly_session("main").store


def _plain(store: Any) -> xr.Dataset:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Numcodecs codecs are not in the Zarr")
        found: xr.Dataset = xr.open_zarr(store, chunks=None, consolidated=False)
        return found.load()


@pytest.mark.parametrize(
    "storage",
    [
        {"chunks": WHOLE},
        {"chunks": WHOLE, "shuffle": False},
        {"chunks": WHOLE, "fletcher32": True},
        {"chunks": WHOLE, "compression": None, "shuffle": False},
        {"chunks": (30, 7, 9)},
        {"chunks": (200, 30, 30)},
        {"chunks": (4, 24, 20), "compression": None, "fletcher32": True},
    ],
)
def test_every_pixel_and_label_is_there(tmp_path: Path, storage: dict[str, Any]) -> None:
    chunks = storage["chunks"]
    maxshape = (None, None, None) if chunks[0] > 150 else None
    source = write_source(tmp_path / "in", sorted_rows=False, maxshape=maxshape, **storage)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "(?s).*has chunks of|.*neither gzip")
        maskcube.virtualize(source.folder, tmp_path / "virtual")
    store = _store(tmp_path / "virtual", source)
    with maskcube.Segmentations(source.folder) as segmentations:
        expected = segmentations.masks.load()
    np.testing.assert_array_equal(expected, source.masks)
    for each in (None, "auto"):
        found = maskcube.open_masks(store, chunks=each)
        xr.testing.assert_identical(found.load(), expected)
    rows = [149, 3, 4, 5, 3]
    np.testing.assert_array_equal(maskcube.open_masks(store)[rows], source.masks[rows])
    plain = _plain(store)
    np.testing.assert_array_equal(plain["masks"], source.masks)
    assert set(plain.coords) == set(expected.coords)
    for name in plain.coords:
        assert plain[name].attrs == expected[name].attrs
        np.testing.assert_array_equal(plain[name].to_numpy(), expected[name].to_numpy())
    indexed = plain["masks"].set_xindex(["image", "noun", "instance"], maskcube.MaskIndex)
    image, noun = source.by_row.loc[20, ["image_name", "noun"]]
    xr.testing.assert_equal(
        indexed.sel(image=image, noun=noun), expected.sel(image=image, noun=noun)
    )


def test_chunks_of_dask_are_what_was_asked(source: Source, tmp_path: Path) -> None:
    maskcube.virtualize(source.folder, tmp_path / "virtual")
    store = _store(tmp_path / "virtual", source)
    sizes: dict[Any, tuple[int, ...]] = {"auto": (64, 24, 20), 11: (11, 11, 11)}
    for asked, expected in sizes.items():
        masks = maskcube.open_masks(store, chunks=asked)
        assert masks.data.chunksize == expected
        np.testing.assert_array_equal(masks[20:40], source.masks[20:40])
    assert maskcube.open_masks(store, chunks={}).data.chunksize == (64, 24, 20)
    assert maskcube.open_masks(store, chunks={"mask": 7}).data.chunksize == (7, 24, 20)
    with pytest.raises(maskcube.InvalidOption, match=r"chunks=\{'noun': 3\}"):
        maskcube.open_masks(store, chunks={"noun": 3})


def test_a_mask_of_bool_is_uint8(tmp_path: Path) -> None:
    source = write_source(tmp_path / "in", chunks=WHOLE)
    with h5py.File(source.hdf5, "w") as file:
        data = source.masks.astype(bool)
        file.create_dataset("masks", data=data, chunks=WHOLE, compression="gzip")
    maskcube.virtualize(source.folder, tmp_path / "virtual")
    masks = maskcube.open_masks(_store(tmp_path / "virtual", source))
    assert masks.dtype == np.uint8
    np.testing.assert_array_equal(masks, source.masks)


def test_it_is_one_commit_and_small(source: Source, tmp_path: Path) -> None:
    report = maskcube.virtualize(source.folder, tmp_path / "virtual")
    assert (report.n_masks, report.chunks, report.n_requests) == (150, WHOLE, 1)
    assert report.inflated_bytes == 24 * 20
    assert not report.is_costly
    assert repr(report.prefix) in str(report)
    repo = _opened(tmp_path / "virtual", source)
    messages = [each.message for each in repo.ancestry(branch="main")]
    assert len(messages) == 2
    assert messages[0].endswith(f"virtualized {source.hdf5.name} and {source.csv.name}; 150 masks")
    locations = repo.readonly_session("main").all_virtual_chunk_locations()
    assert len(set(locations)) == 1
    assert len(locations) == 150


def test_bad_chunks_are_warned_of(tmp_path: Path) -> None:
    source = write_source(tmp_path / "in", chunks=(30, 7, 9))
    with h5py.File(source.hdf5) as file:
        each = file["masks"].id.get_storage_size() / (5 * 4 * 3)
    expected = (
        rf"chunks of \(30, 7, 9\): one mask needs 12 requests, {12 * each / 1e6:.3f} MB, which are"
        r" 0.023 MB inflated; a store that convert makes takes one request"
    )
    with pytest.warns(UserWarning, match=expected):
        report = maskcube.virtualize(source.folder, tmp_path / "virtual")
    assert report.is_costly
    assert report.n_requests == 12
    assert report.inflated_bytes == 12 * 30 * 7 * 9
    assert report.request_bytes == round(12 * each)


def test_a_session_of_ones_own(source: Source, tmp_path: Path) -> None:
    folder = source.hdf5.parent.resolve()
    prefix = f"file://{folder}/"
    config = icechunk.RepositoryConfig.default()
    files = icechunk.local_filesystem_store(str(folder))
    config.set_virtual_chunk_container(icechunk.VirtualChunkContainer(prefix, files))
    repo = icechunk.Repository.create(
        icechunk.in_memory_storage(), config, authorize_virtual_chunk_access={prefix: LOCAL}
    )
    maskcube.virtualize(source.folder, repo.writable_session("main").store)
    store = repo.readonly_session("main").store
    np.testing.assert_array_equal(maskcube.open_masks(store), source.masks)
    with pytest.raises(maskcube.StoreExists, match="is not empty"):
        maskcube.virtualize(source.folder, repo.writable_session("main").store)
    with pytest.raises(maskcube.InvalidOption, match="can only be read"):
        maskcube.virtualize(source.folder, store)
    bare = icechunk.Repository.create(icechunk.in_memory_storage())
    with pytest.raises(maskcube.InvalidOption, match="no virtual chunk container for"):
        maskcube.virtualize(source.folder, bare.writable_session("main").store)
    with pytest.raises(maskcube.InvalidOption, match="give a new folder, or the store of a"):
        maskcube.virtualize(source.folder, zarr.storage.MemoryStore())
    assert tmp_path.exists()


def test_a_taken_target_is_refused(source: Source, tmp_path: Path) -> None:
    target = tmp_path / "virtual"
    maskcube.virtualize(source.folder, target)
    with pytest.raises(maskcube.StoreExists, match="repository that is not empty"):
        maskcube.virtualize(source.folder, target)
    with pytest.raises(maskcube.StoreExists, match="no icechunk repository"):
        maskcube.virtualize(source.folder, source.folder)
    with pytest.raises(maskcube.StoreExists, match="exists; give a new folder"):
        maskcube.virtualize(source.folder, source.csv)


def test_nothing_is_read_that_was_not_allowed(source: Source, tmp_path: Path) -> None:
    maskcube.virtualize(source.folder, tmp_path / "virtual")
    masks = maskcube.open_masks(_store(tmp_path / "virtual"))
    with pytest.raises(maskcube.CorruptMask, match="cannot be read"):
        masks[3].load()


def test_a_source_that_was_moved_is_an_error(source: Source, tmp_path: Path) -> None:
    maskcube.virtualize(source.folder, tmp_path / "virtual")
    store = _store(tmp_path / "virtual", source)
    source.hdf5.rename(source.hdf5.with_name("elsewhere.h5"))
    with pytest.raises(maskcube.CorruptMask, match=r"mask.*must stay where it was and as it was"):
        maskcube.open_masks(store, chunks=None)[3].load()


def test_a_source_that_was_written_to_is_an_error(source: Source, tmp_path: Path) -> None:
    maskcube.virtualize(source.folder, tmp_path / "virtual")
    store = _store(tmp_path / "virtual", source)
    later = source.hdf5.stat().st_mtime + 10
    os.utime(source.hdf5, (later, later))
    with pytest.raises(maskcube.CorruptMask, match="must stay where it was and as it was"):
        maskcube.open_masks(store, chunks=None)[3].load()


def test_damage_is_an_error(source: Source, tmp_path: Path) -> None:
    maskcube.virtualize(source.folder, tmp_path / "virtual")
    store = _store(tmp_path / "virtual", source)
    with h5py.File(source.hdf5) as file:
        place = file["masks"].id.get_chunk_info_by_coord((3, 0, 0))
    before = source.hdf5.stat()
    with source.hdf5.open("r+b") as raw:
        raw.seek(place.byte_offset + place.size // 2)
        raw.write(b"\0\0\0\0\0\0\0\0")
    os.utime(source.hdf5, ns=(before.st_atime_ns, before.st_mtime_ns))
    masks = maskcube.open_masks(store, chunks=None)
    np.testing.assert_array_equal(masks[4], source.masks[4])
    with pytest.raises(maskcube.CorruptMask, match=r"chunk at \(3, 0, 0\)") as caught:
        masks[3].load()
    assert caught.value.rows == (3,)


@pytest.mark.parametrize("name", ["noun", "score"])
def test_lost_labels_are_an_error(source: Source, tmp_path: Path, name: str) -> None:
    maskcube.virtualize(source.folder, tmp_path / "virtual")
    repo = _opened(tmp_path / "virtual", source)
    session = repo.writable_session("main")
    group = zarr.open_group(session.store, mode="r+")
    array: Any = group[name]
    array[3] = array[4]
    session.commit("another label")
    with pytest.raises(maskcube.CorruptStore, match=f"coordinate {name!r} is missing or damaged"):
        maskcube.open_masks(repo.readonly_session("main").store)


def test_a_faulty_source_is_refused(source: Source, tmp_path: Path) -> None:
    target = tmp_path / "virtual"
    source.csv.write_text(source.csv.read_text().replace(",1,", ",x,", 1))
    with pytest.raises(maskcube.SourceError):
        maskcube.virtualize(source.folder, target)
    source.csv.unlink()
    with pytest.raises(maskcube.SourceNotFound, match="no CSV"):
        maskcube.virtualize(source.folder, target)
    assert not target.exists()


def test_links_to_other_files_are_refused_or_left_alone(source: Source, tmp_path: Path) -> None:
    """What else the file links to is not opened."""
    with h5py.File(source.hdf5, "r+") as file:
        file["secret"] = h5py.ExternalLink("/nowhere.h5", "/secret")
    maskcube.virtualize(source.folder, tmp_path / "virtual")
    plain = _plain(_store(tmp_path / "virtual", source))
    assert set(plain.data_vars) == {"masks"}
    with h5py.File(source.hdf5, "r+") as file:
        del file["masks"]
        file["masks"] = h5py.ExternalLink("/nowhere.h5", "/masks")
    with pytest.raises(maskcube.SourceError, match="is a link"):
        maskcube.virtualize(source.folder, tmp_path / "other")


def test_filters_that_zarr_cannot_undo_are_refused(tmp_path: Path) -> None:
    source = write_source(tmp_path / "lzf", chunks=WHOLE, compression="lzf")
    with (
        warnings.catch_warnings(),
        pytest.raises(maskcube.SourceError, match=r"filtered by 'lzf'.*convert it"),
    ):
        maskcube.virtualize(source.folder, tmp_path / "virtual")
    source = write_source(tmp_path / "skipped", chunks=WHOLE)
    with h5py.File(source.hdf5, "r+") as file:
        file["masks"].id.write_direct_chunk((3, 0, 0), source.masks[3].tobytes(), 0b11)
    with pytest.raises(maskcube.SourceError, match="1 chunks are stored without the filters"):
        maskcube.virtualize(source.folder, tmp_path / "virtual")
    assert not (tmp_path / "virtual").exists()


@pytest.mark.parametrize("library", ["icechunk", "virtualizarr"])
def test_without_the_extra(source: Source, tmp_path: Path, library: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for name in list(sys.modules):
            if name.partition(".")[0] == library:
                patch.delitem(sys.modules, name)
        patch.setitem(sys.modules, library, None)
        expected = rf'virtualize needs {library}.*pip install "maskcube\[virtual\]"'
        with pytest.raises(maskcube.MissingDependency, match=expected):
            maskcube.virtualize(source.folder, tmp_path / "virtual")


def test_it_can_be_sent_to_others(source: Source, tmp_path: Path) -> None:
    maskcube.virtualize(source.folder, tmp_path / "virtual")
    masks = maskcube.open_masks(_store(tmp_path / "virtual", source))
    sent = pickle.loads(pickle.dumps(masks))  # noqa: S301 - our own
    np.testing.assert_array_equal(sent, source.masks)


def test_only_open_masks_reads_it(source: Source, tmp_path: Path) -> None:
    """There is nothing to verify: no mask has a checksum."""
    put_value(source, 3, 7)
    maskcube.virtualize(source.folder, tmp_path / "virtual")
    store = _store(tmp_path / "virtual", source)
    assert maskcube.open_masks(store)[3].max() == 7
    for refused in (maskcube.verify, maskcube.info, maskcube.Segmentations):
        with pytest.raises(maskcube.NotAMaskStore):
            refused(store)
