"""COCO panoptic, read by datumaro."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import datumaro as dm
import numpy as np
import pytest
from panoptics import seen

import maskcube
from maskcube.formats.panoptic import from_panoptic, to_panoptic


def _imported(export: Path, place: Path) -> Any:
    """Lay an export out as datumaro finds it, and import it."""
    folder = place / "annotations"
    folder.mkdir(parents=True)
    (place / "images").mkdir()
    shutil.copy(export / "panoptic.json", folder / "panoptic_val.json")
    shutil.copytree(export / "panoptic", folder / "panoptic_val")
    return dm.Dataset.import_from(str(place), "coco_panoptic")


@pytest.mark.parametrize("overlap", ["smallest", "score", "order"])
def test_datumaro_reads_what_is_seen(overlap: str, small_store: Path, tmp_path: Path) -> None:
    masks = maskcube.open_masks(small_store)
    to_panoptic(masks, tmp_path / "out", overlap=overlap, progress=False)
    dataset = _imported(tmp_path / "out", tmp_path / "in")
    nouns = [label.name for label in dataset.categories()[dm.AnnotationType.label].items]
    items = {item.id: item for item in dataset}
    for name in dict.fromkeys(masks.image.values):
        of = masks[masks.image.values == name]
        shown = seen(list(of.values.astype(bool)), of.score.values, overlap)
        expected = [
            (noun, mask) for noun, mask in zip(of.noun.values, shown, strict=True) if mask.any()
        ]
        found = {annotation.id: annotation for annotation in items[Path(name).stem].annotations}
        assert len(found) == len(expected)
        for number, (noun, mask) in enumerate(expected, 1):
            assert nouns[found[number].label] == noun
            np.testing.assert_array_equal(found[number].image.astype(bool), mask)


def test_what_datumaro_writes_comes_back(small_store: Path, tmp_path: Path) -> None:
    masks = maskcube.open_masks(small_store)
    to_panoptic(masks, tmp_path / "out", progress=False)
    from_panoptic(tmp_path / "out", tmp_path / "ours.zarr", progress=False)
    dataset = _imported(tmp_path / "out", tmp_path / "in")
    dataset.export(str(tmp_path / "theirs"), "coco_panoptic", save_media=False)
    [source] = (tmp_path / "theirs" / "annotations").glob("panoptic_*.json")
    from_panoptic(source, tmp_path / "theirs.zarr", progress=False)
    ours, theirs = (maskcube.open_masks(tmp_path / f"{name}.zarr") for name in ("ours", "theirs"))
    assert len(theirs) == len(ours)
    assert _known(theirs) == _known(ours)


def _known(masks: Any) -> set[tuple[str, str, bytes]]:
    """Return image, noun and pixels: all that another tool keeps."""
    return {
        (Path(image).stem, noun, mask.tobytes())
        for image, noun, mask in zip(
            masks.image.values, masks.noun.values, masks.values, strict=True
        )
    }
