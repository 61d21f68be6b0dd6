"""Masks of other formats on their way into a store: order, instances, sizes, faults."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from numpy.typing import NDArray

import maskcube
from maskcube import InvalidOption, SourceError, StoreExists
from maskcube.formats.collection import Collection, Item, KeptMaps
from maskcube.formats.images import MaskImages
from maskcube.formats.intake import store_collection
from maskcube.formats.record import Record


def item(
    mask: Any = ((1, 0), (0, 0)),
    *,
    image: str = "a.jpg",
    noun: str = "hand",
    **record: Any,
) -> Item:
    pixels: NDArray[np.uint8] = np.array(mask, np.uint8)
    size = pixels.shape[0], pixels.shape[1]

    def read() -> NDArray[np.uint8]:
        return pixels

    return Item(Record(image=image, noun=noun, **record), size, read)


def stored(items: Sequence[Item], place: Path, **options: Any) -> xr.DataArray:
    collection = Collection("test", "annotations.json", items, [b"{}"])
    store_collection(collection, place / "new.zarr", progress=False, **options)
    return maskcube.open_masks(place / "new.zarr").compute()


def test_a_store_comes_back_as_it_was(store: Path, tmp_path: Path) -> None:
    masks = maskcube.open_masks(store)
    images = MaskImages(masks)

    def read(row: int) -> NDArray[np.uint8]:
        found: NDArray[np.uint8] = images.read(np.array([row]))[0]
        return found

    items = [
        Item(record, images.shape, lambda row=row: read(row))  # type: ignore[misc]
        for row, record in enumerate(images.records)
    ]
    found = stored(items[::-1], tmp_path)
    xr.testing.assert_identical(found.drop_attrs(), masks.compute().drop_attrs())
    assert maskcube.verify(tmp_path / "new.zarr", progress=False).n_masks == len(masks)


def test_a_selection_is_counted_from_0_in_its_order(tmp_path: Path) -> None:
    items = [item(noun=noun, mask_row=row) for noun, row in [("b", 70), ("c", 900), ("a", 3)]]
    found = stored(items, tmp_path)
    assert found.noun.values.tolist() == ["a", "b", "c"]
    assert found.mask_row.values.tolist() == [0, 1, 2]


@pytest.mark.parametrize("rows", [[2, None, 1], [1, 1, 0]])
def test_rows_that_are_no_order_are_none(rows: list[int | None], tmp_path: Path) -> None:
    items = [item(noun=noun, mask_row=row) for noun, row in zip("bca", rows, strict=True)]
    assert stored(items, tmp_path).noun.values.tolist() == ["b", "c", "a"]


def test_instances_are_counted_by_score(tmp_path: Path) -> None:
    scores = [0.2, 0.9, None, 0.5, 0.1]
    items = [item(score=score) for score in scores]
    items[3] = item(score=0.5, instance=1)
    items.append(item(image="b.jpg", score=0.1))
    found = stored(items, tmp_path)
    assert found.instance.values.tolist() == [2, 0, 4, 1, 3, 0]


class TestSizes:
    LARGE = np.arange(12).reshape(3, 4) % 2
    BOX = (1.0, 1.0, 2.0, 2.0)

    def test_others_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(SourceError, match=r"'2 x 2: 2 masks', '3 x 4: 1 masks'; fit='pad'"):
            stored([item(), item(noun="b"), item(self.LARGE, noun="c")], tmp_path)
        assert list(tmp_path.iterdir()) == []

    def test_they_are_padded(self, tmp_path: Path) -> None:
        found = stored([item(box=self.BOX), item(self.LARGE, image="b.jpg")], tmp_path, fit="pad")
        assert found.shape == (2, 3, 4)
        assert found[0].values.tolist() == [[1, 0, 0, 0], [0] * 4, [0] * 4]
        assert found[1].values.tolist() == self.LARGE.tolist()
        assert found[0].box_x1 == 2.0
        source = maskcube.info(tmp_path / "new.zarr").source
        assert source["fit"] == "pad"
        assert source["sizes"] == [{"height": 2, "width": 2, "images": ["a.jpg"]}]

    def test_they_are_resized(self, tmp_path: Path) -> None:
        items = [item([[1, 0], [0, 1]], box=self.BOX), item(self.LARGE, image="b.jpg")]
        found = stored(items, tmp_path, fit="resize", shape=(4, 6))
        assert found[0].values.tolist() == [[1, 1, 1, 0, 0, 0]] * 2 + [[0, 0, 0, 1, 1, 1]] * 2
        assert [found[0][f"box_{edge}"].item() for edge in ("x0", "y0", "x1", "y1")] == [3, 2, 6, 4]
        sizes = maskcube.info(tmp_path / "new.zarr").source["sizes"]
        assert [(each["height"], each["width"]) for each in sizes] == [(2, 2), (3, 4)]

    def test_the_shape_of_most_is_taken(self, tmp_path: Path) -> None:
        items = [item(self.LARGE, noun="a"), item(noun="b"), item(noun="c")]
        assert stored(items, tmp_path, fit="resize").shape == (3, 2, 2)

    def test_what_does_not_fit_into_a_given_shape(self, tmp_path: Path) -> None:
        with pytest.raises(SourceError, match=r"shape \(2, 2\).*\('a.jpg', \(3, 4\)\).*'resize'"):
            stored([item(self.LARGE)], tmp_path, fit="pad", shape=(2, 2))
        with pytest.raises(SourceError, match=r"shape \(5, 5\).*fit='pad' or fit='resize'"):
            stored([item()], tmp_path, shape=(5, 5))

    def test_masks_of_one_size_need_no_word(self, tmp_path: Path) -> None:
        stored([item()], tmp_path)
        assert "sizes" not in maskcube.info(tmp_path / "new.zarr").source

    @pytest.mark.parametrize(
        "options",
        [
            {"fit": "crop"},
            {"shape": (0, 5)},
            {"shape": (5,)},
            {"shape": (True, 5)},
            {"shape": ("5", 5)},
        ],
    )
    def test_what_has_no_meaning(self, options: dict[str, Any], tmp_path: Path) -> None:
        with pytest.raises(InvalidOption):
            stored([item()], tmp_path, **options)


class TestFaults:
    def test_all_are_told_at_once(self, tmp_path: Path) -> None:
        items = [item(), item(np.ones((3, 3)), noun="b")]
        collection = Collection("test", "x.json", items, faults=["first", "second"])
        with pytest.raises(SourceError) as caught:
            store_collection(collection, tmp_path / "new.zarr", progress=False)
        assert caught.value.faults[:2] == ("first", "second")
        assert len(caught.value.faults) == 3
        assert list(tmp_path.iterdir()) == []

    def test_no_masks(self, tmp_path: Path) -> None:
        with pytest.raises(SourceError, match=r"x\.json: has no masks"):
            store_collection(Collection("test", "x.json", []), tmp_path / "n.zarr", progress=False)

    def test_duplicates(self, tmp_path: Path) -> None:
        items = [item(instance=0), item(instance=0)]
        with pytest.raises(SourceError, match=r"'a.jpg', 'hand', 0.*allow_duplicates=True"):
            stored(items, tmp_path)
        assert stored(items, tmp_path, allow_duplicates=True).instance.values.tolist() == [0, 0]

    def test_masks_that_cannot_be_read(self, tmp_path: Path) -> None:
        """What was written before is not left behind."""

        def fail() -> NDArray[np.uint8]:
            raise ValueError("is damaged")

        items = [item(image=f"{n}.jpg") for n in range(200)]
        for number in (150, 170):
            items[number] = items[number]._replace(read=fail)
        items[160] = items[160]._replace(read=lambda: np.zeros((9, 9), np.uint8))
        items[165] = items[165]._replace(read=lambda: np.full((2, 2), 3, np.uint8))
        with pytest.raises(SourceError) as caught:
            stored(items, tmp_path)
        told = str(caught.value)
        assert "mask of 'hand' 0 in image '150.jpg' is damaged" in told
        assert "'170.jpg' is damaged" in told
        assert "'160.jpg' has (9, 9) pixels, not the (2, 2) announced" in told
        assert "'165.jpg' has values other than 0 and 1" in told
        assert list(tmp_path.iterdir()) == []

    def test_a_file_that_is_gone(self, tmp_path: Path) -> None:
        collection = Collection("test", "x", [item()], [tmp_path / "gone.png"])
        with pytest.raises(SourceError, match="cannot be read: No such file"):
            store_collection(collection, tmp_path / "new.zarr", progress=False)

    def test_something_is_there(self, small_store: Path) -> None:
        collection = Collection("test", "x", [item()], [b""])
        with pytest.raises(StoreExists):
            store_collection(collection, small_store, progress=False)

    def test_what_is_lost_is_told(self, tmp_path: Path) -> None:
        collection = Collection("test", "x", [item()], [b""], lost=["5 keypoints"])
        with pytest.warns(UserWarning, match="x: 5 keypoints"):
            store_collection(collection, tmp_path / "new.zarr", progress=False)


def test_the_store_says_where_it_is_from(tmp_path: Path) -> None:
    stored([item()], tmp_path)
    info = maskcube.info(tmp_path / "new.zarr")
    assert info.source["format"] == "test"
    assert info.source["masks"]["file"] == "annotations.json"
    attributes = dict(xr.open_zarr(tmp_path / "new.zarr").attrs)
    assert "imported by test from annotations.json" in attributes["history"]
    assert attributes["title"] == "Object masks"


def test_masks_without_a_file(tmp_path: Path) -> None:
    collection = Collection("test", "memory", [item()])
    report = store_collection(collection, tmp_path / "new.zarr", progress=False)
    assert report.source_bytes == 0
    assert "of the source" not in str(report)


def test_an_interrupted_import_is_resumed(tmp_path: Path) -> None:
    items = [item(image=f"{n}.jpg") for n in range(200)]
    stop = threading.Event()

    def interrupt() -> NDArray[np.uint8]:
        stop.set()
        raise KeyboardInterrupt

    broken = [*items[:199], items[199]._replace(read=interrupt)]
    with pytest.raises(KeyboardInterrupt):
        stored(broken, tmp_path)
    assert stop.is_set()
    collection = Collection("test", "annotations.json", items, [b"{}"])
    report = store_collection(collection, tmp_path / "new.zarr", progress=False)
    assert report.n_resumed >= 1
    assert report.n_masks == 200


def test_another_import_does_not_go_on_with_it(tmp_path: Path) -> None:
    def interrupt() -> NDArray[np.uint8]:
        raise KeyboardInterrupt

    items = [item(image=f"{n}.jpg") for n in range(100)]
    with pytest.raises(KeyboardInterrupt):
        stored([*items[:99], items[99]._replace(read=interrupt)], tmp_path)
    other = [each._replace(record=replace(each.record, noun="foot")) for each in items]
    with pytest.raises(StoreExists):
        stored(other, tmp_path)


class TestKeptMaps:
    def test_each_is_made_once_by_many_threads(self) -> None:
        made: list[int] = []
        maps, start = KeptMaps(), threading.Barrier(8)

        def make(key: int) -> NDArray[Any]:
            made.append(key)
            return np.full((2, 2), key)

        def ask() -> None:
            start.wait()
            for key in range(3):
                assert maps.get(key, lambda key=key: make(key))[0, 0] == key  # type: ignore[misc]

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(made) == [0, 1, 2]

    def test_few_are_kept(self) -> None:
        made: list[int] = []
        maps = KeptMaps(2)
        for key in (0, 1, 2, 0, 2):

            def make(key: int = key) -> NDArray[Any]:
                made.append(key)
                return np.zeros(1)

            maps.get(key, make)
        assert made == [0, 1, 2, 0]

    def test_one_that_fails_is_asked_for_again(self) -> None:
        maps = KeptMaps()
        with pytest.raises(ZeroDivisionError):
            maps.get("a", lambda: np.array([1 // 0]))
        assert maps.get("a", lambda: np.ones(1))[0] == 1


def test_nothing_is_padded_without_end(tmp_path: Path) -> None:
    def read() -> NDArray[np.uint8]:
        raise AssertionError

    sizes = [(1, 2**28), (2**28, 1)]
    items = [
        Item(Record(image=name, noun="hand"), size, read)
        for name, size in zip("ab", sizes, strict=True)
    ]
    with pytest.raises(SourceError, match="too many"):
        stored(items, tmp_path, fit="pad")
