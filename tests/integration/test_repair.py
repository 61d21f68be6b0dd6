"""What is damaged is made again, byte for byte as it was, or stays as it is and is named."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numcodecs.zstd import Zstd
from reference import Source, write_source

import maskcube
from maskcube.objects import Folder


def content(store: Path) -> dict[str, bytes]:
    return {
        path.relative_to(store).as_posix(): path.read_bytes()
        for path in store.rglob("*")
        if path.is_file()
    }


@pytest.fixture
def copy(small_store: Path, tmp_path: Path) -> Path:
    return shutil.copytree(small_store, tmp_path / "masks.zarr")


def flip(path: Path, place: int | None = None) -> None:
    data = bytearray(path.read_bytes())
    if place is None:
        place = 0 if path.suffix == ".json" else -20
    data[place] ^= 1
    path.write_bytes(data)


def make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def link_to_nowhere(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")


DAMAGE: dict[str, Callable[[Path], object]] = {
    "flipped": flip,
    "missing": lambda path: path.unlink(),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "empty": lambda path: path.write_bytes(b""),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"\0"),
    "a folder in its place": make_folder,
    "a link to nowhere": link_to_nowhere,
}

FROM_SOURCE = ["image/c/0", "score/c/0", "mask_row/c/0"]
FROM_THE_REST = [
    "masks/root.json",
    "masks/c/0/0/0",
    "masks/c/2/0/0",
    "area/c/0",
    "crc32c/c/0",
    "runs/steps/c/0",
    "runs/offsets/c/0",
    "masks/zarr.json",
    "noun/zarr.json",
    "runs/zarr.json",
]


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
@pytest.mark.parametrize("key", [*FROM_SOURCE, *FROM_THE_REST])
def test_an_object_is_made_again(
    copy: Path, small: Source, key: str, damage: Callable[[Path], object]
) -> None:
    before = content(copy)
    damage(copy / key)
    with pytest.raises(maskcube.VerificationError):
        maskcube.verify(copy)
    assert maskcube.verify(copy, repair=True).repaired == (key,)
    assert content(copy) == before
    if key not in FROM_SOURCE:
        return
    # Where it is not in the one object of all coordinates either.
    damage(copy / key)
    (copy / "masks/coordinates").unlink()
    with pytest.raises(maskcube.VerificationError):
        maskcube.verify(copy, repair=True)
    report = maskcube.verify(copy, small.folder, repair=True)
    assert set(report.repaired) == {key, "masks/coordinates"}
    assert content(copy) == before
    assert sorted(path.name for path in copy.parent.iterdir()) == [copy.name]


def test_everything_at_once(copy: Path, small: Source) -> None:
    before = content(copy)
    keys = [*FROM_SOURCE, *FROM_THE_REST]
    for key in keys:
        flip(copy / key)
    report = maskcube.verify(copy, small.folder, repair=True)
    assert sorted(report.repaired) == sorted(keys)
    assert content(copy) == before


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_the_root_is_restored(copy: Path, damage: Callable[[Path], object]) -> None:
    before = content(copy)
    damage(copy / "zarr.json")
    with pytest.raises(maskcube.MaskcubeError):
        maskcube.verify(copy)
    assert maskcube.verify(copy, repair=True).repaired == ("zarr.json",)
    assert content(copy) == before


def test_a_root_that_xarray_wrote_over(copy: Path) -> None:
    import xarray as xr

    xr.Dataset({"saliency": ("y", np.ones(24))}).to_zarr(copy, mode="a")
    with pytest.raises(maskcube.NotAMaskStore, match="repair=True of verify would restore it"):
        maskcube.open_masks(copy)
    assert maskcube.verify(copy, repair=True).repaired == ("zarr.json",)


def test_a_half_conversion_is_none(copy: Path, small: Source) -> None:
    """Without its root on purpose: repairing is not finishing."""
    (copy / "zarr.json").unlink()
    (copy / "_maskcube").mkdir()
    (copy / "_maskcube" / "plan.json").write_text("{}")
    with pytest.raises(maskcube.MaskcubeError):
        maskcube.verify(copy, small.folder, repair=True)
    assert not (copy / "zarr.json").exists()


def test_masks_are_in_the_store_twice(copy: Path) -> None:
    """All shards lost, and no source: the runs have every pixel."""
    before = content(copy)
    shutil.rmtree(copy / "masks" / "c")
    report = maskcube.verify(copy, repair=True)
    assert [key.rpartition("/c/")[0] for key in report.repaired] == ["masks"] * 3
    assert "3 objects made again" in str(report)
    assert content(copy) == before


def test_only_what_is_damaged_is_written(
    copy: Path, small: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = []
    put = Folder.put

    def counting(self: Folder, key: str, data: bytes) -> None:
        written.append(key)
        put(self, key, data)

    monkeypatch.setattr("maskcube.objects.Folder.put", counting)
    maskcube.verify(copy, small.folder, repair=True)
    assert written == []
    flip(copy / "masks/c/1/0/0")
    maskcube.verify(copy, small.folder, repair=True)
    assert written == ["masks/c/1/0/0"]


def test_swapped_shards_go_back(copy: Path) -> None:
    """Every mask is whole, and none is where it was: only the pixels' checksums can tell."""
    before = content(copy)
    shards = [copy / f"masks/c/{shard}/0/0" for shard in range(2)]
    data = [shard.read_bytes() for shard in shards]
    for shard, other in zip(shards, reversed(data), strict=True):
        shard.write_bytes(other)
    maskcube.verify(copy, repair=True)
    assert content(copy) == before


def lose_runs(store: Path) -> None:
    flip(store / "runs/steps/c/0")


def test_another_source_repairs_nothing(copy: Path, tmp_path: Path) -> None:
    """What is made must be what was converted: another source's masks never get in."""
    other = write_source(tmp_path / "other", seed=8)
    lose_runs(copy)
    flip(copy / "masks/c/1/0/0")
    flip(copy / "score/c/0")
    (copy / "masks/coordinates").unlink()
    before = content(copy)
    with pytest.raises(maskcube.VerificationError):
        maskcube.verify(copy, other.folder, repair=True)
    assert content(copy) == before


def key_of(source: Source, row: int) -> tuple[str, str, int]:
    found: Any = source.by_row.loc[row]
    return found["image_name"], found["noun"], found["instance_id"]


@pytest.fixture
def grown(copy: Path, small: Source, tmp_path: Path) -> tuple[Path, Source]:
    """Return a store of two sources, of which two masks were updated."""
    later = write_source(
        tmp_path / "later",
        n_masks=80,
        seed=3,
        change=lambda table: table.assign(image_name="later_" + table["image_name"]),
    )
    maskcube.append(later.folder, copy, progress=False)
    for source, row in ((small, 100), (later, 5)):
        image, noun, instance = key_of(source, row)
        maskcube.update(copy, image, noun, instance, 1 - source.masks[row])
    return copy, later


class TestSeveralSources:
    def test_each_is_compared_with_its_rows(
        self, grown: tuple[Path, Source], small: Source
    ) -> None:
        store, later = grown
        assert maskcube.verify(store, small.folder).n_compared == 149
        assert maskcube.verify(store, later.folder).n_compared == 79
        both = maskcube.verify(store, [later.folder, small.folder])
        assert both.n_compared == 228
        assert "228 of them equal to" in str(both)

    def test_a_source_of_neither_is_refused(
        self, grown: tuple[Path, Source], tmp_path: Path
    ) -> None:
        other = write_source(tmp_path / "other", seed=8)
        with pytest.raises(maskcube.InvalidOption, match="none of the sources"):
            maskcube.verify(grown[0], other.folder)

    def test_a_shard_of_both_needs_both(self, grown: tuple[Path, Source], small: Source) -> None:
        store, later = grown
        before = content(store)
        # Rows 128 to 191: the first 22 are of the first source; row 155 was updated.
        flip(store / "masks/c/2/0/0", 3)
        lose_runs(store)
        with pytest.raises(maskcube.VerificationError) as caught:
            maskcube.verify(store, later.folder, repair=True)
        assert [mask.row for mask in caught.value.masks] == [128]
        maskcube.verify(store, [small.folder, later.folder], repair=True)
        assert content(store) == before

    def test_a_coordinate_needs_both(self, grown: tuple[Path, Source], small: Source) -> None:
        store, later = grown
        before = content(store)
        flip(store / "mask_row/c/0")
        flip(store / "noun/c/0")
        (store / "masks/coordinates").unlink()
        with pytest.raises(maskcube.VerificationError, match="'noun'"):
            maskcube.verify(store, small.folder, repair=True)
        maskcube.verify(store, [later.folder, small.folder], repair=True)
        assert content(store) == before

    def test_an_updated_mask_is_in_its_runs(self, grown: tuple[Path, Source]) -> None:
        store, _ = grown
        before = content(store)
        (store / "masks/c/1/0/0").unlink()
        maskcube.verify(store, repair=True)
        assert content(store) == before

    def test_an_updated_mask_without_runs_is_lost(
        self, grown: tuple[Path, Source], small: Source
    ) -> None:
        """It is in no source; nothing else is written in its place."""
        store, later = grown
        (store / "masks/c/1/0/0").unlink()
        lose_runs(store)
        before = content(store)
        with pytest.raises(maskcube.VerificationError) as caught:
            maskcube.verify(store, [small.folder, later.folder], repair=True)
        assert 100 in [mask.row for mask in caught.value.masks]
        assert content(store) == before


def test_many_masks_a_chunk_and_normalized(tmp_path: Path) -> None:
    source = write_source(tmp_path / "source", chunks=(60, 12, 7))
    import h5py

    with h5py.File(source.hdf5, "r+") as file:
        pixels: Any = file["masks"][:]
        file["masks"][:] = pixels * 255
    store = tmp_path / "masks.zarr"
    maskcube.convert(source.folder, store, normalize=True, progress=False)
    before = content(store)
    flip(store / "masks/c/1/0/0", 3)
    lose_runs(store)
    report = maskcube.verify(store, source.folder, repair=True)
    assert report.repaired == ("masks/c/1/0/0", "runs/steps/c/0")
    assert content(store) == before
    np.testing.assert_array_equal(maskcube.open_masks(store), source.masks)


def test_in_memory(small: Source) -> None:
    from zarr.core.buffer import default_buffer_prototype
    from zarr.storage import MemoryStore

    store = MemoryStore()
    maskcube.convert(small.folder, store, progress=False)
    before = dict(store._store_dict)  # noqa: SLF001 - to damage it behind its back
    del store._store_dict["masks/c/0/0/0"]  # noqa: SLF001
    store._store_dict["noun/c/0"] = default_buffer_prototype().buffer.from_bytes(b"")  # noqa: SLF001
    report = maskcube.verify(store, small.folder, repair=True)
    assert report.repaired == ("masks/c/0/0/0", "noun/c/0")
    after = {key: value.to_bytes() for key, value in store._store_dict.items()}  # noqa: SLF001
    assert after == {key: value.to_bytes() for key, value in before.items()}


def test_a_rewritten_store_is_not_repaired(copy: Path, small: Source) -> None:
    import zarr

    pixels: Any = zarr.open_array(copy / "masks", mode="r")
    masks = pixels[:]
    array = zarr.create_array(
        copy / "masks", shape=masks.shape, dtype="uint8", chunks=(1, 24, 20), overwrite=True
    )
    array[:] = masks
    zarr.consolidate_metadata(copy)
    with pytest.raises(maskcube.NotAMaskStore, match="rewritten"):
        maskcube.verify(copy, small.folder, repair=True)


def test_one_hdf5_with_two_csvs(copy: Path, small: Source, tmp_path: Path) -> None:
    again = tmp_path / "again.csv"
    table = small.table.assign(image_name="again_" + small.table["image_name"], score=0.25)
    table.to_csv(again, index=False)
    maskcube.append(small.hdf5, copy, metadata=again, progress=False)
    assert maskcube.verify(copy, small.hdf5).n_compared == len(small.masks)
    (copy / "score" / "c" / "0").unlink()
    report = maskcube.verify(
        copy, [small.hdf5, small.hdf5], metadata=[again, small.csv], repair=True
    )
    assert report.n_compared == 2 * len(small.masks)
    assert report.repaired == ("score/c/0",)


class TestAnotherZstd:
    """A library of another day makes other bytes of the same pixels."""

    @pytest.fixture(autouse=True)
    def _otherwise_encoded(self, small_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        assert small_store.is_dir(), "it was converted before"
        monkeypatch.setattr("maskcube.codec._zstd", Zstd(level=9))

    def test_masks_that_their_checksums_prove(self, copy: Path, small: Source) -> None:
        (copy / "masks/c/1/0/0").unlink()
        flip(copy / "masks/c/2/0/0", 3)
        report = maskcube.verify(copy, repair=True)
        assert report.repaired == ("masks/c/1/0/0", "masks/c/2/0/0")
        np.testing.assert_array_equal(maskcube.open_masks(copy), small.masks)
        assert maskcube.info(copy).revisions[0]["shards"] == [1, 2]
        assert "shards 1, 2 repaired" in str(maskcube.info(copy))
        assert maskcube.verify(copy, small.folder).repaired == ()
        assert [path.name for path in copy.parent.iterdir()] == [copy.name]

    def test_from_the_source(self, copy: Path, small: Source) -> None:
        (copy / "masks/c/1/0/0").unlink()
        lose_runs(copy)
        report = maskcube.verify(copy, small.folder, repair=True)
        assert "masks/c/1/0/0" in report.repaired
        np.testing.assert_array_equal(maskcube.open_masks(copy), small.masks)

    def test_other_masks_get_in_no_more_than_before(self, copy: Path, tmp_path: Path) -> None:
        other = write_source(tmp_path / "other", seed=8)
        lose_runs(copy)
        flip(copy / "masks/c/1/0/0", 3)
        before = content(copy)
        with pytest.raises(maskcube.VerificationError):
            maskcube.verify(copy, other.folder, repair=True)
        assert content(copy) == before
        assert [path.name for path in copy.parent.iterdir()] == [copy.name, "other"]
