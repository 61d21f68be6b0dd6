"""The chunks of an HDF5 dataset, inflated outside of the HDF5 library.

The library inflates one chunk at a time under its one lock, and believes what it inflates. Here the
raw chunks are inflated on threads, each into its place, and each must fill its place exactly.
"""

from __future__ import annotations

import itertools
import math
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from maskcube.filters import InflateError, undo
from maskcube.layout import Block

if TYPE_CHECKING:
    import h5py

__all__ = [
    "Grid",
    "Offset",
    "RawChunk",
    "RawReader",
    "applied",
    "chunk_rows",
    "inflate",
    "read_block",
    "read_raw",
    "scratch",
]

Offset = tuple[int, int, int]
"""The first pixel of a chunk, (mask, y, x)."""

_scratch = threading.local()


class RawChunk(NamedTuple):
    """A chunk as it lies in the file."""

    offset: Offset
    data: bytes
    applied: tuple[str, ...]
    """Its filters, in their order: HDF5 skips one that would not make a chunk smaller."""


RawReader = Callable[[Offset], RawChunk]
"""Gives the chunk of which this is the first pixel."""


class Grid(NamedTuple):
    """How a dataset is cut into chunks."""

    shape: Offset
    """Pixels of the dataset, (mask, y, x)."""
    chunks: Offset
    """Pixels of a chunk."""

    def offsets(self, block: Block) -> Iterator[Offset]:
        """Yield the first pixels of the chunks that hold the masks of a block, line by line."""
        rows, height, width = self.chunks
        yield from itertools.product(
            range(block.start // rows * rows, block.stop, rows),
            range(0, self.shape[1], height),
            range(0, self.shape[2], width),
        )


def chunk_rows(offset: Offset, length: int, block: Block) -> tuple[slice, slice]:
    """Return which masks of a block lie in a chunk of `length` masks: as rows of both."""
    first = max(offset[0], block.start)
    last = min(offset[0] + length, block.stop)
    return (
        slice(first - block.start, last - block.start),
        slice(first - offset[0], last - offset[0]),
    )


def read_raw(dataset: h5py.Dataset, filters: list[str], offset: Offset) -> RawChunk:
    """Read a chunk as it lies in the file."""
    skipped, data = dataset.id.read_direct_chunk(offset)
    return RawChunk(offset, data, applied(filters, skipped))


def applied(filters: list[str], skipped: int) -> tuple[str, ...]:
    """Return the filters of a chunk, without those that HDF5 has skipped, a bit for each."""
    return tuple(name for bit, name in enumerate(filters) if not skipped >> bit & 1)


def read_block(
    raw: RawReader,
    grid: Grid,
    block: Block,
    out: np.ndarray[Any, Any],
    mapped: Callable[[Callable[[RawChunk], None], Iterable[RawChunk]], Iterable[None]] = map,
) -> None:
    """Read consecutive masks.

    Parameters
    ----------
    raw : callable
        Reads a chunk as it lies in the file.
    grid : Grid
        Shape of the dataset, elements of one byte, and of a chunk.
    block : Block
        The rows to read.
    out : numpy.ndarray
        (len(block), y, x) uint8, where to put them.
    mapped : callable
        ``map``, or that of an executor to inflate on its threads.

    Raises
    ------
    InflateError
        When a chunk is damaged, or holds too few or too many bytes.
    """
    shape = grid.chunks

    def place(chunk: RawChunk) -> None:
        _, y, x = chunk.offset
        in_block, in_chunk = chunk_rows(chunk.offset, shape[0], block)
        target = out[in_block, y : y + shape[1], x : x + shape[2]]
        if target.shape == shape and target.flags.c_contiguous:
            inflate(chunk, target)
            return
        pixels = scratch(shape)
        inflate(chunk, pixels)
        target[...] = pixels[in_chunk, : target.shape[1], : target.shape[2]]

    for _ in mapped(place, map(raw, grid.offsets(block))):
        pass


def inflate(chunk: RawChunk, out: np.ndarray[Any, Any]) -> None:
    """Inflate a chunk into `out`, which it must fill exactly.

    Raises
    ------
    InflateError
        When it is damaged, or holds too few or too many bytes.
    """
    try:
        undo(chunk.data, chunk.applied, out)
    except InflateError as error:
        raise InflateError(f"the chunk at {chunk.offset} {error}") from error


def scratch(shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """Return this thread's array of a shape, uint8; the next call gives the same memory."""
    found: np.ndarray[Any, Any] | None = getattr(_scratch, "pixels", None)
    if found is None or found.size < math.prod(shape):
        found = _scratch.pixels = np.empty(math.prod(shape), np.uint8)
    return found[: math.prod(shape)].reshape(shape)
