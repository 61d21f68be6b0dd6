"""A source with faults is refused with all of them, and nothing is left of the attempt."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest
import zarr
from click.testing import CliRunner
from reference import CSV, Source, break_chunk, put_value, write_source
from refusal import refused, tree
from zarr.storage import MemoryStore

from maskcube.cli import main
from maskcube.conversion import convert
from maskcube.errors import MaskcubeError, SourceError, SourceNotFound

Spoil = Callable[[Source], object]
N_MASKS = 150
LAST = N_MASKS - 1


@pytest.fixture
def source(tmp_path: Path) -> Source:
    """Three shards; each mask is an HDF5 chunk."""
    return write_source(tmp_path / "data", n_masks=N_MASKS, chunks=(1, 24, 20))


def text(change: Callable[[str], str], encoding: str = "utf-8") -> Spoil:
    """Change the text of the CSV."""

    def spoil(source: Source) -> None:
        changed = change(source.csv.read_bytes().decode("utf-8"))
        source.csv.write_bytes(changed.encode(encoding))

    return spoil


def cells(change: Callable[[pd.DataFrame], pd.DataFrame]) -> Spoil:
    """Change the rows of the CSV."""
    return lambda source: change(source.table).to_csv(source.csv, index=False)


def cell(column: str, value: object) -> Spoil:
    """Change a column of the last row of the CSV."""
    return cells(lambda table: table.assign(**{column: [*table[column][:LAST], value]}))


def hdf5(write: Callable[[h5py.File, Source], object]) -> Spoil:
    """Write another HDF5."""

    def spoil(source: Source) -> None:
        with h5py.File(source.hdf5, "w") as file:
            write(file, source)

    return spoil


def masks(**changes: Any) -> Spoil:
    """Write the masks in another way."""

    def write(file: h5py.File, source: Source) -> None:
        file.create_dataset("masks", **{"data": source.masks, "chunks": (1, 24, 20), **changes})

    return hdf5(write)


def external_link(source: Source) -> None:
    other = source.hdf5.rename(source.hdf5.with_name("other.h5"))
    with h5py.File(source.hdf5, "w") as file:
        file["masks"] = h5py.ExternalLink(str(other), "masks")


def external_storage(source: Source) -> None:
    raw = source.hdf5.with_name("raw")
    raw.write_bytes(source.masks.tobytes())
    with h5py.File(source.hdf5, "w") as file:
        where = [(str(raw), 0, raw.stat().st_size)]
        file.create_dataset("masks", source.masks.shape, "u1", external=where)


def virtual(source: Source) -> None:
    other = source.hdf5.rename(source.hdf5.with_name("other.h5"))
    layout = h5py.VirtualLayout(source.masks.shape, "u1")
    layout[...] = h5py.VirtualSource(str(other), "masks", source.masks.shape)
    with h5py.File(source.hdf5, "w") as file:
        file.create_virtual_dataset("masks", layout)


def never_written(file: h5py.File, source: Source) -> None:
    dataset = file.create_dataset("masks", source.masks.shape, "u1", chunks=(1, 24, 20))
    dataset[:LAST] = source.masks[:LAST]


KINDS: dict[str, tuple[Spoil, str]] = {
    # the CSV
    "csv is empty": (text(lambda _: ""), f"{CSV}: is empty"),
    "csv has no rows": (text(lambda csv: csv.split("\n")[0]), "has a header but no rows"),
    "column missing": (cells(lambda table: table.drop(columns="noun")), "columns missing: 'noun'"),
    "column unknown": (cells(lambda table: table.assign(more=1)), "columns not known: 'more'"),
    "index column": (
        lambda source: source.table.to_csv(source.csv),
        "columns not known: ''",
    ),
    "semicolons": (
        lambda source: source.table.to_csv(source.csv, index=False, sep=";"),
        "columns missing: ",
    ),
    "UTF-16": (text(str, "utf-16"), f"{CSV}: is not UTF-8 text"),
    "latin-1": (text(str, "latin-1"), "rows that are not UTF-8 text, in lines: "),
    "a comma too many": (text(lambda csv: f"{csv[:-1]},\n"), "rows without exactly 11 fields"),
    "an open quote": (text(lambda csv: f'{csv}150,"'), "is a quotation mark missing?"),
    "a NUL": (text(lambda csv: csv.replace("hand", "ha\0nd")), "rows with a NUL character"),
    "empty noun": (cell("noun", ""), "column 'noun' must be a name"),
    "empty image": (cell("image_name", ""), "column 'image_name' must be a name"),
    "score is infinite": (cell("score", "inf"), "column 'score' must be a finite number"),
    "mask_row is 1.5": (cell("mask_row", 1.5), "column 'mask_row' must be an integer"),
    "localized is 2": (cell("localized", 2), "column 'localized' must be 0 or 1"),
    # the CSV and the HDF5
    "a row too few": (
        cells(lambda table: table[:LAST]),
        "the HDF5 has 150 masks but the CSV has 149 rows",
    ),
    "mask_row twice": (cell("mask_row", 0), "mask_row more than once, as (line, mask_row): (2, 0)"),
    "mask_row outside": (cell("mask_row", N_MASKS), "mask_row outside of the HDF5's 150 masks"),
    "mask_row is negative": (cell("mask_row", -1), "mask_row outside of the HDF5's 150 masks"),
    "the same key twice": (
        cells(lambda table: table.assign(image_name="a.jpg", noun="nan")),
        "the same image, noun and instance twice: ('a.jpg', 'nan', ",
    ),
    # the HDF5
    "no HDF5": (lambda source: source.hdf5.write_bytes(b"?"), "cannot be read as HDF5: "),
    "truncated": (
        lambda source: source.hdf5.write_bytes(source.hdf5.read_bytes()[:-1]),
        "cannot be read as HDF5: ",
    ),
    "no masks": (hdf5(lambda file, _: file.create_group("mask")), "it holds: 'mask'"),
    "a group": (hdf5(lambda file, _: file.create_group("masks")), "'masks' is a group"),
    "a soft link": (
        hdf5(lambda file, _: file.__setitem__("masks", h5py.SoftLink("/a"))),
        "'masks' is a link (SoftLink)",
    ),
    "an external link": (external_link, "'masks' is a link (ExternalLink)"),
    "external storage": (external_storage, "keeps its bytes in other files"),
    "virtual": (virtual, "is a virtual dataset"),
    "not chunked": (masks(chunks=None), "is not chunked"),
    "an unknown filter": (masks(scaleoffset=1), "uses HDF5 filters 6"),
    "two dimensions": (
        masks(data=np.zeros((150, 24), np.uint8), chunks=True),
        "has shape (150, 24), expected (mask, y, x)",
    ),
    "no mask": (
        masks(data=np.zeros((0, 24, 20), np.uint8), maxshape=(None, 24, 20)),
        "there is nothing to convert",
    ),
    "floats": (masks(dtype="f4"), "has dtype float32, expected uint8 (or bool)"),
    "never written": (hdf5(never_written), "1 of 150 chunks of 'masks' were never written"),
    # the pixels
    "first pixel": (
        lambda source: put_value(source, 0, 2),
        "pixels other than 0 and 1, as (mask_row, values): (0, [2]);",
    ),
    "last pixel": (
        lambda source: put_value(source, LAST, 255),
        "pixels other than 0 and 1, as (mask_row, values): (149, [255]);",
    ),
}


@pytest.mark.parametrize(("spoil", "fault"), KINDS.values(), ids=KINDS)
def test_nothing_is_left(source: Source, tmp_path: Path, spoil: Spoil, fault: str) -> None:
    spoil(source)
    error = refused(source, tmp_path / "masks.zarr")
    assert len([found for found in error.faults if fault in found]) == 1
    assert str(pickle.loads(pickle.dumps(error))) == str(error)  # noqa: S301 - our own bytes


@pytest.mark.parametrize("kind", ["empty noun", "virtual", "mask_row twice"])
def test_no_folder_is_made_for_what_is_refused(source: Source, tmp_path: Path, kind: str) -> None:
    KINDS[kind][0](source)
    refused(source, tmp_path / "new" / "folder" / "masks.zarr")


@pytest.mark.parametrize("kind", ["empty noun", "virtual", "mask_row twice", "last pixel"])
def test_an_existing_store_stays(source: Source, tmp_path: Path, kind: str) -> None:
    target = tmp_path / "masks.zarr"
    convert(source.folder, target, progress=False)
    spoil, fault = KINDS[kind]
    spoil(source)
    assert fault in str(refused(source, target, overwrite=True))
    before = tree(tmp_path)
    with pytest.raises(MaskcubeError):
        convert(source.folder, target, progress=False)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("kind", ["empty noun", "virtual", "last pixel"])
def test_an_empty_target_folder_stays(source: Source, tmp_path: Path, kind: str) -> None:
    (tmp_path / "masks.zarr").mkdir()
    KINDS[kind][0](source)
    refused(source, tmp_path / "masks.zarr")


@pytest.mark.parametrize("kind", ["empty noun", "virtual", "last pixel"])
def test_a_store_in_memory_stays_empty(source: Source, kind: str) -> None:
    spoil, fault = KINDS[kind]
    spoil(source)
    contents: dict[str, Any] = {}
    with pytest.raises(SourceError) as error:
        convert(source.folder, MemoryStore(contents), progress=False)
    assert fault in str(error.value)
    assert not contents


@pytest.mark.parametrize("chunks", [(1, 24, 20), (64, 24, 20), (N_MASKS, 4, 4)], ids=str)
@pytest.mark.parametrize("workers", [1, 3])
def test_a_late_pixel_is_found_in_any_layout(
    tmp_path: Path, chunks: tuple[int, int, int], workers: int
) -> None:
    source = write_source(tmp_path / "data", n_masks=N_MASKS, chunks=chunks)
    put_value(source, LAST, 128)
    error = refused(source, tmp_path / "masks.zarr", workers=workers)
    assert error.faults == (
        (
            "pixels other than 0 and 1, as (mask_row, values): (149, [128]);"
            " normalize=True would take every value but 0 as 1"
        ),
    )


@pytest.mark.parametrize("row", [0, LAST])
def test_a_chunk_that_cannot_be_read(source: Source, tmp_path: Path, row: int) -> None:
    break_chunk(source, row)
    assert "cannot be read" in str(refused(source, tmp_path / "masks.zarr"))


def test_the_same_command_works_once_the_source_is_mended(source: Source, tmp_path: Path) -> None:
    put_value(source, LAST, 7)
    refused(source, tmp_path / "masks.zarr")
    with h5py.File(source.hdf5, "r+") as file:
        file["masks"][LAST] = source.masks[LAST]
    convert(source.folder, tmp_path / "masks.zarr", progress=False)
    group: Any = zarr.open_group(tmp_path / "masks.zarr", mode="r")
    np.testing.assert_array_equal(group["masks"][:], source.masks)


class TestWhatIsAskedFor:
    def test_normalize(self, source: Source, tmp_path: Path) -> None:
        for row, value in [(0, 2), (70, 128), (LAST, 255)]:
            put_value(source, row, value)
            source.masks[row, 1, 2] = 1
        convert(source.folder, tmp_path / "masks.zarr", normalize=True, progress=False)
        group: Any = zarr.open_group(tmp_path / "masks.zarr", mode="r")
        np.testing.assert_array_equal(group["masks"][:], source.masks)

    def test_allow_duplicates(self, source: Source, tmp_path: Path) -> None:
        KINDS["the same key twice"][0](source)
        convert(source.folder, tmp_path / "masks.zarr", allow_duplicates=True, progress=False)
        group: Any = zarr.open_group(tmp_path / "masks.zarr", mode="r")
        assert set(group["noun"][:]) == {"nan"}

    def test_normalized_pixels_are_no_fault_beside_others(
        self, source: Source, tmp_path: Path
    ) -> None:
        put_value(source, 3, 255)
        KINDS["empty noun"][0](source)
        error = refused(source, tmp_path / "masks.zarr", normalize=True)
        assert len(error.faults) == 1


class TestMessage:
    def test_every_kind_of_fault_at_once(self, source: Source, tmp_path: Path) -> None:
        def change(table: pd.DataFrame) -> pd.DataFrame:
            table = table.assign(image_name="a.jpg", noun="cup", instance_id=range(N_MASKS))
            table.loc[10:30, "instance_id"] = 10
            table.loc[40:60, "score"] = np.inf
            table.loc[70:90, "mask_row"] += N_MASKS
            return table

        cells(change)(source)
        for row in range(100, 120):
            put_value(source, row, 3)
        error = refused(source, tmp_path / "masks.zarr")
        starts = [
            f"{CSV}: column 'score' must be a finite number, or empty; as (line, found): ",
            "mask_row outside of the HDF5's 150 masks, as (line, mask_row): ",
            "the same image, noun and instance twice: ('a.jpg', 'cup', 10), in lines ",
            "pixels other than 0 and 1, as (mask_row, values): ",
        ]
        assert [
            fault[: len(start)] for fault, start in zip(error.faults, starts, strict=True)
        ] == starts
        shown = [fault.split(": ")[-1].split(";")[0] for fault in error.faults]
        assert shown[0].count("'inf'") == 8
        assert shown[1].count("(") == shown[3].count("(") == 9
        assert shown[2].split("lines ")[1].count(",") == 8
        assert all(fault.count("... (21 in all)") == 1 for fault in error.faults[:3])
        assert "(107, [3]), ... (20 in all)" in error.faults[3]

    def test_a_hopeless_source_gives_a_short_message(self, source: Source, tmp_path: Path) -> None:
        everywhere = {name: "?" * 1000 for name in source.table.columns if name != "mask_file"}
        cells(lambda table: table.assign(**everywhere))(source)
        with h5py.File(source.hdf5, "r+") as file:
            file["masks"][:] = np.arange(480).reshape(24, 20) % 256
        for row in range(50):
            break_chunk(source, row)
        error = refused(source, tmp_path / "masks.zarr")
        assert len(error.faults) < 25
        assert len(str(error)) < 15_000

    def test_the_command_says_it_without_a_traceback(self, source: Source, tmp_path: Path) -> None:
        put_value(source, LAST, 255)
        target = tmp_path / "masks.zarr"
        result = CliRunner().invoke(main, ["convert", str(source.folder), str(target), "--quiet"])
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr == (
            f"Error: {source.hdf5}: pixels other than 0 and 1, as (mask_row, values):"
            " (149, [255]); --normalize would take every value but 0 as 1\n"
        )

    def test_nothing_there(self, tmp_path: Path) -> None:
        with pytest.raises(SourceNotFound, match="no HDF5 of masks; tried "):
            convert(tmp_path / "nothing", tmp_path / "masks.zarr", progress=False)
        assert not tree(tmp_path)
