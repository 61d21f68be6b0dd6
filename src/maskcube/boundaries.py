"""The compressed domain: masks as the boundaries of their runs.

Read row by row, a mask is background, object, background, ... Its boundaries are the positions in
the flattened mask (y * width + x) where a run of 1 begins, and where it is over: a mask of about
300 runs is 600 numbers instead of a million. The boundaries of many masks lie end to end, with
offsets that say where each mask's begin, as in Apache Arrow's lists [1]_.

References
----------
.. [1] https://arrow.apache.org/docs/format/Columnar.html#variable-size-list-layout
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskcube.errors import InvalidOption

__all__ = ["boundaries_of", "boundaries_of_steps", "masks_from_runs", "steps_of"]


_BLOCK_PIXELS = 1024
"""Pixels to look at together for whether there is anything at all."""


def boundaries_of(mask: NDArray[np.uint8]) -> NDArray[np.int32]:
    """Return where the runs of 1 in a mask begin and end.

    Parameters
    ----------
    mask : numpy.ndarray
        (y, x) uint8 of 0 and 1, C-contiguous.

    Returns
    -------
    numpy.ndarray
        (2 * n_runs,) int32, strictly ascending: first pixel of a run, first pixel after it, and so
        on, in pixels of the flattened mask. Empty for an empty mask.
    """
    flat = mask.reshape(-1)
    first, last = _occupied(flat)
    flat = flat[first:last]
    changes = np.empty(flat.size + 1, np.bool_)
    # Outside of what is looked at all is background.
    changes[0], changes[-1] = flat[:1].any(), flat[-1:].any()
    np.not_equal(flat[1:], flat[:-1], out=changes[1 : flat.size])
    return (np.flatnonzero(changes) + first).astype(np.int32)


def _occupied(flat: NDArray[np.uint8]) -> tuple[int, int]:
    """Return the range that holds every pixel of the object, give or take a block.

    Looking at whole blocks takes a third of the time of looking at pixels, and objects leave most
    lines empty.
    """
    n_blocks = flat.size // _BLOCK_PIXELS
    rest = n_blocks * _BLOCK_PIXELS
    words = flat[:rest].view(np.uint64).reshape(n_blocks, _BLOCK_PIXELS // 8)
    starts = np.flatnonzero(np.bitwise_or.reduce(words, axis=1)) * _BLOCK_PIXELS
    if flat[rest:].any():
        starts = np.append(starts, rest)
    if not len(starts):
        return 0, 0
    return int(starts[0]), min(int(starts[-1]) + _BLOCK_PIXELS, flat.size)


def steps_of(mask: NDArray[np.uint8]) -> NDArray[np.int32]:
    """Return the lengths of background and object in a mask, in turn, up to its last run.

    (2 * n_runs,) int32: each boundary's distance from the one before, from 0 for the first.
    """
    steps = boundaries_of(mask)
    steps[1:] -= steps[:-1].copy()
    return steps


def masks_from_runs(
    boundaries: NDArray[np.integer[Any]],
    offsets: NDArray[np.integer[Any]],
    shape: tuple[int, ...],
) -> NDArray[np.uint8]:
    """Return the masks that have these runs.

    Parameters
    ----------
    boundaries, offsets : numpy.ndarray
        As `maskcube.runs` gives them.
    shape : (int, int)
        Height and width of a mask in pixels.

    Returns
    -------
    numpy.ndarray
        (mask, y, x) uint8, 1 where the object is.

    Raises
    ------
    InvalidOption
        When these are no runs of masks of this shape.

    Examples
    --------
    >>> import numpy as np
    >>> masks_from_runs(np.array([1, 3]), np.array([0, 2, 2]), (2, 2)).tolist()
    [[[0, 1], [1, 0]], [[0, 0], [0, 0]]]
    """
    boundaries, offsets = np.asarray(boundaries), np.asarray(offsets)
    if len(shape) != len(("y", "x")):
        raise InvalidOption(f"shape={shape!r}: give height and width, as in masks.shape[1:]")
    height, width = shape
    _check_runs(boundaries, offsets, height * width)
    masks = np.zeros((len(offsets) - 1, height * width), np.uint8)
    for mask, (first, last) in zip(masks, pairwise(offsets.tolist()), strict=True):
        runs = boundaries[first:last].tolist()
        for start, stop in zip(runs[::2], runs[1::2], strict=True):
            mask[start:stop] = 1
    return masks.reshape(-1, height, width)


def _check_runs(
    boundaries: NDArray[np.integer[Any]], offsets: NDArray[np.integer[Any]], n_pixels: int
) -> None:
    for name, values in (("boundaries", boundaries), ("offsets", offsets)):
        if values.ndim != 1 or (len(values) and values.dtype.kind not in "iu"):
            raise InvalidOption(f"{name} must be integers in one dimension, not {values.dtype}")
    ragged = (
        len(offsets) > 0
        and offsets[0] == 0
        and offsets[-1] == len(boundaries)
        and bool((offsets[1:] >= offsets[:-1]).all())
    )
    if not ragged or (offsets % 2).any():
        raise InvalidOption(
            f"offsets must lead from 0 to the {len(boundaries):,} boundaries in even steps"
        )
    inside = boundaries.min(initial=0) >= 0 and boundaries.max(initial=0) <= n_pixels
    ascends = boundaries[1:] > boundaries[:-1]
    ascends[offsets[(offsets > 0) & (offsets < len(boundaries))] - 1] = True
    if not inside or not ascends.all():
        raise InvalidOption(
            f"the boundaries of a mask must ascend, within the {n_pixels:,} pixels of a mask"
        )


def boundaries_of_steps(steps: NDArray[np.int32], offsets: NDArray[np.int64]) -> NDArray[np.int32]:
    """Return the boundaries that have these steps: the sum of those of each mask."""
    if not len(steps):
        return steps.copy()
    counts = np.diff(offsets)
    firsts = offsets[:-1][counts > 0]
    # Each mask's first step takes back where the mask before has ended: one sum over all of them
    # begins anew at every mask.
    steps = steps.copy()
    lasts = np.add.reduceat(steps, firsts, dtype=np.int32)
    steps[firsts[1:]] -= lasts[:-1]
    return np.cumsum(steps, dtype=np.int32, out=steps)
