"""One mask of a store, replaced.

The new store is built beside the old one, whose other shards it shares, and takes its place in one
step. The same journal as for a conversion makes it resumable.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from maskcube.base import encoded_masks, open_base, rewrite
from maskcube.catalog import Catalog
from maskcube.codec import checksum
from maskcube.conversion import finish_earlier
from maskcube.errors import CorruptMask, InvalidOption, listed
from maskcube.layout import DIMS
from maskcube.manifest import MOST_MASK_BYTES, UPDATE
from maskcube.objects import StoreLike
from maskcube.provenance import generator, now
from maskcube.report import UpdateReport
from maskcube.schema import INDEXED
from maskcube.shards import ShardReader
from maskcube.stage import Stage, open_stage
from maskcube.store import MaskStore

__all__ = ["update"]


def update(
    store: StoreLike,
    image: str,
    noun: str,
    instance: int,
    mask: ArrayLike,
    *,
    storage_options: dict[str, Any] | None = None,
) -> UpdateReport:
    """Replace the pixels of one mask; its area, CRC-32C and runs follow.

    Its other coordinates, score and box among them, stay: they are what the detection said. The old
    pixels are not kept; the store's ``revisions`` say which masks were updated, and when. Readers
    find the old store until the new one is complete; whoever opened the old one is told by
    `StoreChanged`. Pixels that are there already change nothing.

    All coordinates and runs are written anew each time, about a second for 24,011 masks.

    Parameters
    ----------
    store : path, URL or zarr Store
        A store that `convert` has written.
    image : str
        Its image.
    noun : str
        Its noun.
    instance : int
        Which one of that noun in that image.
    mask : array_like
        (y, x) of the store's size, bool or numbers: 1 where the object is, 0 elsewhere.
    storage_options : dict, optional
        For a URL: how to reach it, as in ``{"anon": True}`` or ``{"key": ...,
        "secret": ..., "endpoint_url": ...}``; else as the environment says, or anonymously.

    Returns
    -------
    UpdateReport
        Which mask it was, and its area before and after.

    Raises
    ------
    LabelNotFound
        When no mask has that image, noun and instance.
    InvalidOption
        When several masks have, or `mask` is no mask of the store's size.
    StoreNotFound, IncompleteStore, NotAMaskStore
        When there is no complete mask store as a conversion writes it.
    StoreExists
        When another change is unfinished, or another process is writing.
    CorruptStore
        When the store is damaged where it must be read.

    Examples
    --------
    >>> from maskcube import Segmentations
    >>> key = "shared_12rep_LAION_cluster_1003_i0.jpg", "hand", 0
    >>> mask = Segmentations("masks.zarr").get(*key)
    >>> mask[:500] = 0
    >>> update("masks.zarr", *key, mask).changed
    True
    >>> bool((Segmentations("masks.zarr").get(*key) == mask).all())
    True
    """
    pixels, labels = _pixels(mask), _labels(image, noun, instance)
    with open_stage(store, revise=True, storage_options=storage_options) as stage:
        plan: dict[str, Any] = {
            "action": UPDATE,
            "generator": generator(),
            "created": now(),
            "mask": {**labels, "crc32c": checksum(pixels)},
        }
        base = MaskStore(stage.place) if finish_earlier(stage, plan) else open_base(stage)
        row = _row_of(base, plan["mask"])
        area_before = int(base.coordinate("area")[row])
        changed = _update(stage, base, plan, row, pixels)
        return UpdateReport(
            location=stage.location,
            row=row,
            **labels,
            changed=changed,
            area_before=area_before,
            area=int(np.count_nonzero(pixels)),
        )


def _update(
    stage: Stage, base: MaskStore, plan: dict[str, Any], row: int, pixels: NDArray[np.uint8]
) -> bool:
    """Replace a mask, unless it has these pixels; say whether it was replaced."""
    if pixels.shape != base.layout.shape[1:]:
        raise InvalidOption(
            f"mask has shape {pixels.shape}, those of {base.location} {base.layout.shape[1:]}"
        )
    if _is_there(base, row, pixels):
        return False
    shard = row // base.layout.shard_masks
    masks = encoded_masks(base, shard, {row: pixels})
    change = {"action": UPDATE, "row": row, "crc32c": plan["mask"]["crc32c"]}
    rewrite(stage, base, plan, {shard: masks}, change)
    return True


def _is_there(base: MaskStore, row: int, pixels: NDArray[np.uint8]) -> bool:
    """Whether a mask has these pixels already; if it is damaged it has not."""
    with suppress(CorruptMask):
        return np.array_equal(ShardReader(base).mask(row), pixels)
    return False


def _row_of(base: MaskStore, labels: Mapping[str, Any]) -> int:
    rows = Catalog.of_store(base).rows({name: labels[name] for name in INDEXED}).tolist()
    if len(rows) != 1:
        raise InvalidOption(
            f"{len(rows)} masks of {base.location} have these labels, rows {listed(rows)}:"
            " update replaces one"
        )
    return int(rows[0])


def _labels(image: object, noun: object, instance: object) -> dict[str, Any]:
    """Return the labels of one mask as plain JSON types."""
    try:
        number = operator.index(instance)  # type: ignore[arg-type]
    except TypeError:
        number = None
    if not isinstance(image, str) or not isinstance(noun, str) or isinstance(instance, bool):
        number = None
    if number is None:
        raise InvalidOption(
            f"image={image!r}, noun={noun!r}, instance={instance!r}: expected two texts and a whole"
            " number"
        )
    return {"image": str(image), "noun": str(noun), "instance": number}


def _pixels(mask: ArrayLike) -> NDArray[np.uint8]:
    """Return a mask, (y, x) uint8 of 0 and 1, whatever numbers these were."""
    dims = getattr(mask, "dims", DIMS[1:])
    try:
        found = np.asarray(mask)
    except ValueError as error:
        raise InvalidOption(f"mask is no array: {error}") from error
    is_flat = found.ndim == 2 and found.size <= MOST_MASK_BYTES  # noqa: PLR2004 - (y, x)
    if not is_flat or found.dtype.kind not in "buif":
        raise InvalidOption(f"mask has shape {found.shape}, dtype {found.dtype}; expected (y, x)")
    if dims != DIMS[1:]:
        raise InvalidOption(f"mask is {dims}; expected {DIMS[1:]}")
    if np.ma.is_masked(mask):
        raise InvalidOption("mask has values that are masked out; .filled(0) makes them background")
    stray = np.unique(found[(found != 0) & (found != 1)])
    if len(stray):
        raise InvalidOption(f"mask has values {listed(stray.tolist())}; expected 0 and 1")
    return np.ascontiguousarray(found, np.uint8)
