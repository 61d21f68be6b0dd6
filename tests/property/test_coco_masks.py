"""Runs and outlines of any masks, beside those of pycocotools; files of any content."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pycocotools import mask as reference
from stacks import HOLED, labelled, stacks

import maskcube
from maskcube.formats.coco import to_coco
from maskcube.formats.coco_mask import checked_mask, filled
from maskcube.formats.coco_results import to_coco_results
from maskcube.formats.coco_source import read_coco
from maskcube.formats.rings import rings_of
from maskcube.formats.rle import Rle

# pycocotools' own, when it decodes on numpy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

Masks = np.ndarray[Any, np.dtype[np.uint8]]


def encoded(mask: Masks) -> dict[str, Any]:
    found: dict[str, Any] = reference.encode(np.asfortranarray(mask))
    return found


def outlines_of(mask: Masks) -> list[list[int]]:
    """Return the polygons that are exported."""
    return [ring.ravel().tolist() for ring in rings_of(mask)]


def drawn(rings: list[list[int]], mask: Masks) -> Masks:
    """Return what pycocotools makes of polygons."""
    if not rings:
        return np.zeros_like(mask)
    found: Masks = reference.decode(reference.merge(reference.frPyObjects(rings, *mask.shape)))
    return found


def n_parts(mask: Masks) -> int:
    """Count the parts whose pixels share edges, by filling one after the other."""
    left = {(int(y), int(x)) for y, x in np.argwhere(mask)}
    count = 0
    while left:
        count += 1
        waiting = [left.pop()]
        while waiting:
            y, x = waiting.pop()
            near = {(y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)} & left
            left -= near
            waiting += near
    return count


@given(stacks)
def test_runs_are_those_of_pycocotools(masks: Masks) -> None:
    for mask in masks:
        rle, other = Rle.of(mask), encoded(mask)
        assert rle.text() == other["counts"].decode("ascii")
        assert rle.area == reference.area(other)
        assert list(rle.box()) == reference.toBbox(other).tolist()
        np.testing.assert_array_equal(rle.mask(), mask)
        parsed = Rle.parsed(rle.text(), mask.shape)
        np.testing.assert_array_equal(parsed.counts, rle.counts)
        assert parsed.mask().dtype == np.uint8
        np.testing.assert_array_equal(parsed.mask(), mask)


@given(stacks, st.lists(st.integers(0, 3), min_size=1, max_size=5))
def test_runs_of_nothing_change_nothing(masks: Masks, cuts: list[int]) -> None:
    """Another tool may cut a run in two, with a run of no pixels between."""
    for mask in masks:
        counts: list[int] = []
        for position, count in enumerate(Rle.of(mask).counts.tolist()):
            first = min(cuts[position % len(cuts)], count)
            counts += [first, 0, count - first]
        rle = Rle.counted(counts, mask.shape)
        np.testing.assert_array_equal(rle.mask(), mask)
        assert (rle.area, rle.box()) == (Rle.of(mask).area, Rle.of(mask).box())
        np.testing.assert_array_equal(Rle.parsed(rle.text(), mask.shape).mask(), mask)


@given(stacks)
def test_the_union_is_that_of_the_pixels(masks: Masks) -> None:
    union = Rle.union([Rle.of(mask) for mask in masks])
    np.testing.assert_array_equal(union.mask(), masks.any(axis=0))


@given(stacks)
@example(HOLED[None])
@example(1 - HOLED[None])
def test_pycocotools_fills_outlines_with_the_same_pixels(masks: Masks) -> None:
    for mask in masks:
        rings = [ring.ravel().tolist() for ring in rings_of(mask)]
        np.testing.assert_array_equal(drawn(rings, mask), mask)
        if rings:
            np.testing.assert_array_equal(filled(rings, mask.shape).mask(), mask)


@given(stacks)
@example(HOLED[None])
@example(1 - HOLED[None])
def test_outlines_go_around_each_part_once(masks: Masks) -> None:
    for mask in masks:
        rings = rings_of(mask)
        assert len(rings) == n_parts(mask)
        areas = []
        for x, y in (ring.T for ring in rings):
            steps = np.stack([np.roll(x, -1) - x, np.roll(y, -1) - y])
            assert ((steps != 0).sum(axis=0) == 1).all(), "along one axis, and never nowhere"
            areas.append(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y) / 2)
        # The area that every other tool computes of a polygon: holes count against it.
        assert sum(areas) == mask.sum()


@given(stacks, st.sampled_from(["rle", "polygon"]), st.sampled_from(["coco", "lvis"]))
def test_what_is_written_comes_back(masks: Masks, segmentation: str, dialect: str) -> None:
    """Masks of two images that overlap, with NaN, without a pixel, in another order."""
    n_masks = len(masks)
    scores = [np.nan if n % 3 == 2 else n / 7 for n in range(n_masks)]
    given = labelled(
        masks,
        [f"{n % 2}/a.b.jpg" for n in range(n_masks)],
        ["crème/brûlée.$" if n % 3 else "hand" for n in range(n_masks)],
        score=scores,
        box_x0=scores,
        mask_row=range(n_masks)[::-1],
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.json")
        report = to_coco(given, path, segmentation=segmentation, dialect=dialect, progress=False)
        assert [mask.visible for mask in report.masks] == [mask.area for mask in report.masks]
        found = read_coco(path)
        assert (found.faults, found.lost) == ([], [])
        for item in found.items:
            row = n_masks - 1 - int(item.record.mask_row or 0)
            np.testing.assert_array_equal(item.read(), masks[row])
            assert (item.record.image, item.record.noun) == (given.image[row], given.noun[row])
            assert item.record.instance == row
            score = None if np.isnan(scores[row]) else scores[row]
            assert (item.record.score, item.record.box[0]) == (score, score)


@settings(max_examples=40)
@given(stacks)
def test_results_come_back(masks: Masks) -> None:
    scores = [n / 7 for n in range(len(masks))]
    given = labelled(masks, score=scores)
    with tempfile.TemporaryDirectory() as folder:
        path, results = Path(folder, "a.json"), Path(folder, "b.json")
        to_coco(given, path, progress=False)
        to_coco_results(given, results, progress=False)
        items = read_coco(results, annotations=path).items
        assert [item.record.score for item in items] == scores
        np.testing.assert_array_equal([item.read() for item in items], masks)


@given(st.text(st.characters(min_codepoint=44, max_codepoint=116), max_size=30))
@example("")
@example("0000")
@example("o" * 30)
@example("Q2é")
def test_any_text_is_runs_or_refused(text: str) -> None:
    """Where it is accepted, pycocotools reads the same."""
    try:
        rle = Rle.parsed(text, (5, 4))
    except ValueError:
        return
    assert rle.counts.sum() == 20
    other = reference.decode({"size": [5, 4], "counts": text})
    np.testing.assert_array_equal(rle.mask(), other)


@given(st.lists(st.integers(0, 31), min_size=1, max_size=12), st.integers(1, 6))
def test_any_counts_that_sum_up_are_read(parts: list[int], height: int) -> None:
    """As text too, whatever the differences between them are."""
    total = sum(parts)
    counts = [*parts, -total % height]
    if not sum(counts):
        counts[0] = height
    shape = height, sum(counts) // height
    rle = Rle.counted(counts, shape)
    other = reference.decode(reference.frPyObjects({"size": list(shape), "counts": counts}, *shape))
    np.testing.assert_array_equal(rle.mask(), other)
    np.testing.assert_array_equal(Rle.parsed(rle.text(), shape).counts, counts)


numbers = st.floats(-9, 20) | st.integers(-9, 20)


@given(st.lists(st.lists(st.tuples(numbers, numbers), min_size=3, max_size=7), min_size=1))
def test_polygons_are_filled_as_pycocotools_fills_them(
    rings: list[list[tuple[float, float]]],
) -> None:
    flat = [[number for point in ring for number in point] for ring in rings]
    size, read = checked_mask(flat, (11, 8))
    assert size == (11, 8)
    other = reference.decode(reference.merge(reference.frPyObjects(flat, 11, 8)))
    np.testing.assert_array_equal(read(), other)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda each: (
        st.lists(each, max_size=3)
        | st.dictionaries(
            st.sampled_from(["id", "image_id", "size", "counts", "height", "name"]), each
        )
    ),
    max_leaves=6,
)
PLACES = [
    ("images",),
    ("images", 0),
    ("images", 0, "id"),
    ("images", 0, "file_name"),
    ("images", 0, "height"),
    ("categories", 0),
    ("categories", 0, "id"),
    ("categories", 0, "name"),
    ("annotations",),
    ("annotations", 0),
    *(("annotations", 0, key) for key in ("id", "image_id", "category_id", "iscrowd", "score")),
    *(("annotations", 0, key) for key in ("bbox", "box_xyxy", "localized", "instance_id")),
    *(("annotations", 0, key) for key in ("mask_file", "mask_row", "segmentation")),
    ("annotations", 0, "segmentation", "size"),
    ("annotations", 0, "segmentation", "counts"),
]


@pytest.mark.parametrize("place", PLACES, ids=lambda place: ".".join(map(str, place)))
@settings(max_examples=40)
@given(value=anything)
def test_anything_anywhere_is_read_or_told(place: tuple[Any, ...], value: Any) -> None:
    annotation = {
        "id": 1,
        "image_id": 1,
        "category_id": 1,
        "segmentation": {"size": [2, 2], "counts": "112"},
    }
    document: Any = {
        "images": [{"id": 1, "file_name": "a.jpg", "height": 2, "width": 2}],
        "categories": [{"id": 1, "name": "hand"}],
        "annotations": [annotation],
    }
    inner = document
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.json")
        path.write_text(json.dumps(document))
        try:
            found = read_coco(path)
        except maskcube.SourceError as error:
            assert error.faults  # noqa: PT017 - one of two outcomes
            return
        for item in found.items:
            assert item.read().shape == item.size
        assert found.items or found.faults or not document["annotations"]
