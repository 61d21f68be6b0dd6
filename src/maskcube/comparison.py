"""A store against the source that it is from: every pixel, and every field of the CSV."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from functools import partial
from typing import Any

import numpy as np

from maskcube.errors import CorruptMask, CorruptStore, listed
from maskcube.hdf5 import MaskFile
from maskcube.layout import Block, blocks
from maskcube.parts import Part
from maskcube.readers import StoreReader, open_reader
from maskcube.schema import COORDINATES
from maskcube.slabs import PlainSlab, Slab, StrayPixels, open_slab, rows_at_once
from maskcube.store import MaskStore

__all__ = ["Found", "column_or_none", "compare"]

Found = tuple[list[str], dict[int, str]]
"""Faults apart from single masks, and what is wrong with single masks, by row."""

_COMPARED_MASKS = 8
"""Masks that a thread compares with the source before it asks for more."""

_BITS = 8

_MOST_BYTES = 2**30
"""What reading the source may take; fewer masks are read at a time where a HDF5 chunk has many."""


def compare(store: MaskStore, part: Part, pool: Executor, told: Callable[[int], object]) -> Found:
    """Compare every pixel and every field of some rows with the source that they are from.

    Masks that were updated since have other pixels than the source: these are not compared.
    """
    source, file = part.masks, part.masks.file
    if (len(part.rows), *store.layout.shape[1:]) != source.layout.shape:
        expected = len(part.rows), *store.layout.shape[1:]
        return [f"the source has shape {source.layout.shape}, not {expected}"], {}
    faults = _table_faults(store, part)
    bad: dict[int, str] = {}
    # The pool's threads are not counted: their buffers are small beside a gibibyte.
    rows = rows_at_once(file, _MOST_BYTES, workers=1)
    slab = open_slab(file, rows, normalize=part.normalize)
    reader, updated = open_reader(store), store.manifest.updated()

    for block in blocks(0, len(part.rows), rows):
        for held, inside in _loaded(slab, file, block, rows, pool):
            different = partial(_different, reader, held, part.rows.start)
            for found in pool.map(different, blocks(inside.start, inside.stop, _COMPARED_MASKS)):
                bad |= found
        told(len(block))
    return faults, {row: fault for row, fault in bad.items() if row not in updated}


def _loaded(
    slab: Slab, file: MaskFile, block: Block, rows: int, pool: Executor
) -> Iterator[tuple[Slab, Block]]:
    """Load a block of the source; as pixels, in parts, where some are neither 0 nor 1."""
    try:
        slab.load(block, pool)
        yield slab, block
    except StrayPixels:
        # As bits they cannot be held, and pixels take eight times as much.
        size = max(1, rows // _BITS)
        for part in blocks(block.start, block.stop, size):
            pixels = PlainSlab(file, size, normalize=False)
            pixels.load(part, pool)
            yield pixels, part


def _different(reader: StoreReader, slab: Slab, first_row: int, block: Block) -> dict[int, str]:
    """Return the masks of a block, by row of the store, whose pixels are not the source's."""
    bad: dict[int, str] = {}
    for place in range(block.start, block.stop):
        row = first_row + place
        try:
            found = reader.mask(row)
            same = np.array_equal(found, slab.mask(place))
        except (CorruptMask, CorruptStore):
            bad[row] = "it cannot be read"
        except StrayPixels:
            bad[row] = "the source has pixels other than 0 and 1 there"
        else:
            bad |= {} if same else {row: "its pixels are not those of the source"}
    return bad


def _table_faults(store: MaskStore, part: Part) -> list[str]:
    faults = []
    for name, coordinate in COORDINATES.items():
        whole = column_or_none(store, name)
        if coordinate.column is None or whole is None:
            continue
        found, wanted = whole[part.rows.start : part.rows.stop], part.column(name)
        if found.dtype.kind == "T":
            differs = found.astype(object) != wanted.astype(object)
        else:
            differs = ~((found == wanted) | ((found != found) & (wanted != wanted)))  # noqa: PLR0124 - NaN
        if differs.any():
            rows = (part.rows.start + np.flatnonzero(differs)).tolist()
            faults.append(f"coordinate {name!r} is not that of the source in rows {listed(rows)}")
    return faults


def column_or_none(store: MaskStore, name: str) -> np.ndarray[Any, Any] | None:
    """Return a coordinate; None when it is damaged, which is a fault of its own already."""
    try:
        return store.coordinate(name)
    except CorruptStore:
        return None
