"""Any overlapping masks go to ClearML's pictures and come back."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from maskcube.formats.clearml import read_clearml, to_clearml
from maskcube.formats.clearml_alpha import read_clearml_alpha, to_clearml_alpha

NOUNS = ["hand", "Hand", "hand-0", "hand-1", "a/b", "../x", "$", ".", "é", "background", "CON"]
IMAGES = ["a.jpg", "A.jpg", "../a.jpg", "b.v1.png"]


@st.composite
def masks(draw: st.DrawFn) -> xr.DataArray:
    """Draw a few masks of a few images, which overlap, are empty, full, or equal."""
    n_masks = draw(st.integers(1, 12))
    shape = (n_masks, draw(st.integers(1, 5)), draw(st.integers(1, 5)))
    pixels = draw(arrays(np.uint8, shape, elements=st.integers(0, 1)))
    images = draw(st.lists(st.sampled_from(IMAGES), min_size=n_masks, max_size=n_masks))
    nouns = draw(st.lists(st.sampled_from(NOUNS), min_size=n_masks, max_size=n_masks))
    known = st.one_of(st.just(np.nan), st.floats(-1e6, 1e6))
    numbers = st.lists(known, min_size=n_masks, max_size=n_masks)
    taken: dict[tuple[str, str], int] = {}
    instances = []
    for key in zip(images, nouns, strict=True):
        instances.append(taken.get(key, 0))
        taken[key] = instances[-1] + 1
    columns: dict[str, Any] = {
        "image": images,
        "noun": nouns,
        "instance": instances,
        "score": draw(numbers),
        "box_x1": draw(numbers),
        "mask_row": draw(st.permutations(range(n_masks))),
    }
    coords = {name: ("mask", values) for name, values in columns.items()}
    return xr.DataArray(pixels, coords, ("mask", "y", "x"))


def _by_row(given: xr.DataArray) -> dict[int, tuple[Any, ...]]:
    """Return each mask and what is said of it, by its row; NaN as None."""

    def plain(value: float) -> float | None:
        return None if np.isnan(value) else value

    columns = ("image", "noun", "instance", "score", "box_x1", "mask_row")
    lists = zip(*(given[name].values.tolist() for name in columns), strict=True)
    return {
        row: (image, noun, instance, plain(score), plain(box), pixels.tolist())
        for (image, noun, instance, score, box, row), pixels in zip(
            lists, given.values, strict=True
        )
    }


def _read_by_row(found: Any) -> dict[int, tuple[Any, ...]]:
    assert (found.faults, found.lost) == ([], [])
    return {
        each.record.mask_row: (
            each.record.image,
            each.record.noun,
            each.record.instance,
            each.record.score,
            each.record.box[2],
            each.read().tolist(),
        )
        for each in found.items
    }


@settings(max_examples=60)
@given(given_masks=masks())
def test_layers_lose_nothing(tmp_path_factory: pytest.TempPathFactory, given_masks: Any) -> None:
    out = tmp_path_factory.mktemp("layers") / "out"
    report = to_clearml(given_masks, out, overlap="layers", progress=False)
    assert report.changed == []
    assert _read_by_row(read_clearml(out)) == _by_row(given_masks)


@settings(max_examples=60)
@given(given_masks=masks(), alpha=st.integers(1, 255), data=st.data())
def test_alpha_masks_lose_nothing(
    tmp_path_factory: pytest.TempPathFactory, given_masks: Any, alpha: int, data: Any
) -> None:
    out = tmp_path_factory.mktemp("alpha") / "out"
    outside = data.draw(st.integers(0, alpha - 1))
    to_clearml_alpha(given_masks, out, alpha=alpha, outside=outside, progress=False)
    assert _read_by_row(read_clearml_alpha(out)) == _by_row(given_masks)


@settings(max_examples=60)
@given(
    given_masks=masks(),
    overlap=st.sampled_from(["smallest", "score", "order"]),
    min_visible=st.sampled_from([0.0, 0.5, 1.0]),
)
def test_a_map_shows_what_the_report_says(
    tmp_path_factory: pytest.TempPathFactory, given_masks: Any, overlap: str, min_visible: float
) -> None:
    """Whatever is on top: pixels, regions, labels and the report speak of the same thing."""
    out = tmp_path_factory.mktemp("map") / "out"
    report = to_clearml(given_masks, out, overlap=overlap, min_visible=min_visible, progress=False)
    labels = json.loads((out / "mask_labels.json").read_text())["mask_labels"]["_all_"]
    noun_of = {each["value"][0]: each["labels"][0] for each in labels if any(each["value"])}
    told = {(mask.image, int(mask.mask_row or 0)): mask for mask in report.masks}
    rows = _by_row(given_masks)
    for frame in json.loads((out / "frames.json").read_text()):
        (entry,) = frame["sources"][0]["masks"]
        with Image.open(out / entry["uri"]) as picture:
            shown = np.asarray(picture)
        regions = {roi["meta"]["mask_row"]: roi for roi in frame["rois"]}
        assert {roi["label"][0] for roi in regions.values()} == {
            noun_of[value] for value in np.unique(shown).tolist() if value
        }
        for (image, row), mask in told.items():
            if image != frame["id"]:
                continue
            pixels = np.array(rows[row][-1]) == 1
            own = np.vectorize(noun_of.get, otypes=[object])(shown) == mask.noun
            assert (row in regions) is not mask.dropped
            if not mask.dropped:
                assert mask.visible == int((pixels & own).sum()) > 0
                assert mask.visible >= min_visible * mask.area
                assert regions[row]["meta"]["visible"] == mask.visible
    # And what is read is what is shown.
    found = read_clearml(out)
    assert not found.faults
    for item in found.items:
        shown = item.read()
        union = [
            rows[row][-1] for row in rows if rows[row][:2] == (item.record.image, item.record.noun)
        ]
        assert shown.any()
        assert (shown <= np.max(union, axis=0)).all()
