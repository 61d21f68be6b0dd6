"""Masks of several sizes in a store, whose masks have all one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from maskcube.errors import listed
from maskcube.formats.choices import FITS, check_choice, check_size
from maskcube.formats.record import Record
from maskcube.manifest import MOST_MASK_BYTES

__all__ = ["check_fit", "common_shape", "fitted", "fitted_record"]

Shape = tuple[int, int]
"""Height and width in pixels."""


def check_fit(fit: str, shape: Shape | None) -> None:
    """Raise `InvalidOption` unless this says what is done with masks of another size."""
    check_choice("fit", fit, FITS)
    check_size("shape", shape)


def common_shape(sizes: Sequence[Shape], fit: str) -> tuple[Shape, list[str]]:
    """Return the shape of a store for masks of these sizes, and what speaks against it.

    Without a policy it is the size of most; padded, all fit in; resized, that of most.
    """
    counts = Counter(sizes)
    most = counts.most_common(1)[0][0]
    if fit == "pad":
        height, width = (max(sides) for sides in zip(*counts, strict=True))
        if height * width <= max(MOST_MASK_BYTES, *(h * w for h, w in counts)):
            return (height, width), []
        fault = f"masks would be padded to {height:,} x {width:,} pixels, which are too many"
        return (height, width), [f"{fault}; fit='resize' scales them"]
    if fit == "resize" or len(counts) == 1:
        return most, []
    told = listed(f"{h} x {w}: {n:,} masks" for (h, w), n in counts.most_common())
    fault = (
        f"masks have several sizes (height x width): {told}; fit='pad' adds background on the right"
        " and below, fit='resize' scales (nearest pixel)"
    )
    return most, [fault]


def fitted(mask: NDArray[np.uint8], shape: Shape, fit: str) -> NDArray[np.uint8]:
    """Return a mask, (y, x) uint8, in another shape.

    Parameters
    ----------
    mask : numpy.ndarray
        (y, x) uint8.
    shape : (int, int)
        Height and width in pixels.
    fit : str
        ``"pad"`` adds background on the right and below, so that every pixel stays in its place;
        ``"resize"`` takes the nearest pixel.
    """
    if mask.shape == shape:
        return mask
    if fit == "pad":
        padded = np.zeros(shape, np.uint8)
        padded[: mask.shape[0], : mask.shape[1]] = mask
        return padded
    rows, columns = (
        # The middle of each pixel lies in the pixel that it becomes.
        ((np.arange(new) + 0.5) * old / new).astype(np.intp)
        for new, old in zip(shape, mask.shape, strict=True)
    )
    return np.ascontiguousarray(mask[rows[:, None], columns])


def fitted_record(record: Record, size: Shape, shape: Shape, fit: str) -> Record:
    """Return a record whose box is in the pixels of the new shape."""
    if fit != "resize" or size == shape:
        return record
    scale = [shape[1] / size[1], shape[0] / size[0]] * 2
    box = [None if edge is None else edge * by for edge, by in zip(record.box, scale, strict=True)]
    return replace(record, box=(box[0], box[1], box[2], box[3]))
