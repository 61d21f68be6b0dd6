"""COCO panoptic and the overlap rule, told again without maskcube.

The rules are those of panopticapi, which cannot be installed from an index: it raises where an id
is in the JSON and not in the PNG, or the other way round, or where a category is not known.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Mask = NDArray[np.bool_]


class Segment(NamedTuple):
    """One segment of an image, of which the PNG and the JSON say the same."""

    noun: str
    said: dict[str, Any]
    pixels: Mask


def read_segments(folder: Path) -> dict[str, list[Segment]]:
    """Return the segments of each image, after everything that panopticapi asks for."""
    document = json.loads((folder / "panoptic.json").read_text(), parse_constant=_refuse)
    images = _by_id(document["images"])
    categories = _by_id(document["categories"])
    assert all(category["isthing"] in (0, 1) for category in categories.values())
    colours = {tuple(category["color"]) for category in categories.values()}
    assert len(colours) == len(categories)
    found = {}
    for annotation in document["annotations"]:
        image = images.pop(annotation["image_id"])
        # Its converters take what is before the first dot for the name.
        assert annotation["file_name"].count(".") == 1
        with Image.open(folder / "panoptic" / annotation["file_name"]) as picture:
            assert picture.mode == "RGB"
            ids = np.array(picture).astype(np.int64) @ np.array([1, 256, 65536])
        assert ids.shape == (image["height"], image["width"])
        segments = _by_id(annotation["segments_info"])
        assert {*np.unique(ids).tolist()} - {0} == {*segments}
        found[image["file_name"]] = [
            _segment(categories[said["category_id"]]["name"], said, ids == number)
            for number, said in segments.items()
        ]
    assert not images
    return found


def _segment(noun: str, said: dict[str, Any], pixels: Mask) -> Segment:
    ys, xs = np.nonzero(pixels)
    left, top = int(xs.min()), int(ys.min())
    assert said["area"] == len(ys)
    assert said["bbox"] == [left, top, int(xs.max()) + 1 - left, int(ys.max()) + 1 - top]
    assert said["iscrowd"] == 0
    return Segment(noun, said, pixels)


def _by_id(entries: list[dict[str, Any]]) -> dict[int, dict[str, Any]]:
    found = {entry["id"]: entry for entry in entries}
    assert len(found) == len(entries)
    assert all(type(number) is int and number > 0 for number in found)
    return found


def _refuse(constant: str) -> NoReturn:
    raise AssertionError(f"{constant} is no JSON")


def seen(masks: Sequence[Mask], scores: Sequence[float], overlap: str) -> list[Mask]:
    """Return what can be seen of each mask of an image; a missing score is NaN."""
    known = [-np.inf if np.isnan(score) else score for score in scores]

    def rank(k: int) -> tuple[float, ...]:
        """Say who is on top of whom: the lower."""
        area = int(np.count_nonzero(masks[k]))
        keys: dict[str, tuple[float, ...]] = {
            "smallest": (area, -known[k], k),
            "score": (-known[k], area, k),
            "order": (-k,),
        }
        return keys[overlap]

    found = []
    for k, mask in enumerate(masks):
        left = mask.copy()
        for other in range(len(masks)):
            if rank(other) < rank(k):
                left &= ~masks[other]
        found.append(left)
    return found
