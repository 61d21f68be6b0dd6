"""How masks are laid out: arithmetic of chunks, shards and memory, without any I/O."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass

from maskcube.errors import InvalidOption

__all__ = [
    "DIMS",
    "FOLDER",
    "Block",
    "Layout",
    "block_rows",
    "memory_bytes",
    "shared_bytes",
    "worker_count",
]

DIMS = ("mask", "y", "x")

FOLDER = "stimuli"
"""Where in the dataset's folder the masks lie."""

SHARD_MASKS = 64
"""Masks in a shard. 64 encoded masks are about 75 kB: an image's masks in one or two requests,
all 24,011 in 376 files."""

_TASK_BYTES = 32 * 2**20
"""Pixels of one dask task. Above 32 MiB malloc no longer recycles memory and each task pays for
fresh pages."""

_PROCESS_BYTES = 192 * 2**20
"""What the process takes without any mask in memory: the interpreter and the libraries."""


@dataclass(frozen=True)
class Block:
    """Consecutive masks, the unit of reading a source."""

    start: int
    """First row."""
    stop: int
    """Row after the last one."""

    def __len__(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Shape of the mask array and of its pieces.

    Examples
    --------
    >>> layout = Layout(n_masks=100, height=1000, width=1000)
    >>> layout.n_shards, layout.shard_rows(1), layout.task_masks
    (2, Block(start=64, stop=100), 32)
    """

    n_masks: int
    height: int
    """Pixels along y."""
    width: int
    """Pixels along x."""
    shard_masks: int = SHARD_MASKS
    """Masks in a full shard; the last shard may hold fewer."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of the mask array, (mask, y, x)."""
        return self.n_masks, self.height, self.width

    @property
    def chunk_shape(self) -> tuple[int, int, int]:
        """Shape of an inner chunk: one mask."""
        return 1, self.height, self.width

    @property
    def shard_shape(self) -> tuple[int, int, int]:
        """Shape of a shard."""
        return self.shard_masks, self.height, self.width

    @property
    def mask_bytes(self) -> int:
        """Bytes of one mask, decoded."""
        return self.height * self.width

    @property
    def n_shards(self) -> int:
        """Number of shards, the last partial one included."""
        return math.ceil(self.n_masks / self.shard_masks)

    @property
    def task_masks(self) -> int:
        """Masks in one dask chunk by default: a power of two that divides a shard."""
        fits = max(1, _TASK_BYTES // self.mask_bytes)
        return math.gcd(self.shard_masks, 2 ** (fits.bit_length() - 1))

    def shard_rows(self, shard: int) -> Block:
        """Rows that a shard holds."""
        start = shard * self.shard_masks
        return Block(start, min(start + self.shard_masks, self.n_masks))


def memory_bytes(memory: str | int) -> int:
    """Return a number of bytes from a text like ``"1GiB"`` or ``"500 MB"``, or from a number.

    Raises
    ------
    InvalidOption
        When it is no number of bytes.
    """
    from dask.utils import parse_bytes

    try:
        return int(parse_bytes(memory))
    except (ValueError, TypeError, AttributeError, OverflowError):
        raise InvalidOption(
            f"memory={memory!r} is no number of bytes: say for example memory='1GiB'"
        ) from None


def shared_bytes(memory: int, n_tasks: int) -> int:
    """Return what each of some tasks in a process may take, as `block_rows` counts it."""
    return min(memory, _PROCESS_BYTES + (memory - _PROCESS_BYTES) // n_tasks)


def block_rows(
    layout: Layout, chunks: tuple[int, int, int], held_bytes: int, memory: int, workers: int
) -> int:
    """Return how many masks to read from the source at a time.

    Two blocks are in memory at once, one is read while the other is encoded. Each worker holds an
    HDF5 chunk, a mask, and what it finds in the mask. A block that is a multiple of the masks in an
    HDF5 chunk inflates each chunk only once.

    Parameters
    ----------
    layout : Layout
        Shape of the masks.
    chunks : (int, int, int)
        Shape of an HDF5 chunk.
    held_bytes : int
        Bytes that a mask of a block takes.
    memory : int
        Bytes that the process may take.
    workers : int
        Threads that inflate and encode.

    Raises
    ------
    InvalidOption
        When the budget does not hold even two single masks.
    """
    chunk_rows = chunks[0]
    fixed = _PROCESS_BYTES + (workers + 1) * (math.prod(chunks) + 3 * layout.mask_bytes)
    fits = (memory - fixed) // (2 * held_bytes)
    if fits < 1:
        least = math.ceil((fixed + 2 * held_bytes) / 2**20)
        raise InvalidOption(
            f"memory={memory:,} bytes is too little for masks of {layout.height} x {layout.width}"
            f" pixels in HDF5 chunks of {chunks}: give at least memory='{least}MiB'"
        )
    wanted = min(fits, max(chunk_rows, layout.shard_masks), layout.n_masks)
    return wanted if wanted < chunk_rows else wanted // chunk_rows * chunk_rows


def blocks(start: int, stop: int, rows: int) -> Iterator[Block]:
    """Yield the blocks that cover `start` to `stop`, each ending at a multiple of `rows`."""
    while start < stop:
        end = min((start // rows + 1) * rows, stop)
        yield Block(start, end)
        start = end


def worker_count(workers: int | None) -> int:
    """Return the number of threads to use: as asked, or one for each core this process may use.

    Raises
    ------
    InvalidOption
        When fewer than one is asked for.
    """
    if workers is None:
        affinity = getattr(os, "sched_getaffinity", None)
        return len(affinity(0)) if affinity else os.cpu_count() or 1
    if type(workers) is not int or workers < 1:
        raise InvalidOption(f"workers={workers!r}: at least one thread is needed")
    return int(workers)
