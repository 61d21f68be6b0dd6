"""COCO's instances and results: as pycocotools reads them, and back into a store."""

from __future__ import annotations

import contextlib
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from pycocotools import mask as mask_module
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from stacks import HOLED, labelled

import maskcube
from maskcube.formats import coco, coco_file, coco_mask
from maskcube.formats.coco import to_coco
from maskcube.formats.coco_results import to_coco_results
from maskcube.formats.coco_source import from_coco, read_coco

# pycocotools' own, when it decodes on numpy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

CIRCLE = {"size": [4, 4], "counts": "52203"}
"""The four pixels in the middle."""
MIDDLE = np.zeros((4, 4), np.uint8)
MIDDLE[1:3, 1:3] = 1


def loaded(path: Path) -> Any:
    """Return a file as pycocotools reads it, without what it prints."""
    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(path)


def average_precision(path: Path, results: Path) -> float:
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(path)
        evaluation = COCOeval(truth, truth.loadRes(str(results)), "segm")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return float(evaluation.stats[0])


def lines_of(path: Path) -> Any:
    return json.loads(path.read_text())


def document(*annotations: Any, **more: Any) -> dict[str, Any]:
    """Return a small foreign file: an image, a category, and annotations of them."""
    each = [
        {"id": number, "image_id": 7, "category_id": 3, "segmentation": CIRCLE, **annotation}
        if isinstance(annotation, dict)
        else annotation
        for number, annotation in enumerate(annotations, 1)
    ]
    return {
        "images": [{"id": 7, "file_name": "a.jpg", "height": 4, "width": 4}],
        "categories": [{"id": 3, "name": "hand", "supercategory": "person"}],
        "annotations": each,
        **more,
    }


Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(content: Any, name: str = "a.json") -> Path:
        path = tmp_path / name
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    return write


def faults_of(path: Path, **options: Any) -> str:
    with pytest.raises(maskcube.SourceError) as raised:
        from_coco(path, path.with_suffix(".zarr"), progress=False, **options)
    assert not path.with_suffix(".zarr").exists()
    return str(raised.value)


class TestPycocotools:
    @pytest.mark.parametrize("segmentation", ["rle", "polygon"])
    def test_masks_are_equal_bit_by_bit(
        self, store: Path, tmp_path: Path, segmentation: str
    ) -> None:
        masks = maskcube.open_masks(store)[::3]
        path = tmp_path / "a.json"
        report = to_coco(masks, path, segmentation=segmentation, progress=False)
        masks = masks.load()
        found = loaded(path)
        assert [*found.imgs] == list(range(1, len(set(masks.image.values)) + 1))
        assert [found.cats[key]["name"] for key in sorted(found.cats)] == sorted(
            set(masks.noun.values)
        )
        assert [*found.anns] == (masks.mask_row.values + 1).tolist()
        for mask, key in zip(masks, found.anns, strict=True):
            entry = found.anns[key]
            np.testing.assert_array_equal(found.annToMask(entry), mask)
            assert entry["area"] == mask.values.sum() == mask.area
            assert found.imgs[entry["image_id"]]["file_name"] == mask.image
            assert found.cats[entry["category_id"]]["name"] == mask.noun
            lines, columns = np.nonzero(mask.values)
            box = [columns.min(), lines.min(), np.ptp(columns) + 1, np.ptp(lines) + 1]
            assert entry["bbox"] == (box if len(lines) else [0, 0, 0, 0])
            assert entry["iscrowd"] == 0
            np.testing.assert_equal(entry.get("score", np.nan), mask.score.item())
            edges = [mask[f"box_{edge}"].item() for edge in ("x0", "y0", "x1", "y1")]
            np.testing.assert_array_equal(np.array(entry["box_xyxy"], float), edges)
            assert (entry["instance_id"], entry["mask_row"]) == (mask.instance, mask.mask_row)
            assert entry.get("mask_file", "") == mask.mask_file
        assert (report.n_masks, report.changed) == (len(masks), [])
        assert report.size_bytes == path.stat().st_size
        assert "every pixel of every mask is there" in str(report)

    def test_results_of_what_is_there_are_perfect(self, store: Path, tmp_path: Path) -> None:
        masks = maskcube.open_masks(store)
        masks = masks[masks.area > 0]
        to_coco(masks, tmp_path / "a.json", progress=False)
        to_coco_results(masks, tmp_path / "b.json", score=0.5, progress=False)
        assert average_precision(tmp_path / "a.json", tmp_path / "b.json") == 1
        shifted = masks.copy(data=np.roll(masks.values, 30, axis=2))
        to_coco_results(shifted, tmp_path / "c.json", score=0.5, progress=False)
        assert average_precision(tmp_path / "a.json", tmp_path / "c.json") < 0.9

    def test_results_have_no_box_and_the_ids_of_the_instances(
        self, store: Path, tmp_path: Path
    ) -> None:
        masks = maskcube.open_masks(store).sel(noun=["hand", "fingers"])
        to_coco(masks, tmp_path / "a.json", progress=False)
        to_coco_results(masks, tmp_path / "b.json", score=0.5, progress=False)
        truth, results = loaded(tmp_path / "a.json"), lines_of(tmp_path / "b.json")
        keys = ["image_id", "category_id", "segmentation"]
        assert [{key: entry[key] for key in keys} for entry in truth.anns.values()] == [
            {key: entry[key] for key in keys} for entry in results
        ]
        assert {*map(frozenset, results)} == {frozenset([*keys, "score"])}

    def test_an_empty_mask_survives(self, tmp_path: Path) -> None:
        """An empty list of polygons is an error to pycocotools."""
        for segmentation in ("rle", "polygon"):
            masks = labelled(np.zeros((1, 3, 5), np.uint8))
            path = tmp_path / f"{segmentation}.json"
            to_coco(masks, path, segmentation=segmentation, progress=False)
            found = loaded(path)
            assert not found.annToMask(found.anns[1]).any()
            assert (found.anns[1]["area"], found.anns[1]["bbox"]) == (0, [0, 0, 0, 0])
            (item,) = read_coco(path).items
            assert not item.read().any()

    def test_a_full_mask(self, tmp_path: Path) -> None:
        to_coco(labelled(np.ones((1, 3, 5), np.uint8)), tmp_path / "a.json", progress=False)
        found = loaded(tmp_path / "a.json")
        assert found.annToMask(found.anns[1]).all()
        assert found.anns[1]["bbox"] == [0, 0, 5, 3]

    def test_holes_are_cut_open(self, tmp_path: Path) -> None:
        masks = labelled(np.stack([HOLED, 1 - HOLED]))
        to_coco(masks, tmp_path / "a.json", segmentation="polygon", progress=False)
        found = loaded(tmp_path / "a.json")
        for entry, mask in zip(found.anns.values(), masks.values, strict=True):
            np.testing.assert_array_equal(found.annToMask(entry), mask)
            assert all(len(ring) >= 8 for ring in entry["segmentation"])


class TestExport:
    def test_what_a_polygon_loses_is_told(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Ours lose nothing; the report is not taken from there."""
        ring = np.array([[0, 0], [2, 0], [2, 3], [0, 3]])
        monkeypatch.setattr(coco, "rings_of", lambda _: [ring])
        masks = labelled(np.ones((1, 3, 5), np.uint8))
        report = to_coco(masks, tmp_path / "a.json", segmentation="polygon", progress=False)
        assert [(mask.area, mask.visible) for mask in report.masks] == [(15, 6)]
        assert "9 of 15 pixels" in str(report)

    def test_masks_in_memory_and_boolean(self, tmp_path: Path) -> None:
        masks = labelled(np.stack([MIDDLE, 1 - MIDDLE])) > 0
        to_coco(masks, tmp_path / "a.json", progress=False)
        entries = lines_of(tmp_path / "a.json")["annotations"]
        assert entries[0]["segmentation"] == CIRCLE
        assert [entry["area"] for entry in entries] == [4, 12]

    def test_none_at_all(self, tmp_path: Path, store: Path) -> None:
        masks = maskcube.open_masks(store)[:0]
        to_coco(masks, tmp_path / "a.json", progress=False)
        to_coco_results(masks, tmp_path / "b.json", progress=False)
        found = lines_of(tmp_path / "a.json")
        assert [found[key] for key in ("images", "categories", "annotations")] == [[], [], []]
        assert lines_of(tmp_path / "b.json") == []
        assert "has no masks" in faults_of(tmp_path / "a.json")

    def test_ids_are_counted_where_rows_are_not_distinct(self, tmp_path: Path) -> None:
        masks = labelled(np.zeros((3, 2, 2), np.uint8), ["a", "b", "a"], mask_row=[5, 5, 9])
        to_coco(masks, tmp_path / "a.json", progress=False)
        entries = lines_of(tmp_path / "a.json")["annotations"]
        assert [(entry["id"], entry["mask_row"]) for entry in entries] == [(1, 5), (2, 9), (3, 5)]

    def test_no_id_is_0_and_nothing_is_nan(self, small_store: Path, tmp_path: Path) -> None:
        masks = maskcube.open_masks(small_store)
        assert masks.score.isnull().any()
        assert (masks.mask_row == 0).any()
        to_coco(masks, tmp_path / "a.json", progress=False)
        text = (tmp_path / "a.json").read_text()
        found = json.loads(text, parse_constant=pytest.fail)
        for name in ("images", "categories", "annotations"):
            assert min(entry["id"] for entry in found[name]) == 1
        assert sum("score" not in entry for entry in found["annotations"]) == int(
            masks.score.isnull().sum()
        )
        assert any(None in entry["box_xyxy"] for entry in found["annotations"])

    def test_supercategories(self, tmp_path: Path) -> None:
        masks = labelled(np.zeros((2, 2, 2), np.uint8), nouns=["hand", "cup"])
        to_coco(masks, tmp_path / "a.json", supercategories={"hand": "person"}, progress=False)
        assert lines_of(tmp_path / "a.json")["categories"] == [
            {"id": 1, "name": "cup", "supercategory": "object"},
            {"id": 2, "name": "hand", "supercategory": "person"},
        ]
        wrong: Any = {"hand": 3}
        with pytest.raises(maskcube.InvalidOption, match=r"supercategories\['hand'\]=3"):
            to_coco(masks, tmp_path / "b.json", supercategories=wrong, progress=False)
        assert [path.name for path in tmp_path.iterdir() if path.suffix != ".lock"] == ["a.json"]

    def test_a_file_is_not_replaced_unasked(self, tmp_path: Path) -> None:
        masks = labelled(np.zeros((1, 2, 2), np.uint8))
        to_coco(masks, tmp_path / "a.json", progress=False)
        before = (tmp_path / "a.json").read_bytes()
        for export in (to_coco, to_coco_results):
            with pytest.raises(maskcube.StoreExists):
                export(masks, tmp_path / "a.json", progress=False)
        assert (tmp_path / "a.json").read_bytes() == before
        to_coco_results(masks, tmp_path / "a.json", overwrite=True, progress=False)
        assert (tmp_path / "a.json").read_bytes() != before

    def test_a_mask_that_cannot_be_read_leaves_no_file(self, tmp_path: Path) -> None:
        masks = labelled(np.full((1, 2, 2), 7, np.uint8))
        with pytest.raises(maskcube.InvalidOption, match="other than 0 and 1"):
            to_coco(masks, tmp_path / "a.json", progress=False)
        assert not [path for path in tmp_path.iterdir() if path.suffix != ".lock"]

    @pytest.mark.parametrize(
        "options", [{"segmentation": "rles"}, {"dialect": "LVIS"}, {"segmentation": None}]
    )
    def test_words_that_mean_nothing(self, tmp_path: Path, options: Any) -> None:
        masks = labelled(np.zeros((1, 2, 2), np.uint8))
        with pytest.raises(maskcube.InvalidOption, match="give one of"):
            to_coco(masks, tmp_path / "a.json", **options)

    def test_polygons_need_pycocotools_and_runs_do_not(
        self, tmp_path: Path, write: Write, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "pycocotools.mask", None)
        masks = labelled(MIDDLE[None])
        to_coco(masks, tmp_path / "a.json", progress=False)
        assert (read_coco(tmp_path / "a.json").items[0].read() == MIDDLE).all()
        with pytest.raises(maskcube.MissingDependency, match=r'pip install "maskcube\[coco\]"'):
            to_coco(masks, tmp_path / "b.json", segmentation="polygon", progress=False)
        assert not (tmp_path / "b.json").exists()
        path = write(document({"segmentation": [[0, 0, 2, 0, 2, 2]]}), "c.json")
        with pytest.raises(maskcube.MissingDependency, match="filling polygons needs"):
            from_coco(path, tmp_path / "c.zarr", progress=False)
        assert not [path for path in tmp_path.iterdir() if "zarr" in path.name]


class TestResults:
    def test_masks_without_a_score_are_left_out_and_told(self, tmp_path: Path) -> None:
        masks = labelled(np.ones((3, 2, 2), np.uint8), score=[0.25, np.nan, 1])
        report = to_coco_results(masks, tmp_path / "a.json", progress=False)
        assert [entry["score"] for entry in lines_of(tmp_path / "a.json")] == [0.25, 1]
        assert [mask.instance for mask in report.dropped] == [1]
        assert "1 left out: 'hand 1 of a.jpg'" in str(report)
        report = to_coco_results(masks, tmp_path / "b.json", score=0.5, progress=False)
        assert [entry["score"] for entry in lines_of(tmp_path / "b.json")] == [0.25, 0.5, 1]
        assert report.dropped == []

    def test_the_ids_of_another_file(self, tmp_path: Path, write: Write) -> None:
        truth = document(categories=[{"id": "x", "name": "hand"}, {"id": 0, "name": "cup"}])
        path = write(truth, "truth.json")
        masks = labelled(MIDDLE[None])
        to_coco_results(masks, tmp_path / "a.json", annotations=path, progress=False)
        (entry,) = lines_of(tmp_path / "a.json")
        assert (entry["image_id"], entry["category_id"]) == (7, "x")
        masks = labelled(np.stack([MIDDLE] * 2), ["a.jpg", "b.jpg"], ["sky", "hand"])
        with pytest.raises(maskcube.SourceError) as raised:
            to_coco_results(masks, tmp_path / "b.json", annotations=path, progress=False)
        assert raised.value.faults == ("has no image 'b.jpg'", "has no category 'sky'")
        assert not (tmp_path / "b.json").exists()

    def test_ids_that_are_not_clear(self, tmp_path: Path, write: Write) -> None:
        twice = [{"id": key, "file_name": "a.jpg", "height": 4, "width": 4} for key in (1, 2)]
        path = write(document(images=twice), "truth.json")
        with pytest.raises(maskcube.SourceError, match=r"images 'a.jpg' are there twice"):
            to_coco_results(
                labelled(MIDDLE[None]), tmp_path / "a.json", annotations=path, progress=False
            )

    @pytest.mark.parametrize("score", [np.inf, "0.5", True])
    def test_a_score_that_is_none(self, tmp_path: Path, score: Any) -> None:
        with pytest.raises(maskcube.InvalidOption, match="score must be a finite number"):
            to_coco_results(labelled(MIDDLE[None]), tmp_path / "a.json", score=score)


class TestLvis:
    def test_what_its_files_have(self, tmp_path: Path) -> None:
        """The keys that https://www.lvisdataset.org/dataset lists, but for what we cannot know."""
        images = [f"{n}.jpg" for n in range(112)]
        nouns = ["rare"] * 5 + ["common"] * 11 + ["frequent"] * 101
        masks = labelled(
            np.zeros((117, 2, 2), np.uint8), [*["0.jpg"] * 5, *images[:11], *images[:101]], nouns
        )
        report = to_coco(masks, tmp_path / "a.json", dialect="lvis", progress=False)
        assert report.format == "lvis"
        found = lines_of(tmp_path / "a.json")
        told = {
            each["name"]: (each["frequency"], each["image_count"], each["instance_count"])
            for each in found["categories"]
        }
        assert told == {
            "rare": ("r", 1, 5),
            "common": ("c", 11, 11),
            "frequent": ("f", 101, 101),
        }
        for each in found["categories"]:
            assert {"synset", "synonyms", "def"} < set(each)
        for each in found["images"]:
            assert (each["neg_category_ids"], each["not_exhaustive_category_ids"]) == ([], [])
        assert not any("iscrowd" in each for each in found["annotations"])

    def test_version_1_has_urls_and_no_file_names(self, write: Write) -> None:
        url = "http://images.cocodataset.org/val2017/000000397133.jpg?size=3"
        images = [
            {
                "id": 7,
                "coco_url": url,
                "height": 4,
                "width": 4,
                "neg_category_ids": [3],
                "not_exhaustive_category_ids": [],
            }
        ]
        found = read_coco(write(document({"area": 4.0}, images=images)))
        assert found.faults == []
        assert found.items[0].record.image == "val2017/000000397133.jpg"
        assert found.lost == ["neg_category_ids of images are not kept"]


def assert_same(found: xr.DataArray, expected: xr.DataArray) -> None:
    """Compare pixels and every coordinate, of the same values and dtypes."""
    np.testing.assert_array_equal(found.values, expected.values)
    assert set(found.coords) == set(expected.coords)
    for name in expected.coords:
        assert found[name].dtype == expected[name].dtype
        np.testing.assert_array_equal(found[name].values, expected[name].values)


class TestThereAndBack:
    @pytest.mark.parametrize("segmentation", ["rle", "polygon"])
    @pytest.mark.parametrize("dialect", ["coco", "lvis"])
    def test_the_store_is_the_same(
        self, small_store: Path, tmp_path: Path, segmentation: str, dialect: str
    ) -> None:
        masks = maskcube.open_masks(small_store)
        path = tmp_path / "a.json"
        to_coco(masks, path, segmentation=segmentation, dialect=dialect, progress=False)
        report = from_coco(path, tmp_path / "b.zarr", progress=False)
        assert report.n_masks == len(masks)
        assert_same(maskcube.open_masks(tmp_path / "b.zarr"), masks)
        assert maskcube.verify(tmp_path / "b.zarr").n_masks == len(masks)

    def test_of_the_sample(self, store: Path, tmp_path: Path) -> None:
        masks = maskcube.open_masks(store)[:40]
        to_coco(masks, tmp_path / "a.json", progress=False)
        from_coco(tmp_path / "a.json", tmp_path / "b.zarr", progress=False)
        assert_same(maskcube.open_masks(tmp_path / "b.zarr"), masks)

    def test_results_bring_pixels_labels_and_scores(
        self, small_store: Path, tmp_path: Path
    ) -> None:
        masks = maskcube.open_masks(small_store)
        masks = masks[masks.score.notnull()]
        to_coco(masks, tmp_path / "a.json", progress=False)
        to_coco_results(masks, tmp_path / "b.json", progress=False)
        from_coco(
            tmp_path / "b.json",
            tmp_path / "c.zarr",
            annotations=tmp_path / "a.json",
            progress=False,
        )
        found = maskcube.open_masks(tmp_path / "c.zarr")
        order = np.argsort(
            [[*dict.fromkeys(masks.image.values)].index(each) for each in masks.image.values],
            kind="stable",
        )
        np.testing.assert_array_equal(found.values, masks.values[order])
        for name in ("image", "noun", "score"):
            np.testing.assert_array_equal(found[name].values, masks[name].values[order])


class TestForeignFiles:
    def test_every_way_to_tell_a_mask(self, write: Write, tmp_path: Path) -> None:
        told: list[Any] = [
            CIRCLE,
            {"size": [4, 4], "counts": [5, 2, 2, 2, 5]},
            {"size": [4, 4], "counts": [5, 2, 2, 0, 0, 2, 5, 0]},
            [[1, 1, 3, 1, 3, 3, 1, 3]],
            [[1.0, 1.0, 2.0, 1.0, 2.0, 3.0, 1.0, 3.0], [2, 1, 3, 1, 3, 3, 2, 3]],
            [[1, 1, 3, 1, 3, 3, 1, 3], [1, 1, 3, 1, 3, 3, 1, 3]],
        ]
        path = write(document(*[{"segmentation": each} for each in told]))
        from_coco(path, tmp_path / "a.zarr", progress=False)
        masks = maskcube.open_masks(tmp_path / "a.zarr")
        for mask in masks.values:
            np.testing.assert_array_equal(mask, MIDDLE)
        assert masks.instance.values.tolist() == [0, 1, 2, 3, 4, 5]
        assert masks.noun.values.tolist() == ["hand"] * 6
        assert masks.score.isnull().all()

    def test_bytes_that_were_written_as_python_shows_them(self, write: Write) -> None:
        """As ``str(counts)`` does, where ``counts.decode()`` was meant."""
        mask = np.zeros((50, 50), np.uint8)
        mask[44:, 0] = 1
        counts = mask_module.encode(np.asfortranarray(mask))["counts"]
        assert b"\\" in counts
        told = {"size": [50, 50], "counts": str(counts)}
        images = [{"id": 7, "file_name": "a.jpg", "height": 50, "width": 50}]
        (item,) = read_coco(write(document({"segmentation": told}, images=images))).items
        np.testing.assert_array_equal(item.read(), mask)

    def test_instances_are_counted_by_score(self, write: Write, tmp_path: Path) -> None:
        scores = [0.1, 0.9, None, 0.5]
        path = write(document(*[{"score": each} for each in scores]))
        from_coco(path, tmp_path / "a.zarr", progress=False)
        masks = maskcube.open_masks(tmp_path / "a.zarr")
        assert masks.instance.values.tolist() == [2, 0, 3, 1]

    def test_the_box_is_that_of_the_file(self, write: Write) -> None:
        path = write(
            document(
                {"bbox": [1, 2, 3.5, 0]},
                {"bbox": [1, 2, 3, 4], "box_xyxy": [0, None, 5, 6]},
                {"bbox": None},
            )
        )
        found = [item.record.box for item in read_coco(path).items]
        assert found == [(1, 2, 4.5, 2), (0, None, 5, 6), (None,) * 4]

    def test_crowds_are_masks_or_left_out(self, write: Write, tmp_path: Path) -> None:
        path = write(document({"iscrowd": 1}, {"iscrowd": 0}))
        with pytest.warns(UserWarning, match="iscrowd are masks as others are: 1"):
            from_coco(path, tmp_path / "a.zarr", progress=False)
        assert len(maskcube.open_masks(tmp_path / "a.zarr")) == 2
        with pytest.warns(UserWarning, match="iscrowd are left out: 1"):
            from_coco(path, tmp_path / "b.zarr", crowd="skip", progress=False)
        assert len(maskcube.open_masks(tmp_path / "b.zarr")) == 1

    def test_boxes_alone_are_refused_or_left_out(self, write: Write, tmp_path: Path) -> None:
        path = write(
            document({"segmentation": []}, {}, {"segmentation": None, "bbox": [0, 0, 2, 2]})
        )
        assert "annotation 1, 3 has no segmentation" in faults_of(path)
        with pytest.warns(UserWarning, match="without a segmentation are left out: 2"):
            from_coco(path, tmp_path / "b.zarr", without_mask="skip", progress=False)
        assert len(maskcube.open_masks(tmp_path / "b.zarr")) == 1

    def test_odd_ids(self, write: Write) -> None:
        """0, text, a whole float, negative, large."""
        keys: list[Any] = [0, "img-1", 3.0, -4, 2**70]
        sizes = {"height": 4, "width": 4}
        content = document(
            *[{"image_id": key, "category_id": key, "id": 0} for key in keys],
            images=[{"id": key, "file_name": f"f/{key}.b.jpg", **sizes} for key in keys],
            categories=[{"id": key, "name": f"n{key}"} for key in keys],
        )
        found = read_coco(write(content))
        assert found.faults == []
        assert [item.record.image for item in found.items] == [f"f/{key}.b.jpg" for key in keys]
        assert [item.record.noun for item in found.items] == [f"n{key}" for key in keys]

    def test_images_without_masks_are_told(self, write: Write) -> None:
        more = [{"id": key, "file_name": f"{key}.jpg", "height": 9, "width": 9} for key in (8, 9)]
        content = document({})
        content["images"] += more
        assert read_coco(write(content)).lost == ["images without masks are not in the store: 2"]

    def test_a_size_may_be_that_of_the_counts(self, write: Write) -> None:
        path = write(document({}, images=[{"id": 7, "file_name": "a.jpg"}]))
        assert read_coco(path).items[0].size == (4, 4)
        polygon = {"segmentation": [[0, 0, 2, 0, 2, 2]]}
        path = write(document(polygon, images=[{"id": 7, "file_name": "a.jpg"}]))
        assert "has polygons, but its image no height and width" in faults_of(path)

    def test_a_name_that_no_annotation_uses_may_be_there_twice(self, write: Write) -> None:
        """As in files of Roboflow, whose category 0 has the name of another."""
        names = [{"id": 0, "name": "hand"}, {"id": 3, "name": "hand"}]
        assert read_coco(write(document({}, categories=names))).faults == []
        both = document({}, {"category_id": 0}, categories=names)
        assert "categories 3, 0 have the same name 'hand'" in faults_of(write(both))

    def test_sizes_that_differ(self, write: Write, tmp_path: Path) -> None:
        content = document({}, {"image_id": 8, "segmentation": [[0, 0, 2, 0, 2, 1, 0, 1]]})
        content["images"].append({"id": 8, "file_name": "b.jpg", "height": 2, "width": 6})
        assert "masks have several sizes" in faults_of(write(content))
        from_coco(write(content), tmp_path / "b.zarr", fit="pad", progress=False)
        found = maskcube.open_masks(tmp_path / "b.zarr")
        assert found.shape == (2, 4, 6)
        np.testing.assert_array_equal(found[0, :, :4], MIDDLE)
        assert found[1].sum() == found[1, 0, :2].sum() == 2

    def test_results_need_their_images(self, write: Write, tmp_path: Path) -> None:
        entry = {"image_id": 7, "category_id": 3, "segmentation": CIRCLE, "score": 0.5}
        results, truth = write([entry, {**entry, "score": 0.75}], "r.json"), write(document())
        assert "give the file of their images as annotations=" in faults_of(results)
        from_coco(results, tmp_path / "b.zarr", annotations=truth, progress=False)
        found = maskcube.open_masks(tmp_path / "b.zarr")
        assert found.instance.values.tolist() == [1, 0]
        with pytest.raises(maskcube.InvalidOption, match="has images of its own"):
            read_coco(truth, annotations=truth)

    @pytest.mark.parametrize("options", [{"crowd": "no"}, {"without_mask": None}])
    def test_words_that_mean_nothing(self, write: Write, options: Any) -> None:
        with pytest.raises(maskcube.InvalidOption, match="give one of"):
            read_coco(write(document({})), **options)

    def test_a_mark_at_the_beginning(self, tmp_path: Path) -> None:
        path = tmp_path / "a.json"
        path.write_bytes(b"\xef\xbb\xbf" + json.dumps(document({})).encode())
        assert len(read_coco(path).items) == 1


class TestHostileFiles:
    def test_all_faults_are_told_at_once(self, write: Write) -> None:
        content = document(
            {},
            {"image_id": 99},
            {"category_id": None},
            {"segmentation": {"size": [4, 4], "counts": "5220"}},
            {"segmentation": {"size": [4, 4], "counts": [5, -2, 2, 2, 9]}},
            {"segmentation": {"size": [4, 4], "counts": [16, 1]}},
            {"segmentation": {"size": [5, 4], "counts": [20]}},
            {"segmentation": [[0, 0, 1, 1]]},
            {"segmentation": [[0, 0, 1e30, 0, 1, 1]]},
            {"segmentation": "x"},
            {"iscrowd": "yes"},
            {"score": "high"},
            {"bbox": [1, 2, 3]},
            "no object",
        )
        content["images"] += [{"id": 7, "file_name": "b.jpg"}, {"file_name": "c.jpg"}]
        content["categories"] += [{"id": 4, "name": ""}, [1]]
        told = faults_of(write(content)).splitlines()
        found = [line.removeprefix("  - ") for line in told[1:]]
        assert found == [
            "image 7 is there twice",
            "image 2 has no id",
            "category 4 is wrong: name must be a text, found ''",
            "category 2 has no id",
            "annotation 2 has image_id 99, which is none of the file's",
            "annotation 3 has category_id None, which is none of the file's",
            "annotation 4, 6 has counts that do not sum up to the 4 x 4 pixels of its image",
            "annotation 5 has counts that are no integers from 0 to 16",
            "annotation 7 has counts of (height, width) (5, 4), and its image has (4, 4)",
            "annotation 8 has a polygon of 4 numbers: x and y of at least 3 points",
            "annotation 9 has a polygon that is no list of numbers within reach of its image",
            "annotation 10 has a segmentation that is neither polygons nor counts",
            "annotation 11 has iscrowd 'yes', which is neither 0 nor 1",
            "annotation 12 score must be a finite number, found 'high'",
            "annotation 13 has a bbox that is no list of 4 numbers",
            "annotation 'at 13' is no object",
        ]

    @pytest.mark.parametrize(
        "counts",
        [
            "52203`",
            "oooooooooooooooooooooooooooooo",
            "o" * 7 + "0",
            "\x00",
            "~",
            "é",
            "",
            "b'52203",
            "b'",
            "52203\n",
            "@0" * 40,
            [],
            [17],
            [16.0],
            [True] * 16,
            [2**63, -(2**63) + 16],
            [2**64],
            ["16"],
            [[16]],
            16,
            None,
            {"counts": "16"},
        ],
    )
    def test_counts(self, write: Write, counts: Any) -> None:
        """Too few counts are decoded by pycocotools to what was in memory before."""
        path = write(document({"segmentation": {"size": [4, 4], "counts": counts}}))
        assert "annotation 1 has" in faults_of(path)

    @pytest.mark.parametrize(
        "size", [None, 16, [4], [4, 4, 1], [4.0, 4], ["4", 4], [0, 0], [-4, -4], [True, 16], [2, 8]]
    )
    def test_sizes_of_counts(self, write: Write, size: Any) -> None:
        path = write(document({"segmentation": {"size": size, "counts": [16]}}))
        assert "annotation 1" in faults_of(path)

    @pytest.mark.parametrize("height", [10**6, 2**31, 10**400])
    def test_images_that_would_take_all_memory(self, write: Write, height: int) -> None:
        """A few bytes of JSON announce a million times a million pixels."""
        huge = {"size": [height, height], "counts": [height * height]}
        path = write(document({"segmentation": huge}, images=[{"id": 7, "file_name": "a.jpg"}]))
        assert "larger than the 268,435,456 pixels" in faults_of(path)
        sides = {"height": height, "width": height}
        path = write(document({}, images=[{"id": 7, "file_name": "a.jpg", **sides}]))
        assert "larger than the 268,435,456 pixels" in faults_of(path)

    @pytest.mark.parametrize(
        "ring",
        [
            [0, 0, 1e9, 0, 1e9, 1e9, 0, 1e9],
            [0, 0, 1e18, 0, 3, 3],
            [0, 0, float("inf"), 0, 3, 3],
            [0, 0, float("nan"), 0, 3, 3],
            [0, 0, 10**400, 0, 3, 3],
            [0, 0, 1e6, 0] * 50,
            [0, 0, True, 0, "3", 3],
            [[0, 0], [3, 0], [3, 3]],
            [0, 0, 3, 0, 3],
            "polygon",
            {"0": 0},
            7,
        ],
    )
    def test_polygons(self, write: Write, ring: Any) -> None:
        """The first three crash pycocotools, and the sixth takes all memory."""
        path = write(document({"segmentation": [ring]}))
        assert "annotation 1 has" in faults_of(path)
        assert "polygon" in faults_of(path)

    def test_many_polygons_that_are_no_outlines(self, write: Write) -> None:
        """Each is short enough; together they would take pycocotools minutes."""
        ring = [0, 0, 5_000, 0, 5_000, 5_000, 0, 5_000]
        path = write(document({"segmentation": [ring] * 50}))
        assert "has polygons with an edge of 1,000,000 pixels" in faults_of(path)

    def test_polygons_beside_their_image_are_cut_off(self, write: Write) -> None:
        path = write(document({"segmentation": [[-50, -50, 90, -50, 90, 2, -50, 2]]}))
        found = read_coco(path).items[0].read()
        np.testing.assert_array_equal(found, [[1] * 4, [1] * 4, [0] * 4, [0] * 4])

    @pytest.mark.parametrize(
        ("text", "found"),
        [
            ("", "is no JSON"),
            ("{", "is no JSON"),
            ("[" * 100_000, "nested too deep"),
            ('{"a":' * 100_000, "nested too deep"),
            ("1" * 5000, "is no JSON"),
            ("null", "must be an object with images"),
            ("{}", "no list of images"),
            ('{"images": {}}', "no list of images"),
            ('{"images": []}', "no list of categories"),
            ('{"images": [], "categories": []}', "no list of annotations"),
            ('{"images": [], "categories": [], "annotations": []}', "has no masks"),
        ],
    )
    def test_files_that_are_none_of_coco(self, write: Write, text: str, found: str) -> None:
        assert found in faults_of(write(text))

    def test_bytes_that_are_no_text(self, tmp_path: Path) -> None:
        path = tmp_path / "a.json"
        path.write_bytes(b'{"images": "\xff\xfe"}')
        assert "is no JSON" in faults_of(path)

    def test_no_file(self, tmp_path: Path) -> None:
        with pytest.raises(maskcube.SourceNotFound, match="there is no such file"):
            read_coco(tmp_path / "a.json")
        with pytest.raises(FileNotFoundError):
            read_coco(tmp_path)

    def test_a_file_that_is_too_large(self, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(coco_file, "_MOST_BYTES", 2**8)
        assert "is larger than" in faults_of(write(document(*[{}] * 9)))

    def test_text_that_is_too_long_is_not_looked_at(
        self, write: Write, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(coco_mask, "_MOST_TEXT", 4)
        assert "counts of more than 4 characters" in faults_of(write(document({})))

    @pytest.mark.parametrize("name", ["\ud800", "", "a\0b", 3, None, ["a"]])
    def test_names(self, write: Write, name: Any) -> None:
        sides = {"height": 4, "width": 4}
        path = write(document({}, images=[{"id": 7, "file_name": name, **sides}]))
        assert "image 7 is wrong: file_name must be a text" in faults_of(path)
        path = write(document({}, categories=[{"id": 3, "name": name}]))
        assert "category 3 is wrong: name must be a text" in faults_of(path)

    @pytest.mark.parametrize("url", [3, "", "http://[", "http://h"])
    def test_urls(self, write: Write, url: Any) -> None:
        path = write(document({}, images=[{"id": 7, "coco_url": url, "height": 4, "width": 4}]))
        assert "image 7 is wrong: file_name must be a text" in faults_of(path)

    @pytest.mark.parametrize("name", ["../../x.png", "/etc/passwd", "C:\\x", "CON", "x" * 300])
    def test_names_are_labels_and_open_nothing(
        self, write: Write, tmp_path: Path, name: str
    ) -> None:
        sides = {"height": 4, "width": 4}
        path = write(document({}, images=[{"id": 7, "file_name": name, **sides}]))
        from_coco(path, tmp_path / "b.zarr", progress=False)
        assert maskcube.open_masks(tmp_path / "b.zarr").image.values.tolist() == [name]

    def test_two_images_of_one_name(self, write: Write) -> None:
        content = document({}, {"image_id": 8})
        content["images"].append({"id": 8, "file_name": "a.jpg", "height": 4, "width": 4})
        assert "images 7, 8 have the same name 'a.jpg'" in faults_of(write(content))

    def test_the_same_image_noun_and_instance_twice(self, write: Write, tmp_path: Path) -> None:
        path = write(document({"instance_id": 2}, {"instance_id": 2}, {}))
        assert "twice: ('a.jpg', 'hand', 2)" in faults_of(path)
        from_coco(path, tmp_path / "b.zarr", allow_duplicates=True, progress=False)
        assert maskcube.open_masks(tmp_path / "b.zarr").instance.values.tolist() == [2, 2, 0]

    def test_ids_of_other_types_are_others(self, write: Write) -> None:
        for wrong in ("7", 7.5, True, [7], {"id": 7}):
            assert "annotation 1 has image_id" in faults_of(write(document({"image_id": wrong})))

    def test_panoptic_files_are_sent_to_their_own(self, write: Write) -> None:
        path = write(document({"segments_info": [], "segmentation": None}))
        assert "annotation 1 is one of COCO panoptic" in faults_of(path)
