"""The overlap rule against one that looks at each pixel alone."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scenes import images_of, overlapping

from maskcube.formats.overlap import label_maps


def rank(rule: str, position: int, area: int, score: float) -> Any:
    better = -score if np.isfinite(score) else np.inf
    keys = {"smallest": (area, better, position), "score": (better, area, position)}
    return keys.get(rule, (-position,))


def expected(pixels: NDArray[np.uint8], scores: list[float], rule: str) -> NDArray[np.intp]:
    """Return for each pixel the position of the mask that is seen, counted from 1."""
    areas = pixels.sum(axis=(1, 2)).tolist()
    seen = np.zeros(pixels.shape[1:], np.intp)
    for y, x in np.ndindex(*seen.shape):
        here = np.flatnonzero(pixels[:, y, x]).tolist()
        if here:
            seen[y, x] = 1 + min(here, key=lambda k: rank(rule, k, areas[k], scores[k]))
    return seen


@given(overlapping(), st.sampled_from(["smallest", "score", "order"]), st.data())
def test_each_pixel_shows_the_one_that_the_rule_says(
    pixels: NDArray[np.uint8], rule: str, data: st.DataObject
) -> None:
    score = st.sampled_from([0.1, 0.5, 0.5, 0.9, np.nan])
    scores = data.draw(st.lists(score, min_size=len(pixels), max_size=len(pixels)))
    found = label_maps(images_of(pixels, score=scores)["a.jpg"], rule)
    assert len(found.maps) == 1
    seen = expected(pixels, scores, rule)
    np.testing.assert_array_equal(found.maps[0], seen)
    assert found.visible.tolist() == [(seen == k + 1).sum() for k in range(len(pixels))]


@given(overlapping())
def test_layers_hold_every_mask(pixels: NDArray[np.uint8]) -> None:
    found = label_maps(images_of(pixels)["a.jpg"], "layers")
    for position, mask in enumerate(pixels):
        layer = found.maps[found.layer[position]]
        np.testing.assert_array_equal(layer == position + 1, mask)
    # A mask is in the first layer that has room for it.
    for position, mask in enumerate(pixels):
        for layer in range(found.layer[position]):
            before = [k for k in range(position) if found.layer[k] == layer]
            assert (pixels[before].any(axis=0) & mask).any()
