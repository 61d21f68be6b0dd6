"""Consecutive masks of a source, read together and held in the cheapest form.

HDF5 chunks of one mask stay deflated until their mask is wanted: nothing decoded waits in memory.
Chunks of many masks must all be inflated before the first mask is whole; they are kept as bits,
an eighth of the pixels, if their width allows it.
"""

from __future__ import annotations

import itertools
import math
from concurrent.futures import Executor
from typing import Any, Protocol

import numpy as np

from maskcube.chunks import Offset, RawChunk, RawReader, chunk_rows, inflate, scratch
from maskcube.hdf5 import MaskFile
from maskcube.layout import Block, Layout, block_rows

__all__ = [
    "DeflatedSlab",
    "DrawnMasks",
    "DrawnSlab",
    "Masks",
    "PackedSlab",
    "PlainSlab",
    "Slab",
    "StrayPixels",
    "held_bytes",
    "open_slab",
    "rows_at_once",
]

_BYTE = 8
"""Pixels to a byte of bits."""


class StrayPixels(ValueError):
    """A mask has values other than 0 and 1."""


class Slab(Protocol):
    """Masks of a source in memory, as many as were loaded last."""

    def load(self, block: Block, pool: Executor) -> None:
        """Read consecutive masks in place of those before, on the threads of a pool.

        Raises
        ------
        SourceError
            When they cannot be read.
        StrayPixels
            When a pixel is neither 0 nor 1, unless they are normalized; at the latest by `mask`.
        """

    def mask(self, row: int) -> np.ndarray[Any, Any]:
        """Return the mask of one of these rows, (y, x) uint8 of 0 and 1, C-contiguous.

        It is valid until the same thread asks for another one. May raise as `load` does.
        """


class DrawnMasks(Protocol):
    """Masks that are no HDF5 and are made one at a time."""

    layout: Layout

    def mask(self, row: int) -> np.ndarray[Any, Any]:
        """Return a mask, (y, x) uint8 of 0 and 1, C-contiguous; called on several threads.

        Raises
        ------
        SourceError
            When it cannot be read.
        """


Masks = MaskFile | DrawnMasks
"""What slabs are made of."""


def open_slab(file: Masks, rows: int, *, normalize: bool) -> Slab:
    """Return a slab for at most `rows` masks of a file at a time.

    Parameters
    ----------
    file : MaskFile or DrawnMasks
        The source's masks.
    rows : int
        Most masks to hold.
    normalize : bool
        Take every pixel but 0 as 1.
    """
    if not isinstance(file, MaskFile):
        return DrawnSlab(file)
    return _kind(file)(file, rows, normalize=normalize)


def rows_at_once(file: Masks, memory: int, workers: int) -> int:
    """Return how many masks of a file to read at a time within `memory` bytes: see `block_rows`."""
    chunks = file.chunks if isinstance(file, MaskFile) else file.layout.chunk_shape
    return block_rows(file.layout, chunks, held_bytes(file), memory, workers)


def held_bytes(file: Masks) -> int:
    """Return what one mask takes in a slab, at most."""
    if isinstance(file, MaskFile) and _kind(file) is PackedSlab:
        return math.prod(_packed_shape(file))
    return file.layout.mask_bytes


def _kind(file: MaskFile) -> type[DeflatedSlab | PackedSlab | PlainSlab]:
    if file.chunks == file.layout.chunk_shape:
        return DeflatedSlab
    return PlainSlab if file.chunks[2] % _BYTE else PackedSlab


def _packed_shape(file: MaskFile) -> tuple[int, int]:
    """Return lines, and bytes of a line, of a mask as bits; padded to whole chunks."""
    width = file.chunks[2]
    return file.layout.height, math.ceil(file.layout.width / width) * width // _BYTE


class DeflatedSlab:
    """Masks that are one HDF5 chunk each, inflated when they are asked for."""

    def __init__(self, file: MaskFile, rows: int, *, normalize: bool) -> None:  # noqa: ARG002 - as the others
        self.file = file
        self.normalize = normalize
        self._raw: dict[int, RawChunk] = {}

    def load(self, block: Block, pool: Executor) -> None:  # noqa: ARG002 - as the others
        """Read the chunks of consecutive masks."""
        with self.file.reading(block):
            read, _ = self.file.raw_reader(block)
            self._raw = {row: read((row, 0, 0)) for row in range(block.start, block.stop)}

    def mask(self, row: int) -> np.ndarray[Any, Any]:
        """Return the mask of one of these rows."""
        pixels = scratch(self.file.layout.shape[1:])
        with self.file.reading(Block(row, row + 1)):
            inflate(self._raw[row], pixels)
        return _binary(pixels, normalize=self.normalize)


class DrawnSlab:
    """Masks that are made when they are asked for."""

    def __init__(self, masks: DrawnMasks) -> None:
        self.masks = masks

    def load(self, block: Block, pool: Executor) -> None:
        """Do nothing: nothing waits in memory."""

    def mask(self, row: int) -> np.ndarray[Any, Any]:
        """Return the mask of one of these rows."""
        return self.masks.mask(row)


class PackedSlab:
    """Masks in HDF5 chunks of many, kept as one bit a pixel."""

    def __init__(self, file: MaskFile, rows: int, *, normalize: bool) -> None:
        self.file = file
        self.normalize = normalize
        self._start = 0
        self._bits = np.empty((rows, *_packed_shape(file)), np.uint8)
        # Whole numbers instead of single bytes: a chunk's bits get to their places five times
        # as fast.
        self._word = np.dtype(f"u{math.gcd(file.chunks[2] // _BYTE, 8)}")

    def load(self, block: Block, pool: Executor) -> None:
        """Read consecutive masks; a task inflates the chunks that lie side by side."""
        self._start = block.start
        read, grid = self.file.raw_reader(block)
        offsets = itertools.groupby(grid.offsets(block), lambda each: each[:2])
        strips = [list(strip) for _, strip in offsets]
        for _ in pool.map(lambda strip: self._load_strip(read, block, strip), strips):
            pass

    def _load_strip(self, read: RawReader, block: Block, offsets: list[Offset]) -> None:
        pixels = scratch(self.file.chunks)
        words = self._bits.view(self._word)
        for offset in offsets:
            with self.file.reading(block):
                inflate(read(offset), pixels)
            # Packed, every pixel but 0 is 1.
            if not self.normalize:
                _binary(pixels[_inside(offset, self.file.layout.shape)], normalize=False)
            in_block, in_chunk = chunk_rows(offset, pixels.shape[0], block)
            chunk = np.packbits(pixels).view(self._word).reshape(*pixels.shape[:2], -1)
            column = offset[2] // (_BYTE * self._word.itemsize)
            target = words[in_block, offset[1] :, column : column + chunk.shape[2]]
            lines = min(pixels.shape[1], target.shape[1])
            target[:, :lines] = chunk[in_chunk, :lines]

    def mask(self, row: int) -> np.ndarray[Any, Any]:
        """Return the mask of one of these rows."""
        bits = self._bits[row - self._start]
        pixels: np.ndarray[Any, Any] = np.unpackbits(bits, axis=1, count=self.file.layout.width)
        return pixels


class PlainSlab:
    """Masks as they are."""

    def __init__(self, file: MaskFile, rows: int, *, normalize: bool) -> None:
        self.file = file
        self.normalize = normalize
        self._start = 0
        self._pixels = np.empty((rows, *file.layout.shape[1:]), np.uint8)

    def load(self, block: Block, pool: Executor) -> None:
        """Read consecutive masks."""
        self._start = block.start
        self.file.read(block, self._pixels[: len(block)], pool)

    def mask(self, row: int) -> np.ndarray[Any, Any]:
        """Return the mask of one of these rows."""
        return _binary(self._pixels[row - self._start], normalize=self.normalize)


def _inside(offset: tuple[int, int, int], shape: tuple[int, int, int]) -> tuple[slice, ...]:
    """Return the part of a chunk that lies in the dataset; whatever is beyond means nothing."""
    return tuple(slice(size - start) for start, size in zip(offset, shape, strict=True))


def _binary(pixels: np.ndarray[Any, Any], *, normalize: bool) -> np.ndarray[Any, Any]:
    """Return the pixels, every one but 0 as 1; or raise if there are others."""
    if normalize:
        np.minimum(pixels, 1, out=pixels)
    elif pixels.max(initial=0) > 1:
        raise StrayPixels
    return pixels
