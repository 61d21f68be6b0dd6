"""Encodes the masks of a source and writes whole shards."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from copy import copy
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from maskcube.boundaries import steps_of
from maskcube.codec import EncodedSteps, checksum, encode_mask, pack_shard
from maskcube.entry import Entry
from maskcube.journal import Journal
from maskcube.layout import Block, blocks
from maskcube.manifest import Piece
from maskcube.slabs import Masks, Slab, open_slab

__all__ = ["EncodedMask", "ShardWriter", "encoded_mask", "write_shard"]


_MASKS_AT_ONCE = 8
"""Masks that a thread encodes before it asks for more: asking costs as much as a tenth of one."""


_MOST_WAITING = 4
"""Shards to write at once where each takes two requests: 64 masks take longer to encode than that
shared by four."""

_WAITING_STEPS = 2**15
"""Steps of a mask that wait for its shard to be full: an object has some hundred."""


class EncodedMask(NamedTuple):
    """A mask as it goes into a shard, and what was found in it."""

    chunk: bytes
    crc32c: int
    area: int
    n_steps: int
    steps: NDArray[Any] | EncodedSteps
    """Lengths of background and object, in turn, in the smallest integers. Those of many masks are
    encoded together; where a mask is noise they take as much as its pixels, and do not wait."""


class ShardWriter:
    """Reads rows of the source, encodes them on threads and writes whole shards.

    Masks wait for their shard to be full encoded, in a thousandth of their size.

    Parameters
    ----------
    file : MaskFile or DrawnMasks
        The source's masks.
    journal : Journal
        Told of each shard that is finished.
    block_masks : int
        Masks to read at a time; two such blocks are in memory.
    workers : int
        Threads that encode.
    normalize : bool
        Take every pixel but 0 as 1.
    before : sequence of EncodedMask
        Masks that stand before those of the source in the first shard that is written.
    first_row : int
        Row of the store in which the source's first mask stands.
    """

    def __init__(
        self,
        file: Masks,
        journal: Journal,
        block_masks: int,
        workers: int,
        *,
        normalize: bool,
        before: Sequence[EncodedMask] = (),
        first_row: int = 0,
    ) -> None:
        self.file = file
        self.journal = journal
        self.block_masks = block_masks
        self.workers = workers
        self.normalize = normalize
        self.before = before
        self.first_row = first_row

    @property
    def task_shards(self) -> int:
        """Shards of a fair task: an HDF5 chunk of many masks is inflated once or twice."""
        return max(4, self.block_masks // self.journal.layout.shard_masks)

    def reading(self, file: Masks) -> ShardWriter:
        """Return the same writer, of a file that knows where its own part of the source lies."""
        other = copy(self)
        other.file = file
        return other

    def write(self, span: Block, told: Callable[[int], object] = lambda _: None) -> int:
        """Write the shards of consecutive rows; return how many masks of the source that were.

        Parameters
        ----------
        span : Block
            Rows of the store, from the first row of a shard to the last row of one.
        told : callable
            Hears after each shard how many masks of the source it holds.

        Raises
        ------
        StrayPixels
            When a pixel is neither 0 nor 1, unless they are normalized.
        SourceError
            When the source cannot be read.
        """
        layout = self.journal.layout
        shard = span.start // layout.shard_masks
        held = list(self.before) if span.start < self.first_row else []
        writing: deque[Future[int]] = deque()
        # Writing is mostly waiting, for the disk or for answers: whoever does it encodes nothing
        # meanwhile.
        n_waiting = min(_MOST_WAITING, self.journal.objects.max_concurrency)
        with ThreadPoolExecutor(self.workers) as pool, ThreadPoolExecutor(n_waiting) as place:
            for encoded in self._encoded(self.of_source(span), pool):
                held.append(encoded)
                if len(held) == len(layout.shard_rows(shard)):
                    writing.append(place.submit(self._write_shard, shard, held))
                    shard, held = shard + 1, []
                    if len(writing) > n_waiting:
                        told(writing.popleft().result())
            for future in writing:
                told(future.result())
        return len(self.of_source(span))

    def of_source(self, span: Block) -> Block:
        """Return the rows of the source that stand in some rows of the store."""
        return Block(max(0, span.start - self.first_row), span.stop - self.first_row)

    def _write_shard(self, shard: int, masks: list[EncodedMask]) -> int:
        write_shard(self.journal, shard, masks)
        return len(self.of_source(self.journal.layout.shard_rows(shard)))

    def _encoded(self, span: Block, pool: Executor) -> Iterator[EncodedMask]:
        """Yield the masks of a span in order; one block is read while another is encoded."""
        rows = min(self.block_masks, len(span))
        filling, encoding = (open_slab(self.file, rows, normalize=self.normalize) for _ in range(2))
        pending: list[Future[list[EncodedMask]]] = []
        for block in blocks(span.start, span.stop, self.block_masks):
            filling.load(block, pool)
            # What is full now is encoded while the other one is filled.
            filling, encoding = encoding, filling
            parts = blocks(block.start, block.stop, _MASKS_AT_ONCE)
            upcoming = [pool.submit(_encode, encoding, part) for part in parts]
            # While these are encoded, those before are written.
            for future in pending:
                yield from future.result()
            pending = upcoming
        for future in pending:
            yield from future.result()


def write_shard(journal: Journal, shard: int, masks: Sequence[EncodedMask]) -> None:
    """Put a shard as one object, and then its entry."""
    data = pack_shard([mask.chunk for mask in masks], journal.layout.shard_masks)
    entry = Entry(
        piece=Piece.of(data),
        areas=[mask.area for mask in masks],
        crcs=[mask.crc32c for mask in masks],
        counts=[mask.n_steps for mask in masks],
        steps=tuple(_parts(masks)),
    )
    journal.write(shard, data, entry)


def _parts(masks: Sequence[EncodedMask]) -> Iterator[EncodedSteps]:
    """Yield the steps of masks, those of neighbours together unless they are encoded already."""
    for encoded, each in groupby(masks, lambda mask: isinstance(mask.steps, EncodedSteps)):
        steps: list[Any] = [mask.steps for mask in each]
        if encoded:
            yield from steps
        else:
            yield EncodedSteps.of(np.concatenate(steps, dtype=np.int32))


def encoded_mask(mask: NDArray[np.uint8], chunk: bytes | None = None) -> EncodedMask:
    """Encode a mask, (y, x) uint8 of 0 and 1, unless its chunk is there already."""
    chunk = encode_mask(mask) if chunk is None else chunk
    steps = steps_of(mask)
    few = len(steps) <= _WAITING_STEPS
    return EncodedMask(
        chunk,
        checksum(mask),
        int(steps[1::2].sum()),
        len(steps),
        steps.astype(np.min_scalar_type(steps.max(initial=0))) if few else EncodedSteps.of(steps),
    )


def _encode(slab: Slab, rows: Block) -> list[EncodedMask]:
    """Encode some masks, each while it is still in the processor's cache."""
    return [encoded_mask(slab.mask(row)) for row in range(rows.start, rows.stop)]
