"""Whatever overlaps: a panoptic export shows what the rule says, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from panoptics import Mask, read_segments, seen
from PIL import Image

from maskcube.errors import InvalidOption
from maskcube.formats.panoptic import to_panoptic
from maskcube.formats.panoptic_source import read_panoptic

SHAPE = (7, 9)
NOUNS = ["hand", "fingers", "a.b/$ c", "crème brûlée"]


@st.composite
def rectangles(draw: st.DrawFn) -> Mask:
    """Return a mask of one or two rectangles, or of nothing."""
    mask = np.zeros(SHAPE, bool)
    for _ in range(draw(st.integers(0, 2))):
        top, bottom = sorted(draw(st.tuples(*[st.integers(0, SHAPE[0])] * 2)))
        left, right = sorted(draw(st.tuples(*[st.integers(0, SHAPE[1])] * 2)))
        mask[top:bottom, left:right] = True
    return mask


ANY_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=4)
    | st.sampled_from([0, 1, 2**24, 10**30, "1", "a.png", "../a.png", "\0", "\ud800"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)


@st.composite
def spoilt(draw: st.DrawFn) -> dict[str, Any]:
    """Return a panoptic JSON of which up to three things are anything."""
    segments = [{"id": 1, "category_id": 3, "iscrowd": 0, "instance": 0, "score": 0.5}]
    document: dict[str, Any] = {
        "images": [{"id": 5, "file_name": "a.jpg", "height": 2, "width": 2}],
        "categories": [{"id": 3, "name": "dog", "isthing": 1}],
        "annotations": [{"image_id": 5, "file_name": "a.png", "segments_info": segments}],
    }
    for _ in range(draw(st.integers(1, 3))):
        place: Any = document
        while place:
            keys = [*place] if isinstance(place, dict) else [*range(len(place))]
            key = draw(st.sampled_from(keys))
            if not isinstance(place[key], dict | list) or draw(st.booleans()):
                place[key] = draw(ANY_JSON)
                break
            place = place[key]
    return document


@settings(max_examples=150)
@given(document=spoilt())
def test_a_json_of_anything_is_read_or_refused(document: dict[str, Any]) -> None:
    with TemporaryDirectory() as place:
        path = Path(place) / "panoptic.json"
        path.write_text(json.dumps(document))
        Image.fromarray(np.array([[[1, 0, 0], [0, 0, 0]]] * 2, np.uint8)).save(
            path.parent / "a.png"
        )
        found = read_panoptic(path)
        assert not (found.faults and found.items)
        for item in found.items:
            assert item.read().shape == item.size


@st.composite
def overlapping(draw: st.DrawFn) -> xr.DataArray:
    """Return masks as a store has them, of two images at most."""
    masks = draw(st.lists(rectangles(), min_size=1, max_size=7))
    n_masks = len(masks)
    column = {
        "image": st.sampled_from(["a.v2.jpg", "../a"]),
        "noun": st.sampled_from(NOUNS),
        "score": st.sampled_from([0.25, 0.5, np.nan]),
        "box_x0": st.sampled_from([-3.5, np.nan]),
    }
    labels = {
        name: ("mask", draw(st.lists(values, min_size=n_masks, max_size=n_masks)))
        for name, values in column.items()
    }
    # An instance of its own for each makes them easy to find again.
    labels |= {"instance": ("mask", list(range(n_masks)))}
    return xr.DataArray(np.array(masks, np.uint8), dims=("mask", "y", "x"), coords=labels)


def _expected(masks: xr.DataArray, overlap: str) -> dict[tuple[str, str, int], Mask]:
    found = {}
    for image in set(masks.image.values):
        of = masks[masks.image.values == image]
        shown = seen([m.astype(bool) for m in of.values], of.score.values, overlap)
        for noun, instance, mask in zip(of.noun.values, of.instance.values, shown, strict=True):
            found[image, noun, int(instance)] = mask
    return found


@pytest.mark.parametrize("overlap", ["smallest", "score", "order"])
@settings(max_examples=30)
@given(masks=overlapping())
def test_what_is_seen_is_what_the_rule_says(overlap: str, masks: xr.DataArray) -> None:
    expected = _expected(masks, overlap)
    with TemporaryDirectory() as place:
        report = to_panoptic(masks, Path(place) / "out", overlap=overlap, progress=False)
        segments = read_segments(Path(place) / "out")
        back = read_panoptic(Path(place) / "out")
        read = {
            (item.record.image, item.record.noun, item.record.instance): item.read()
            for item in back.items
        }
    found = {(image, s.noun, s.said["instance"]): s for image, of in segments.items() for s in of}
    visible = {key: mask for key, mask in expected.items() if mask.any()}
    assert found.keys() == visible.keys() == read.keys()
    for key, mask in visible.items():
        np.testing.assert_array_equal(found[key].pixels, mask)
        np.testing.assert_array_equal(read[key].astype(bool), mask)
    assert not back.faults
    assert not back.lost
    told = {(m.image, m.noun, m.instance): m for m in report.masks}
    assert {key: m.visible for key, m in told.items()} == {
        key: np.count_nonzero(mask) for key, mask in expected.items()
    }
    assert {key for key, m in told.items() if m.dropped} == expected.keys() - visible.keys()


@settings(max_examples=30)
@given(masks=overlapping())
def test_masks_that_overlap_are_refused_where_they_must_not(masks: xr.DataArray) -> None:
    images = masks.image.values
    most = max(int(masks.values[images == image].sum(0).max()) for image in set(images))
    with TemporaryDirectory() as place:
        out = Path(place) / "out"
        if most > 1:
            with pytest.raises(InvalidOption, match="masks overlap"):
                to_panoptic(masks, out, overlap="error", progress=False)
            assert not list(Path(place).glob("*out"))
        else:
            report = to_panoptic(masks, out, overlap="error", progress=False)
            assert all(mask.visible == mask.area for mask in report.masks)


@settings(max_examples=30)
@given(masks=overlapping(), stuff=st.sets(st.sampled_from(NOUNS), min_size=1))
def test_stuff_is_one_segment_an_image(masks: xr.DataArray, stuff: set[str]) -> None:
    nouns = masks.noun.values
    chosen = stuff & set(nouns.tolist())
    expected: dict[tuple[str, str], Any] = {}
    for (image, noun, _), mask in _expected(masks, "smallest").items():
        if noun in chosen:
            expected[image, noun] = expected.get((image, noun), False) | mask
    with TemporaryDirectory() as place:
        to_panoptic(masks, Path(place) / "out", stuff=chosen, progress=False)
        segments = read_segments(Path(place) / "out")
    found = {
        (image, s.noun): s.pixels for image, of in segments.items() for s in of if s.noun in chosen
    }
    expected = {key: mask for key, mask in expected.items() if mask.any()}
    assert found.keys() == expected.keys()
    for key, mask in expected.items():
        np.testing.assert_array_equal(found[key], mask)
