"""Stores that grow and are corrected: what is in them then, and what readers of the old one see."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
import zarr
from reference import Source, write_files, write_source

import maskcube
from maskcube import verification
from maskcube.codec import encode_mask
from maskcube.disk import exchange
from maskcube.objects import Folder
from maskcube.store import MaskStore

Key = tuple[str, str, int]
ROOTS = {"zarr.json", "masks/root.json"}


def renamed(table: pd.DataFrame) -> pd.DataFrame:
    """Give a table the images of a later session."""
    return table.assign(image_name="later_" + table["image_name"])


@pytest.fixture(scope="module")
def later(tmp_path_factory: pytest.TempPathFactory) -> Source:
    return write_source(
        tmp_path_factory.mktemp("later"), n_masks=100, sorted_rows=False, seed=3, change=renamed
    )


@pytest.fixture(scope="module")
def more(tmp_path_factory: pytest.TempPathFactory) -> Source:
    """Return a third session, many masks to a HDF5 chunk, sorted."""
    return write_source(
        tmp_path_factory.mktemp("more"),
        n_masks=70,
        chunks=(40, 10, 7),
        seed=4,
        change=lambda table: renamed(renamed(table)),
    )


@pytest.fixture
def place(small: Source, tmp_path: Path, request: pytest.FixtureRequest) -> Any:
    """Return a store of `small`, in a folder or in memory."""
    target: Any = tmp_path / "masks.zarr"
    if getattr(request, "param", "folder") == "memory":
        target = zarr.storage.MemoryStore()
    maskcube.convert(small.folder, target, progress=False)
    return target


EVERYWHERE = pytest.mark.parametrize("place", ["folder", "memory"], indirect=True)


def key_of(source: Source, row: int) -> Key:
    found = source.by_row.iloc[row]
    return found["image_name"], found["noun"], int(found["instance_id"])


def content(place: Any) -> dict[str, bytes]:
    """Every object of a store by key."""
    if isinstance(place, Path):
        files = (path for path in place.rglob("*") if path.is_file())
        return {path.relative_to(place).as_posix(): path.read_bytes() for path in files}
    return {key: value.to_bytes() for key, value in place._store_dict.items()}  # noqa: SLF001


def check(place: Any, masks: np.ndarray[Any, Any], *sources: Source) -> None:
    """Compare a store with all that went into it, through every reader."""
    table = pd.concat([source.by_row for source in sources], ignore_index=True)
    opened = maskcube.open_masks(place)
    np.testing.assert_array_equal(opened, masks)
    for name, column in {"image": "image_name", "noun": "noun", "score": "score"}.items():
        np.testing.assert_array_equal(opened[name], table[column])
    np.testing.assert_array_equal(opened["mask_row"], np.arange(len(masks)))
    np.testing.assert_array_equal(opened["area"], masks.sum(axis=(1, 2)))
    plain: Any = zarr.open_group(place, mode="r")
    np.testing.assert_array_equal(plain["masks"][:], masks)
    boundaries, offsets = maskcube.runs(opened)
    np.testing.assert_array_equal(
        maskcube.masks_from_runs(boundaries, offsets, masks.shape[1:]), masks
    )
    assert maskcube.verify(place).n_masks == len(masks)
    assert maskcube.info(place).n_images == table["image_name"].nunique()


class TestAppend:
    @EVERYWHERE
    def test_masks_stand_after_the_last_row(
        self, place: Any, small: Source, later: Source, more: Source
    ) -> None:
        report = maskcube.append(later.folder, place, progress=False)
        assert (report.n_masks, report.n_added, report.n_shards) == (250, 100, 4)
        check(place, np.concatenate([small.masks, later.masks]), small, later)
        maskcube.append(more.folder, place, progress=False)
        masks = np.concatenate([small.masks, later.masks, more.masks])
        check(place, masks, small, later, more)

    def test_shards_are_those_of_one_conversion(
        self, place: Path, small: Source, later: Source, tmp_path: Path
    ) -> None:
        """Appended or converted together: the same bytes, but for what says where from."""
        maskcube.append(later.folder, place, progress=False)
        both = tmp_path / "both" / "stimuli"
        both.mkdir(parents=True)
        shifted = later.table.assign(mask_row=later.table["mask_row"] + len(small.masks))
        together = Source(
            both.parent,
            np.concatenate([small.masks, later.masks]),
            pd.concat([small.table, shifted], ignore_index=True),
        )
        write_files(together)
        maskcube.convert(together.folder, tmp_path / "both.zarr", progress=False)
        grown, whole = content(place), content(tmp_path / "both.zarr")
        assert {key for key in grown if grown[key] != whole.get(key)} == ROOTS
        assert set(grown) == set(whole)

    def test_a_full_last_shard_stays(self, tmp_path: Path, later: Source) -> None:
        source = write_source(tmp_path / "full", n_masks=128)
        place = tmp_path / "masks.zarr"
        maskcube.convert(source.folder, place, progress=False)
        before = {key: (place / key).stat().st_ino for key in content(place)}
        maskcube.append(later.folder, place, progress=False)
        for shard in range(2):
            key = f"masks/c/{shard}/0/0"
            assert (place / key).stat().st_ino == before[key], "shared, not copied"
        check(place, np.concatenate([source.masks, later.masks]), source, later)

    def test_without_links_shards_are_copied(
        self, place: Path, small: Source, later: Source, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*_: object) -> None:
            raise PermissionError(1, "no links on this disk")

        monkeypatch.setattr(Path, "hardlink_to", refuse)
        maskcube.append(later.folder, place, progress=False)
        monkeypatch.undo()
        check(place, np.concatenate([small.masks, later.masks]), small, later)

    def test_without_an_exchange_folders_are_moved(
        self, place: Path, small: Source, later: Source, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("maskcube.stage.exchange", lambda *_: False)
        maskcube.append(later.folder, place, progress=False)
        check(place, np.concatenate([small.masks, later.masks]), small, later)
        assert [path.name for path in place.parent.iterdir()] == [place.name]

    def test_segmentations_give_every_csv_back(
        self, place: Path, small: Source, later: Source, more: Source
    ) -> None:
        for source in (later, more):
            maskcube.append(source.folder, place, progress=False)
        tables, first = [], 0
        for source in (small, later, more):
            tables.append(source.table.assign(mask_row=source.table["mask_row"] + first))
            first += len(source.masks)
        segmentations = maskcube.Segmentations(place)
        expected = pd.concat(tables, ignore_index=True)
        pd.testing.assert_frame_equal(
            segmentations.metadata, expected, check_dtype=False, check_column_type=False
        )
        np.testing.assert_array_equal(segmentations.get(*key_of(later, 7)), later.masks[7])
        assert segmentations.find(*key_of(more, 5)) == 255

    def test_info_tells_of_it(self, place: Path, later: Source) -> None:
        maskcube.append(later.folder, place, progress=False)
        found = maskcube.info(place)
        assert [each["action"] for each in found.revisions] == ["append"]
        assert found.revisions[0]["first_row"] == 150
        assert "masks from row 150 on appended" in str(found)
        history = str(zarr.open_group(place, mode="r").attrs["history"])
        assert [line.split(": ")[1].split()[0] for line in history.splitlines()] == [
            "converted",
            "appended",
        ]

    @EVERYWHERE
    @pytest.mark.parametrize(
        ("change", "storage", "expected"),
        [
            (lambda table: table, {"seed": 9}, r"has already.*\(2, "),
            (renamed, {"shape": (20, 24)}, "masks of 20 x 24 pixels.* have 24 x 20"),
            (lambda table: table.assign(noun=""), {}, "noun"),
        ],
    )
    def test_what_does_not_fit_is_refused(
        self, place: Any, tmp_path: Path, change: Any, storage: Any, expected: str
    ) -> None:
        before = content(place)
        other = write_source(tmp_path / "other", change=change, **storage)
        with pytest.raises(maskcube.SourceError, match=expected):
            maskcube.append(other.folder, place, progress=False)
        assert content(place) == before

    @EVERYWHERE
    def test_the_same_again_is_refused(self, place: Any, small: Source) -> None:
        with pytest.raises(maskcube.StoreExists, match="already, in rows 0 to 149"):
            maskcube.append(small.folder, place, progress=False)

    @EVERYWHERE
    def test_stray_pixels_change_nothing(self, place: Any, later: Source, tmp_path: Path) -> None:
        before = content(place)
        stray = Source(tmp_path / "stray", later.masks.copy(), later.table)
        stray.masks[40, 3, 3] = 7
        write_files(stray)
        with pytest.raises(maskcube.SourceError, match="other than 0 and 1"):
            maskcube.append(stray.folder, place, progress=False)
        assert content(place) == before
        maskcube.append(stray.folder, place, normalize=True, progress=False)
        np.testing.assert_array_equal(maskcube.open_masks(place)[190], stray.masks[40] != 0)

    def test_only_stores_grow(self, tmp_path: Path, later: Source) -> None:
        with pytest.raises(maskcube.StoreNotFound):
            maskcube.append(later.folder, tmp_path / "nowhere.zarr", progress=False)
        zarr.create_group(tmp_path / "other.zarr")
        with pytest.raises(maskcube.NotAMaskStore):
            maskcube.append(later.folder, tmp_path / "other.zarr", progress=False)
        assert [path.name for path in tmp_path.iterdir()] == ["other.zarr"]

    def test_a_rewritten_store_does_not_grow(self, place: Path, later: Source) -> None:
        masks: Any = zarr.open_array(place / "masks", mode="r")
        pixels = masks[:]
        array = zarr.create_array(
            place / "masks",
            shape=pixels.shape,
            dtype="uint8",
            chunks=(1, 24, 20),
            dimension_names=("mask", "y", "x"),
            overwrite=True,
        )
        array[:] = pixels
        zarr.consolidate_metadata(place)
        with pytest.raises(maskcube.NotAMaskStore, match="'masks' rewritten"):
            maskcube.append(later.folder, place, progress=False)

    @EVERYWHERE
    def test_a_damaged_store_does_not_grow(self, place: Any, later: Source, small: Source) -> None:
        for key in ("masks/c/0/0/0", "masks/c/2/0/0"):
            before = content(place)
            data = bytearray(before[key])
            data[len(data) // 3] ^= 1
            write(place, key, bytes(data))
            with pytest.raises(maskcube.CorruptStore, match="repair=True"):
                maskcube.append(later.folder, place, progress=False)
            delete(place, key)
            with pytest.raises(maskcube.CorruptStore, match="repair=True"):
                maskcube.append(later.folder, place, progress=False)
            assert content(place)["zarr.json"] == before["zarr.json"]
            maskcube.verify(place, small.folder, repair=True)
        maskcube.append(later.folder, place, progress=False)
        check(place, np.concatenate([small.masks, later.masks]), small, later)

    def test_a_link_to_a_store_stays_a_link(
        self, place: Path, small: Source, later: Source
    ) -> None:
        link = place.with_name("link.zarr")
        link.symlink_to(place)
        maskcube.append(later.folder, link, progress=False)
        assert link.is_symlink()
        check(place, np.concatenate([small.masks, later.masks]), small, later)


def write(place: Any, key: str, data: bytes) -> None:
    """Write an object of a store behind everybody's back."""
    if isinstance(place, Path):
        (place / key).write_bytes(data)
        return
    from zarr.core.buffer import default_buffer_prototype

    buffer = default_buffer_prototype().buffer.from_bytes(data)
    place._store_dict[key] = buffer  # noqa: SLF001


def delete(place: Any, key: str) -> None:
    """Delete an object of a store behind everybody's back."""
    if isinstance(place, Path):
        (place / key).unlink()
    else:
        del place._store_dict[key]  # noqa: SLF001


class TestNeighbours:
    """What somebody else has put into the store's folder is theirs."""

    @EVERYWHERE
    def test_arrays_and_attributes_stay(self, place: Any, small: Source, later: Source) -> None:
        group = zarr.open_group(place, mode="r+")
        group.create_array("saliency", data=np.arange(6.0), dimension_names=("s",))
        group.attrs["note"] = "mine"
        zarr.consolidate_metadata(place)
        maskcube.append(later.folder, place, progress=False)
        maskcube.update(place, *key_of(small, 3), 1 - small.masks[3])
        found: Any = zarr.open_consolidated(place, mode="r")
        np.testing.assert_array_equal(found["saliency"][:], np.arange(6.0))
        assert found.attrs["note"] == "mine"
        assert maskcube.verify(place).n_masks == 250
        with xr.open_zarr(place, chunks=None, zarr_format=3) as dataset:
            assert "saliency" in dataset

    def test_files_and_rights_stay(self, place: Path, small: Source) -> None:
        place.chmod(0o700)
        (place / "notes" / "deep").mkdir(parents=True)
        (place / "notes" / "deep" / "NOTES.txt").write_text("mine")
        (place / "link.txt").symlink_to("nowhere")
        for row in (3, 4):
            maskcube.update(place, *key_of(small, row), 1 - small.masks[row])
        assert place.stat().st_mode & 0o777 == 0o700
        assert (place / "notes/deep/NOTES.txt").read_text() == "mine"
        assert (place / "link.txt").is_symlink()


class TestUpdate:
    @EVERYWHERE
    @pytest.mark.parametrize("row", [0, 77, 149])
    def test_one_mask_is_another(self, place: Any, small: Source, row: int) -> None:
        masks = small.masks.copy()
        masks[row] = 1 - masks[row]
        report = maskcube.update(place, *key_of(small, row), masks[row])
        assert (report.row, report.changed) == (row, True)
        assert (report.area_before, report.area) == (small.masks[row].sum(), masks[row].sum())
        assert (report.image, report.noun, report.instance) == key_of(small, row)
        check(place, masks, small)
        assert maskcube.info(place).revisions[0]["row"] == row

    @EVERYWHERE
    def test_updates_and_appends_in_any_order(
        self, place: Any, small: Source, later: Source
    ) -> None:
        masks = np.concatenate([small.masks, later.masks])
        maskcube.update(place, *key_of(small, 149), np.zeros((24, 20)))
        maskcube.append(later.folder, place, progress=False)
        maskcube.update(place, *key_of(later, 0), np.ones((24, 20), bool))
        maskcube.update(place, *key_of(later, 0), np.eye(24, 20))
        masks[149], masks[150] = 0, np.eye(24, 20)
        check(place, masks, small, later)
        actions = [each["action"] for each in maskcube.info(place).revisions]
        assert actions == ["update", "append", "update", "update"]

    @EVERYWHERE
    def test_the_same_pixels_change_nothing(self, place: Any, small: Source) -> None:
        before = content(place)
        report = maskcube.update(place, *key_of(small, 5), small.masks[5])
        assert not report.changed
        assert "unchanged" in str(report)
        assert content(place) == before

    @EVERYWHERE
    def test_a_damaged_mask_can_be_replaced(self, place: Any, small: Source) -> None:
        data = bytearray(content(place)["masks/c/1/0/0"])
        data[2] ^= 1
        write(place, "masks/c/1/0/0", bytes(data))
        with pytest.raises(maskcube.VerificationError):
            maskcube.verify(place)
        maskcube.update(place, *key_of(small, 64), small.masks[64])
        check(place, small.masks, small)

    def test_what_is_not_there_is_refused(self, place: Path) -> None:
        with pytest.raises(maskcube.LabelNotFound, match=r"nowhere\.jpg"):
            maskcube.update(place, "nowhere.jpg", "hand", 0, np.ones((24, 20)))

    @pytest.mark.parametrize(
        ("mask", "expected"),
        [
            (np.ones((20, 24)), r"\(20, 24\).*\(24, 20\)"),
            (np.full((24, 20), 2), "values 2; expected 0 and 1"),
            (np.full((24, 20), np.nan), "nan"),
            (np.ones((1, 24, 20)), "shape"),
            ("mask.png", "dtype"),
            ([[1, 0], [1]], "no array"),
            (np.broadcast_to(0.0, (10**6, 10**6)), "shape"),
            (xr.DataArray(np.ones((24, 20)), dims=("x", "y")), "'x', 'y'"),
            (np.ma.masked_equal(np.eye(24, 20), 0), "masked out"),
        ],
    )
    def test_what_is_no_mask_is_refused(
        self, place: Path, small: Source, mask: Any, expected: str
    ) -> None:
        before = content(place)
        with pytest.raises(maskcube.InvalidOption, match=expected):
            maskcube.update(place, *key_of(small, 3), mask)
        assert content(place) == before
        assert [path.name for path in place.parent.iterdir()] == [place.name]

    @pytest.mark.parametrize(
        "labels",
        [(None, "hand", 0), ("a.jpg", None, 0), ("a.jpg", "hand", 0.7), ("a.jpg", "hand", True)],
    )
    def test_what_are_no_labels_is_refused(self, place: Path, labels: list[Any]) -> None:
        with pytest.raises(maskcube.InvalidOption, match="two texts and a whole number"):
            maskcube.update(place, labels[0], labels[1], labels[2], np.ones((24, 20)))

    def test_several_masks_of_one_key_are_refused(self, tmp_path: Path) -> None:
        source = write_source(
            tmp_path / "twice",
            n_masks=20,
            change=lambda table: table.assign(image_name="a.jpg", noun="hand", instance_id=0),
        )
        maskcube.convert(
            source.folder, tmp_path / "masks.zarr", allow_duplicates=True, progress=False
        )
        with pytest.raises(maskcube.InvalidOption, match="20 masks"):
            maskcube.update(tmp_path / "masks.zarr", "a.jpg", "hand", 0, np.ones((24, 20)))


CHANGES: dict[str, Callable[[Any, Source, Source], object]] = {
    "append": lambda place, _, later: maskcube.append(later.folder, place, progress=False),
    "update": lambda place, small, _: maskcube.update(
        place, *key_of(small, 70), 1 - small.masks[70]
    ),
    "overwrite": lambda place, _, later: maskcube.convert(
        later.folder, place, overwrite=True, progress=False
    ),
}

READS: dict[str, Callable[[dict[str, Any]], object]] = {
    "lazy": lambda opened: np.asarray(opened["lazy"][70]),
    "dask": lambda opened: np.asarray(opened["dask"][70]),
    "a coordinate": lambda opened: np.asarray(opened["lazy"].score),
    "runs": lambda opened: maskcube.runs(opened["lazy"]),
    "scan": lambda opened: maskcube.map_masks(np.count_nonzero, opened["lazy"]),
    "Segmentations": lambda opened: opened["Segmentations"][3],
    "their table": lambda opened: opened["Segmentations"].metadata,
}


def opened(place: Any) -> dict[str, Any]:
    return {
        "lazy": maskcube.open_masks(place, chunks=None),
        "dask": maskcube.open_masks(place),
        "Segmentations": maskcube.Segmentations(place),
    }


@EVERYWHERE
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_readers_of_the_old_store_read_the_old_or_are_told(
    place: Any, small: Source, later: Source, change: Any
) -> None:
    """Never a mixture: what was opened before a change gives no answer that it would not have."""
    before = opened(place)
    answers = {name: read(opened(place)) for name, read in READS.items()}
    change(place, small, later)
    told: set[tuple[str, bool]] = set()
    for name, read in READS.items():
        try:
            found = read(before)
        except maskcube.StoreChanged as changed:
            told.add((name, "open it again" in str(changed)))
        else:
            assert pickle.dumps(found) == pickle.dumps(answers[name])
    # In memory, as in a bucket, shards that stayed as they are can still be read.
    sure = ["lazy", "dask", "runs", "scan"] if isinstance(place, Path) else ["runs"]
    assert told >= {(name, True) for name in sure}
    assert maskcube.verify(place).n_masks == len(maskcube.open_masks(place))


@pytest.mark.parametrize("place", ["memory"], indirect=True)
def test_parts_of_large_shards_are_of_one_store(
    place: Any, small: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("maskcube.shards._MOST_WHOLE_BYTES", 0)
    old = maskcube.open_masks(place, chunks=None)
    np.testing.assert_array_equal(old[1], small.masks[1])
    # As long as the one that is there: only the root tells them apart.
    length = len(encode_mask(small.masks[2]))
    rolled = (np.roll(small.masks[2], by) for by in range(1, 480))
    other = next(mask for mask in rolled if len(encode_mask(mask)) == length)
    maskcube.update(place, *key_of(small, 2), other)
    with pytest.raises(maskcube.StoreChanged):
        np.asarray(old.variable[2])


@EVERYWHERE
def test_what_changes_while_it_is_verified_is_not_damaged(
    place: Any, small: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = verification._check_shard  # noqa: SLF001 - the moment that the test is about

    def changed(store: MaskStore, shard: int, *asked: Any) -> Any:
        if shard == 0:
            maskcube.update(place, *key_of(small, 2), 1 - small.masks[2])
        return check(store, shard, *asked)

    monkeypatch.setattr(verification, "_check_shard", changed)
    with pytest.raises(maskcube.StoreChanged):
        maskcube.verify(place)


def test_a_pickled_reader_is_told(place: Path, small: Source) -> None:
    masks = maskcube.open_masks(place, chunks=None)
    sent = pickle.dumps(masks)
    del masks
    maskcube.update(place, *key_of(small, 70), 1 - small.masks[70])
    received = pickle.loads(sent)  # noqa: S301 - our own
    with pytest.raises(maskcube.StoreChanged, match="open it again"):
        np.asarray(received[3])


def test_segmentations_that_were_closed_open_the_new_store(
    place: Path, small: Source, later: Source
) -> None:
    with maskcube.Segmentations(place) as segmentations:
        assert len(segmentations.metadata) == 150
        maskcube.append(later.folder, place, progress=False)
        with pytest.raises(maskcube.StoreChanged):
            segmentations.get(*key_of(small, 3))
    np.testing.assert_array_equal(segmentations.get(*key_of(later, 3)), later.masks[3])
    assert len(segmentations.metadata) == len(segmentations) == 250


def test_a_copied_store_is_the_same_one(place: Path, small: Source, tmp_path: Path) -> None:
    """The same bytes in other files: whoever moves a store to another disk changes nothing."""
    masks = maskcube.open_masks(place, chunks=None)
    shutil.copytree(place, tmp_path / "copy.zarr")
    shutil.rmtree(place)
    (tmp_path / "copy.zarr").rename(place)
    np.testing.assert_array_equal(masks, small.masks)


def test_folders_exchange(tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "name.json").write_text(json.dumps(name))
    assert exchange(tmp_path / "first", tmp_path / "second"), "Linux has this since 2014"
    assert json.loads((tmp_path / "first" / "name.json").read_text()) == "second"
    with pytest.raises(OSError, match="nowhere"):
        exchange(tmp_path / "first", tmp_path / "nowhere")


def test_the_store_is_a_group_at_every_moment(
    place: Path, later: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Plain xarray finds the old store or the new one, whatever is being written."""
    sizes = set()
    put = Folder.put

    def looking(self: Any, key: str, data: bytes) -> None:
        put(self, key, data)
        sizes.add(xr.open_zarr(place, chunks=None, zarr_format=3).sizes["mask"])

    monkeypatch.setattr("maskcube.objects.Folder.put", looking)
    maskcube.append(later.folder, place, progress=False)
    sizes.add(xr.open_zarr(place, chunks=None, zarr_format=3).sizes["mask"])
    assert sizes == {150, 250}
