"""Masks straight from the byte ranges of their shards.

A shard's index says where each encoded mask lies. Here the index is read once and kept, the ranges
of neighbouring masks are fetched together, and each mask is checked and decoded into its place.
What is missing is an error: plain zarr would give zeros.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np

from maskcube.codec import DamagedBytes, decode_chunk, index_bytes, unpack_index
from maskcube.errors import CorruptMask, MaskcubeError
from maskcube.layout import Layout
from maskcube.manifest import Piece
from maskcube.objects import Objects
from maskcube.schema import shard_key
from maskcube.store import MaskStore

__all__ = ["ShardReader"]

_GAP_BYTES = 64 * 2**10
"""Ranges nearer than this are fetched as one: reading over the gap is cheaper than asking twice."""

_CACHED_INDEXES = 4096
"""Shard indexes to keep, of about 1 kB each."""


class Wanted(NamedTuple):
    """The masks wanted of one shard."""

    shard: int
    slots: np.ndarray[Any, Any]
    """Places in the shard, in ascending order, perhaps repeated."""
    positions: np.ndarray[Any, Any]
    """Where each of them goes in the answer."""


class ShardReader:
    """Reads masks of a store by row.

    It pickles without what it has cached and holds no file open, so threads, forked processes and
    dask workers may share it.

    Parameters
    ----------
    store : MaskStore
        An opened store.
    """

    def __init__(self, store: MaskStore) -> None:
        self.layout: Layout = store.layout
        self._objects: Objects = store.objects
        self._pieces: tuple[Piece, ...] = store.manifest.shards
        self._indexes: dict[int, np.ndarray[Any, Any]] = {}

    def read(self, rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Return the masks in these rows, (len(rows), y, x) uint8, in the order asked.

        Parameters
        ----------
        rows : numpy.ndarray
            Row numbers, (n,) integer, from 0 on; in any order, repeated or not.

        Raises
        ------
        CorruptMask
            When one of them is missing or damaged.
        """
        out = np.empty((len(rows), *self.layout.shape[1:]), np.uint8)
        for wanted in _by_shard(rows, self.layout.shard_masks):
            self._read_shard(wanted, out)
        return out

    def _read_shard(self, wanted: Wanted, out: np.ndarray[Any, Any]) -> None:
        slots, first = np.unique(wanted.slots, return_index=True)
        index = self._index(wanted.shard, slots)
        places = wanted.positions[first]
        for start, stop in _neighbours(index[slots]):
            self._read_range(wanted.shard, slots[start:stop], places[start:stop], index, out)
        for slot, position in zip(wanted.slots, wanted.positions, strict=True):
            place = places[np.searchsorted(slots, slot)]
            if place != position:
                out[position] = out[place]

    def _read_range(
        self,
        shard: int,
        slots: np.ndarray[Any, Any],
        places: np.ndarray[Any, Any],
        index: np.ndarray[Any, Any],
        out: np.ndarray[Any, Any],
    ) -> None:
        """Fetch the range that holds some masks, and decode each into its place."""
        entries = index[slots]
        start, stop = int(entries[0, 0]), int(entries.sum(axis=1).max())
        data = self._get(shard, start, stop - start, slots)
        for slot, place, (offset, length) in zip(slots, places, entries, strict=True):
            try:
                decode_chunk(data[offset - start : offset - start + length], out[place])
            except DamagedBytes as error:
                raise self._corrupt(shard, [slot], str(error)) from error

    def _index(self, shard: int, slots: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Return the index of a shard, from the cache or from the end of its object."""
        found = self._indexes.get(shard)
        if found is not None:
            return found
        size = index_bytes(self.layout.shard_masks)
        body = self._pieces[shard].length - size
        if body < 0:
            raise self._corrupt(shard, slots, "it is too short for an index")
        data = self._get(shard, body, size, slots)
        try:
            index = unpack_index(data, len(self.layout.shard_rows(shard)), body)
        except DamagedBytes as error:
            raise self._corrupt(shard, slots, str(error)) from error
        if len(self._indexes) >= _CACHED_INDEXES:
            self._indexes.clear()
        self._indexes[shard] = index
        return index

    def _get(self, shard: int, start: int, length: int, slots: np.ndarray[Any, Any]) -> bytes:
        data = self._objects.get(shard_key(shard), start, length)
        if data is None:
            raise self._corrupt(shard, slots, "it is missing")
        if len(data) < length:
            raise self._corrupt(shard, slots, "it is shorter than it was written")
        return data

    def _corrupt(
        self, shard: int, slots: np.ndarray[Any, Any] | list[int], found: str
    ) -> CorruptMask:
        rows = [self.layout.shard_rows(shard).start + int(slot) for slot in slots]
        return CorruptMask(
            f"{self._objects.location}: shard {shard}: {found}; cannot read"
            f" {self._names(rows[0])}" + (f" and {len(rows) - 1} more" if len(rows) > 1 else ""),
            rows,
        )

    def _names(self, row: int) -> str:
        """Name a mask by its labels, if these at least can be read."""
        with suppress(MaskcubeError):
            store = MaskStore(self._objects)
            image, noun, instance = (
                store.coordinate(name)[row] for name in ("image", "noun", "instance")
            )
            return f"mask {row} (image {image!r}, noun {noun!r}, instance {instance})"
        return f"mask {row}"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_indexes": {}}


def _by_shard(rows: np.ndarray[Any, Any], shard_masks: int) -> Iterator[Wanted]:
    """Yield what is wanted of each shard, in the order of the shards."""
    order = np.argsort(rows, kind="stable")
    shards, slots = np.divmod(rows[order], shard_masks)
    bounds = np.flatnonzero(np.diff(shards)) + 1
    for part in np.split(np.arange(len(rows)), bounds) if len(rows) else []:
        yield Wanted(int(shards[part[0]]), slots[part], order[part])


def _neighbours(entries: np.ndarray[Any, Any]) -> Iterator[tuple[int, int]]:
    """Yield the runs of entries, (n, 2) offset and length, to be fetched with one request each."""
    ends = entries.sum(axis=1)
    gaps = entries[1:, 0] - ends[:-1]
    # An index may list its chunks in any order: one that goes back begins a new run.
    bounds = np.flatnonzero((gaps > _GAP_BYTES) | (gaps < 0)) + 1
    yield from zip([0, *bounds], [*bounds, len(entries)], strict=True)
