"""A missing or damaged piece is an error that names the masks, never an array of zeros."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from reference import Source, write_files, write_source

import maskcube
from maskcube import verification
from maskcube.codec import checksum, index_bytes
from maskcube.objects import Folder

SHARD = "masks/c/1/0/0"
ROWS = range(64, 128)
METADATA = {"zarr.json", "root.json"}
"""Those of arrays and groups, and the copy of the root's."""


@pytest.fixture
def copy(small_store: Path, tmp_path: Path) -> Path:
    return shutil.copytree(small_store, tmp_path / "masks.zarr")


def _rewrite_index(shard: Path, change: Callable[[np.ndarray[Any, Any]], None]) -> None:
    """Change a shard's index and give it a right checksum: only a look at it can tell."""
    data = shard.read_bytes()
    body = data[: -index_bytes(64)]
    index = np.frombuffer(data[len(body) : -4], "<u8").reshape(64, 2).copy()
    change(index)
    entries = index.tobytes()
    shard.write_bytes(body + entries + checksum(entries).to_bytes(4, "little"))


def _absent(index: np.ndarray[Any, Any]) -> None:
    index[3] = 2**64 - 1


def _outside(index: np.ndarray[Any, Any]) -> None:
    index[3] = (10**9, 50)


def _too_short(index: np.ndarray[Any, Any]) -> None:
    index[3, 1] = 0


def _make_folder(shard: Path) -> None:
    shard.unlink()
    shard.mkdir()


DAMAGE: dict[str, Callable[[Path], object]] = {
    "missing": lambda shard: shard.unlink(),
    "a folder in its place": _make_folder,
    "empty": lambda shard: shard.write_bytes(b""),
    "cut": lambda shard: shard.write_bytes(shard.read_bytes()[:-1]),
    "cut at the front": lambda shard: shard.write_bytes(shard.read_bytes()[1:]),
    "zeros": lambda shard: shard.write_bytes(bytes(shard.stat().st_size)),
    "index: absent": lambda shard: _rewrite_index(shard, _absent),
    "index: outside": lambda shard: _rewrite_index(shard, _outside),
    "index: length 0": lambda shard: _rewrite_index(shard, _too_short),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
@pytest.mark.parametrize("chunks", [None, "auto"])
def test_reading_a_damaged_mask_names_it(
    copy: Path, small: Source, damage: Callable[[Path], object], chunks: Any
) -> None:
    damage(copy / SHARD)
    masks = maskcube.open_masks(copy, chunks=chunks)
    with pytest.raises(maskcube.CorruptMask, match="shard 1") as caught:
        masks[67].compute()
    assert 67 in caught.value.rows
    row = small.by_row.iloc[caught.value.rows[0]]
    assert f"image '{row['image_name']}', noun '{row['noun']}'" in str(caught.value)
    np.testing.assert_array_equal(masks[:64], small.masks[:64])
    np.testing.assert_array_equal(masks[128:], small.masks[128:])
    with pytest.raises(maskcube.CorruptMask):
        _ = maskcube.Segmentations(copy)[67]


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_verify_finds_it(copy: Path, damage: Callable[[Path], object]) -> None:
    damage(copy / SHARD)
    with pytest.raises(maskcube.VerificationError, match="shard 1") as caught:
        maskcube.verify(copy)
    rows = [mask.row for mask in caught.value.masks]
    assert 67 in rows
    assert set(rows) <= set(ROWS)


def test_swapped_masks_are_found(copy: Path, small: Source) -> None:
    """Codecs cannot see it: every byte has its right checksum."""

    def swap(index: np.ndarray[Any, Any]) -> None:
        index[[3, 4]] = index[[4, 3]]

    _rewrite_index(copy / SHARD, swap)
    with pytest.raises(maskcube.VerificationError) as caught:
        maskcube.verify(copy)
    assert [mask.row for mask in caught.value.masks] == [67, 68]
    row = small.by_row.iloc[67]
    assert caught.value.masks[0].image == row["image_name"]
    assert caught.value.masks[0].noun == row["noun"]
    assert caught.value.masks[0].instance == row["instance_id"]


def test_swapped_shards_are_found(copy: Path) -> None:
    first, second = copy / "masks/c/0/0/0", copy / SHARD
    data = first.read_bytes(), second.read_bytes()
    first.write_bytes(data[1])
    second.write_bytes(data[0])
    with pytest.raises(maskcube.VerificationError) as caught:
        maskcube.verify(copy)
    assert len(caught.value.masks) >= 120


def test_every_flipped_byte_is_found(copy: Path) -> None:
    """One flip in each of 400 places over all objects of the store."""
    objects = sorted(path for path in copy.rglob("*") if path.is_file())
    sizes = [path.stat().st_size for path in objects]
    ends = np.cumsum(sizes)
    rng = np.random.default_rng(7)
    for place in rng.choice(ends[-1], 400, replace=False):
        number = int(np.searchsorted(ends, place, side="right"))
        path, offset = objects[number], int(place - (ends[number] - sizes[number]))
        whole = path.read_bytes()
        flipped = bytearray(whole)
        flipped[offset] ^= int(rng.integers(1, 256))
        path.write_bytes(flipped)
        try:
            maskcube.verify(copy)
        except maskcube.MaskcubeError:
            pass
        else:
            # White space in metadata may change unseen, and a root attribute's text.
            assert path.name in METADATA
            assert (
                path.name == "root.json"
                or path.parent == copy
                or (json.loads(flipped) == json.loads(whole))
            )
        path.write_bytes(whole)


@pytest.fixture(scope="module")
def tiny_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a store of 7 masks of 8 x 10 pixels, which is verified in 3 ms."""
    folder = tmp_path_factory.mktemp("tiny")
    write_source(folder, n_masks=7, shape=(8, 10), sorted_rows=False)
    maskcube.convert(folder, folder / "masks.zarr", progress=False)
    return folder / "masks.zarr"


@pytest.mark.parametrize("n_flips", [1_000, pytest.param(10_000, marks=pytest.mark.slow)])
def test_every_flip_that_means_something_is_found(
    tiny_store: Path, tmp_path: Path, n_flips: int
) -> None:
    """Half of them in metadata, half in what else there is; each time all is verified."""
    copy = shutil.copytree(tiny_store, tmp_path / "masks.zarr")
    objects = sorted(path for path in copy.rglob("*") if path.is_file())
    kinds = [
        [path for path in objects if (path.name in METADATA) is is_metadata]
        for is_metadata in (True, False)
    ]
    rng = np.random.default_rng(n_flips)
    n_unseen = 0
    for number in range(n_flips):
        paths = kinds[number % 2]
        ends = np.cumsum([path.stat().st_size for path in paths])
        place = int(rng.integers(ends[-1]))
        which = int(np.searchsorted(ends, place, side="right"))
        path = paths[which]
        whole = path.read_bytes()
        flipped = bytearray(whole)
        # Counted from the end of the object.
        flipped[place - int(ends[which])] ^= int(rng.integers(1, 256))
        path.write_bytes(flipped)
        try:
            maskcube.verify(copy, workers=1)
        except maskcube.MaskcubeError:
            pass
        else:
            n_unseen += 1
            assert path.name in METADATA
            assert _meaning(flipped) == _meaning(whole)
        path.write_bytes(whole)
    assert n_unseen < n_flips / 20


def _meaning(metadata: bytes | bytearray) -> Any:
    """Return metadata without what a user may write into the root."""
    found = json.loads(metadata)
    if "maskcube" in found["attributes"]:
        found["attributes"] = found["attributes"]["maskcube"]
    return found


def _swap_order(block: dict[str, Any], _arrays: dict[str, Any]) -> None:
    order = block["source"]["metadata"]["order"]
    order[3], order[4] = order[4], order[3]


def _set(*path: str, value: object) -> Any:
    def change(block: dict[str, Any], arrays: dict[str, Any]) -> None:
        place: Any = {"block": block, "arrays": arrays}
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value

    return change


_REGULAR = {"name": "regular", "configuration": {"chunk_shape": [10]}}
_RAW = [{"name": "bytes", "configuration": {"endian": "little"}}]

SAYINGS: dict[str, tuple[Any, str]] = {
    "the CSV's order": (_swap_order, "attribute 'maskcube' is not as it was written"),
    "counts": (_set("block", "counts", "images", value=3), "attribute 'maskcube'"),
    "a name": (_set("block", "source", "masks", "file", value="x.h5"), "attribute 'maskcube'"),
    "a digest": (_set("block", "source", "masks", "sha256", value="0"), "attribute 'maskcube'"),
    "no checksum": (lambda block, _: block.pop("crc32"), "attribute 'maskcube'"),
    "shape of steps": (_set("arrays", "runs/steps", "shape", value=[9]), "'runs/steps' is not"),
    "chunks of steps": (
        _set("arrays", "runs/steps", "chunk_grid", value=_REGULAR),
        "'runs/steps' is not",
    ),
    "codecs of offsets": (
        _set("arrays", "runs/offsets", "codecs", value=_RAW),
        "'runs/offsets' is not",
    ),
    "the group of runs": (
        _set("arrays", "runs", "attributes", "comment", value=""),
        "'runs' is not as it was written",
    ),
    "fill value": (_set("arrays", "masks", "fill_value", value=1), "'masks' is not as it was"),
    "dimensions": (
        _set("arrays", "masks", "dimension_names", value=["mask", "x", "y"]),
        "'masks' is not as it was",
    ),
    "flags": (
        _set("arrays", "masks", "attributes", "flag_values", value=[1, 0]),
        "'masks' is not as it was",
    ),
    "a unit": (_set("arrays", "area", "attributes", "units", value="m"), "'area' is not as it was"),
    "codecs of a coordinate": (
        _set("arrays", "score", "codecs", value=_RAW),
        "'score' is not as it was",
    ),
}


@pytest.mark.parametrize("name", SAYINGS)
def test_what_a_store_says_of_itself_is_verified(copy: Path, name: str) -> None:
    """Changed in the root's copy and in the array's own metadata alike."""
    change, match = SAYINGS[name]
    root = json.loads((copy / "zarr.json").read_text())
    arrays = root["consolidated_metadata"]["metadata"]
    change(root["attributes"]["maskcube"], arrays)
    (copy / "zarr.json").write_text(json.dumps(root))
    for array, metadata in arrays.items():
        (copy / array / "zarr.json").write_text(json.dumps(metadata))
    with pytest.raises(maskcube.VerificationError, match=match):
        maskcube.verify(copy)


@pytest.mark.parametrize("field", ["dimension_names", "attributes"])
def test_a_rewritten_array_must_mean_the_same(copy: Path, field: str) -> None:
    value: Any = {"dimension_names": ["mask", "x", "y"], "attributes": {"flag_values": [1, 0]}}
    masks: Any = zarr.open_array(copy / "masks", mode="r")[:]
    options = {"dimension_names": ("mask", "y", "x"), "attributes": {}} | {field: value[field]}
    array: Any = zarr.create_array(
        copy / "masks",
        shape=masks.shape,
        dtype="uint8",
        chunks=(5, 24, 20),
        overwrite=True,
        **options,
    )
    array[:] = masks
    zarr.consolidate_metadata(copy)
    with pytest.raises(maskcube.VerificationError, match=r"'masks' (has dimensions|was rewritten)"):
        maskcube.verify(copy)


def test_a_users_own_words_are_no_fault(copy: Path) -> None:
    group = zarr.open_group(copy, mode="r+", use_consolidated=False)
    group.attrs.update({"note": "seen", "title": "Masks"})
    zarr.consolidate_metadata(copy)
    assert maskcube.verify(copy).n_masks == 150
    assert maskcube.open_masks(copy)[3].any()


def test_a_native_rewrite_of_masks_is_found(copy: Path) -> None:
    """It is read without a look at the pixels; its pieces are not those of the manifest."""
    masks: Any = zarr.open_array(copy / "masks", mode="r+")
    masks[3] = 1 - masks[3]
    with pytest.raises(maskcube.VerificationError, match="shard 0: size or checksum") as caught:
        maskcube.verify(copy)
    assert [mask.row for mask in caught.value.masks] == [3]


def test_each_coordinate_is_read_once(small_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    get = Folder.get

    def counted(self: Folder, key: str, *args: Any) -> bytes | None:
        asked.append(key)
        return get(self, key, *args)

    monkeypatch.setattr(Folder, "get", counted)
    maskcube.verify(small_store)
    coordinates = [key for key in asked if key.endswith("/c/0") and not key.startswith("runs")]
    assert len(coordinates) == len(set(coordinates)) == 13


def test_large_shards_are_verified_in_parts(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verification, "_MOST_SHARD_BYTES", 1_000)
    monkeypatch.setattr(verification, "_PART_BYTES", 700)
    assert maskcube.verify(copy).n_masks == 150
    whole = (copy / SHARD).read_bytes()
    for damaged in (whole[:-1], whole + b"x", whole[::-1]):
        (copy / SHARD).write_bytes(damaged)
        with pytest.raises(maskcube.VerificationError, match="shard 1: size or checksum"):
            maskcube.verify(copy)


@pytest.mark.parametrize("name", ["image", "score", "area", "crc32c"])
def test_a_damaged_coordinate_is_an_error(copy: Path, name: str) -> None:
    chunk = copy / name / "c" / "0"
    data = bytearray(chunk.read_bytes())
    data[len(data) // 2] ^= 1
    chunk.write_bytes(data)
    with pytest.raises(maskcube.CorruptStore, match=f"coordinate '{name}'"):
        _ = maskcube.open_masks(copy)[name].values
    with pytest.raises(maskcube.VerificationError, match=f"coordinate '{name}'"):
        maskcube.verify(copy)
    chunk.unlink()
    with pytest.raises(maskcube.CorruptStore, match=f"coordinate '{name}' is missing"):
        _ = maskcube.open_masks(copy)[name].values


def test_a_damaged_coordinate_stops_only_what_uses_it(copy: Path) -> None:
    (copy / "score" / "c" / "0").unlink()
    masks = maskcube.open_masks(copy)
    assert "score" in repr(masks)
    assert masks.sel(noun="hand").area.values.all()
    with pytest.raises(maskcube.CorruptStore, match="coordinate 'score' is missing"):
        _ = masks[masks.score > 0.5]


class TestVerifyAgainstTheSource:
    def test_the_same(self, small_store: Path, small: Source) -> None:
        report = maskcube.verify(small_store, small.folder)
        assert report.source == str(small.hdf5)
        assert (report.n_masks, report.n_shards) == (150, 3)

    def test_another_mask(self, small_store: Path, small: Source, tmp_path: Path) -> None:
        other = Source(tmp_path, small.masks.copy(), small.table)
        other.masks[101, 5, 5] ^= 1
        write_files(other)
        with pytest.raises(maskcube.VerificationError, match="not those of the source") as caught:
            maskcube.verify(small_store, tmp_path)
        assert [mask.row for mask in caught.value.masks] == [101]

    @pytest.mark.parametrize("chunks", [(1, 24, 20), (16, 8, 8), (16, 8, 9)], ids=str)
    def test_stray_pixels_spoil_only_their_own_masks(
        self, small_store: Path, small: Source, tmp_path: Path, chunks: tuple[int, int, int]
    ) -> None:
        other = Source(tmp_path, small.masks.copy(), small.table)
        other.masks[20, 5, 5] = 7
        other.masks[101, 5, 5] ^= 1
        write_files(other, chunks=chunks)
        with pytest.raises(maskcube.VerificationError) as caught:
            maskcube.verify(small_store, tmp_path)
        assert {mask.row: mask.found for mask in caught.value.masks} == {
            20: "the source has pixels other than 0 and 1 there",
            101: "its pixels are not those of the source",
        }

    @pytest.mark.parametrize("column", ["noun", "score", "instance_id", "localized", "mask_file"])
    def test_another_field(
        self, small_store: Path, small: Source, tmp_path: Path, column: str
    ) -> None:
        table = small.table.copy()
        value: dict[str, Any] = {
            "noun": "x",
            "mask_file": "x",
            "score": 0.25,
            "instance_id": 99,
            "localized": 0,
        }
        position = int(np.flatnonzero(table["localized"] == 1)[7])
        table.loc[position, column] = value[column]
        write_files(Source(tmp_path, small.masks, table))
        row = int(table["mask_row"].iloc[position])
        with pytest.raises(maskcube.VerificationError, match=rf"source in rows {row}\b"):
            maskcube.verify(small_store, tmp_path)

    def test_another_shape(self, small_store: Path, tmp_path: Path) -> None:
        write_source(tmp_path, n_masks=149)
        with pytest.raises(maskcube.VerificationError, match="shape"):
            maskcube.verify(small_store, tmp_path)

    def test_normalized(self, small: Source, tmp_path: Path) -> None:
        write_files(Source(tmp_path, small.masks * np.uint8(255), small.table))
        maskcube.convert(tmp_path, tmp_path / "masks.zarr", normalize=True, progress=False)
        maskcube.verify(tmp_path / "masks.zarr", tmp_path)
        maskcube.verify(tmp_path / "masks.zarr", small.folder)


class TestNotAStore:
    def test_nothing(self, tmp_path: Path) -> None:
        for path in (tmp_path / "none.zarr", tmp_path / "none.zip", tmp_path):
            with pytest.raises(maskcube.StoreNotFound, match="no mask store at"):
                maskcube.open_masks(path)

    def test_a_foreign_group(self, tmp_path: Path) -> None:
        import zarr

        zarr.create_group(tmp_path / "foreign.zarr")
        with pytest.raises(maskcube.NotAMaskStore, match="without the attribute 'maskcube'"):
            maskcube.open_masks(tmp_path / "foreign.zarr")

    def test_something_else(self, tmp_path: Path) -> None:
        (tmp_path / "data").write_text("no zarr")
        with pytest.raises(maskcube.NotAMaskStore, match=r"has no zarr\.json"):
            maskcube.open_masks(tmp_path)

    @pytest.mark.parametrize(
        "text", ["", "{", "[]", '"text"', "[" * 100_000, '{"node_type": "array"}'], ids=range(6)
    )
    def test_bad_root_metadata(self, copy: Path, text: str) -> None:
        (copy / "zarr.json").write_text(text)
        with pytest.raises(maskcube.NotAMaskStore, match=r"zarr\.json is no metadata"):
            maskcube.open_masks(copy)

    @pytest.mark.parametrize(
        ("path", "value", "match"),
        [
            (["format_version"], 2, "reads up to 1: pip install --upgrade"),
            (["format_version"], "1", "format_version='1'"),
            (["complete"], False, "complete=False"),
            (["layout", "n_masks"], 10**12, "is no size"),
            (["layout", "n_masks"], 3, "3 shards listed, expected 1"),
            (["layout", "height"], 25, "not the dtype and shape"),
            (["shards"], [[1, 2]], "1 shards listed, expected 3"),
            (["shards"], None, "not as a conversion writes it"),
            (["source"], 3, "not as a conversion writes it"),
        ],
        ids=str,
    )
    def test_a_manifest_that_cannot_be(
        self, copy: Path, path: list[str], value: object, match: str
    ) -> None:
        root = json.loads((copy / "zarr.json").read_text())
        block = root["attributes"]["maskcube"]
        for key in path[:-1]:
            block = block[key]
        block[path[-1]] = value
        (copy / "zarr.json").write_text(json.dumps(root))
        with pytest.raises(maskcube.NotAMaskStore, match=match):
            maskcube.open_masks(copy)

    @pytest.mark.parametrize("key", ["consolidated_metadata", "masks", "noun"])
    def test_missing_metadata(self, copy: Path, key: str) -> None:
        root = json.loads((copy / "zarr.json").read_text())
        if key == "consolidated_metadata":
            del root[key]
        else:
            del root["consolidated_metadata"]["metadata"][key]
        (copy / "zarr.json").write_text(json.dumps(root))
        with pytest.raises(maskcube.NotAMaskStore):
            maskcube.open_masks(copy)

    @pytest.mark.parametrize(
        "path",
        [
            ["source", "masks"],
            ["source", "metadata", "order"],
            ["source", "masks", "sha256"],
            ["source", "normalize"],
            ["counts", "images"],
            ["layout", "width"],
            ["layout", "shard_masks"],
            ["shards", 0, 0],
            ["coordinates", "noun", 1],
        ],
        ids=str,
    )
    @pytest.mark.parametrize(
        "value", [None, -1, 1.5, 2**31, 2**63, 10**30, "x", [], {}, True, float("inf")], ids=str
    )
    def test_odd_values_anywhere(self, copy: Path, path: list[Any], value: object) -> None:
        """Whatever stands there, only our own errors come out, and soon."""
        root = json.loads((copy / "zarr.json").read_text())
        block = root["attributes"]["maskcube"]
        for key in path[:-1]:
            block = block[key]
        block[path[-1]] = value
        (copy / "zarr.json").write_text(json.dumps(root))
        for use in (
            lambda: str(maskcube.info(copy)),
            lambda: np.asarray(maskcube.open_masks(copy, chunks=None)[3]),
            lambda: maskcube.Segmentations(copy).metadata,
            functools.partial(maskcube.verify, copy),
        ):
            with contextlib.suppress(maskcube.MaskcubeError):
                use()

    def test_a_pipe_is_no_object(self, copy: Path) -> None:
        (copy / "zarr.json").unlink()
        os.mkfifo(copy / "zarr.json")
        with pytest.raises(maskcube.NotAMaskStore):
            maskcube.open_masks(copy)

    def test_a_broken_zip(self, tmp_path: Path) -> None:
        (tmp_path / "masks.zip").write_bytes(b"no zip")
        with pytest.raises(maskcube.NotAMaskStore, match="cannot be read as a zip"):
            maskcube.open_masks(tmp_path / "masks.zip")
