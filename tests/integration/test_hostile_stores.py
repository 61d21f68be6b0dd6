"""Stores that lie, break or lead elsewhere: a clear error, in bounded memory, and nothing else."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from faulty import FaultyStore, missing, raising, short
from hostile import (
    change_root,
    claim_masks,
    put_coordinate,
    put_shard,
    with_crc32c,
    zstd_bomb,
)
from numcodecs.blosc import Blosc
from reference import Source, write_source
from zarr.codecs import BloscCodec, GzipCodec, ZstdCodec
from zarr.storage import LocalStore, MemoryStore

import maskcube

SHARD = "masks/c/1/0/0"
GIB = 2**30
MOST_BYTES = 900 * 2**20
"""Resident at most, of which the libraries take 200 MiB."""

Change = Callable[[Path], object]


@pytest.fixture
def copy(small_store: Path, tmp_path: Path) -> Path:
    return shutil.copytree(small_store, tmp_path / "masks.zarr")


def uses(store: Any) -> Iterator[Callable[[], object]]:
    """Yield all ways into a store."""
    yield lambda: str(maskcube.info(store))
    yield lambda: np.asarray(maskcube.open_masks(store, chunks=None)[70])
    yield lambda: np.asarray(maskcube.open_masks(store)[[3, 70, 149]])
    yield lambda: maskcube.open_masks(store, chunks=None).score.values
    yield lambda: maskcube.open_masks(store, chunks=None).mask_file.values
    yield lambda: maskcube.runs(maskcube.open_masks(store))
    yield lambda: maskcube.Segmentations(store).metadata
    yield lambda: maskcube.Segmentations(store)[70]
    yield lambda: maskcube.verify(store)


def answers(store: Any) -> list[str]:
    """Return what each use has answered; only errors of our own tree are answers."""
    found = []
    for use in uses(store):
        try:
            use()
        except maskcube.MaskcubeError as error:
            found.append(f"{type(error).__name__}: {error}")
        else:
            found.append("")
    return found


def _huge_root(store: Path) -> None:
    os.truncate(store / "zarr.json", GIB)


def _nested_root(store: Path) -> None:
    (store / "zarr.json").write_text("[" * 100_000)


def _lists_root(store: Path) -> None:
    (store / "zarr.json").write_text("[" + "[]," * (10 * 2**20) + "[]]")


def _duplicate_key(store: Path) -> None:
    path = store / "zarr.json"
    path.write_text(path.read_text().replace('"complete"', '"complete": true, "complete"'))


def _layout(**sizes: Any) -> Change:
    return lambda store: change_root(store, lambda block, _: block["layout"].update(sizes))


def _array(name: str, **fields: Any) -> Change:
    return lambda store: change_root(store, lambda _, arrays: arrays[name].update(fields))


def _runs(**fields: Any) -> Change:
    return lambda store: change_root(store, lambda block, _: block["runs"].update(fields))


def _mask_bomb(*, tells: bool = True) -> Change:
    bomb = with_crc32c(zstd_bomb(3 * GIB, tells=tells))
    return lambda store: put_shard(store, 1, [bomb] * 64)


def _entries(*entries: tuple[int, int]) -> Change:
    return lambda store: put_shard(store, 1, [b"x" * 50] * 64, entries=entries)


def _texts(n_texts: int, n_bytes: int = 604) -> Change:
    data = with_crc32c(zstd_bomb(n_bytes, n_texts.to_bytes(4, "little")))
    return lambda store: put_coordinate(store, "noun", data)


def _most_masks(store: Path) -> None:
    """As many masks as there can be, the largest texts, and not one shard."""
    n_masks = 2**21
    claim_masks(store, n_masks)
    for name in ("image", "noun", "mask_file"):
        texts = zstd_bomb(2**28, n_masks.to_bytes(4, "little"))
        put_coordinate(store, name, with_crc32c(texts))
    for name in ("instance", "mask_row", "score"):
        put_coordinate(store, name, with_crc32c(zstd_bomb(8 * n_masks)))


def _offsets(store: Path) -> None:
    """All boundaries in the first mask: more than it has pixels."""
    count = json.loads((store / "zarr.json").read_text())["attributes"]["maskcube"]["runs"]
    offsets = np.full(151, count["n_boundaries"], "<i8")
    offsets[0] = 0
    size = offsets.nbytes
    header = b"\x28\xb5\x2f\xfd" + bytes([0xE0]) + size.to_bytes(8, "little")
    data = with_crc32c(header + (size << 3 | 1).to_bytes(3, "little") + offsets.tobytes())
    (store / "runs/offsets/c/0").write_bytes(data)
    _runs(offsets=[len(data), zlib.crc32(data)])(store)


HOSTILE: dict[str, tuple[Change, str]] = {
    "a root of 1 GiB": (_huge_root, "zarr.json is larger than"),
    "a deep root": (_nested_root, "zarr.json is no metadata"),
    "a root of 10 million lists": (_lists_root, "zarr.json is no metadata"),
    "a name twice": (_duplicate_key, "zarr.json is no metadata"),
    "1e9 masks": (lambda store: claim_masks(store, 10**9, shard_masks=2**16), "out of bounds"),
    "a million pieces": (lambda store: claim_masks(store, 10**6, shard_masks=1), "is no metadata"),
    "huge masks": (_layout(height=2**15, width=2**15), "out of bounds"),
    "negative shape": (_layout(n_masks=-1), "is no size"),
    "shards of no mask": (_layout(shard_masks=0), "is no size"),
    "huge shards": (_layout(shard_masks=2**17), "out of bounds"),
    "text for a number": (_layout(width="20"), "is no size"),
    "another dtype": (_array("masks", data_type="uint16"), "not the dtype and shape"),
    "another length": (_array("score", shape=[149]), "not the dtype and shape"),
    "texts for numbers": (_array("score", data_type="string"), "not the dtype and shape"),
    "no boundaries' number": (_runs(n_boundaries=2**40), "is no number of boundaries"),
    "too many boundaries": (_runs(n_boundaries=70_000), "pieces for|does not lead"),
    "a huge chunk of runs": (_runs(chunk_boundaries=2**30), "boundaries are out of bounds"),
    "offsets of impossible masks": (_offsets, "does not lead through"),
    "mask bombs": (_mask_bomb(), "decodes to 3221225472 bytes|it cannot be read"),
    "mask bombs of no size": (_mask_bomb(tells=False), "decodes to None bytes|it cannot be read"),
    "a coordinate bomb": (
        lambda store: put_coordinate(store, "score", with_crc32c(zstd_bomb(3 * GIB))),
        "coordinate 'score' decodes to 3221225472 bytes, expected 1,200",
    ),
    "a text bomb": (_texts(150, 3 * GIB), "decodes to 3221225472 bytes of text"),
    "2**31 texts": (_texts(2**31), "holds 2,147,483,648 texts, expected 150"),
    "entries outside": (_entries((0, 50), (10**12, 50)), "points outside of the shard"),
    "entries that overlap": (_entries((0, 50), (49, 50)), "masks that overlap"),
    "the same entry twice": (_entries((0, 50), (0, 50)), "masks that overlap"),
}


SLOW: list[Change] = [
    _most_masks,
    lambda path: _foreign(path, _gzip_bomb(GIB), compressors=GzipCodec()),
]
"""What takes ten seconds each."""


@pytest.mark.parametrize("name", HOSTILE)
def test_a_lying_store_is_an_error(copy: Path, name: str) -> None:
    change, match = HOSTILE[name]
    change(copy)
    found = answers(copy)
    with pytest.raises(maskcube.MaskcubeError, match=match):
        maskcube.verify(copy)
    assert found[-1]


def _foreign(path: Path, chunk: bytes, **layout: Any) -> None:
    """Write the masks anew with plain zarr, and put a chunk in place of one."""
    layout = {"chunks": (1, 24, 20), **layout}
    array: Any = zarr.create_array(
        path / "masks",
        shape=(150, 24, 20),
        dtype="uint8",
        dimension_names=("mask", "y", "x"),
        overwrite=True,
        **layout,
    )
    array[:] = 0
    zarr.consolidate_metadata(path)
    for file in (path / "masks/c").rglob("0"):
        if file.is_file():
            file.write_bytes(chunk)
    for row in range(150):
        target = path / f"masks/c/{row}/0/0"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(chunk)


def _blosc_bomb() -> bytes:
    data = bytearray(Blosc("zstd").encode(np.zeros(480, np.uint8)))
    data[4:8] = (2**31 - 2**16).to_bytes(4, "little")
    return bytes(data)


def _gzip_bomb(n_bytes: int) -> bytes:
    squeeze = zlib.compressobj(9, wbits=31)
    part = bytes(2**24)
    parts = [squeeze.compress(part) for _ in range(n_bytes // len(part))]
    return b"".join([*parts, squeeze.flush()])


FOREIGN: dict[str, Change] = {
    "zstd": lambda path: _foreign(path, zstd_bomb(3 * GIB), compressors=ZstdCodec()),
    "zstd of no size": lambda path: _foreign(
        path, zstd_bomb(3 * GIB, tells=False), compressors=ZstdCodec()
    ),
    "gzip": lambda path: _foreign(path, _gzip_bomb(2**28), compressors=GzipCodec()),
    "blosc": lambda path: _foreign(path, _blosc_bomb(), compressors=BloscCodec()),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_bombs_in_a_rewritten_store(copy: Path, name: str) -> None:
    FOREIGN[name](copy)
    with pytest.raises(maskcube.CorruptMask, match="zarr cannot read it"):
        maskcube.open_masks(copy, chunks=None)[70].load()


@pytest.mark.parametrize(
    "chunks", [[1, 2**16, 2**16], [10**9, 24, 20], [0, 24, 20], [-1, 24, 20], "x", [1, 24]], ids=str
)
def test_absurd_chunks_in_a_rewritten_store(copy: Path, chunks: Any) -> None:
    grid = {"name": "regular", "configuration": {"chunk_shape": chunks}}
    codecs = [{"name": "bytes"}, {"name": "zstd", "configuration": {"level": 0, "checksum": False}}]
    _array("masks", chunk_grid=grid, codecs=codecs)(copy)
    assert all(found.startswith("NotAMaskStore") for found in answers(copy)[1:])


@pytest.mark.parametrize("inner", [[1, 0, 1], [1, 1, 1], [2, 24, 20]], ids=str)
def test_absurd_shards_in_a_rewritten_store(copy: Path, inner: list[int]) -> None:
    def change(_block: dict[str, Any], arrays: dict[str, Any]) -> None:
        arrays["masks"]["chunk_grid"]["configuration"]["chunk_shape"] = [2**40, 24, 20]
        arrays["masks"]["codecs"][0]["configuration"]["chunk_shape"] = inner

    change_root(copy, change)
    assert all(found.startswith("NotAMaskStore") for found in answers(copy)[1:])


@pytest.mark.parametrize("codec", ["numcodecs.pickle", "numcodecs.lzma", "../x", 3, None])
def test_unknown_codecs_are_refused(copy: Path, codec: Any) -> None:
    _array("masks", codecs=[{"name": "bytes"}, {"name": codec}])(copy)
    with pytest.raises(maskcube.NotAMaskStore, match="zarr cannot open it"):
        maskcube.open_masks(copy)


def test_a_text_bomb_in_a_rewritten_coordinate(copy: Path) -> None:
    codecs = [{"name": "vlen-utf8"}, {"name": "zstd", "configuration": {"level": 0}}]
    _array("noun", codecs=codecs)(copy)
    for first, n_bytes in ((2**31, 604), (150, 3 * GIB)):
        (copy / "noun/c/0").write_bytes(zstd_bomb(n_bytes, first.to_bytes(4, "little")))
        with pytest.raises(maskcube.CorruptStore, match="coordinate 'noun' cannot be read by zarr"):
            maskcube.open_masks(copy)


CHILD = """
import sys
sys.path[:0] = sys.argv[1:3]
from memory import peak_bytes
from test_hostile_stores import answers
for store in sys.argv[3:]:
    answers(store)
    print(peak_bytes(), store, flush=True)
"""


QUICK = [*(change for change, _ in HOSTILE.values()), *FOREIGN.values()]


@pytest.mark.parametrize("changes", [QUICK, pytest.param(SLOW, marks=pytest.mark.slow)], ids=len)
def test_lying_stores_take_little_memory(
    small_store: Path, tmp_path: Path, changes: list[Change]
) -> None:
    """Over all of them one after the other, as the system counts it."""
    stores = []
    for number, change in enumerate(changes):
        stores.append(shutil.copytree(small_store, tmp_path / f"{number}.zarr"))
        change(stores[-1])
    tests = Path(__file__).parent
    command = [sys.executable, "-c", CHILD, str(tests), str(tests.parent / "support")]
    command += map(str, stores)
    child = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    # What the parent has taken before is not counted here.
    peaks = [int(line.split()[0]) for line in child.stdout.splitlines()]
    assert len(peaks) == len(stores)
    assert max(peaks) < MOST_BYTES, child.stdout


class TestNames:
    def test_names_in_metadata_are_no_paths(self, copy: Path, small: Source) -> None:
        secret = copy.parent / "secret"
        secret.mkdir()
        (secret / "zarr.json").write_text("{}")

        def change(_block: dict[str, Any], arrays: dict[str, Any]) -> None:
            arrays["../secret"] = dict(arrays["score"])
            arrays["/etc/passwd"] = dict(arrays["score"])

        change_root(copy, change)
        np.testing.assert_array_equal(maskcube.open_masks(copy)[5], small.masks[5])
        assert "secret" not in maskcube.open_masks(copy).coords
        assert maskcube.verify(copy).n_masks == 150

    def test_objects_that_belong_to_nothing_are_no_fault(self, copy: Path) -> None:
        """Nobody reads them, and to list a bucket costs more than to read it."""
        (copy / "masks/c/9999/0").mkdir(parents=True)
        (copy / "masks/c/9999/0/0").write_bytes(b"stray")
        (copy / "notes").mkdir()
        assert maskcube.verify(copy).n_masks == 150


class TestLinks:
    @pytest.mark.parametrize("name", ["zarr.json", "masks", "masks/c/1", SHARD, "noun", "noun/c/0"])
    def test_a_link_that_leads_out_is_refused(self, copy: Path, name: str) -> None:
        outside = copy.parent / "outside"
        shutil.move(copy / name, outside)
        (copy / name).symlink_to(outside)
        found = answers(copy)
        assert "is a link that leads out of the store" in found[-1]
        assert not name.startswith("masks") or "leads out" in found[1]

    def test_links_in_a_rewritten_store(self, copy: Path) -> None:
        _foreign(copy, b"", compressors=None)
        (copy / "masks/c/70/0/0").unlink()
        (copy / "masks/c/70/0/0").symlink_to("/etc/hostname")
        with pytest.raises(maskcube.CorruptMask, match="leads out of the store"):
            maskcube.open_masks(copy)[70].compute()

    def test_other_links_are_followed(self, copy: Path, small: Source) -> None:
        (copy.parent / "link").symlink_to(copy)
        shutil.move(copy / SHARD, copy / "elsewhere")
        (copy / SHARD).symlink_to(copy / "elsewhere")
        shutil.move(copy / "noun", copy / "word")
        (copy / "noun").symlink_to("word")
        for path in (copy, copy.parent / "link", copy / ".." / copy.name):
            assert maskcube.verify(path).n_masks == 150
            np.testing.assert_array_equal(maskcube.Segmentations(path)[70], small.masks[70])


def _loop(path: Path) -> None:
    path.symlink_to(path.name)


def _to_null(path: Path) -> None:
    path.symlink_to("/dev/full")


INSTEAD: dict[str, Change] = {
    "a pipe": os.mkfifo,
    "a folder": Path.mkdir,
    "a loop of links": _loop,
    "a link to nothing": lambda path: path.symlink_to("nothing"),
    "a link to a device": _to_null,
    "an empty file": Path.touch,
    "a tiny file": lambda path: path.write_bytes(b"x"),
}


class TestWhatCannotBeRead:
    @pytest.mark.parametrize("instead", INSTEAD.values(), ids=INSTEAD)
    @pytest.mark.parametrize(
        "name", ["zarr.json", SHARD, "noun/c/0", "score/c/0", "runs/steps/c/0", "masks/zarr.json"]
    )
    def test_something_else_in_its_place(self, copy: Path, name: str, instead: Change) -> None:
        (copy / name).unlink()
        instead(copy / name)
        found = answers(copy)
        assert found[-1].startswith("VerificationError" if name != "zarr.json" else "")
        assert found[-1]
        assert found[1] if name in {"zarr.json", SHARD, "noun/c/0"} else not found[1]

    def test_the_system_says_why(self, copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A bad sector in one shard: the others are read and verified."""
        pread, bad = os.pread, (copy / SHARD).stat().st_ino

        def failing(descriptor: int, *args: int) -> bytes:
            if os.fstat(descriptor).st_ino == bad:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return pread(descriptor, *args)

        monkeypatch.setattr(os, "pread", failing)
        masks = maskcube.open_masks(copy, chunks=None)
        assert masks[3].any()
        with pytest.raises(maskcube.CorruptStore, match="cannot be read: Input/output error"):
            masks[70].load()
        with pytest.raises(maskcube.VerificationError, match="Input/output error") as caught:
            maskcube.verify(copy)
        assert [mask.row for mask in caught.value.masks] == list(range(64, 128))

    @pytest.mark.parametrize("code", [errno.EACCES, errno.EPERM, errno.EIO, errno.EMFILE])
    def test_nothing_can_be_opened(
        self, copy: Path, monkeypatch: pytest.MonkeyPatch, code: int
    ) -> None:
        def failing(*_: object) -> int:
            raise OSError(code, os.strerror(code))

        monkeypatch.setattr(os, "open", failing)
        for use in uses(copy):
            with pytest.raises(maskcube.CorruptStore, match=os.strerror(code)):
                use()

    def test_names_that_no_system_takes(self, tmp_path: Path) -> None:
        with pytest.raises(maskcube.CorruptStore, match="File name too long"):
            maskcube.open_masks(tmp_path / ("x" * 300))
        with pytest.raises(maskcube.InvalidOption, match="NUL"):
            maskcube.open_masks("a\0b")

    @pytest.mark.parametrize("text", ["[" * 100_000, '{"layout": {"n_masks": 1e400}}', "[1]", ""])
    def test_a_plan_that_is_none(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "x.zarr/_maskcube").mkdir(parents=True)
        (tmp_path / "x.zarr/_maskcube/plan.json").write_text(text)
        with pytest.raises(maskcube.NotAMaskStore, match=r"has no zarr\.json"):
            maskcube.open_masks(tmp_path / "x.zarr")


class TestZips:
    def _zip(self, store: Path) -> Path:
        target = store.with_suffix(".zip")
        with zipfile.ZipFile(target, "w") as archive:
            for path in sorted(store.rglob("*")):
                if path.is_file():
                    archive.write(path, path.relative_to(store).as_posix())
        return target

    def test_a_flipped_byte(self, copy: Path) -> None:
        path = self._zip(copy)
        data, shard = bytearray(path.read_bytes()), (copy / SHARD).read_bytes()
        data[bytes(data).index(shard) + 100] ^= 1
        path.write_bytes(data)
        assert maskcube.open_masks(path)[3].any()
        with pytest.raises(maskcube.CorruptStore, match="BadZipFile: Bad CRC-32"):
            maskcube.open_masks(path)[70].load()
        with pytest.raises(maskcube.VerificationError, match="Bad CRC-32") as caught:
            maskcube.verify(path)
        assert [mask.row for mask in caught.value.masks] == list(range(64, 128))

    def test_a_cut_zip(self, copy: Path) -> None:
        path = self._zip(copy)
        path.write_bytes(path.read_bytes()[:-100])
        assert all(found.startswith("NotAMaskStore") for found in answers(path))

    def test_bombs(self, copy: Path) -> None:
        for name in ("zarr.json", "score/c/0"):
            path = copy.with_suffix(".zip")
            with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
                for file in sorted(copy.rglob("*")):
                    if file.is_file() and file != copy / name:
                        archive.write(file, file.relative_to(copy).as_posix())
                with archive.open(name, "w") as entry:
                    for _ in range(16):
                        entry.write(bytes(2**24))
            with pytest.raises(maskcube.MaskcubeError, match=r"is larger than|'score'"):
                maskcube.verify(path)


ODD: dict[str, Exception] = {
    "the disk": OSError(errno.EIO, os.strerror(errno.EIO)),
    "no permission": PermissionError(errno.EACCES, os.strerror(errno.EACCES)),
    "too late": TimeoutError("no answer in 30 s"),
    "no memory": MemoryError(),
    "too deep": RecursionError("maximum recursion depth exceeded"),
    "zlib": zlib.error("Error -3 while decompressing data"),
    "zip": zipfile.BadZipFile("Bad CRC-32"),
    "a library's own": RuntimeError("service error\nwith a long second line"),
}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> LocalStore:
    """Return a store of 70 masks of 6 x 5 pixels."""
    folder = tmp_path_factory.mktemp("tiny")
    write_source(folder, n_masks=70, shape=(6, 5))
    maskcube.convert(folder, folder / "masks.zarr", progress=False)
    return LocalStore(folder / "masks.zarr", read_only=True)


class TestFaultyStores:
    @pytest.mark.parametrize("error", ODD.values(), ids=ODD)
    def test_every_read_that_raises(self, tiny: LocalStore, error: Exception) -> None:
        self._at_every_read(tiny, raising(error), str(error).partition("\n")[0])

    def test_every_read_that_finds_nothing(self, tiny: LocalStore) -> None:
        self._at_every_read(tiny, missing, "")

    def test_every_read_that_is_cut_off(self, tiny: LocalStore) -> None:
        """Asked again, it is whole; or what was read is said to be damaged."""
        n_reads, n_right = 60, 0
        for number in range(1, n_reads):
            with contextlib.suppress(maskcube.MaskcubeError):
                maskcube.verify(FaultyStore(tiny, short, number=number), workers=1)
                n_right += 1
        assert n_right > n_reads // 2

    def _at_every_read(self, tiny: LocalStore, fault: Any, said: str) -> None:
        whole = FaultyStore(tiny, fault, number=0)
        # Two threads may read a piece of the runs twice.
        maskcube.verify(whole, workers=1)
        assert whole.n_reads > 30
        for number in range(1, whole.n_reads + 1):
            with pytest.raises(maskcube.MaskcubeError) as caught:
                maskcube.verify(FaultyStore(tiny, fault, number=number), workers=1)
            reason = "Input/output" if "Errno 5" in said else said.partition("] ")[2] or said
            assert reason in str(caught.value) or number > 1

    def test_reads_answer_rightly_or_not_at_all(self, tiny: LocalStore) -> None:
        masks = np.asarray(maskcube.open_masks(tiny.root))
        for fault in (raising(ODD["the disk"]), short, missing):
            for number in range(1, 8):
                faulty = FaultyStore(tiny, fault, number=number)
                with contextlib.suppress(maskcube.MaskcubeError):
                    found = maskcube.open_masks(faulty, chunks=None)[[3, 69]].values
                    np.testing.assert_array_equal(found, masks[[3, 69]])

    def test_verify_goes_on_with_the_rest(self, tiny: LocalStore) -> None:
        faulty = FaultyStore(tiny, raising(ODD["too late"]), key="masks/c/0/0/0")
        with pytest.raises(maskcube.VerificationError, match="no answer in 30 s") as caught:
            maskcube.verify(faulty)
        assert [mask.row for mask in caught.value.masks] == list(range(64))
        assert caught.value.masks[0].image.startswith("shared")

    def test_a_store_that_cannot_be_listed(self) -> None:
        class Unlisted(MemoryStore):
            def list_prefix(self, prefix: str) -> Any:
                raise NotImplementedError(prefix)

        with pytest.raises(maskcube.StoreNotFound, match="no mask store at"):
            maskcube.open_masks(Unlisted())
