"""The chunks of an HDF5 dataset, inflated outside of the HDF5 library.

The library inflates one chunk at a time under its one lock, and gives uninitialised memory for a
stream that ends early. Here the raw chunks are inflated on threads, each into its place, and each
must fill its place exactly.
"""

from __future__ import annotations

import itertools
import math
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import cramjam
import numpy as np

from maskcube.layout import Block

if TYPE_CHECKING:
    import h5py

__all__ = [
    "InflateError",
    "RawChunk",
    "can_inflate",
    "chunk_offsets",
    "chunk_rows",
    "inflate",
    "read_block",
    "read_raw",
    "scratch",
]

Offset = tuple[int, int, int]
"""The first pixel of a chunk, (mask, y, x)."""

_GZIP = "gzip"
_scratch = threading.local()


class InflateError(ValueError):
    """A chunk does not inflate to the pixels that it must hold."""


class RawChunk(NamedTuple):
    """A chunk as it lies in the file."""

    offset: Offset
    data: bytes
    deflated: bool
    """HDF5 stores a chunk as it is where deflating it would not make it smaller."""


def can_inflate(filters: list[str]) -> bool:
    """Whether chunks with these filters can be inflated here.

    Shuffling changes nothing on elements of one byte.
    """
    return set(filters) <= {_GZIP, "shuffle"}


def chunk_offsets(dataset: h5py.Dataset, block: Block) -> Iterator[Offset]:
    """Yield the first pixels of the chunks that hold the masks of a block, line by line."""
    rows, height, width = dataset.chunks
    yield from itertools.product(
        range(block.start // rows * rows, block.stop, rows),
        range(0, dataset.shape[1], height),
        range(0, dataset.shape[2], width),
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
    gzip_bit = 1 << filters.index(_GZIP) if _GZIP in filters else 0
    skipped, data = dataset.id.read_direct_chunk(offset)
    return RawChunk(offset, data, deflated=bool(gzip_bit & ~skipped))


def read_block(
    dataset: h5py.Dataset,
    filters: list[str],
    block: Block,
    out: np.ndarray[Any, Any],
    mapped: Callable[[Callable[[RawChunk], None], Iterable[RawChunk]], Iterable[None]] = map,
) -> None:
    """Read consecutive masks.

    Parameters
    ----------
    dataset : h5py.Dataset
        (mask, y, x), elements of one byte, with filters that `can_inflate` accepts.
    filters : list of str
        Names of the filters, in the order in which they were applied.
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
    shape = dataset.chunks

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

    raw = (read_raw(dataset, filters, offset) for offset in chunk_offsets(dataset, block))
    for _ in mapped(place, raw):
        pass


def inflate(chunk: RawChunk, out: np.ndarray[Any, Any]) -> None:
    """Inflate a chunk into `out`, which it must fill exactly.

    Raises
    ------
    InflateError
        When it is damaged, or holds too few or too many bytes.
    """
    if not chunk.deflated:
        if len(chunk.data) != out.nbytes:
            raise InflateError(
                f"the chunk at {chunk.offset} holds {len(chunk.data):,} bytes, not {out.nbytes:,}"
            )
        out[...] = np.frombuffer(chunk.data, np.uint8).reshape(out.shape)
        return
    try:
        target: Any = out.reshape(-1)  # numpy declares itself a buffer from Python 3.12 on
        n_bytes = cramjam.zlib.decompress_into(chunk.data, target)
    except cramjam.DecompressionError as error:
        raise InflateError(f"the chunk at {chunk.offset} does not inflate: {error}") from error
    if n_bytes != out.nbytes:
        raise InflateError(
            f"the chunk at {chunk.offset} inflates to {n_bytes:,} bytes, not {out.nbytes:,}"
        )


def scratch(shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """Return this thread's array of a shape, uint8; the next call gives the same memory."""
    found: np.ndarray[Any, Any] | None = getattr(_scratch, "pixels", None)
    if found is None or found.size < math.prod(shape):
        found = _scratch.pixels = np.empty(math.prod(shape), np.uint8)
    return found[: math.prod(shape)].reshape(shape)
