"""Every mask in turn: a function of each, and the runs of each."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from xarray.core import indexing

from maskcube.boundaries import boundaries_of
from maskcube.errors import InvalidOption
from maskcube.layout import DIMS, worker_count
from maskcube.ragged import Runs
from maskcube.reader import MaskArray, are_whole
from maskcube.shards import ShardReader
from maskcube.threads import spread

__all__ = ["map_masks", "runs"]

_BLOCK_BYTES = 2**25
"""Pixels to hold at a time of masks that are not simply those of shards."""


def map_masks(
    function: Callable[[NDArray[np.uint8]], Any],
    masks: xr.DataArray,
    *,
    workers: int | None = None,
) -> xr.DataArray:
    """Return a function of every mask; the fastest way to scan them all.

    Masks of a store are decoded on threads, each into one buffer, and never held together. Reads
    and computes at once.

    Parameters
    ----------
    function : callable
        Takes a mask, (y, x) uint8, 1 where the object is, and gives a number or an array, of always
        the same shape; several values become one array. The mask is valid during the call only.
        Called on several threads; what it raises is raised here.
    masks : xarray.DataArray
        (mask, y, x), of `open_masks`, selected from or not.
    workers : int, optional
        Threads; one for each core by default, at most 8.

    Returns
    -------
    xarray.DataArray
        (mask, dim_1, dim_2, ...), in memory, with the coordinates and the index of `masks` along
        ``mask``; (mask,) float64 when there are no masks to call the function with.

    Raises
    ------
    CorruptMask
        When a mask is missing or damaged.
    InvalidOption
        When `masks` is no DataArray (mask, y, x), or `workers` not at least one.

    Examples
    --------
    >>> import numpy as np
    >>> from maskcube import open_masks
    >>> masks = open_masks("masks.zarr")
    >>> lines = map_masks(lambda mask: np.count_nonzero(mask.any(axis=1)), masks)
    >>> lines.dims, bool((lines <= masks.sizes["y"]).all())
    (('mask',), True)
    """
    check_masks(masks)

    def result_of(mask: NDArray[np.uint8]) -> Any:  # noqa: ANN401 - whatever the function gives
        result = function(mask)
        # A part of the mask would be a part of the next one soon.
        is_part = isinstance(result, np.ndarray) and np.may_share_memory(result, mask)
        return result.copy() if is_part else result

    results = _each(result_of, masks, None if workers is None else worker_count(workers))
    values = np.stack(results) if results else np.empty(0)
    dims = (DIMS[0], *(f"dim_{axis}" for axis in range(1, values.ndim)))
    # Selecting a pixel would read it; the coordinates are all that is wanted.
    along = masks.coords.to_dataset().drop_dims(DIMS[1:], errors="ignore")
    return xr.DataArray(values, along.coords, dims)


def runs(masks: xr.DataArray) -> Runs:
    """Return the boundaries of the runs of every mask.

    Read row by row, a mask is background, object, background, ...: each boundary is a position in
    the flattened mask (y * width + x) where that changes. The lines are joined: a run that reaches
    the right edge may go on in the next line, so cut it at multiples of the width before x matters.

    Whole masks of a store are not decoded: their runs are kept beside them, and all 24,011 are read
    in a tenth of a second. Others are computed from the pixels. Reads at once, whole chunks of some
    thousand masks: rather ask once for many masks than many times for a few.

    Parameters
    ----------
    masks : xarray.DataArray
        (mask, y, x) uint8 or bool, 0 and 1, of `open_masks`, selected from or not.

    Returns
    -------
    boundaries : numpy.ndarray
        (n_boundaries,) int32, those of each mask in turn, ascending: first pixel of a run, first
        pixel after it, and so on.
    offsets : numpy.ndarray
        (mask + 1,) int64: those of mask i are ``boundaries[offsets[i]:offsets[i + 1]]``.

    Raises
    ------
    CorruptStore
        When the runs of a store are missing or damaged; the masks need not be.
    CorruptMask
        When they are computed, and a mask is missing or damaged.
    InvalidOption
        When `masks` is no DataArray (mask, y, x), or has values other than 0 and 1.

    Examples
    --------
    >>> from maskcube import open_masks
    >>> masks = open_masks("masks.zarr").sel(noun="hand")
    >>> boundaries, offsets = runs(masks)
    >>> mask = masks[0].values.reshape(-1)
    >>> bool(mask[boundaries[0] : boundaries[1]].all()), bool(mask[: boundaries[0]].any())
    (True, False)
    """
    check_masks(masks)
    stored = stored_rows(masks)
    if stored is not None and stored[0].runs is not None:
        return stored[0].runs.read(stored[1])
    if masks.dtype not in (np.uint8, np.bool_):
        raise InvalidOption(
            f"masks have dtype {masks.dtype}; runs are of uint8 or bool: .astype('uint8'), and"
            " .where(..., 0) instead of .where(...)"
        )
    found = _each(_checked_boundaries, masks, None)
    offsets = np.cumsum([0, *map(len, found)], dtype=np.int64)
    return np.concatenate([*found, np.empty(0, np.int32)]), offsets


def check_masks(masks: object) -> None:
    if not isinstance(masks, xr.DataArray):
        raise InvalidOption(
            f"masks is a {type(masks).__name__}; give a DataArray, as open_masks returns it"
        )
    if masks.dims != DIMS:
        single = masks.dims == DIMS[1:]
        advice = (
            "select with a list, as in noun=[...], to keep the dimension mask of a single one"
            if single
            else f"use .transpose{DIMS}, or .rename"
        )
        raise InvalidOption(f"masks are {DIMS}, not {masks.dims}: {advice}")


def check_dtype(masks: xr.DataArray, wanted: str) -> None:
    """Raise `InvalidOption` unless pixels are uint8 or bool; `wanted` says by whom."""
    if masks.dtype not in (np.uint8, np.bool_):
        raise InvalidOption(
            f"masks have dtype {masks.dtype}; {wanted} uint8 or bool: .astype('uint8'), and"
            " .where(..., 0) instead of .where(...)"
        )


def _checked_boundaries(mask: NDArray[np.uint8]) -> NDArray[np.int32]:
    if mask.max(initial=0) > 1:
        raise InvalidOption(
            "a mask has values other than 0 and 1; runs are of 1: use masks > 0, or masks == ..."
        )
    return boundaries_of(mask)


def _each(
    function: Callable[[NDArray[np.uint8]], Any], masks: xr.DataArray, workers: int | None
) -> list[Any]:
    stored = stored_rows(masks)
    if stored is not None:
        reader, rows = stored
        return reader.each(function, rows, workers=workers)
    results: list[Any] = []
    for block in _blocks(masks):
        results += spread(function, list(block), workers)
    return results


def stored_rows(masks: xr.DataArray) -> tuple[ShardReader, NDArray[np.intp]] | None:
    """Return which masks of which shards these are; None if they are anything else."""
    data: Any = masks.variable._data  # noqa: SLF001 - the public .data would read them all
    dasked = sys.modules.get("maskcube.dasked")
    if dasked is not None and isinstance(data, dasked.MaskRows):
        is_read = data.is_untouched and isinstance(data.reader, ShardReader)
        return (data.reader, data.rows) if is_read else None
    while isinstance(data, indexing.CopyOnWriteArray | indexing.MemoryCachedArray):
        data = data.array
    lazy = isinstance(data, indexing.LazilyIndexedArray) and isinstance(data.array, MaskArray)
    if not lazy or not isinstance(data.array.reader, ShardReader):
        return None
    first, *cuts = data.key.tuple
    sizes = data.array.shape
    rows = np.arange(sizes[0])[first]
    return (data.array.reader, rows) if are_whole(cuts, sizes[1:]) else None


def _blocks(masks: xr.DataArray) -> Iterator[NDArray[np.uint8]]:
    """Yield masks that are not simply those of shards, some at a time."""
    size = max(1, _BLOCK_BYTES // max(1, masks.sizes["y"] * masks.sizes["x"]))
    for start in range(0, masks.sizes[DIMS[0]], size):
        # A copy: what a function does to its mask, it must not do to the caller's.
        yield np.array(masks[start : start + size].values, order="C")
