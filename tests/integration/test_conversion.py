"""Source to store: every mask, every field, any layout, whatever interrupts."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from memory import peak_of
from reference import Source, write_files, write_source
from zarr.storage import MemoryStore, ObjectStore

import maskcube
from maskcube.conversion import convert
from maskcube.errors import InvalidOption, NotAMaskStore, StoreExists
from maskcube.objects import Folder

COLUMNS = {
    "image": "image_name",
    "noun": "noun",
    "instance": "instance_id",
    "score": "score",
    "box_x0": "box_x0",
    "box_y0": "box_y0",
    "box_x1": "box_x1",
    "box_y1": "box_y1",
    "localized": "localized",
    "mask_file": "mask_file",
    "mask_row": "mask_row",
}


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def pieces(store: Path) -> dict[str, bytes]:
    """All files but those that say when and from what they were made."""
    roots = {"zarr.json", "masks/root.json"}
    return {key: data for key, data in files(store).items() if key not in roots}


def assert_equal(store: Any, source: Source) -> None:
    """Compare a store, read by plain zarr, with what was written to the source."""
    group: Any = zarr.open_group(store, mode="r")
    np.testing.assert_array_equal(group["masks"][:], source.masks)
    for name, column in COLUMNS.items():
        found, expected = group[name][:], source.by_row[column]
        if found.dtype.kind == "T":
            assert found.tolist() == expected.tolist(), name
        else:
            np.testing.assert_array_equal(found, expected, name)
    np.testing.assert_array_equal(group["area"][:], source.masks.sum(axis=(1, 2)))


@pytest.mark.parametrize("n_masks", [1, 63, 64, 65, 128, 200])
@pytest.mark.parametrize(
    "chunks",
    [(1, 24, 20), (64, 24, 20), (13, 24, 20), (37, 5, 7), (200, 3, 3), True],
    ids=str,
)
def test_any_layout_and_any_number_of_masks(tmp_path: Path, n_masks: int, chunks: Any) -> None:
    fitting = chunks if chunks is True else (min(chunks[0], n_masks), *chunks[1:])
    source = write_source(tmp_path / "data", n_masks=n_masks, chunks=fitting, sorted_rows=False)
    report = convert(source.folder, tmp_path / "masks.zarr", progress=False)
    assert_equal(tmp_path / "masks.zarr", source)
    assert report.n_masks == n_masks
    assert report.n_shards == -(-n_masks // 64)


NO_CHECKSUM = pytest.mark.filterwarnings("ignore:.* has neither gzip nor fletcher32")


@NO_CHECKSUM
@pytest.mark.parametrize(
    "storage",
    [
        {"compression": "gzip", "shuffle": True},
        {"compression": "gzip", "shuffle": False},
        {"compression": "lzf", "shuffle": True},
        {"compression": None, "shuffle": False},
        {"compression": "gzip", "shuffle": True, "fletcher32": True},
    ],
    ids=str,
)
def test_any_known_filter(tmp_path: Path, storage: dict[str, Any]) -> None:
    source = write_source(tmp_path / "data", chunks=(7, 24, 20), **storage)
    convert(source.folder, tmp_path / "masks.zarr", progress=False)
    assert_equal(tmp_path / "masks.zarr", source)


def test_small_memory_reads_an_hdf5_chunk_in_parts(tmp_path: Path) -> None:
    """A budget of 203 MiB leaves 1.7 MiB for two blocks of bits: 6 masks of 128 KiB at a time."""
    source = write_source(tmp_path / "data", n_masks=20, shape=(1024, 1024), chunks=(20, 64, 64))
    convert(source.folder, tmp_path / "masks.zarr", memory="203MiB", workers=2, progress=False)
    assert_equal(tmp_path / "masks.zarr", source)
    with pytest.raises(InvalidOption, match="give at least memory='202MiB'"):
        convert(source.folder, tmp_path / "other.zarr", memory="100MiB", workers=2, progress=False)
    assert not (tmp_path / "other.zarr.partial").exists()


def test_the_report_is_true(
    small: Source, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = convert(small.folder, tmp_path / "masks.zarr")
    written = files(tmp_path / "masks.zarr")
    assert report.n_objects == len(written)
    assert report.store_bytes == sum(map(len, written.values()))
    assert report.source_bytes == small.hdf5.stat().st_size
    assert (report.n_masks, report.n_resumed) == (150, 0)
    assert report.n_images == small.table["image_name"].nunique()
    assert report.n_nouns == small.table["noun"].nunique()
    captured = capsys.readouterr()
    assert captured.out.strip() == str(report)
    assert "150/150" in captured.err
    assert "masks/s" in captured.err


def test_same_source_same_bytes(small: Source, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    for name, options in {"a": {"workers": 1}, "b": {"workers": 3, "memory": "193MiB"}}.items():
        convert(small.folder, tmp_path / name, progress=False, **options)  # type: ignore[arg-type]
    assert files(tmp_path / "a") == files(tmp_path / "b")
    root = json.loads((tmp_path / "a" / "zarr.json").read_text())
    assert root["attributes"]["maskcube"]["created"] == "2023-11-14T22:13:20+00:00"


def test_two_layouts_of_the_same_masks_give_the_same_pieces(tmp_path: Path) -> None:
    found = []
    for chunks in [(1, 24, 20), (50, 5, 5)]:
        source = write_source(tmp_path / str(chunks), chunks=chunks)
        convert(source.folder, tmp_path / f"{chunks}.zarr", progress=False)
        found.append(pieces(tmp_path / f"{chunks}.zarr"))
    assert found[0] == found[1]


class TestAttributes:
    def test_root(self, small_store: Path, small: Source) -> None:
        attributes = json.loads((small_store / "zarr.json").read_text())["attributes"]
        block = attributes["maskcube"]
        assert attributes["Conventions"] == "CF-1.11"
        assert {"title", "license", "history"} < set(attributes)
        assert block["format_version"] == 1
        assert block["complete"] is True
        assert block["counts"] == {"masks": 150, "images": 16, "nouns": 9}
        assert block["source"]["masks"]["shape"] == [150, 24, 20]
        assert block["source"]["masks"]["filters"] == ["shuffle", "gzip"]
        assert block["source"]["metadata"]["order"] == small.table["mask_row"].tolist()
        assert len(block["shards"]) == 3

    def test_arrays(self, small_store: Path) -> None:
        group: Any = zarr.open_group(small_store, mode="r")
        masks = group["masks"]
        assert (masks.dtype, masks.chunks, masks.shards) == (np.uint8, (1, 24, 20), (64, 24, 20))
        assert masks.metadata.dimension_names == ("mask", "y", "x")
        assert set(masks.attrs["coordinates"].split()) == set(group.array_keys()) - {"masks"}
        assert {name: str(array.dtype) for name, array in group.arrays()} == {
            "masks": "uint8",
            "image": "StringDType()",
            "noun": "StringDType()",
            "mask_file": "StringDType()",
            "instance": "int64",
            "mask_row": "int64",
            "score": "float64",
            **{f"box_{edge}": "float64" for edge in ("x0", "y0", "x1", "y1")},
            "localized": "int8",
            "area": "int32",
            "crc32c": "uint32",
        }

    def test_coordinates_are_one_chunk_each(self, small_store: Path) -> None:
        for name in COLUMNS:
            assert [path.name for path in (small_store / name / "c").iterdir()] == ["0"]


class TestTarget:
    def test_an_existing_store_is_refused(self, small: Source, small_store: Path) -> None:
        before = files(small_store)
        with pytest.raises(StoreExists, match="overwrite=True would replace it"):
            convert(small.folder, small_store, progress=False)
        assert files(small_store) == before

    def test_overwrite_replaces_a_store(self, small: Source, tmp_path: Path) -> None:
        other = write_source(tmp_path / "other", n_masks=300, seed=5)
        convert(other.folder, tmp_path / "masks.zarr", progress=False)
        convert(small.folder, tmp_path / "masks.zarr", overwrite=True, progress=False)
        assert_equal(tmp_path / "masks.zarr", small)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["masks.zarr", "other"]

    def test_the_old_store_stays_when_the_new_one_is_refused(
        self, small: Source, tmp_path: Path
    ) -> None:
        convert(small.folder, tmp_path / "masks.zarr", progress=False)
        before = files(tmp_path / "masks.zarr")
        bad = write_source(tmp_path / "bad")
        bad.masks[-1, 0, 0] = 7
        write_files(bad)
        with pytest.raises(maskcube.SourceError, match="149"):
            convert(bad.folder, tmp_path / "masks.zarr", overwrite=True, progress=False)
        assert files(tmp_path / "masks.zarr") == before

    @pytest.mark.parametrize("kind", ["folder", "file", "foreign", "link"])
    def test_overwrite_deletes_nothing_but_mask_stores(
        self, small: Source, tmp_path: Path, kind: str
    ) -> None:
        target = tmp_path / "target"
        if kind == "file":
            target.write_text("precious")
        elif kind == "foreign":
            zarr.create_group(target).attrs["precious"] = True
        else:
            folder = target if kind == "folder" else tmp_path / "elsewhere"
            folder.mkdir()
            (folder / "precious").write_text("precious")
            if kind == "link":
                target.symlink_to(folder)
        before = files(tmp_path)
        with pytest.raises(StoreExists, match="no mask store: choose another place"):
            convert(small.folder, target, progress=False)
        with pytest.raises(NotAMaskStore, match="only mask stores"):
            convert(small.folder, target, overwrite=True, progress=False)
        assert files(tmp_path) == before

    def test_an_empty_folder_and_missing_parents_are_fine(
        self, small: Source, tmp_path: Path
    ) -> None:
        (tmp_path / "empty").mkdir()
        convert(small.folder, tmp_path / "empty", progress=False)
        convert(small.folder, tmp_path / "a" / "b" / "masks.zarr", progress=False)
        assert_equal(tmp_path / "empty", small)
        assert_equal(tmp_path / "a" / "b" / "masks.zarr", small)

    def test_a_file_url(self, small: Source, tmp_path: Path) -> None:
        convert(small.folder, f"file://{tmp_path}/masks.zarr", progress=False)
        assert_equal(tmp_path / "masks.zarr", small)

    def test_a_zarr_store(self, small: Source) -> None:
        store = MemoryStore()
        convert(small.folder, store, progress=False)
        assert_equal(store, small)
        assert not [key for key in store._store_dict if key.startswith("_maskcube")]  # noqa: SLF001
        with pytest.raises(StoreExists):
            convert(small.folder, store, progress=False)
        convert(small.folder, store, overwrite=True, progress=False)
        assert_equal(store, small)

    def test_an_object_store(self, small: Source, tmp_path: Path) -> None:
        from obstore.store import LocalStore

        store = ObjectStore(LocalStore(tmp_path))
        convert(small.folder, store, progress=False)
        assert_equal(tmp_path, small)
        assert maskcube.open_masks(store).sizes["mask"] == 150

    def test_a_store_that_holds_something_else_is_refused(self, small: Source) -> None:
        from zarr.core.buffer import default_buffer_prototype

        precious = default_buffer_prototype().buffer.from_bytes(b"precious")
        store = MemoryStore(store_dict={"other/data": precious})
        with pytest.raises(StoreExists, match="not empty"):
            convert(small.folder, store, overwrite=True, progress=False)

    @pytest.mark.parametrize("n_deleted", [0, 1, 7, 28])
    def test_replacing_where_nothing_can_be_renamed_goes_on(
        self, small: Source, monkeypatch: pytest.MonkeyPatch, n_deleted: int
    ) -> None:
        from maskcube.objects import ZarrObjects

        store = MemoryStore()
        convert(small.folder, store, progress=False)
        delete, deleted = ZarrObjects.delete, 0

        def stopping(self: ZarrObjects, *keys: str) -> None:
            nonlocal deleted
            for key in keys:
                deleted += 1
                if deleted > n_deleted:
                    raise Stopped
                delete(self, key)

        monkeypatch.setattr(ZarrObjects, "delete", stopping)
        with pytest.raises(Stopped):
            convert(small.folder, store, overwrite=True, progress=False)
        monkeypatch.undo()
        convert(small.folder, store, overwrite=True, progress=False)
        assert_equal(store, small)

    def test_a_zip_cannot_be_written(self, small: Source, tmp_path: Path) -> None:
        with pytest.raises(InvalidOption, match="a zip can be read, not written"):
            convert(small.folder, tmp_path / "masks.zip", progress=False)


@pytest.mark.parametrize("field", ["areas", "crcs", "counts", "steps", "piece"])
def test_a_damaged_journal_is_not_believed(
    small: Source, tmp_path: Path, stop_after: Any, monkeypatch: Any, field: str
) -> None:
    """What is said of a finished shard has changed: it is written anew."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    convert(small.folder, tmp_path / "whole.zarr", progress=False)
    stop_after(5)
    with pytest.raises(Stopped):
        convert(small.folder, tmp_path / "masks.zarr", workers=1, progress=False)
    monkeypatch.undo()
    path = tmp_path / "masks.zarr.partial" / "_maskcube" / "shards" / "0.json"
    entry = json.loads(path.read_text())
    if field == "steps":
        entry[field][0][1] = entry[field][0][1][::-1]
    else:
        entry[field][0] += 1
    path.write_text(json.dumps(entry))
    report = convert(small.folder, tmp_path / "masks.zarr", progress=False)
    assert report.n_resumed == 1
    assert files(tmp_path / "masks.zarr") == files(tmp_path / "whole.zarr")


def test_without_its_plan_nothing_is_believed(
    small: Source, tmp_path: Path, stop_after: Any, monkeypatch: Any
) -> None:
    """Whole shards of another source would do, by their entries: only the plan tells."""
    other = write_source(tmp_path / "other", seed=9)
    stop_after(5)
    with pytest.raises(Stopped):
        convert(other.folder, tmp_path / "masks.zarr", workers=1, progress=False)
    monkeypatch.undo()
    (tmp_path / "masks.zarr.partial" / "_maskcube" / "plan.json").write_bytes(b"{")
    assert convert(small.folder, tmp_path / "masks.zarr", progress=False).n_resumed == 0
    assert_equal(tmp_path / "masks.zarr", small)


class Stopped(Exception):
    pass


@pytest.fixture
def stop_after(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Make the n-th write to a folder fail, as if the disk were full."""

    def arm(n_writes: int) -> None:
        writes = 0
        put = Folder.put

        def counted(self: Folder, key: str, data: bytes) -> None:
            nonlocal writes
            writes += 1
            if writes > n_writes:
                raise Stopped
            put(self, key, data)

        monkeypatch.setattr(Folder, "put", counted)

    return arm


class TestInterrupted:
    """A conversion of 3 shards makes 40 writes.

    They are the plan, three shards and their entries, 13 coordinates and their metadata, those of
    the runs, the masks' metadata and the root.
    """

    @pytest.mark.parametrize("n_writes", range(40))
    def test_after_any_write(
        self, small: Source, tmp_path: Path, stop_after: Any, monkeypatch: Any, n_writes: int
    ) -> None:
        monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
        target = tmp_path / "masks.zarr"
        convert(small.folder, tmp_path / "whole.zarr", progress=False)
        stop_after(n_writes)
        with pytest.raises(Stopped):
            convert(small.folder, target, workers=1, progress=False)
        monkeypatch.undo()  # and with it the fixed time: the plan must keep it
        n_shards = min(3, max(0, n_writes - 1) // 2)
        if n_writes:
            with pytest.raises(maskcube.IncompleteStore, match=f"{n_shards} of 3 shards"):
                maskcube.open_masks(target)
        report = convert(small.folder, target, progress=False)
        assert report.n_resumed == n_shards
        assert_equal(target, small)
        if n_writes:
            assert files(target) == files(tmp_path / "whole.zarr")
        assert not target.with_name("masks.zarr.partial").exists()

    def test_another_source_is_refused_and_overwrite_starts_anew(
        self, small: Source, tmp_path: Path, stop_after: Any, monkeypatch: Any
    ) -> None:
        other = write_source(tmp_path / "other", seed=3)
        stop_after(5)
        with pytest.raises(Stopped):
            convert(other.folder, tmp_path / "masks.zarr", progress=False)
        monkeypatch.undo()
        with pytest.raises(StoreExists, match="unfinished conversion with another source"):
            convert(small.folder, tmp_path / "masks.zarr", progress=False)
        convert(small.folder, tmp_path / "masks.zarr", overwrite=True, progress=False)
        assert_equal(tmp_path / "masks.zarr", small)

    def test_a_shard_damaged_since_is_found_and_written_again(
        self, small: Source, tmp_path: Path, stop_after: Any, monkeypatch: Any
    ) -> None:
        target = tmp_path / "masks.zarr"
        stop_after(5)
        with pytest.raises(Stopped):
            convert(small.folder, target, workers=1, progress=False)
        monkeypatch.undo()
        shard = tmp_path / "masks.zarr.partial" / "masks" / "c" / "0" / "0" / "0"
        data = bytearray(shard.read_bytes())
        data[3] ^= 1
        shard.write_bytes(data)
        with pytest.raises(maskcube.CorruptStore, match="shard 0 does not read back"):
            convert(small.folder, target, progress=False)
        assert convert(small.folder, target, progress=False).n_resumed == 2
        assert_equal(target, small)

    def test_leftovers_without_a_plan_do_not_get_into_the_store(
        self, small: Source, tmp_path: Path
    ) -> None:
        left = tmp_path / "masks.zarr.partial" / "masks" / "c" / "9" / "0" / "0"
        left.parent.mkdir(parents=True)
        left.write_bytes(b"old")
        with pytest.raises(StoreExists, match="not of an unfinished conversion"):
            convert(small.folder, tmp_path / "masks.zarr", progress=False)
        assert left.read_bytes() == b"old"
        (tmp_path / "masks.zarr.partial" / "_maskcube").mkdir()
        convert(small.folder, tmp_path / "masks.zarr", progress=False)
        assert "masks/c/9/0/0" not in files(tmp_path / "masks.zarr")

    def test_killed_between_the_two_renames(
        self, small: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Where no exchange can be had, the old store is set aside before the new one is there."""
        monkeypatch.setattr("maskcube.stage.exchange", lambda *_: False)
        target = tmp_path / "masks.zarr"
        other = write_source(tmp_path / "other", n_masks=300, seed=5)
        convert(other.folder, target, progress=False)
        rename = Path.rename

        def stopping(self: Path, to: Path) -> Path:
            if self.name.endswith(".partial"):
                raise Stopped
            return rename(self, to)

        monkeypatch.setattr(Path, "rename", stopping)
        with pytest.raises(Stopped):
            convert(small.folder, target, overwrite=True, progress=False)
        monkeypatch.undo()
        with pytest.raises(maskcube.IncompleteStore, match="3 of 3 shards"):
            maskcube.open_masks(target)
        with pytest.raises(StoreExists):
            convert(small.folder, target, progress=False)
        assert_equal(target, other)
        assert convert(small.folder, target, overwrite=True, progress=False).n_resumed == 3
        assert_equal(target, small)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["masks.zarr", "other"]

    def test_killed_after_the_exchange(
        self, small: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The new store is there, and the old one not yet put away: the same command ends it."""
        target = tmp_path / "masks.zarr"
        other = write_source(tmp_path / "other", n_masks=300, seed=5)
        convert(other.folder, target, progress=False)

        def stop(*_: object) -> None:
            raise Stopped

        monkeypatch.setattr(Path, "rename", stop)
        with pytest.raises(Stopped):
            convert(small.folder, target, overwrite=True, progress=False)
        monkeypatch.undo()
        assert_equal(target, small)
        with pytest.raises(StoreExists):
            convert(other.folder, target, progress=False)
        assert_equal(target, small)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["masks.zarr", "other"]

    def test_two_at_once(self, dataset: Path, store: Path, tmp_path: Path) -> None:
        """Of several processes that begin together one converts; the others refuse."""
        target = tmp_path / "masks.zarr"
        command = [sys.executable, "-m", "maskcube", "convert", str(dataset), str(target), "-q"]
        processes = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(3)]
        errors = [process.communicate(timeout=120)[1] for process in processes]
        assert sorted(process.returncode for process in processes) == [0, 1, 1]
        for error in errors:
            assert not error or "is writing" in error or "exists" in error
        assert pieces(target) == pieces(store)
        assert [path.name for path in tmp_path.iterdir()] == ["masks.zarr"]


class TestSha256:
    def test_the_file_is_the_one_that_was_published(self, small: Source, tmp_path: Path) -> None:
        digest = hashlib.sha256(small.hdf5.read_bytes()).hexdigest()
        convert(small.folder, tmp_path / "masks.zarr", sha256=digest.upper(), progress=False)
        assert_equal(tmp_path / "masks.zarr", small)

    def test_another_file_is_refused(self, small: Source, tmp_path: Path) -> None:
        with pytest.raises(maskcube.SourceError, match=r"its SHA-256 is \w{64}, not 'ab12'"):
            convert(small.folder, tmp_path / "masks.zarr", sha256="ab12", progress=False)
        assert not list(tmp_path.iterdir())

    def test_without_a_checksum_there_is_a_warning(self, tmp_path: Path) -> None:
        source = write_source(tmp_path / "plain", compression=None, shuffle=False)
        with pytest.warns(UserWarning, match="neither gzip nor fletcher32.*sha256="):
            convert(source.folder, tmp_path / "masks.zarr", progress=False)
        digest = hashlib.sha256(source.hdf5.read_bytes()).hexdigest()
        convert(source.folder, tmp_path / "other.zarr", sha256=digest, progress=False)


@pytest.mark.slow
def test_the_memory_budget_holds_for_noise(tmp_path: Path) -> None:
    """Runs of one pixel each: their lengths take as much memory as the masks."""
    source = write_source(
        tmp_path / "data", n_masks=200, shape=(1000, 1000), chunks=(1, 1000, 1000)
    )
    assert source.hdf5.stat().st_size > 2e7
    code = f"""
import maskcube
maskcube.convert({str(source.folder)!r}, {str(tmp_path / "masks.zarr")!r},
                 memory="300MiB", progress=False)
"""
    assert peak_of(code) <= 300 * 2**20
    assert maskcube.verify(tmp_path / "masks.zarr").n_masks == 200


@pytest.mark.slow
@pytest.mark.parametrize("chunks", ["mask", (300, 50, 50)], ids=str)
@pytest.mark.parametrize("memory", [256, 512, 1024])
def test_the_memory_budget_holds(tmp_path: Path, chunks: Any, memory: int) -> None:
    maskcube.sample_dataset(tmp_path / "data", n_images=32, chunks=chunks)
    code = f"""
import maskcube
maskcube.convert({str(tmp_path / "data")!r}, {str(tmp_path / "masks.zarr")!r},
                 memory="{memory}MiB", progress=False)
"""
    peak = peak_of(code)
    assert 100 * 2**20 < peak <= memory * 2**20
