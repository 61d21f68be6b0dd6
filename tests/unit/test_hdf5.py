"""The HDF5 of the source: what is read, and what is refused before a pixel is read."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from numpy.typing import DTypeLike
from reference import Masks

from maskcube.errors import RowNotFound, SourceError
from maskcube.hdf5 import MaskFile
from maskcube.layout import Block

SHAPE = (11, 6, 5)
Write = Callable[[h5py.File], object]


@pytest.fixture
def pixels(rng: np.random.Generator) -> Masks:
    return rng.integers(0, 2, SHAPE, np.uint8)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "masks.h5"


def written(path: Path, write: Write) -> Path:
    with h5py.File(path, "w") as file:
        write(file)
    return path


def faults_of(path: Path) -> tuple[str, ...]:
    """Return why a file is refused."""
    with pytest.raises(SourceError) as refused:
        MaskFile(path)
    assert refused.value.source == str(path)
    return refused.value.faults


def read_all(file: MaskFile) -> Masks:
    """Read every mask into a buffer that holds no valid pixel."""
    out = np.full(file.layout.shape, 99, np.uint8)
    file.read(Block(0, len(out)), out)
    return out


def low_level(
    file: h5py.File, pixels: Masks, filters: list[int], type_id: object = h5py.h5t.STD_U8LE
) -> None:
    """Write ``masks`` with filters that this machine need not have, or as an odd type."""
    created = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    created.set_chunk((1, *pixels.shape[1:]))
    for code in filters:
        created.set_filter(code, h5py.h5z.FLAG_OPTIONAL, (0,))
    space = h5py.h5s.create_simple(pixels.shape)
    dataset = h5py.h5d.create(file.id, b"masks", type_id, space, created)
    dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, pixels, type_id)


class TestReading:
    CHUNKS = ((1, 6, 5), (11, 6, 5), (4, 6, 5), (3, 4, 2), (11, 1, 1), True)
    BLOCKS = ((0, 11), (0, 1), (10, 11), (3, 8), (5, 5))

    @pytest.mark.parametrize("chunks", CHUNKS, ids=str)
    def test_any_chunks(self, path: Path, pixels: Masks, chunks: object) -> None:
        written(path, lambda file: file.create_dataset("masks", data=pixels, chunks=chunks))
        file = MaskFile(path)
        assert file.layout.shape == SHAPE
        assert chunks in (True, file.chunks)
        for start, stop in self.BLOCKS:
            out = np.full((stop - start, *SHAPE[1:]), 99, np.uint8)
            file.read(Block(start, stop), out)
            np.testing.assert_array_equal(out, pixels[start:stop])

    def test_booleans(self, path: Path, pixels: Masks) -> None:
        data = pixels.astype(np.bool_)
        written(path, lambda file: file.create_dataset("masks", data=data, chunks=(4, 6, 5)))
        file = MaskFile(path)
        np.testing.assert_array_equal(read_all(file), pixels)
        np.testing.assert_array_equal(file.read_rows(np.array([9, 2, 3])), pixels[[9, 2, 3]])

    def test_a_boolean_that_is_neither_is_seen(self, path: Path, pixels: Masks) -> None:
        """HDF5 does not check what an enumeration holds."""
        written(
            path,
            lambda file: file.create_dataset("masks", data=pixels.astype(bool), chunks=(1, 6, 5)),
        )
        pixels[4] = 7
        with h5py.File(path, "r+") as file:
            file["masks"].id.write_direct_chunk((4, 0, 0), pixels[4].tobytes())
        np.testing.assert_array_equal(read_all(MaskFile(path)), pixels)

    @pytest.mark.parametrize(
        "type_id",
        [
            h5py.h5t.STD_B8LE,
            h5py.h5t.py_create(h5py.enum_dtype({"background": 0, "object": 1}, basetype="u1")),
        ],
        ids=["bits", "named values"],
    )
    def test_other_types_of_a_byte(self, path: Path, pixels: Masks, type_id: object) -> None:
        written(path, lambda file: low_level(file, pixels, [], type_id))
        np.testing.assert_array_equal(read_all(MaskFile(path)), pixels)

    @pytest.mark.parametrize("value", [2, 128, 255])
    def test_values_are_read_as_they_are(self, path: Path, pixels: Masks, value: int) -> None:
        pixels *= value
        written(path, lambda file: file.create_dataset("masks", data=pixels, chunks=True))
        np.testing.assert_array_equal(read_all(MaskFile(path)), pixels)

    @pytest.mark.parametrize(
        ("storage", "filters"),
        [
            ({}, []),
            ({"compression": "gzip"}, ["gzip"]),
            ({"compression": "gzip", "compression_opts": 9, "shuffle": True}, ["shuffle", "gzip"]),
            ({"compression": "lzf"}, ["lzf"]),
            ({"fletcher32": True}, ["fletcher32"]),
            (
                {"compression": "gzip", "shuffle": True, "fletcher32": True},
                ["shuffle", "gzip", "fletcher32"],
            ),
            ({"maxshape": (None, None, None)}, []),
            ({"track_times": True, "compression": "gzip"}, ["gzip"]),
        ],
        ids=["none", "gzip", "gzip shuffle", "lzf", "fletcher32", "all", "growing", "times"],
    )
    def test_known_filters(
        self, path: Path, pixels: Masks, storage: dict[str, Any], filters: list[str]
    ) -> None:
        written(
            path,
            lambda file: file.create_dataset("masks", data=pixels, chunks=(3, 4, 5), **storage),
        )
        file = MaskFile(path)
        assert file.filters == filters
        np.testing.assert_array_equal(read_all(file), pixels)

    @pytest.mark.parametrize(
        "rows",
        [
            *[[], [0], [10], [0, 1, 2], [2, 1, 0], [5, 5, 5], [0, 10, 0], [3, 4, 5, 4, 5, 6, 0]],
            list(range(11)),
        ],
        ids=str,
    )
    @pytest.mark.parametrize("chunks", [(1, 6, 5), (4, 3, 5)], ids=str)
    def test_rows_come_in_the_order_asked(
        self, path: Path, pixels: Masks, rows: list[int], chunks: tuple[int, int, int]
    ) -> None:
        written(path, lambda file: file.create_dataset("masks", data=pixels, chunks=chunks))
        found = MaskFile(path).read_rows(np.array(rows, np.int64))
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found, pixels[rows].reshape(len(rows), 6, 5))

    @pytest.mark.parametrize("rows", [[-1], [11], [10, 11], [0, -1], [9, 10, 11, 12]], ids=str)
    def test_no_such_row(self, path: Path, pixels: Masks, rows: list[int]) -> None:
        """h5py would repeat the last mask for a row just after it."""
        written(path, lambda file: file.create_dataset("masks", data=pixels, chunks=True))
        with pytest.raises(RowNotFound, match="of 11 masks"):
            MaskFile(path).read_rows(np.array(rows))

    def test_other_objects_do_not_matter(self, path: Path, pixels: Masks) -> None:
        def write(file: h5py.File) -> None:
            file.create_dataset("data/masks", data=pixels, chunks=True)
            file["masks"] = file["data/masks"]
            file["other"] = h5py.ExternalLink("/nonexistent/other.h5", "masks")
            file["lost"] = h5py.SoftLink("/nowhere")
            file["masks"].attrs["note"] = "attributes are not read"

        np.testing.assert_array_equal(read_all(MaskFile(written(path, write))), pixels)


class TestRefused:
    """What is seen without reading a pixel."""

    @pytest.mark.parametrize(
        ("write", "fault"),
        [
            (lambda _: None, "has no dataset 'masks'; it holds: nothing"),
            (
                lambda file: file.create_dataset("Masks", data=1),
                "has no dataset 'masks'; it holds: 'Masks'",
            ),
            (
                lambda file: [file.create_group(name) for name in "ABCDEFGHI"],
                f"has no dataset 'masks'; it holds: {str([*'ABCDEFGH'])[1:-1]}, ... (9 in all)",
            ),
            (
                lambda file: file.create_group("masks/masks"),
                "'masks' is a group, expected a dataset",
            ),
            (
                lambda file: file.__setitem__("masks", np.dtype("u1")),
                "'masks' is a datatype, expected a dataset",
            ),
            (
                lambda file: file.__setitem__("masks", h5py.SoftLink("/masks")),
                "'masks' is a link (SoftLink), which may lead elsewhere: refused",
            ),
            (
                lambda file: file.__setitem__("masks", h5py.SoftLink("/nowhere")),
                "'masks' is a link (SoftLink), which may lead elsewhere: refused",
            ),
        ],
        ids=["empty", "case", "groups", "group", "datatype", "loop", "dangling"],
    )
    def test_no_dataset(self, path: Path, write: Write, fault: str) -> None:
        assert faults_of(written(path, write)) == (fault,)

    def test_a_soft_link_to_a_dataset(self, path: Path, pixels: Masks) -> None:
        def write(file: h5py.File) -> None:
            file.create_dataset("real", data=pixels, chunks=True)
            file["masks"] = h5py.SoftLink("/real")

        fault = "'masks' is a link (SoftLink), which may lead elsewhere: refused"
        assert faults_of(written(path, write)) == (fault,)

    @pytest.mark.parametrize("data", [1, h5py.Empty("u1"), np.ones(SHAPE, np.uint8)], ids=type)
    def test_not_chunked(self, path: Path, data: object) -> None:
        (fault,) = faults_of(written(path, lambda file: file.create_dataset("masks", data=data)))
        assert fault.startswith("'masks' is not chunked; write it with create_dataset('masks'")

    def test_the_advice_is_good(self, path: Path, pixels: Masks) -> None:
        (fault,) = faults_of(written(path, lambda file: file.create_dataset("masks", data=pixels)))
        call = fault.split(" write it with ")[1].replace("data=...", "data=pixels")
        with h5py.File(path, "w") as file:
            eval(f"file.{call}", {"file": file, "pixels": pixels})  # noqa: S307 - our own words
        np.testing.assert_array_equal(read_all(MaskFile(path)), pixels)

    def test_compact(self, path: Path) -> None:
        def write(file: h5py.File) -> None:
            created = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            created.set_layout(h5py.h5d.COMPACT)
            space = h5py.h5s.create_simple(SHAPE)
            h5py.h5d.create(file.id, b"masks", h5py.h5t.STD_U8LE, space, created)

        assert "is not chunked" in faults_of(written(path, write))[0]

    @pytest.mark.parametrize("shape", [(4,), (4, 5), (2, 3, 4, 5)], ids=str)
    def test_rank(self, path: Path, shape: tuple[int, ...]) -> None:
        data = np.ones(shape, np.uint8)
        written(path, lambda file: file.create_dataset("masks", data=data, chunks=True))
        assert faults_of(path) == (f"'masks' has shape {shape}, expected (mask, y, x)",)

    @pytest.mark.parametrize("shape", [(0, 6, 5), (3, 0, 5), (3, 6, 0), (0, 0, 0)], ids=str)
    def test_zero_size(self, path: Path, shape: tuple[int, ...]) -> None:
        written(
            path,
            lambda file: file.create_dataset(
                "masks", shape, "u1", maxshape=(None, None, None), chunks=(1, 6, 5)
            ),
        )
        assert faults_of(path) == (f"'masks' has shape {shape}: there is nothing to convert",)

    @pytest.mark.parametrize(
        "dtype",
        [
            *["i1", "<u2", ">u4", "<i8", "<f2", "<f8", "S1", "V1", "<c16"],
            np.dtype([("mask", "u1")]),
            np.dtype(("u1", (2,))),
            h5py.string_dtype(),
            h5py.vlen_dtype(np.uint8),
            h5py.ref_dtype,
            h5py.enum_dtype({"background": 0, "object": 1}, basetype="i1"),
        ],
        ids=str,
    )
    def test_dtype(self, path: Path, dtype: DTypeLike) -> None:
        faults = faults_of(
            written(path, lambda file: file.create_dataset("masks", SHAPE, dtype, chunks=SHAPE))
        )
        assert faults == (
            f"'masks' has dtype {np.dtype(dtype)}, expected uint8 (or bool)",
            "1 of 1 chunks of 'masks' were never written",
        )

    @pytest.mark.parametrize(
        ("type_id", "fault"),
        [
            (h5py.h5t.UNIX_D32LE, "cannot be read as HDF5: No NumPy equivalent"),
            (h5py.h5t.STD_B16LE, "'masks' has dtype uint16, expected uint8"),
            (h5py.h5t.STD_REF_DSETREG, "'masks' has dtype object, expected uint8"),
        ],
        ids=["time", "bits", "region"],
    )
    def test_hdf5_types(self, path: Path, type_id: object, fault: str) -> None:
        def write(file: h5py.File) -> None:
            created = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            created.set_chunk(SHAPE)
            space = h5py.h5s.create_simple(SHAPE)
            h5py.h5d.create(file.id, b"masks", type_id, space, created)

        assert faults_of(written(path, write))[0].startswith(fault)

    @pytest.mark.parametrize(
        ("filters", "shown"),
        [([511], "511"), ([32015], "32015"), ([1, 2, 511, 40000], "511, 40000"), ([5], "5")],
        ids=["unregistered", "zstd plugin", "among known ones", "nbit"],
    )
    def test_unknown_filter(
        self, path: Path, pixels: Masks, filters: list[int], shown: str
    ) -> None:
        fault = (
            f"'masks' uses HDF5 filters {shown}; known are gzip, shuffle, fletcher32, lzf:"
            " rewrite it with h5repack -f masks:GZIP=4"
        )
        written(path, lambda file: low_level(file, pixels, filters))
        assert faults_of(path) == (fault,)

    def test_scale_offset(self, path: Path, pixels: Masks) -> None:
        written(
            path,
            lambda file: file.create_dataset("masks", data=pixels, chunks=True, scaleoffset=1),
        )
        assert "uses HDF5 filters 6;" in faults_of(path)[0]

    @pytest.mark.parametrize("fill", [0, 1])
    def test_chunks_never_written(self, path: Path, pixels: Masks, fill: int) -> None:
        """HDF5 would give the fill value for them, and no error."""

        def write(file: h5py.File) -> None:
            dataset = file.create_dataset("masks", SHAPE, "u1", chunks=(2, 6, 5), fillvalue=fill)
            dataset[:6] = pixels[:6]
            dataset[8] = pixels[8]

        fault = "2 of 6 chunks of 'masks' were never written"
        assert faults_of(written(path, write)) == (fault,)

    @pytest.mark.parametrize(
        ("shape", "chunks", "fault"),
        [
            ((10**9, 1000, 1000), (1, 1000, 1000), "more than 1,048,576 masks"),
            ((10**6, 1000, 1000), (1, 1000, 1000), "most of the 1,000,000 chunks of 'masks' were"),
            ((2**60, 8, 8), (1, 8, 8), "never written: the file has only "),
            ((1, 2**30, 2**30), (1, 1, 1), "most of the 1,152,921,504,606,846,976 chunks"),
            ((2, 2**14, 2**14 + 1), (1, 1024, 1024), "more than 256 MiB for one mask"),
            ((2**9, 2**10, 2**10), (2**9, 2**10, 2**10), "more than 256 MiB each"),
        ],
        ids=["masks", "chunks", "more masks", "most chunks", "pixels", "chunk"],
    )
    def test_huge_at_once(
        self, path: Path, shape: tuple[int, ...], chunks: tuple[int, ...], fault: str
    ) -> None:
        """A small file may declare anything: nothing of that size is allocated."""
        written(path, lambda file: file.create_dataset("masks", shape, "u1", chunks=chunks))
        assert path.stat().st_size < 10_000
        assert any(fault in found for found in faults_of(path))

    def test_every_fault_is_told_at_once(self, path: Path) -> None:
        written(path, lambda file: file.create_dataset("masks", (4, 5), "f4", chunks=(1, 5)))
        assert faults_of(path) == (
            "'masks' has shape (4, 5), expected (mask, y, x)",
            "'masks' has dtype float32, expected uint8 (or bool)",
            "4 of 4 chunks of 'masks' were never written",
        )


def external_link(file: h5py.File, outside: Path) -> None:
    file["masks"] = h5py.ExternalLink(str(outside), "masks")


def external_storage(file: h5py.File, outside: Path) -> None:
    size = int(np.prod(SHAPE))
    file.create_dataset("masks", SHAPE, "u1", external=[(str(outside), 0, size)])


def virtual(file: h5py.File, outside: Path) -> None:
    layout = h5py.VirtualLayout(SHAPE, "u1")
    layout[...] = h5py.VirtualSource(str(outside), "masks", SHAPE)
    file.create_virtual_dataset("masks", layout)


class TestOtherFiles:
    """A file that names other files is refused, whatever these hold: they are not read."""

    @pytest.mark.parametrize(
        ("write", "fault"),
        [
            (external_link, "is a link (ExternalLink), which may lead elsewhere"),
            (external_storage, "keeps its bytes in other files (external storage)"),
            (virtual, "is a virtual dataset, which reads other files"),
        ],
        ids=["external link", "external storage", "virtual dataset"],
    )
    def test_refused(
        self,
        path: Path,
        pixels: Masks,
        write: Callable[[h5py.File, Path], None],
        fault: str,
    ) -> None:
        secret = path.with_name("secret")
        if write is external_storage:
            secret.write_bytes(pixels.tobytes())
        else:
            written(secret, lambda file: file.create_dataset("masks", data=pixels, chunks=True))
        written(path, lambda file: write(file, secret))
        with h5py.File(path) as file:
            np.testing.assert_array_equal(file["masks"][:], pixels)  # the trap is a real one
        expected = (f"'masks' {fault}: refused",)
        assert faults_of(path) == expected
        # The answer depends on nothing outside: neither on what is there nor on whether it is.
        secret.write_bytes(b"no HDF5 at all")
        assert faults_of(path) == expected
        secret.unlink()
        assert faults_of(path) == expected
        if hasattr(os, "mkfifo"):
            os.mkfifo(secret)  # whoever opens it waits for ever
            assert faults_of(path) == expected


class TestDamage:
    @pytest.mark.parametrize("share", [0.0, 0.02, 0.3, 0.6, 0.9, 0.999])
    def test_truncated(self, path: Path, pixels: Masks, share: float) -> None:
        written(
            path,
            lambda file: file.create_dataset(
                "masks", data=pixels, chunks=(1, 6, 5), compression="gzip"
            ),
        )
        os.truncate(path, int(path.stat().st_size * share))
        (fault,) = faults_of(path)
        assert fault.startswith("cannot be read as HDF5: ")

    @pytest.mark.parametrize(
        "data",
        [b"mask_row,image_name\n", bytes(10_000), b"\x89HDF\r\n\x1a\n", b"\x89HDF\r\n\x1a\n\0\0\0"],
        ids=["CSV", "zeros", "signature", "signature and zeros"],
    )
    def test_not_hdf5(self, path: Path, data: bytes) -> None:
        path.write_bytes(data)
        (fault,) = faults_of(path)
        assert fault.startswith("cannot be read as HDF5: ")

    def test_no_file(self, path: Path) -> None:
        assert "cannot be read as HDF5: " in faults_of(path)[0]
        assert "cannot be read as HDF5: " in faults_of(path.parent)[0]

    @pytest.mark.parametrize("raw", [b"\0", b"x\x9c no stream", b"\1" * 30], ids=ascii)
    def test_a_broken_chunk_is_named_by_its_masks(
        self, path: Path, pixels: Masks, raw: bytes
    ) -> None:
        def write(file: h5py.File) -> None:
            dataset = file.create_dataset(
                "masks", data=pixels, chunks=(2, 6, 5), compression="gzip"
            )
            dataset.id.write_direct_chunk((4, 0, 0), raw)

        file = MaskFile(written(path, write))
        np.testing.assert_array_equal(file.read_rows(np.arange(4)), pixels[:4])
        for read in (read_all, lambda file: file.read_rows(np.array([0, 5]))):
            with pytest.raises(SourceError, match=r"masks? \d+.* cannot be read: ") as refused:
                read(file)
            assert refused.value.source == str(path)
        with pytest.raises(SourceError, match="mask 5 cannot be read"):
            file.read_rows(np.array([5]))
        np.testing.assert_array_equal(file.read_rows(np.arange(6, 11)), pixels[6:])

    @pytest.mark.parametrize("storage", [{"compression": "gzip"}, {"fletcher32": True}], ids=str)
    def test_flipped_bits_of_chunks_never_give_other_pixels(
        self, path: Path, pixels: Masks, storage: dict[str, Any], rng: np.random.Generator
    ) -> None:
        written(
            path,
            lambda file: file.create_dataset("masks", data=pixels, chunks=SHAPE, **storage),
        )
        with h5py.File(path) as file:
            chunk = file["masks"].id.get_chunk_info(0)
        whole = path.read_bytes()
        refused = 0
        for _ in range(60):
            data = bytearray(whole)
            place = chunk.byte_offset + int(rng.integers(chunk.size))
            data[place] ^= 1 << int(rng.integers(8))
            path.write_bytes(data)
            try:
                found = read_all(MaskFile(path))
            except SourceError:
                refused += 1
            else:
                np.testing.assert_array_equal(found, pixels)
        assert refused > 40

    def test_a_chunk_that_inflates_to_more_is_no_other_mask(
        self, path: Path, pixels: Masks
    ) -> None:
        def write(file: h5py.File) -> None:
            dataset = file.create_dataset(
                "masks", data=pixels, chunks=(1, 6, 5), compression="gzip"
            )
            raw = zlib.compress(pixels[4].tobytes() + bytes(500_000))
            dataset.id.write_direct_chunk((4, 0, 0), raw)

        file = MaskFile(written(path, write))
        with pytest.raises(SourceError, match=r"mask 4 cannot be read: .* does not inflate"):
            file.read_rows(np.array([4]))


class TestProcesses:
    """A file that is open here can be read elsewhere."""

    @pytest.fixture
    def file(self, path: Path, pixels: Masks) -> MaskFile:
        return MaskFile(
            written(
                path,
                lambda file: file.create_dataset(
                    "masks", data=pixels, chunks=(1, 6, 5), compression="gzip"
                ),
            )
        )

    def test_it_pickles_open_and_closed(self, file: MaskFile, pixels: Masks) -> None:
        read_all(file)
        for _ in range(2):
            again = pickle.loads(pickle.dumps(file))  # noqa: S301 - our own bytes
            assert (again.layout, again.chunks, again.filters) == (
                file.layout,
                file.chunks,
                file.filters,
            )
            np.testing.assert_array_equal(read_all(again), pixels)
            again.close()
            np.testing.assert_array_equal(read_all(file), pixels)
            file.close()

    def test_it_pickles_as_its_path(self, path: Path) -> None:
        data = np.ones((64, 100, 100), np.uint8)
        written(path, lambda file: file.create_dataset("masks", data=data, chunks=True))
        file = MaskFile(path)
        read_all(file)
        assert len(pickle.dumps(file)) < 1000

    def test_it_is_found_from_another_folder(
        self, file: MaskFile, pixels: Masks, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.chdir(tmp_path)
        relative = MaskFile(Path(file.path.name))
        data = pickle.dumps(relative)
        relative.close()
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")
        for again in (relative, pickle.loads(data)):  # noqa: S301 - our own bytes
            np.testing.assert_array_equal(read_all(again), pixels)

    def test_it_opens_again_after_close(self, file: MaskFile, pixels: Masks) -> None:
        for _ in range(3):
            file.close()
            np.testing.assert_array_equal(read_all(file), pixels)
        file.close()
        file.close()

    def test_closing_frees_the_file(self, file: MaskFile, path: Path, pixels: Masks) -> None:
        read_all(file)
        file.close()
        written(
            path,
            lambda new: new.create_dataset(
                "masks", data=1 - pixels, chunks=True, compression="gzip"
            ),
        )
        np.testing.assert_array_equal(read_all(file), 1 - pixels)

    def test_a_refused_file_is_closed(self, path: Path) -> None:
        for _ in range(2):
            written(path, lambda file: file.create_group("masks"))
            faults_of(path)

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
    def test_forks_read_at_the_same_time(self, file: MaskFile, pixels: Masks) -> None:
        assert isinstance(file.path, Path)
        np.save(file.path.with_suffix(".npy"), pixels)
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", FORKS, str(file.path)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (done.returncode, done.stdout) == (0, "the same\n" * 5), done.stderr


FORKS = """
import os, sys
from pathlib import Path
import numpy as np
from maskcube.hdf5 import MaskFile

path = Path(sys.argv[1])
pixels = np.load(path.with_suffix(".npy"))
file = MaskFile(path)
handle = file.dataset.file.id.id
file.read_rows(np.array([3]))

def check(seed):
    rng = np.random.default_rng(seed)
    for _ in range(200):
        rows = rng.integers(0, len(pixels), 5)
        if not np.array_equal(file.read_rows(rows), pixels[rows]):
            return False
    return True

children = []
for seed in range(4):
    child = os.fork()
    if not child:
        same = check(seed) and file.dataset.file.id.id != handle
        file.close()
        os._exit(0 if same else 1)
    children.append(child)
assert check(99)
for child in children:
    assert os.waitpid(child, 0)[1] == 0
    assert check(child)
    print("the same")
file.close()
assert check(5)
print("the same")
"""
