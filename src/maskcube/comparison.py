"""A store against the source that it is from: every pixel, and every field of the CSV."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from maskcube.errors import CorruptMask, CorruptStore, listed
from maskcube.layout import Block, block_rows, blocks
from maskcube.readers import StoreReader, open_reader
from maskcube.schema import COORDINATES
from maskcube.slabs import PlainSlab, Slab, StrayPixels, held_bytes, open_slab
from maskcube.source import MaskSource
from maskcube.store import MaskStore

__all__ = ["Found", "column_or_none", "compare"]

Found = tuple[list[str], dict[int, str]]
"""Faults apart from single masks, and what is wrong with single masks, by row."""

_COMPARED_MASKS = 8
"""Masks that a thread compares with the source before it asks for more."""

_BITS = 8

_MOST_BYTES = 2**30
"""What reading the source may take; fewer masks are read at a time where a HDF5 chunk has many."""


def compare(
    store: MaskStore, source: MaskSource, pool: Executor, told: Callable[[int], object]
) -> Found:
    """Compare every pixel and every field with the source."""
    if source.layout.shape != store.layout.shape:
        return [f"the source has shape {source.layout.shape}, not {store.layout.shape}"], {}
    faults = _table_faults(store, source.by_row())
    bad: dict[int, str] = {}
    file, reader = source.file, open_reader(store)
    # The pool's threads are not counted: their buffers are small beside a gibibyte.
    rows = block_rows(store.layout, file.chunks, held_bytes(file), _MOST_BYTES, workers=1)
    slab = open_slab(file, rows, normalize=store.manifest.source["normalize"])

    for block in blocks(0, store.layout.n_masks, rows):
        try:
            slab.load(block, pool)
            parts = [(slab, block)]
        except StrayPixels:
            # As bits they cannot be held: as pixels, which take eight times as much.
            size = max(1, rows // _BITS)
            parts = [
                (PlainSlab(file, size, normalize=False), part)
                for part in blocks(block.start, block.stop, size)
            ]
        for held, part in parts:
            if held is not slab:
                held.load(part, pool)
            different = partial(_different, reader, held)
            for found in pool.map(different, blocks(part.start, part.stop, _COMPARED_MASKS)):
                bad |= found
        told(len(block))
    return faults, bad


def _different(reader: StoreReader, slab: Slab, part: Block) -> dict[int, str]:
    """Return the masks of a block whose pixels are not those of the source."""
    bad: dict[int, str] = {}
    for row in range(part.start, part.stop):
        try:
            found = reader.mask(row)
            same = np.array_equal(found, slab.mask(row))
        except (CorruptMask, CorruptStore):
            bad[row] = "it cannot be read"
        except StrayPixels:
            bad[row] = "the source has pixels other than 0 and 1 there"
        else:
            bad |= {} if same else {row: "its pixels are not those of the source"}
    return bad


def _table_faults(store: MaskStore, table: pd.DataFrame) -> list[str]:
    faults = []
    for name, coordinate in COORDINATES.items():
        found = column_or_none(store, name)
        if coordinate.column is None or found is None:
            continue
        wanted = table[coordinate.column].to_numpy()
        if found.dtype.kind == "T":
            differs = found.astype(object) != wanted.astype(object)
        else:
            differs = ~((found == wanted) | ((found != found) & (wanted != wanted)))  # noqa: PLR0124 - NaN
        if differs.any():
            rows = np.flatnonzero(differs).tolist()
            faults.append(f"coordinate {name!r} is not that of the source in rows {listed(rows)}")
    return faults


def column_or_none(store: MaskStore, name: str) -> np.ndarray[Any, Any] | None:
    """Return a coordinate; None when it is damaged, which is a fault of its own already."""
    try:
        return store.coordinate(name)
    except CorruptStore:
        return None
