"""COCO's files as other tools than pycocotools read them."""

from __future__ import annotations

import contextlib
import io
import warnings
from pathlib import Path
from typing import Any

import datumaro
import numpy as np
import pytest
import xarray as xr
from faster_coco_eval import COCO, COCOeval_faster
from lvis import LVIS, LVISEval, LVISResults
from stacks import HOLED, labelled

import maskcube
from maskcube.formats.coco import to_coco
from maskcube.formats.coco_results import to_coco_results


@pytest.fixture(scope="module")
def masks(store: Path) -> xr.DataArray:
    """Return masks of the sample that have pixels: others match nothing in an evaluation."""
    found = maskcube.open_masks(store)[::3]
    return found[found.area > 0].load()


@pytest.fixture(params=["rle", "polygon"])
def segmentation(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def shifted(masks: xr.DataArray) -> xr.DataArray:
    """Return what a poor detector finds."""
    return masks.copy(data=np.roll(masks.values, 30, axis=2))


class TestFasterCocoEval:
    def average_precision(self, truth: Path, results: Path) -> float:
        with contextlib.redirect_stdout(io.StringIO()):
            found = COCO(str(truth))
            evaluation = COCOeval_faster(found, found.loadRes(str(results)), "segm")
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        return float(evaluation.stats[0])

    def test_what_is_there_is_perfect(
        self, masks: xr.DataArray, tmp_path: Path, segmentation: str
    ) -> None:
        truth, results = tmp_path / "a.json", tmp_path / "b.json"
        to_coco(masks, truth, segmentation=segmentation, progress=False)
        to_coco_results(masks, results, score=0.5, progress=False)
        assert self.average_precision(truth, results) == 1
        to_coco_results(
            shifted(masks), results, annotations=truth, score=0.5, overwrite=True, progress=False
        )
        assert self.average_precision(truth, results) < 0.9

    def test_masks_are_equal_bit_by_bit(self, tmp_path: Path, segmentation: str) -> None:
        masks = labelled(np.stack([HOLED, 1 - HOLED]))
        to_coco(masks, tmp_path / "a.json", segmentation=segmentation, progress=False)
        found = COCO(str(tmp_path / "a.json"))
        for entry, mask in zip(found.anns.values(), masks.values, strict=True):
            np.testing.assert_array_equal(found.annToMask(entry), mask)


class TestDatumaro:
    def test_masks_labels_and_properties(self, masks: xr.DataArray, tmp_path: Path) -> None:
        """It reads them in another order, and drops what is not COCO's but for the score."""
        to_coco(masks, tmp_path / "annotations/instances_all.json", progress=False)
        (tmp_path / "images/all").mkdir(parents=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = datumaro.Dataset.import_from(str(tmp_path), "coco_instances")
        labels = found.categories()[datumaro.AnnotationType.label]
        images = {item.id: item for item in found}
        assert set(images) == {Path(name).stem for name in masks.image.values}
        # Each annotation becomes a mask and a box.
        read = {
            each.id: (item, each)
            for item in images.values()
            for each in item.annotations
            if each.type == datumaro.AnnotationType.mask
        }
        rows = (masks.mask_row.values + 1).tolist()
        assert sorted(read) == rows
        for mask, row in zip(masks, rows, strict=True):
            item, each = read[row]
            np.testing.assert_array_equal(each.image, mask)
            assert item.id == Path(str(mask.image.item())).stem
            assert labels[each.label].name == mask.noun
            assert not each.attributes["is_crowd"]
            if not np.isnan(mask.score):
                assert each.attributes["score"] == mask.score


class TestLvis:
    def average_precision(
        self, truth: Path, results: Path, monkeypatch: pytest.MonkeyPatch
    ) -> float:
        # What numpy had until 1.24 is all that keeps lvis 0.5 from evaluating.
        monkeypatch.setattr(np, "float", float, raising=False)
        found = LVIS(str(truth))
        evaluation = LVISEval(found, LVISResults(found, str(results)), "segm")
        evaluation.run()
        return float(evaluation.get_results()["AP"])

    def test_what_is_there_is_perfect(
        self,
        masks: xr.DataArray,
        tmp_path: Path,
        segmentation: str,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        truth, results = tmp_path / "a.json", tmp_path / "b.json"
        options: dict[str, Any] = {"segmentation": segmentation, "dialect": "lvis"}
        to_coco(masks, truth, **options, progress=False)
        to_coco_results(masks, results, score=0.5, progress=False)
        assert self.average_precision(truth, results, monkeypatch) == 1
        to_coco_results(shifted(masks), results, score=0.5, overwrite=True, progress=False)
        assert self.average_precision(truth, results, monkeypatch) < 0.9

    def test_masks_are_equal_bit_by_bit(
        self, masks: xr.DataArray, tmp_path: Path, segmentation: str
    ) -> None:
        path = tmp_path / "a.json"
        to_coco(masks, path, segmentation=segmentation, dialect="lvis", progress=False)
        found = LVIS(str(path))
        for mask, row in zip(masks.values, masks.mask_row.values, strict=True):
            np.testing.assert_array_equal(found.ann_to_mask(found.anns[int(row) + 1]), mask)
