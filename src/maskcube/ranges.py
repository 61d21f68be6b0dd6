"""The raw chunks of consecutive masks, fetched from afar in few requests, without the HDF5 library.

Where the chunks lie is known to whoever has the whole file; a worker that is told needs neither the
file's own list of them, which is scattered all over it, nor the library.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskcube.chunks import Grid, Offset, RawChunk, applied
from maskcube.layout import Block
from maskcube.remote import RemotePath

__all__ = ["ChunkRanges"]

_GAP_BYTES = 2**17
"""What lies between two chunks is fetched rather than another request sent: that takes longer."""

_RANGE_BYTES = 2**23
"""Most bytes of a request, unless a chunk has more."""

_MOST_KEPT = 4
"""Ranges that are kept: those of neighbours may be asked for in turn, by several threads."""


class ChunkRanges:
    """The raw chunks of a block of masks, each of a file at a URL.

    What is fetched stays until others take its place, and is no part of a pickle.

    Parameters
    ----------
    path : RemotePath
        The HDF5.
    grid : Grid
        How its dataset is cut into chunks.
    block : Block
        The masks.
    places : numpy.ndarray
        (chunk, 3) uint64 of the chunks that hold them, in the order of ``grid.offsets``: the first
        byte in the file, how many there are, and the filters that were skipped.
    """

    def __init__(
        self, path: RemotePath, grid: Grid, block: Block, places: NDArray[np.uint64]
    ) -> None:
        self.path = path
        self.block = block
        self._made_of = path, grid, block, places
        self._places = dict(zip(grid.offsets(block), places.tolist(), strict=True))
        self._ranges = list(_joined(places))
        self._kept: OrderedDict[int, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def holds(self, block: Block) -> bool:
        """Whether all masks of a block are among these."""
        return self.block.start <= block.start and block.stop <= self.block.stop

    def read(self, filters: list[str], offset: Offset) -> RawChunk:
        """Return a chunk by its first pixel.

        Raises
        ------
        SourceError
            When it cannot be fetched.
        """
        start, size, skipped = self._places[offset]
        number = bisect_right(self._ranges, start, key=lambda each: each.start) - 1
        at = start - self._ranges[number].start
        with self._lock:
            data = self._range(number)
        return RawChunk(offset, data[at : at + size], applied(filters, skipped))

    def _range(self, number: int) -> bytes:
        if number not in self._kept:
            wanted = self._ranges[number]
            self._kept[number] = self.path.get_exactly(wanted.start, len(wanted))
            if len(self._kept) > _MOST_KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(number)
        return self._kept[number]

    def __reduce__(self) -> tuple[Any, ...]:
        return ChunkRanges, self._made_of


def _joined(places: NDArray[np.uint64]) -> Iterator[range]:
    """Yield the ranges of bytes that hold all chunks, neighbours together."""
    start = stop = -1
    for first, size, _ in sorted(places.tolist()):
        if start >= 0 and first - stop <= _GAP_BYTES and first + size - start <= _RANGE_BYTES:
            stop = max(stop, first + size)
            continue
        if start >= 0:
            yield range(start, stop)
        start, stop = first, first + size
    if start >= 0:
        yield range(start, stop)
