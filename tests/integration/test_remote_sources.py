"""Sources at URLs: the same store as from a folder, and every byte asked for once."""

from __future__ import annotations

import errno
import os
import pickle
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from reference import CSV, HDF5, Source, write_source
from refusal import tree
from webserver import OPTIONS, Asked, WebServer, serving

import maskcube
import maskcube.remote
import maskcube.spool
from maskcube.cli import main
from maskcube.folder import Folder
from maskcube.layout import Block
from maskcube.remote import RangeFile, RemotePath
from maskcube.source import MaskSource
from maskcube.spool import spool

MIB = 2**20
CHUNKS = {"row": (1, 24, 20), "auto": (100, 8, 16), "plain": (30, 9, 7)}
URL = "http://me:secret@127.0.0.1:9"


@pytest.fixture(autouse=True)
def _same_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")


@pytest.fixture(scope="module")
def top(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("served")


@pytest.fixture(scope="module")
def sources(top: Path) -> dict[str, Source]:
    return {
        name: write_source(top / name, n_masks=330, chunks=chunks, sorted_rows=False)
        for name, chunks in CHUNKS.items()
    }


@pytest.fixture(scope="module")
def running(top: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebServer]:
    with serving(top, tmp_path_factory.mktemp("log") / "asked") as server:
        yield server


@pytest.fixture
def server(running: WebServer) -> WebServer:
    running.asked()
    return running


def whole(path: Path) -> Asked:
    return Asked("GET", path.name, 0, path.stat().st_size)


def equal_trees(one: Path, other: Path) -> bool:
    return tree(one) == tree(other)


class Bucket(Folder):
    """A folder that stands for a bucket: it counts, and something may happen in the middle."""

    def __init__(self, path: Path, meanwhile: Callable[[int], object] = lambda _: None) -> None:
        super().__init__(path)
        self.asked: list[tuple[str, int, int]] = []
        self.at_once = self.most_at_once = 0
        self._meanwhile = meanwhile
        self._lock = threading.Lock()

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes | None:
        with self._lock:
            self.asked.append((key, start, length or 0))
            number = len(self.asked)
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            self._meanwhile(number)
            return super().get(key, start, length)
        finally:
            with self._lock:
                self.at_once -= 1


@pytest.fixture
def bucket_of(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Bucket]:
    """Return what makes a folder the one behind every URL."""

    def make(path: Path, meanwhile: Callable[[int], object] = lambda _: None) -> Bucket:
        bucket = Bucket(path, meanwhile)
        for module in ("remote", "backing"):
            monkeypatch.setattr(f"maskcube.{module}.open_objects", lambda *_: bucket)
        return bucket

    return make


class TestConversion:
    @pytest.mark.parametrize("name", CHUNKS)
    @pytest.mark.parametrize("given", ["/", "", "/stimuli", f"/stimuli/{HDF5}"])
    def test_the_same_store_as_from_a_folder(
        self, server: WebServer, sources: dict[str, Source], name: str, given: str, tmp_path: Path
    ) -> None:
        source = sources[name]
        maskcube.convert(source.folder, tmp_path / "near.zarr", progress=False)
        report = maskcube.convert(
            f"{server.url}/{name}{given}",
            tmp_path / "far.zarr",
            source_options=OPTIONS,
            progress=False,
        )
        assert equal_trees(tmp_path / "near.zarr", tmp_path / "far.zarr")
        assert report.source_bytes == source.hdf5.stat().st_size
        asked = server.asked()
        assert [each for each in asked if each.length] == [whole(source.csv), whole(source.hdf5)]
        # A folder may be the dataset's own, or its `stimuli`: nobody lists it to know.
        assert len(asked) == (4 if given == "/stimuli" else 2)

    def test_append_and_verify(
        self, server: WebServer, sources: dict[str, Source], top: Path, tmp_path: Path
    ) -> None:
        def rename(table: pd.DataFrame) -> pd.DataFrame:
            return table.assign(image_name="later_" + table["image_name"])

        later = write_source(top / "later", n_masks=40, seed=3, change=rename)
        first, store = sources["row"], tmp_path / "far.zarr"
        urls = [f"{server.url}/row", f"{server.url}/later/stimuli/{HDF5}"]
        maskcube.convert(urls[0], store, source_options=OPTIONS, progress=False)
        maskcube.append(
            urls[1],
            store,
            metadata=f"{server.url}/later/stimuli/{CSV}",
            source_options=OPTIONS,
            progress=False,
        )
        server.asked()
        report = maskcube.verify(store, urls, source_options=OPTIONS)
        assert report.n_compared == 370
        assert report.source == f"{urls[0]}/stimuli/{HDF5}, {urls[1]}"
        expected = [whole(path) for each in (first, later) for path in (each.csv, each.hdf5)]
        assert server.asked() == expected
        # One of them is near, its CSV far.
        near = tmp_path / "near.zarr"
        maskcube.convert(first.folder, near, progress=False)
        maskcube.append(
            later.folder,
            near,
            metadata=f"{server.url}/later/stimuli/{CSV}",
            source_options=OPTIONS,
            progress=False,
        )
        assert equal_trees(near, store)

    def test_what_differs_is_told(
        self, server: WebServer, sources: dict[str, Source], top: Path, tmp_path: Path
    ) -> None:
        masks = sources["row"].masks.copy()
        masks[7, 3, 4] ^= 1
        other = shutil.copytree(sources["row"].folder, top / "other")
        with h5py.File(other / "stimuli" / HDF5, "r+") as file:
            file["masks"][7] = masks[7]
        maskcube.convert(sources["row"].folder, tmp_path / "masks.zarr", progress=False)
        with pytest.raises(maskcube.VerificationError) as found:
            maskcube.verify(tmp_path / "masks.zarr", f"{server.url}/other", source_options=OPTIONS)
        assert [mask.row for mask in found.value.masks] == [7]

    @pytest.mark.usefixtures("sources")
    def test_only_the_published_one(self, server: WebServer, tmp_path: Path) -> None:
        with pytest.raises(maskcube.SourceError, match=r"its SHA-256 is [0-9a-f]{64}, not 'abc'"):
            maskcube.convert(
                f"{server.url}/row",
                tmp_path / "masks.zarr",
                sha256="abc",
                source_options=OPTIONS,
                progress=False,
            )
        assert not list(tmp_path.iterdir())

    def test_an_interrupted_one_goes_on(
        self,
        server: WebServer,
        sources: dict[str, Source],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        from maskcube.journal import Journal

        write = Journal.write

        def killed(self: Journal, shard: int, data: bytes, entry: Any) -> None:
            write(self, shard, data, entry)
            if shard == 2:
                raise KeyboardInterrupt

        def convert() -> maskcube.ConversionReport:
            return maskcube.convert(
                f"{server.url}/row",
                tmp_path / "far.zarr",
                source_options=OPTIONS,
                progress=False,
            )

        monkeypatch.setattr(Journal, "write", killed)
        with pytest.raises(KeyboardInterrupt):
            convert()
        monkeypatch.undo()
        monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
        assert convert().n_resumed >= 3
        maskcube.convert(sources["row"].folder, tmp_path / "near.zarr", progress=False)
        assert equal_trees(tmp_path / "near.zarr", tmp_path / "far.zarr")

    def test_on_the_command_line(
        self, sources: dict[str, Source], tmp_path: Path, bucket_of: Callable[..., Bucket]
    ) -> None:
        bucket = bucket_of(sources["row"].folder)
        done = CliRunner().invoke(
            main, ["convert", "s3://laion-fmri/", str(tmp_path / "masks.zarr"), "-q"]
        )
        assert done.exit_code == 0, done.output
        assert [key for key, _, _ in bucket.asked] == [f"stimuli/{CSV}", f"stimuli/{HDF5}"]

    def test_nothing_stays_in_the_temporary_folder(
        self,
        sources: dict[str, Source],
        tmp_path: Path,
        bucket_of: Callable[..., Bucket],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        bucket_of(sources["row"].folder)
        (tmp_path / "tmp").mkdir()
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
        with MaskSource("s3://bucket") as source:
            assert source.layout.n_masks == 330
            assert not list((tmp_path / "tmp").iterdir())
            files = len(list(Path("/dev/fd").iterdir()))
        assert len(list(Path("/dev/fd").iterdir())) < files


class TestRefusals:
    @pytest.mark.parametrize(
        ("given", "missing", "said"),
        [
            ("", HDF5, "no HDF5 of masks; tried '{0}/stimuli/{1}', '{0}/{1}'"),
            (f"stimuli/{HDF5}", HDF5, "no HDF5 of masks; tried '{0}/stimuli/{1}'"),
            ("", CSV, "{0}/stimuli/{1}: no CSV at '{0}/stimuli/{2}'; say where it is with"),
        ],
    )
    def test_nothing_there(
        self, server: WebServer, top: Path, given: str, missing: str, said: str
    ) -> None:
        folder = top / f"without{len(given)}{len(missing)}"
        source = write_source(folder, n_masks=3)
        (source.hdf5 if missing == HDF5 else source.csv).unlink()
        url = f"{server.url}/{folder.name}"
        with pytest.raises(maskcube.SourceNotFound) as refused:
            MaskSource(f"{url}/{given}", options=OPTIONS)
        assert isinstance(refused.value, FileNotFoundError)
        assert said.format(url, HDF5, CSV) in str(refused.value)

    @pytest.mark.parametrize("whole", [True, False])
    def test_hostile_hdf5(self, server: WebServer, top: Path, *, whole: bool) -> None:
        """The same refusals from afar, with and without reading all of it."""

        def external(file: h5py.File) -> None:
            file["masks"] = h5py.ExternalLink("other.h5", "masks")

        def virtual(file: h5py.File) -> None:
            layout = h5py.VirtualLayout((3, 24, 20), np.uint8)
            layout[0] = h5py.VirtualSource("other.h5", "masks", (24, 20))
            file.create_virtual_dataset("masks", layout)

        def elsewhere(file: h5py.File) -> None:
            file.create_dataset("masks", (3, 24, 20), "u1", external="/etc/hostname")

        def whatever(file: h5py.File) -> None:
            file.create_dataset("masks", (3, 24, 20), "f4", chunks=(1, 24, 20))

        def bomb(file: h5py.File) -> None:
            file.create_dataset("masks", (3, 2**15, 2**15), "u1", chunks=(1, 2**15, 2**15))

        source = write_source(top / f"hostile{whole}", n_masks=3)
        for spoil in (external, virtual, elsewhere, whatever, bomb):
            source.hdf5.unlink()
            with h5py.File(source.hdf5, "w") as file:
                spoil(file)
            with pytest.raises(maskcube.SourceError) as near:
                MaskSource(source.folder)
            with pytest.raises(maskcube.SourceError) as far:
                MaskSource(f"{server.url}/{source.folder.name}", options=OPTIONS, whole=whole)
            # The list of chunks is all over the file: it is read where all of it is.
            expected = [
                fault for fault in near.value.faults if whole or "never written" not in fault
            ]
            assert list(far.value.faults) == expected
        for data in (b"", b"no HDF5", b"\x89HDF\r\n\x1a\n" + bytes(500)):
            source.hdf5.write_bytes(data)
            with pytest.raises(maskcube.SourceError, match="cannot be read") as far:
                MaskSource(f"{server.url}/{source.folder.name}", options=OPTIONS, whole=whole)
            assert str(far.value).startswith(server.url)

    def test_chunks_that_are_not_there(self, server: WebServer, top: Path) -> None:
        source = write_source(top / "sparse", n_masks=30, chunks=(1, 24, 20))
        with h5py.File(source.hdf5, "w") as file:
            dataset = file.create_dataset(
                "masks", (30, 24, 20), "u1", chunks=(1, 24, 20), compression="gzip"
            )
            dataset[:29] = source.masks[:29]
        url = f"{server.url}/sparse"
        with pytest.raises(maskcube.SourceError, match=r"1 of 30 chunks .* were never written"):
            MaskSource(url, options=OPTIONS)
        with maskcube.Segmentations(url, storage_options=OPTIONS) as segmentations:
            np.testing.assert_array_equal(segmentations[28], source.masks[28])
            with pytest.raises(maskcube.SourceError, match="mask 29 cannot be read"):
                segmentations[29]

    def test_no_credential_is_shown(self, tmp_path: Path, bucket_of: Callable[..., Bucket]) -> None:
        bucket_of(tmp_path)
        options = {"key": "secret", "secret": "secret"}
        with pytest.raises(maskcube.SourceNotFound) as refused:
            MaskSource(f"{URL}/data", options=options)
        path = RemotePath.of(f"{URL}/data/masks.h5", options)
        for shown in (str(refused.value), repr(path), str(path)):
            assert "secret" not in shown
            assert "http://127.0.0.1:9/data" in shown

    def test_a_bucket_that_may_not_be_listed(
        self, sources: dict[str, Source], bucket_of: Callable[..., Bucket]
    ) -> None:
        """S3 says 403 of what is not there to whoever may not list."""
        bucket = bucket_of(sources["row"].folder / "stimuli")
        get = bucket.get

        def guarded(key: str, start: int = 0, length: int | None = None) -> bytes | None:
            found = get(key, start, length)
            if found is None:
                raise PermissionError(f"{key}: 403")
            return found

        bucket.get = guarded  # type: ignore[method-assign]
        with MaskSource("s3://bucket/stimuli") as source:
            assert str(source.path) == f"s3://bucket/stimuli/{HDF5}"
        shutil.move(bucket.path / CSV, bucket.path / "away.csv")
        try:
            with pytest.raises(PermissionError, match="403"):
                MaskSource("s3://bucket/stimuli")
        finally:
            shutil.move(bucket.path / "away.csv", bucket.path / CSV)


class TestSpool:
    SIZE = 20 * MIB + 123

    @pytest.fixture
    def file(self, tmp_path: Path, rng: np.random.Generator) -> Path:
        path = tmp_path / "bucket" / "masks.h5"
        path.parent.mkdir()
        path.write_bytes(rng.bytes(self.SIZE))
        return path

    @pytest.mark.parametrize("size", [0, 1, 8 * MIB - 1, 8 * MIB, 8 * MIB + 1, SIZE])
    def test_every_byte_once(self, file: Path, size: int, bucket_of: Callable[..., Bucket]) -> None:
        import hashlib

        os.truncate(file, size)
        bucket = bucket_of(file.parent)
        copied = spool(RemotePath.of("s3://bucket/masks.h5"))
        assert copied is not None
        with copied:
            data = copied.read()
            assert (copied.size, copied.sha256) == (size, hashlib.sha256(data).hexdigest())
        assert data == file.read_bytes()
        asked = sorted(start for _, start, _ in bucket.asked)
        assert asked == list(range(0, max(size, 1), 8 * MIB))
        assert sum(min(length, size - at) for _, at, length in bucket.asked) == size

    def test_not_too_many_at_once(self, file: Path, bucket_of: Callable[..., Bucket]) -> None:
        os.truncate(file, 200 * MIB)
        barrier = threading.Barrier(2)

        def together(number: int) -> None:
            if number in (2, 3):
                barrier.wait(60)

        bucket = bucket_of(file.parent, together)
        bucket.max_concurrency = 3
        copied = spool(RemotePath.of("s3://bucket/masks.h5"))
        assert copied is not None
        copied.close()
        assert bucket.most_at_once in (2, 3)

    @pytest.mark.parametrize("size", [0, 9 * MIB, SIZE - 1, SIZE + 1, None])
    def test_another_one_in_the_middle(
        self, file: Path, size: int | None, bucket_of: Callable[..., Bucket]
    ) -> None:
        def change(number: int) -> None:
            if number == 2:
                file.unlink()
                if size is not None:
                    file.write_bytes(bytes(size))

        bucket_of(file.parent, change)
        with pytest.raises(maskcube.SourceError, match=r"changed while it was read.*try again"):
            spool(RemotePath.of("s3://bucket/masks.h5"))

    def test_a_full_disk(
        self, file: Path, bucket_of: Callable[..., Bucket], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(*_: object) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        bucket = bucket_of(file.parent)
        for name, requests in (("os.posix_fallocate", 1), ("os.pwrite", 1)):
            bucket.asked.clear()
            with monkeypatch.context() as patched:
                patched.setattr(name, full)
                with pytest.raises(maskcube.SourceError) as refused:
                    spool(RemotePath.of("s3://bucket/masks.h5"))
            assert "20,971,643 bytes cannot be kept in the temporary folder" in str(refused.value)
            assert "No space left on device; set TMPDIR" in str(refused.value)
            assert len(bucket.asked) == requests

    def test_a_csv_that_is_none(
        self, file: Path, bucket_of: Callable[..., Bucket], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("maskcube.files.MOST_CSV_BYTES", 9 * MIB)
        bucket = bucket_of(file.parent)
        with pytest.raises(maskcube.SourceError, match="it is larger than 9 MiB"):
            MaskSource("s3://bucket/masks.h5", "s3://bucket/masks.h5")
        assert len(bucket.asked) == 1


class TestSegmentations:
    @pytest.mark.parametrize("name", CHUNKS)
    def test_the_same_answers(
        self, server: WebServer, sources: dict[str, Source], name: str
    ) -> None:
        source = sources[name]
        url = f"{server.url}/{name}"
        with (
            maskcube.Segmentations(source.folder) as near,
            maskcube.Segmentations(url, storage_options=OPTIONS) as far,
        ):
            pd.testing.assert_frame_equal(near.metadata, far.metadata)
            assert near.images() == far.images()
            np.testing.assert_array_equal(far.masks, source.masks)
            again = pickle.loads(pickle.dumps(far))  # noqa: S301 - our own bytes
            for row in (0, 329, 100):
                np.testing.assert_array_equal(far[row], source.masks[row])
                np.testing.assert_array_equal(again[row], source.masks[row])
            far.close()
            np.testing.assert_array_equal(far[7], source.masks[7])
            again.close()

    def test_only_what_is_wanted(
        self, bucket_of: Callable[..., Bucket], tmp_path: Path, rng: np.random.Generator
    ) -> None:
        source = write_source(tmp_path / "data", n_masks=3)
        noise = rng.integers(0, 2, (300, 300, 300), np.uint8)
        table = pd.concat([source.table] * 100, ignore_index=True).assign(mask_row=range(300))
        table["instance_id"] = range(300)
        noisy = replace(source, masks=noise, table=table)
        from reference import write_files

        write_files(noisy, chunks=(1, 300, 300))
        bucket = bucket_of(source.folder)
        with maskcube.Segmentations("s3://laion-fmri") as segmentations:
            np.testing.assert_array_equal(segmentations[150], noise[150])
            of_masks = [at for key, *at in bucket.asked if key.endswith("h5")]
            assert sum(length for _, length in of_masks) < source.hdf5.stat().st_size // 3
            assert len(of_masks) <= 4
            n_before = len(bucket.asked)
            np.testing.assert_array_equal(segmentations[151], noise[151])
            assert len(bucket.asked) <= n_before + 1

    def test_a_store_comes_first(
        self, server: WebServer, sources: dict[str, Source], top: Path
    ) -> None:
        maskcube.convert(sources["row"].folder, top / "both", progress=False)
        shutil.copytree(sources["auto"].folder / "stimuli", top / "both" / "stimuli")
        server.asked()
        url = f"{server.url}/both"
        with maskcube.Segmentations(url, storage_options=OPTIONS) as segmentations:
            np.testing.assert_array_equal(segmentations[3], sources["row"].masks[3])
        assert not [each for each in server.asked() if each.name in (HDF5, CSV)]

    def test_neither(self, bucket_of: Callable[..., Bucket], tmp_path: Path) -> None:
        bucket_of(tmp_path)
        with pytest.raises(maskcube.StoreNotFound, match=r"no mask store at .*; no HDF5 of"):
            maskcube.Segmentations("s3://bucket/nothing")


class TestWorkers:
    @pytest.mark.parametrize("name", CHUNKS)
    def test_a_part_is_one_request_for_its_chunks(
        self, server: WebServer, sources: dict[str, Source], name: str
    ) -> None:
        source = sources[name]
        size = source.hdf5.stat().st_size
        blocks = [Block(0, 100), Block(100, 250), Block(250, 330)]
        with MaskSource(f"{server.url}/{name}", options=OPTIONS) as masks:
            server.asked()
            for block, part in zip(blocks, masks.file.parts(blocks), strict=True):
                sent = pickle.loads(pickle.dumps(part))  # noqa: S301 - our own bytes
                out = np.full((len(block), 24, 20), 9, np.uint8)
                for start in range(0, len(block), 50):
                    rows = Block(block.start + start, min(block.start + start + 50, block.stop))
                    sent.read(rows, out[start:])
                np.testing.assert_array_equal(out, source.masks[block.start : block.stop])
                (asked,) = server.asked()
                assert (asked.method, asked.name) == ("GET", HDF5)
                assert asked.length < size
                # What is no part of it is read by the library, over ranges.
                sent.read(Block(0, 1), out[:1])
                np.testing.assert_array_equal(out[0], source.masks[0])
                sent.close()
                server.asked()

    def test_large_gaps_are_not_fetched(
        self, bucket_of: Callable[..., Bucket], tmp_path: Path, rng: np.random.Generator
    ) -> None:
        noise = rng.integers(0, 2, (20, 3000, 1000), np.uint8)
        path = tmp_path / HDF5
        with h5py.File(path, "w") as file:
            dataset = file.create_dataset("masks", noise.shape, "u1", chunks=(1, 3000, 1000))
            # Every other mask first: neighbours lie far from each other.
            for row in (*range(0, 20, 2), *range(1, 20, 2)):
                dataset[row] = noise[row]
        bucket = bucket_of(tmp_path)
        from maskcube.hdf5 import MaskFile

        file = MaskFile(RemotePath.of(f"s3://bucket/{HDF5}"))
        (part,) = file.parts([Block(4, 8)])
        file.close()
        bucket.asked.clear()
        out = np.empty((4, 3000, 1000), np.uint8)
        part.read(Block(4, 8), out)
        np.testing.assert_array_equal(out, noise[4:8])
        assert [length for _, _, length in bucket.asked] == [6_000_000, 6_000_000]

    @pytest.mark.parametrize("name", CHUNKS)
    def test_a_cluster(
        self, server: WebServer, sources: dict[str, Source], name: str, tmp_path: Path
    ) -> None:
        from distributed import Client, LocalCluster

        source = sources[name]
        maskcube.convert(source.folder, tmp_path / "near.zarr", progress=False)
        with (
            LocalCluster(
                n_workers=2,
                threads_per_worker=1,
                processes=False,
                dashboard_address="127.0.0.1:0",
                worker_dashboard_address="127.0.0.1:0",
            ) as cluster,
            Client(cluster) as client,
        ):
            maskcube.convert(
                f"{server.url}/{name}",
                tmp_path / "far.zarr",
                client=client,
                source_options=OPTIONS,
                progress=False,
            )
        assert equal_trees(tmp_path / "near.zarr", tmp_path / "far.zarr")

    def test_a_connection_that_breaks_is_no_damage(
        self, sources: dict[str, Source], bucket_of: Callable[..., Bucket]
    ) -> None:
        broken: list[bool] = []

        def refuse(_: int) -> None:
            if broken:
                raise maskcube.CorruptStore("bucket: masks.h5 cannot be read: connection reset")

        bucket_of(sources["row"].folder, refuse)
        with maskcube.Segmentations("s3://bucket") as segmentations:
            broken.append(True)
            segmentations._backing.source.file.close()  # type: ignore[attr-defined]  # noqa: SLF001
            with pytest.raises(maskcube.SourceError, match="connection reset") as said:
                segmentations[3]
            assert "damaged" not in str(said.value)
            broken.clear()
            np.testing.assert_array_equal(segmentations[3], sources["row"].masks[3])


class TestRangeFile:
    def test_it_is_a_file(
        self, tmp_path: Path, bucket_of: Callable[..., Bucket], rng: np.random.Generator
    ) -> None:
        data = rng.bytes(3 * MIB + 17)
        (tmp_path / "masks.h5").write_bytes(data)
        bucket = bucket_of(tmp_path)
        file = RangeFile(RemotePath.of("s3://bucket/masks.h5"), len(data))
        for start, length in rng.integers(0, len(data) + 100, (50, 2)):
            file.seek(start)
            assert file.read(length) == data[start : start + length]
        file.seek(-5, os.SEEK_END)
        assert file.read() == data[-5:]
        fetched = sorted((at, length) for _, at, length in bucket.asked)
        assert sum(length for _, length in fetched) == len(data), "each block once"

    def test_what_it_keeps_is_bounded(
        self, bucket_of: Callable[..., Bucket], tmp_path: Path
    ) -> None:
        with (tmp_path / "masks.h5").open("wb") as sparse:
            sparse.truncate(100 * MIB)
        bucket = bucket_of(tmp_path)
        file = RangeFile(RemotePath.of("s3://bucket/masks.h5"), 100 * MIB)
        for start in range(0, 100 * MIB, MIB // 4):
            assert file.read_at(start, 9) == bytes(9)
        assert len(file._blocks) == 64  # noqa: SLF001
        assert len(bucket.asked) < 60, "neighbours come together"

    def test_it_is_closed_before_the_interpreter_is(self, sources: dict[str, Source]) -> None:
        """The library would call into Python when Python is no more."""
        code = f"""
import maskcube, maskcube.remote
from maskcube.folder import Folder
from pathlib import Path
maskcube.remote.open_objects = lambda *_: Folder(Path({str(sources["row"].folder)!r}))
from maskcube.source import MaskSource
kept = MaskSource("s3://bucket"), MaskSource("s3://bucket", whole=False)
print([each.file.read_rows(__import__("numpy").array([3])).sum() for each in kept])
"""
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() == str([sources["row"].masks[3].sum()] * 2)
