"""Masks as `open_masks` gives them, made of plain arrays: for exports that need no store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

__all__ = ["HOLED", "labelled", "stacks"]

Masks = np.ndarray[Any, np.dtype[np.uint8]]

HOLED: Masks = np.array(
    [
        [1, 1, 1, 1, 1, 1, 1, 1, 1, 1],
        [1, 0, 0, 0, 1, 0, 1, 0, 0, 1],
        [1, 0, 1, 0, 1, 1, 1, 0, 1, 1],
        [1, 0, 0, 0, 1, 0, 1, 1, 0, 1],
        [1, 1, 1, 1, 1, 1, 1, 1, 1, 1],
        [0, 1, 0, 0, 0, 0, 0, 0, 0, 0],
        [1, 0, 0, 0, 0, 1, 1, 0, 0, 1],
        [0, 1, 0, 0, 0, 1, 0, 0, 0, 1],
    ],
    np.uint8,
)
"""Holes above each other and side by side, one with an island, and parts that touch at corners."""


def _mask_of(kind: str, drawn: Masks) -> Masks:
    """Return a mask as drawn, or one that is a limit."""
    if kind == "drawn":
        return drawn
    mask = np.full(drawn.shape, kind != "empty", np.uint8)
    if kind == "rim":
        mask[1:-1, 1:-1] = 0
    if kind == "pixel":
        mask[:] = 0
        mask[-1, drawn.shape[1] // 2] = 1
    return mask


def _stack_of(shape: tuple[int, ...]) -> st.SearchStrategy[Masks]:
    kind = st.sampled_from(["drawn", "drawn", "drawn", "empty", "full", "rim", "pixel"])
    drawn = arrays(np.uint8, shape[1:], elements=st.integers(0, 1), fill=st.nothing())
    mask = st.builds(_mask_of, kind, drawn)
    return st.lists(mask, min_size=shape[0], max_size=shape[0]).map(np.stack)


stacks = array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=9).flatmap(_stack_of)
"""(mask, y, x): random masks that overlap, empty and full ones, rims of a pixel, single pixels."""


def labelled(
    masks: Masks,
    images: Sequence[str] | None = None,
    nouns: Sequence[str] | None = None,
    **coordinates: Sequence[Any],
) -> xr.DataArray:
    """Return masks with labels: of one image and one noun, numbered, unless others are given."""
    names = ["a.jpg"] * len(masks) if images is None else list(images)
    things = ["hand"] * len(masks) if nouns is None else list(nouns)
    coordinates = {"instance": range(len(masks)), "score": [0.5] * len(masks), **coordinates}
    given = {"image": names, "noun": things, **coordinates}
    return xr.DataArray(
        masks,
        {name: ("mask", np.array(list(values))) for name, values in given.items()},
        ("mask", "y", "x"),
    )
