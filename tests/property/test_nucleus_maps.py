"""Random masks that overlap, to Scale Nucleus and back: nothing is lost but what must be."""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from nucleus_reference import lines_of, map_of, mask_array, panoptic_map, semantic_map
from PIL import Image

from maskcube.formats.images import MaskImages
from maskcube.formats.nucleus import to_nucleus
from maskcube.formats.nucleus_source import read_nucleus
from maskcube.formats.rings import fill_ring, rings_of

stacks = array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=9).flatmap(
    lambda shape: arrays(np.uint8, shape, elements=st.integers(0, 1))
)


def _png(pixels: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


MAP = _png(np.arange(20, dtype=np.uint8).reshape(4, 5) % 3)

unknown = st.one_of(st.just(np.nan), st.floats(-1e6, 1e6))
names = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=12)


@st.composite
def labelled(draw: Any) -> Any:
    """Return masks of a few images and nouns, whose names may be anything."""
    pixels = draw(stacks)
    n_masks = len(pixels)

    def column(values: Any) -> list[Any]:
        found: list[Any] = draw(st.lists(values, min_size=n_masks, max_size=n_masks))
        return found

    few = [draw(st.lists(names, min_size=1, max_size=3)) for _ in range(2)]
    edges = {f"box_{edge}": column(unknown) for edge in ("x0", "y0", "x1", "y1")}
    return mask_array(
        pixels,
        image=column(st.sampled_from(few[0])),
        noun=column(st.sampled_from(few[1])),
        score=column(unknown),
        localized=column(st.integers(0, 1)),
        mask_file=column(st.one_of(st.just(""), names)),
        **edges,
    )


@contextmanager
def exported(masks: Any, **options: Any) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        to_nucleus(masks, Path(folder) / "out", progress=False, **options)
        yield Path(folder) / "out"


def parts_of(mask: Any) -> list[Any]:
    """Return the parts of a mask, found by walking from pixel to pixel along edges."""
    left = set(zip(*mask.nonzero(), strict=True))
    parts = []
    while left:
        part, walk = np.zeros_like(mask), [min(left)]
        left -= {walk[0]}
        while walk:
            y, x = walk.pop()
            part[y, x] = 1
            beside = {(y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)} & left
            left -= beside
            walk += beside
        parts.append(part)
    return parts


@given(stacks)
def test_a_ring_is_exactly_one_part_of_a_mask(masks: Any) -> None:
    for mask in masks:
        parts = parts_of(mask)
        rings = rings_of(mask)
        assert len(rings) == len(parts)
        for ring, part in zip(rings, parts, strict=True):
            filled = np.zeros_like(mask)
            fill_ring(ring.astype(float), filled)
            np.testing.assert_array_equal(filled, part)
            steps = np.roll(ring, -1, axis=0) - ring
            # It runs along the edges of pixels, and stands nowhere still.
            assert ((steps != 0).sum(axis=1) == 1).all()


@given(stacks)
def test_the_winding_number_says_the_same_as_even_and_odd(masks: Any) -> None:
    """Whoever fills rings by the other rule gets the same mask."""
    for mask in masks:
        winding = np.zeros(mask.shape, int)
        for ring in rings_of(mask):
            for (x, y), (to_x, to_y) in zip(ring, np.roll(ring, -1, axis=0), strict=True):
                if x == to_x:
                    top, bottom = sorted((y, to_y))
                    winding[top:bottom, x:] += 1 if to_y < y else -1
        np.testing.assert_array_equal(winding, mask)


corners = st.tuples(st.integers(-40, 160), st.integers(-40, 160))


@given(st.lists(corners, min_size=3, max_size=9), st.integers(1, 12), st.integers(1, 12))
def test_any_polygon_has_the_pixels_whose_centres_are_inside(
    vertices: list[tuple[int, int]], height: int, width: int
) -> None:
    """Corners are off the centres of pixels, so that rounding decides nothing."""
    ring = np.array(vertices) / 10 + np.array([0.013, 0.017])
    found = np.zeros((height, width), np.uint8)
    fill_ring(ring, found)
    for y in range(height):
        for x in range(width):
            n_crossed, margin = 0, np.inf
            for (ax, ay), (bx, by) in zip(ring, np.roll(ring, -1, axis=0), strict=True):
                if (ay > y + 0.5) != (by > y + 0.5):
                    at = ax + (y + 0.5 - ay) * (bx - ax) / (by - ay)
                    n_crossed += at > x + 0.5
                    margin = min(margin, abs(at - x - 0.5))
            if margin > 1e-9:
                assert found[y, x] == n_crossed % 2


@settings(max_examples=60)
@given(labelled())
def test_maps_show_the_smallest_mask_and_come_back_as_that(masks: Any) -> None:
    table = masks.coords.to_dataset().to_dataframe().reset_index(drop=True)
    with exported(masks) as folder:
        lines = {line["reference_id"]: line for line in lines_of(folder)}
        assert list(lines) == list(dict.fromkeys(table["image"]))
        shown = {}
        for image, own in table.groupby("image", sort=False):
            owner = panoptic_map(masks.to_numpy()[own.index], own)
            drawn = map_of(folder, lines[str(image)])
            np.testing.assert_array_equal(drawn > 0, owner > 0)
            for position, row in enumerate(own.index):
                if (owner == position + 1).any():
                    shown[row] = owner == position + 1
        found = read_nucleus(folder) if shown else None
        if found is None:
            return
        assert not found.faults
        assert not found.lost
        items = {item.record.mask_row: item for item in found.items}
        records = MaskImages(masks).records
        assert set(items) == set(shown)
        for row, pixels in shown.items():
            np.testing.assert_array_equal(items[row].read(), pixels)
            assert items[row].record == records[row]


@settings(max_examples=60)
@given(labelled(), st.data())
def test_classes_show_what_is_of_their_noun(masks: Any, data: Any) -> None:
    table = masks.coords.to_dataset().to_dataframe().reset_index(drop=True)
    nouns = sorted(set(table["noun"]))
    stuff = data.draw(st.sets(st.sampled_from(nouns)))
    kind = data.draw(st.sampled_from(["panoptic", "instance", "semantic"]))
    with exported(masks, kind=kind, stuff=stuff) as folder:
        for line in lines_of(folder):
            own = table[table["image"] == line["reference_id"]]
            expected = semantic_map(masks.to_numpy()[own.index], own)
            drawn = map_of(folder, line)
            labels = {segment["index"]: segment["label"] for segment in line["annotations"][1:]}
            assert set(np.unique(drawn)) - {0} == set(labels)
            found = np.vectorize(lambda index: labels.get(index, ""), otypes=[object])(drawn)  # noqa: B023 - called here
            if kind == "instance":
                expected = np.where(np.isin(expected, list(stuff)), "", expected)
            assert (found == expected).all()
            once = [noun for noun in labels.values() if kind == "semantic" or noun in stuff]
            assert len(once) == len(set(once))


@settings(max_examples=60)
@given(labelled())
def test_polygons_come_back_bit_by_bit(masks: Any) -> None:
    with exported(masks, geometry="polygon") as folder:
        found = read_nucleus(folder)
        assert not found.faults
        assert not found.lost
        items = {item.record.mask_row: item for item in found.items}
        for row, record in enumerate(MaskImages(masks).records):
            assert items[row].record == record
            np.testing.assert_array_equal(items[row].read(), masks.to_numpy()[row])


@pytest.mark.parametrize("geometry", [None, "polygon", "box"])
@settings(max_examples=30)
@given(masks=labelled())
def test_a_key_of_metadata_has_one_type(geometry: str | None, masks: Any) -> None:
    """Nucleus refuses a key that is a number here and a text there, and there is no null."""
    types: dict[str, set[type]] = {}
    with exported(masks, geometry=geometry) as folder:
        for line in lines_of(folder):
            for fields in [line, *line.get("annotations", [])]:
                for key, value in fields.get("metadata", {}).items():
                    types.setdefault(key, set()).add(type(value))
    assert all(found in ({int}, {float}, {str}) for found in types.values()), types


KEYS = [
    *("type", "item", "data", "annotations", "segmentation", "segmentations", "predictions"),
    *("polygon", "box", "mask_url", "reference_id", "label", "index", "metadata", "geometry"),
    *("vertices", "x", "y", "width", "height", "annotation_id", "score", "instance", "mask_row"),
    *("mask", "part", "n_parts", "image_height", "image_width", "confidence", "localized"),
]
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.sampled_from(["mask", "polygon", "box", "segmentation", "background", "0", "1", "", "a"]),
)
anything = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(KEYS), inner, max_size=6)
    ),
    max_leaves=12,
)
vertex = st.fixed_dictionaries({"x": st.integers(-3, 9), "y": st.floats(-3, 9)})
nearly = st.fixed_dictionaries(
    {"reference_id": st.sampled_from(["a", "b"]), "label": st.sampled_from(["a", "background"])},
    optional={
        "type": st.sampled_from(["mask", "polygon", "box", "line"]),
        "mask_url": st.sampled_from(["a", "b"]),
        "annotations": st.lists(
            st.fixed_dictionaries({"label": scalars, "index": scalars}), max_size=3
        ),
        "geometry": st.one_of(
            st.fixed_dictionaries({"vertices": st.lists(vertex, max_size=5)}), anything
        ),
        "metadata": st.dictionaries(st.sampled_from(KEYS), scalars, max_size=4),
        "annotation_id": scalars,
    },
)


@settings(max_examples=300)
@given(st.lists(st.one_of(anything, nearly), max_size=4))
def test_whatever_is_in_a_file_there_are_masks_or_faults(rows: list[Any]) -> None:
    """Nothing is raised, and what is read has the size that was announced."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "annotations.jsonl"
        file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        types = ["mask", "polygon", "box"]
        found = read_nucleus(file, masks=lambda _: MAP, size=(4, 5), types=types)
        assert found.items or found.faults
        for item in found.items:
            pixels = item.read()
            assert pixels.shape == item.size
            assert pixels.dtype == np.uint8
            assert pixels.max(initial=0) <= 1


def test_an_array_of_pandas_is_what_these_tests_think() -> None:
    """The table of coordinates has a line for each mask, in their order."""
    masks = mask_array(np.zeros((3, 1, 1)), noun=["b", "a", "c"])
    table = masks.coords.to_dataset().to_dataframe().reset_index(drop=True)
    assert isinstance(table, pd.DataFrame)
    assert table["noun"].tolist() == ["b", "a", "c"]
