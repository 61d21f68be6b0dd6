"""Small selections of masks, made by hand, for tests of the formats."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from maskcube.formats.images import MaskImages

__all__ = ["given_masks", "images_of", "overlapping", "rows_of_text"]

_BOX = ("box_x0", "box_y0", "box_x1", "box_y1")


def given_masks(
    pixels: NDArray[np.uint8],
    *,
    image: Sequence[str] | str = "a.jpg",
    noun: Sequence[str] | str = "thing",
    score: Sequence[float] | float = np.nan,
    **others: Any,
) -> xr.DataArray:
    """Return masks, (mask, y, x), with the coordinates of a store; instances are counted."""
    n_masks = len(pixels)

    def column(values: object) -> NDArray[Any]:
        one = isinstance(values, str) or np.ndim(values) == 0  # type: ignore[arg-type]
        return np.array([values] * n_masks if one else values)

    images, nouns = column(image).astype(object), column(noun).astype(object)
    seen: dict[tuple[str, str], int] = {}
    instances = []
    for key in zip(images.tolist(), nouns.tolist(), strict=True):
        instances.append(seen.get(key, 0))
        seen[key] = instances[-1] + 1
    columns = {
        "image": images,
        "noun": nouns,
        "instance": np.array(instances, np.int64),
        "score": column(score).astype(np.float64),
        **{name: np.full(n_masks, np.nan) for name in _BOX},
        "localized": np.ones(n_masks, np.int8),
        "mask_file": np.array([""] * n_masks, object),
        "mask_row": np.arange(n_masks),
        **{name: np.asarray(values) for name, values in others.items()},
    }
    coords = {name: ("mask", values) for name, values in columns.items()}
    return xr.DataArray(pixels, coords, ("mask", "y", "x"), "masks")


def images_of(pixels: NDArray[np.uint8], **columns: Any) -> MaskImages:
    """Return the same as exports see it."""
    return MaskImages(given_masks(pixels, **columns))


def rows_of_text(*masks: str) -> NDArray[np.uint8]:
    """Return masks from texts: lines parted by blanks, ``#`` where the object is."""
    return np.array(
        [[[c == "#" for c in line] for line in mask.split()] for mask in masks], np.uint8
    )


@st.composite
def overlapping(draw: st.DrawFn, most: int = 6) -> NDArray[np.uint8]:
    """Draw some small masks that overlap, empty and full ones among them."""
    n_masks = draw(st.integers(1, most))
    height, width = draw(st.integers(1, 7)), draw(st.integers(1, 7))
    shape = (n_masks, height, width)
    found = draw(arrays.arrays(np.uint8, shape, elements=st.integers(0, 1)))
    for position in range(n_masks):
        kind = draw(st.sampled_from(["noise", "empty", "full", "box"]))
        if kind == "empty":
            found[position] = 0
        elif kind == "full":
            found[position] = 1
        elif kind == "box":
            found[position] = 0
            y, x = draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))
            found[position, y : draw(st.integers(y, height)), x : draw(st.integers(x, width))] = 1
    return found
