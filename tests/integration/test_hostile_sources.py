"""Sources made to mislead: one clear refusal, nothing left of it, no other file opened."""

from __future__ import annotations

import os
import subprocess
import sys
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import zarr
from reference import COLUMNS, CSV, Masks, Source, write_source
from refusal import refused

import maskcube
from fuzz.targets import pixels_of, seed_hdf5
from maskcube.conversion import convert

N_MASKS = 70
SHAPE = (24, 20)
ROW = (1, *SHAPE)
BLOCKS = (8, 12, 8)
MIB = 2**20
Spoil = Callable[[Source], object]


@pytest.fixture
def source(tmp_path: Path) -> Source:
    return write_source(tmp_path / "data", n_masks=N_MASKS, shape=SHAPE, chunks=ROW)


def low_level(
    source: Source,
    filters: Sequence[tuple[int, tuple[int, ...]]] = (),
    type_id: Any = h5py.h5t.STD_U8LE,
    chunks: tuple[int, ...] = ROW,
) -> None:
    """Write the HDF5 again, with filters and types that h5py's own interface does not offer."""
    created = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    created.set_chunk(chunks)
    for code, values in filters:
        created.set_filter(code, h5py.h5z.FLAG_OPTIONAL, values)
    with h5py.File(source.hdf5, "w") as file:
        space = h5py.h5s.create_simple(source.masks.shape)
        dataset = h5py.h5d.create(file.id, b"masks", type_id, space, created)
        dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, source.masks)


def filtered(*filters: tuple[int, tuple[int, ...]]) -> Spoil:
    return lambda source: low_level(source, filters)


def some_bits(precision: int, offset: int) -> Spoil:
    """Write numbers that are only some of the bits of a byte."""

    def spoil(source: Source) -> None:
        type_id = h5py.h5t.STD_U8LE.copy()
        type_id.set_precision(precision)
        type_id.set_offset(offset)
        low_level(source, type_id=type_id)

    return spoil


def patched(change: Callable[[bytes, h5py.Dataset], bytes]) -> Spoil:
    """Change the bytes of the HDF5, which are those of `ROW` chunks."""

    def spoil(source: Source) -> None:
        data = source.hdf5.read_bytes()
        with h5py.File(source.hdf5) as file:
            changed = change(data, file["masks"])
        assert changed != data
        source.hdf5.write_bytes(changed)

    return spoil


def address(dataset: h5py.Dataset, row: int) -> bytes:
    """Return where a mask's chunk lies, as HDF5 writes it."""
    place: int = dataset.id.get_chunk_info(row).byte_offset
    return place.to_bytes(8, "little")


def user_link(source: Source) -> None:
    """Make a link of a kind that some other program might have given a meaning."""
    with h5py.File(source.hdf5, "w") as file:
        file["masks"] = h5py.ExternalLink("other.h5", "masks")
    data = source.hdf5.read_bytes()
    assert data.count(b"\x40\x05masks") == 1
    source.hdf5.write_bytes(data.replace(b"\x40\x05masks", b"\x41\x05masks"))


def beneath(source: Source) -> None:
    with h5py.File(source.hdf5, "w") as file:
        file.create_dataset("stimuli/masks", data=source.masks, chunks=ROW)


def a_family(source: Source) -> None:
    """Write one file as several, of which this is the first."""
    part = str(source.hdf5.with_name("part%d"))
    with h5py.File(part, "w", driver="family", memb_size=2000) as file:
        file.create_dataset("masks", data=source.masks, chunks=ROW)
    source.hdf5.with_name("part0").rename(source.hdf5)


def declared(shape: tuple[int, ...], chunks: tuple[int, ...]) -> Spoil:
    def spoil(source: Source) -> None:
        with h5py.File(source.hdf5, "w") as file:
            file.create_dataset("masks", shape, "u1", chunks=chunks, compression="gzip")

    return spoil


HDF5: dict[str, tuple[Spoil, str]] = {
    "szip": (filtered((4, (141, 8))), "uses HDF5 filters 4; known are gzip, shuffle"),
    "n-bit": (filtered((5, ())), "uses HDF5 filters 5; known are"),
    "gzip twice": (filtered((1, (4,)), (1, (4,))), "filtered by 'gzip', 'gzip', by one too often"),
    "gzip of lzf": (filtered((32000, ()), (1, (4,))), "by one too often: rewrite it with h5repack"),
    "shuffled words": (
        patched(lambda data, _: data.replace(b"shuffle\0\1\0\0\0", b"shuffle\0\4\0\0\0")),
        "is shuffled as if its elements were not one byte",
    ),
    "four bits": (some_bits(4, 0), "numbers of less than the 8 bits of a byte, expected uint8"),
    "upper bits": (some_bits(3, 5), "numbers of less than the 8 bits of a byte, expected uint8"),
    "signed": (lambda source: low_level(source, type_id=h5py.h5t.STD_I8LE), "has dtype int8"),
    "a link of a user": (user_link, "cannot be read as HDF5: Unknown link type"),
    "in a group": (beneath, "has no dataset 'masks'; it holds: 'stimuli'"),
    "a file in parts": (a_family, "cannot be read as HDF5: "),
    "two masks in one place": (
        patched(lambda data, masks: data.replace(address(masks, 4), address(masks, 3))),
        "chunks of 'masks' in the place of others, at (mask, y, x): (3, 0, 0)",
    ),
    "a mask within another": (
        patched(
            lambda data, masks: data.replace(
                address(masks, 4),
                (int.from_bytes(address(masks, 3), "little") + 9).to_bytes(8, "little"),
            )
        ),
        "chunks of 'masks' in the place of others, at (mask, y, x): (3, 0, 0)",
    ),
    "a mask outside": (
        patched(lambda data, masks: data.replace(address(masks, 4), bytes([0, 0, 0, 1] + [0] * 4))),
        "chunks of 'masks' beyond the end of the file, at (mask, y, x): (4, 0, 0)",
    ),
    "filters forgotten": (
        # The kind of the message that tells them; a reader skips kinds that it does not know.
        patched(lambda data, _: data.replace(b"\x0b\0\x38\0", b"\x0b\1\x38\0")),
        "without filters, but not of 480 bytes, at (mask, y, x): (0, 0, 0), (1, 0, 0)",
    ),
    "a billion masks": (declared((10**9, *SHAPE), ROW), "more than 1,048,576 masks"),
    "a billion chunks": (declared((N_MASKS, 4000, 4000), (1, 1, 1)), "of 'masks' were never"),
    "a huge mask": (declared((1, 2**20, 2**20), (1, 2**10, 2**10)), "more than 256 MiB for one"),
    "a huge chunk": (declared((2, 2**14, 2**14), (2, 2**14, 2**14)), "more than 256 MiB each"),
}


@pytest.mark.parametrize(("spoil", "fault"), HDF5.values(), ids=HDF5)
def test_an_hdf5_is_refused(source: Source, tmp_path: Path, spoil: Spoil, fault: str) -> None:
    spoil(source)
    assert fault in str(refused(source, tmp_path / "masks.zarr"))


@pytest.mark.parametrize("n_bytes", [0, 512, 1024])
def test_a_good_hdf5_behind_other_bytes(source: Source, tmp_path: Path, n_bytes: int) -> None:
    """Places are told from the HDF5's own beginning, or from the file's."""
    with h5py.File(source.hdf5, "w", userblock_size=n_bytes) as file:
        file.create_dataset("masks", data=source.masks, chunks=BLOCKS, compression="gzip")
    convert(source.folder, tmp_path / "masks.zarr", progress=False)
    np.testing.assert_array_equal(stored(tmp_path / "masks.zarr", "masks"), source.masks)


def stored(path: Path, name: str) -> np.ndarray[Any, Any]:
    group: Any = zarr.open_group(path, mode="r")
    found: np.ndarray[Any, Any] = group[name][:]
    return found


@pytest.mark.filterwarnings("ignore:.* has neither gzip nor fletcher32")
class TestChunks:
    """A chunk that is not its pixels, whatever its filters and whoever reads it."""

    FILTERS: dict[str, dict[str, Any]] = {  # noqa: RUF012 - a table
        "plain": {},
        "gzip": {"compression": "gzip", "shuffle": True},
        "lzf": {"compression": "lzf"},
        "fletcher32": {"fletcher32": True},
        "gzip, fletcher32": {"compression": "gzip", "fletcher32": True},
        "lzf, fletcher32": {"compression": "lzf", "fletcher32": True},
    }

    @pytest.mark.parametrize("chunks", [ROW, BLOCKS, (8, 7, 5)], ids=str)
    # Without filters the library makes a chunk as long as it must be.
    @pytest.mark.parametrize("filters", [*FILTERS][1:])
    @pytest.mark.parametrize("normalize", [False, True])
    @pytest.mark.parametrize(
        "change",
        [
            pytest.param(lambda raw: raw[: len(raw) // 2], id="half"),
            pytest.param(lambda raw: raw[:-1], id="one byte less"),
            pytest.param(lambda raw: raw[:1], id="one byte"),
        ],
    )
    def test_cut(
        self,
        tmp_path: Path,
        chunks: tuple[int, int, int],
        filters: str,
        *,
        normalize: bool,
        change: Callable[[bytes], bytes],
    ) -> None:
        source = write_source(tmp_path / "data", n_masks=N_MASKS, shape=SHAPE, chunks=ROW)
        storage = self.FILTERS[filters]
        with h5py.File(source.hdf5, "w") as file:
            masks = np.ones_like(source.masks)
            dataset = file.create_dataset("masks", data=masks, chunks=chunks, **storage)
            first = (40 // chunks[0] * chunks[0], 0, 0)
            skipped, raw = dataset.id.read_direct_chunk(first)
            dataset.id.write_direct_chunk(first, change(raw), skipped)
        error = refused(source, tmp_path / "masks.zarr", normalize=normalize)
        assert "cannot be read: the chunk at" in str(error)
        assert str(first) in str(error)

    @pytest.mark.parametrize("filters", FILTERS)
    def test_filters_that_were_skipped(self, source: Source, tmp_path: Path, filters: str) -> None:
        """The filter mask of a chunk says which, whatever the filters are."""
        storage = self.FILTERS[filters]
        with h5py.File(source.hdf5, "w") as file:
            dataset = file.create_dataset("masks", data=source.masks, chunks=ROW, **storage)
            for row in range(0, N_MASKS, 2):
                every = (1 << dataset.id.get_create_plist().get_nfilters()) - 1
                raw = source.masks[row].tobytes()
                dataset.id.write_direct_chunk((row, 0, 0), raw, every)
        convert(source.folder, tmp_path / "masks.zarr", progress=False)
        np.testing.assert_array_equal(stored(tmp_path / "masks.zarr", "masks"), source.masks)


class Bait:
    """Something that nobody may open: whoever does waits for ever."""

    def __init__(self, path: Path, masks: Masks) -> None:
        self.path = path
        with h5py.File(path, "w") as file:
            file.create_dataset("masks", data=masks, maxshape=(None, None, None), chunks=ROW)

    def set(self) -> None:
        self.path.unlink()
        os.mkfifo(self.path)


def whole_virtual(file: h5py.File, bait: Bait, shape: tuple[int, ...]) -> None:
    layout = h5py.VirtualLayout(shape, "u1")
    layout[...] = h5py.VirtualSource(str(bait.path), "masks", shape)
    file.create_virtual_dataset("masks", layout)


def growing_virtual(file: h5py.File, bait: Bait, shape: tuple[int, ...]) -> None:
    """As long as what it shows is: the library opens that to say what shape this has."""
    most = (h5py.h5s.UNLIMITED, *shape[1:])
    spaces = [h5py.h5s.create_simple(shape, most) for _ in range(2)]
    for space in spaces:
        space.select_hyperslab((0, 0, 0), (h5py.h5s.UNLIMITED, 1, 1), block=(1, *shape[1:]))
    created = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    created.set_virtual(spaces[0], str(bait.path).encode(), b"masks", spaces[1])
    space = h5py.h5s.create_simple((0, *shape[1:]), most)
    h5py.h5d.create(file.id, b"masks", h5py.h5t.STD_U8LE, space, created)


def external_link(file: h5py.File, bait: Bait, _: tuple[int, ...]) -> None:
    file["masks"] = h5py.ExternalLink(str(bait.path), "masks")


def link_in_a_link(file: h5py.File, bait: Bait, _: tuple[int, ...]) -> None:
    file["outside"] = h5py.ExternalLink(str(bait.path), "/")
    file["masks"] = h5py.SoftLink("/outside/masks")


def external_storage(file: h5py.File, bait: Bait, shape: tuple[int, ...]) -> None:
    size = int(np.prod(shape))
    file.create_dataset("masks", shape, "u1", external=[(str(bait.path), 0, size)])


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes here")
class TestOtherFiles:
    @pytest.mark.parametrize(
        "lead",
        [whole_virtual, growing_virtual, external_link, link_in_a_link, external_storage],
        ids=lambda lead: lead.__name__,
    )
    def test_they_are_not_opened(
        self,
        source: Source,
        tmp_path: Path,
        lead: Callable[[h5py.File, Bait, tuple[int, ...]], None],
    ) -> None:
        bait = Bait(source.hdf5.with_name("secret"), source.masks)
        with h5py.File(source.hdf5, "w") as file:
            lead(file, bait, source.masks.shape)
        with h5py.File(source.hdf5) as file:
            assert file["masks"].shape == source.masks.shape  # the trap is a real one
        bait.set()
        assert "refused" in str(refused(source, tmp_path / "masks.zarr"))

    @pytest.mark.parametrize("which", ["hdf5", "csv"])
    def test_a_pipe_is_no_source(self, source: Source, tmp_path: Path, which: str) -> None:
        path: Path = getattr(source, which)
        path.unlink()
        os.mkfifo(path)
        assert refused(source, tmp_path / "masks.zarr").faults


def test_a_file_that_is_being_written(source: Source, tmp_path: Path) -> None:
    code = "import h5py, sys; f = h5py.File(sys.argv[1], 'r+'); print('open', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(source.hdf5)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as writer:
        assert writer.stdout
        assert writer.stdout.readline() == "open\n"
        assert "cannot be read as HDF5: " in str(refused(source, tmp_path / "masks.zarr"))
        writer.communicate("\n")
    convert(source.folder, tmp_path / "masks.zarr", progress=False)


class TestTable:
    """The CSV."""

    HEADER = ",".join(COLUMNS).encode()

    @pytest.mark.parametrize(
        ("change", "fault"),
        [
            (lambda _: b"," * 1_100_000, "it is longer than 1,048,576 characters"),
            (lambda _: b"," * 900_000, "columns not known: '', '', "),
            (lambda csv: csv + b"," * 900_000, "as (line, fields): (132, 900001)"),
            (lambda csv: csv + b'70,"' + b"x\n" * 2_000_000, "line 132 is broken: field larger"),
            (lambda csv: csv + b"x" * 2_000_000, "line 132 is broken: it is longer than 1,048,576"),
            (lambda csv: csv.replace(b",", b";"), "columns missing: "),
            (lambda csv: csv.replace(b",", b"\t"), "columns missing: "),
            (lambda csv: csv.decode().encode("utf-16-le"), "is not UTF-8 text"),
            (lambda csv: csv.decode().encode("utf-32"), "is not UTF-8 text"),
            (lambda csv: csv.decode().encode("latin-1"), "rows that are not UTF-8 text, in lines"),
            (lambda csv: b"\0" * len(csv), "is not UTF-8 text"),
            (lambda _: b"PK\x03\x04" + bytes(range(256)) * 99, "is not UTF-8 text"),
        ],
        ids=[
            *["a long header", "many columns", "a long row", "an open quote", "a long field"],
            *["semicolons", "tabs", "UTF-16", "UTF-32", "latin-1", "zeros", "a zip"],
        ],
    )
    def test_its_form(
        self, source: Source, tmp_path: Path, change: Callable[[bytes], bytes], fault: str
    ) -> None:
        source.csv.write_bytes(change(source.csv.read_bytes()))
        error = str(refused(source, tmp_path / "masks.zarr"))
        assert fault in error
        assert len(error) < 5000

    @pytest.mark.parametrize(
        "value", ["1e400", "\u0663", "1_000", " 1", "0x10", "9" * 30, "9" * 5000, "1.0", "=1+1"]
    )
    @pytest.mark.parametrize("column", ["mask_row", "instance_id", "localized"])
    def test_what_is_no_integer(
        self, source: Source, tmp_path: Path, column: str, value: str
    ) -> None:
        if (column, value) == ("localized", "1.0"):
            value = "2.0"
        source.table.assign(**{column: value}).to_csv(source.csv, index=False)
        (fault,) = [
            fault
            for fault in refused(source, tmp_path / "masks.zarr").faults
            if f"column {column!r} must be" in fault
        ]
        assert fault.endswith(f", ... ({N_MASKS} in all)")
        assert fault.count("(") == 1 + 8 + 1
        assert len(fault) < 1000

    def test_what_a_spreadsheet_would_run_is_a_text(self, source: Source, tmp_path: Path) -> None:
        texts = ["=cmd|' /C calc'!A0", "@SUM(1)", "+1", "-1", '=HYPERLINK("x")', "\u202e", "../.."]
        texts += ["CON", "a\nb\r\nc", "x" * 5000, "{{7*7}}", "${PATH}", "%s%n", "'; DROP TABLE"]
        nouns = [*texts, *source.table["noun"][len(texts) :]]
        source.table.assign(noun=nouns, mask_file=nouns).to_csv(source.csv, index=False)
        target = tmp_path / "masks.zarr"
        convert(source.folder, target, progress=False)
        for name in ("noun", "mask_file"):
            assert stored(target, name).tolist() == nouns
        assert maskcube.open_masks(target)["noun"].to_numpy().tolist() == nouns
        assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "masks.zarr"]


SUPPORT = Path(__file__).parents[1] / "support"
MEASURE = """
import sys
from memory import peak_bytes
from maskcube.errors import SourceError
from maskcube.conversion import convert
try:
    convert(sys.argv[1], sys.argv[2], progress=False)
except SourceError as error:
    print(str(error)[:2000])
print(peak_bytes() // 2**20, file=sys.stderr)
"""


def measured(source: Source, target: Path) -> tuple[str, int]:
    """Convert in a process of its own; return what it says, and its peak memory in MiB."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(source.folder), str(target)],
        capture_output=True,
        text=True,
        check=True,
        env={
            **os.environ,
            "PYTHONPATH": f"{SUPPORT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}",
        },
    )
    assert sorted(path.name for path in target.parent.iterdir()) == ["data"]
    return done.stdout, int(done.stderr)


BASE_MIB = 200
"""What the interpreter and the libraries take, and some."""


class TestMemory:
    def test_a_chunk_that_would_be_gigabytes(self, source: Source, tmp_path: Path) -> None:
        bomb = zlib.compress(bytes(2**28), 9)
        with h5py.File(source.hdf5, "r+") as file:
            file["masks"].id.write_direct_chunk((3, 0, 0), bomb)
        said, peak = measured(source, tmp_path / "masks.zarr")
        assert "chunks of 'masks' larger than they can be, at (mask, y, x): (3, 0, 0)" in said
        assert peak < BASE_MIB

    def test_a_small_bomb(self, tmp_path: Path) -> None:
        """Within the size that such a chunk may have in the file, but a thousand times as large."""
        source = write_source(tmp_path / "data", n_masks=4, shape=(512, 512), chunks=(1, 512, 512))
        with h5py.File(source.hdf5, "r+") as file:
            file["masks"].id.write_direct_chunk((3, 0, 0), zlib.compress(bytes(2**28), 9))
        said, peak = measured(source, tmp_path / "masks.zarr")
        assert "mask 3 cannot be read: the chunk at (3, 0, 0) does not inflate" in said
        assert peak < BASE_MIB

    def test_a_table_of_many_rows(self, source: Source, tmp_path: Path) -> None:
        source.csv.write_text(",".join(COLUMNS) + "\n1,2" * 4 * MIB)
        said, peak = measured(source, tmp_path / "masks.zarr")
        assert f"{CSV}: has more than 1,048,576 rows" in said
        assert peak < BASE_MIB

    @pytest.mark.slow
    @pytest.mark.parametrize(
        "line",
        [
            "0,a,b,0,,,,,,1,\n",
            "x,,,x,x,x,x,x,x,x,\n",
            "a\n",
            "\n",
            "," * 500_000 + "\n",
            "0," + "y" * 130_000 + "," + "é" * 60_000 + ",0,,,,,,1,\n",
        ],
        ids=["rows", "bad rows", "short rows", "blank", "wide rows", "long texts"],
    )
    def test_the_largest_table(self, source: Source, tmp_path: Path, line: str) -> None:
        n_bytes = len(line.encode())
        with source.csv.open("w", encoding="utf-8") as file:
            file.write(f"{','.join(COLUMNS)}\n")
            for _ in range(255):
                file.write(line * (MIB // n_bytes or 1))
        said, peak = measured(source, tmp_path / "masks.zarr")
        assert CSV in said or "the HDF5 has 70 masks but" in said
        assert peak < 512


class TestEveryByte:
    """A small HDF5 with one byte changed is refused, or holds the same masks.

    HDF5's own description has no checksum, and uncompressed pixels have none: what may be silently
    wrong is counted. A mask of 192 pixels has an Adler-32 that few bits reach.
    """

    STORAGE: dict[str, dict[str, Any]] = {  # noqa: RUF012 - a table
        "gzip": {"chunks": (1, 12, 16), "compression": "gzip", "shuffle": True},
        "blocks": {"chunks": (2, 5, 8), "compression": "gzip", "shuffle": True},
        "fletcher32": {"chunks": (1, 12, 16), "fletcher32": True},
        "newest": {"chunks": (1, 12, 16), "compression": "gzip", "libver": "latest"},
    }

    @pytest.mark.parametrize(
        "step", [61, pytest.param(1, marks=[pytest.mark.slow, pytest.mark.timeout(1200)])]
    )
    @pytest.mark.parametrize("kind", STORAGE)
    def test_changed(self, kind: str, step: int) -> None:
        data = seed_hdf5(**self.STORAGE[kind])
        expected = pixels_of(data)
        assert expected is not None
        chance = np.random.default_rng(step)
        outcomes = {"refused": 0, "the same": 0, "another shape": 0, "wrong": 0}
        for place in range(0, len(data), step):
            changed = bytearray(data)
            changed[place] ^= int(chance.integers(1, 256))
            found = pixels_of(bytes(changed))
            if found is None:
                outcomes["refused"] += 1
            elif found.shape != expected.shape:
                outcomes["another shape"] += 1
            else:
                same = np.array_equal(found, expected)
                outcomes["the same" if same else "wrong"] += 1
        assert outcomes["wrong"] <= len(data) // step // 500, outcomes
        assert outcomes["another shape"] <= 3, outcomes
        assert outcomes["refused"] > 5, outcomes

    @pytest.mark.parametrize("kind", STORAGE)
    def test_cut(self, kind: str) -> None:
        data = seed_hdf5(**self.STORAGE[kind])
        for n_bytes in range(0, len(data), 97):
            assert pixels_of(data[:n_bytes]) is None
