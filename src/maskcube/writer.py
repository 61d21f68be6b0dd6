"""Encodes the masks of a source and writes whole shards."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from maskcube.codec import checksum, encode_mask, pack_shard
from maskcube.hdf5 import MaskFile
from maskcube.journal import Entry, Journal
from maskcube.layout import Block, blocks
from maskcube.manifest import Piece
from maskcube.schema import shard_key
from maskcube.source import stray_values

__all__ = ["EncodedMask", "ShardWriter", "StrayPixels"]


class StrayPixels(ValueError):
    """A mask has values other than 0 and 1."""


class EncodedMask(NamedTuple):
    """A mask as it goes into a shard."""

    chunk: bytes
    area: int
    crc32c: int


class ShardWriter:
    """Reads rows of the source, encodes them on threads and writes whole shards.

    Only encoded masks are kept while a shard fills, so memory does not depend on the shard's size.

    Parameters
    ----------
    file : MaskFile
        The source's masks.
    journal : Journal
        Told of each shard that is finished.
    rows : int
        Masks to read at a time; two such blocks are in memory.
    workers : int
        Threads that encode.
    normalize : bool
        Take every pixel but 0 as 1.
    """

    def __init__(
        self, file: MaskFile, journal: Journal, rows: int, workers: int, *, normalize: bool
    ) -> None:
        self.file = file
        self.journal = journal
        self.rows = rows
        self.workers = workers
        self.normalize = normalize

    @property
    def shards_at_once(self) -> int:
        """Shards of a fair task: an HDF5 chunk of many masks is inflated once or twice."""
        return max(4, self.rows // self.journal.layout.shard_masks)

    def write(self, span: Block, told: Callable[[int], object] = lambda _: None) -> int:
        """Write the shards of consecutive rows and return how many masks that were.

        Parameters
        ----------
        span : Block
            From the first row of a shard to the last row of one.
        told : callable
            Hears after each shard how many masks it holds.

        Raises
        ------
        StrayPixels
            When a pixel is neither 0 nor 1, unless they are normalized.
        SourceError
            When the source cannot be read.
        """
        layout = self.journal.layout
        shard = span.start // layout.shard_masks
        held: list[EncodedMask] = []
        for encoded in self._encoded(span):
            held.append(encoded)
            if len(held) == len(layout.shard_rows(shard)):
                self._write_shard(shard, held)
                told(len(held))
                shard, held = shard + 1, []
        return len(span)

    def _write_shard(self, shard: int, masks: list[EncodedMask]) -> None:
        slots = self.journal.layout.shard_masks
        data = pack_shard([mask.chunk for mask in masks], slots)
        self.journal.objects.put(shard_key(shard), data)
        self.journal.record(
            shard,
            Entry(
                Piece.of(data),
                [mask.area for mask in masks],
                [mask.crc32c for mask in masks],
            ),
        )

    def _encoded(self, span: Block) -> Iterator[EncodedMask]:
        """Yield the masks of a span in order; one block is read while another is encoded."""
        shape = (self.rows, *self.journal.layout.shape[1:])
        filling, encoding = np.empty(shape, np.uint8), np.empty(shape, np.uint8)
        pending: list[Future[EncodedMask]] = []
        with ThreadPoolExecutor(self.workers) as pool:
            for block in blocks(span.start, span.stop, self.rows):
                self.file.read(block, filling[: len(block)], pool)
                # Inflating has waited for its turn behind encoding: these are done, or almost.
                yield from (future.result() for future in pending)
                filling, encoding = encoding, filling
                pending = [pool.submit(self._encode, mask) for mask in encoding[: len(block)]]
            yield from (future.result() for future in pending)

    def _encode(self, mask: np.ndarray[Any, Any]) -> EncodedMask:
        if self.normalize:
            np.minimum(mask, 1, out=mask)
        elif stray_values(mask):
            raise StrayPixels
        # As booleans the count is a sum of bytes, four times as fast.
        area = int(np.count_nonzero(mask.view(np.bool_)))
        return EncodedMask(encode_mask(mask), area, checksum(mask))
