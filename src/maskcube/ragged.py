"""The subgroup ``runs`` of a store: boundaries of every mask, end to end, and where each begins.

They are kept as steps, each boundary's distance from the one before, which are small numbers; see
`maskcube.boundaries`. The steps are in chunks of equal length, whatever masks these cut.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskcube.boundaries import boundaries_of_steps
from maskcube.codec import (
    DamagedBytes,
    Steps,
    decode_chunk,
    decode_steps,
    encode_steps,
)
from maskcube.errors import CorruptStore
from maskcube.schema import OFFSETS, STEPS
from maskcube.store import MaskStore

__all__ = ["RunReader", "RunScan", "Runs", "step_chunks", "step_key", "steps_chunk"]

Runs = tuple[NDArray[np.int32], NDArray[np.int64]]
"""Boundaries of masks, end to end, and where those of each mask begin."""

_CHUNK_STEPS = 2**20
"""Steps in a chunk: 4 MiB, about 0.6 MB encoded, of 1,700 masks."""

_SCANNED_CHUNKS = 4
"""Chunks to keep for threads that go through the masks side by side."""


def steps_chunk(n_steps: int) -> int:
    """Return how many steps are in a chunk if there are so many in all."""
    return max(1, min(_CHUNK_STEPS, n_steps))


def step_chunks(n_steps: int, parts: Iterable[Steps]) -> Iterator[tuple[str, bytes]]:
    """Yield key and bytes of each chunk of the steps of all masks, one in memory at a time.

    Parameters
    ----------
    n_steps : int
        How many there are in all.
    parts : iterable of Steps
        The steps, in order.
    """
    chunk = np.zeros(steps_chunk(n_steps), np.int32)
    filled = number = 0
    for part in parts:
        steps = part.decoded()
        while len(steps):
            taken = min(len(steps), len(chunk) - filled)
            chunk[filled : filled + taken] = steps[:taken]
            filled, steps = filled + taken, steps[taken:]
            if filled == len(chunk):
                yield step_key(number), encode_steps(chunk)
                filled, number = 0, number + 1
    if filled:
        chunk[filled:] = 0
        yield step_key(number), encode_steps(chunk)


def step_key(number: int) -> str:
    """Return the key of a chunk of steps."""
    return f"{STEPS}/c/{number}"


class RunReader:
    """Reads the runs of masks by row.

    Parameters
    ----------
    store : MaskStore
        An opened store that has runs.
    """

    def __init__(self, store: MaskStore) -> None:
        runs = store.manifest.runs
        if runs is None:
            raise ValueError(f"{store.location} has no runs")
        self.location = store.location
        self.n_masks = store.layout.n_masks
        self._most_boundaries = store.layout.mask_bytes + 1
        self._edition = store.edition
        self._runs = runs

    def read(self, rows: NDArray[np.integer[Any]]) -> Runs:
        """Return the boundaries of the masks in these rows, and where each mask's begin.

        Only the chunks that hold some of them are read.

        Parameters
        ----------
        rows : numpy.ndarray
            Row numbers, (n,) integer, in any order, repeated or not.

        Returns
        -------
        boundaries : numpy.ndarray
            (n_boundaries,) int32.
        offsets : numpy.ndarray
            (n + 1,) int64: those of the i-th mask asked are
            ``boundaries[offsets[i]:offsets[i + 1]]``.

        Raises
        ------
        CorruptStore
            When a piece is missing or damaged.
        """
        places = self.offsets()
        counts = np.diff(places)[rows]
        offsets = np.concatenate([[0], np.cumsum(counts)])
        in_order = len(rows) == self.n_masks and bool((np.diff(rows) == 1).all())
        if in_order:
            return boundaries_of_steps(self.steps(0, int(places[-1]), self.chunk), offsets), offsets
        steps = self._space(int(offsets[-1]))
        chunk_of = lru_cache(1)(self.chunk)
        for position in np.argsort(rows, kind="stable"):
            first, last = int(places[rows[position]]), int(places[rows[position] + 1])
            steps[offsets[position] : offsets[position + 1]] = self.steps(first, last, chunk_of)
        return boundaries_of_steps(steps, offsets), offsets

    def offsets(self) -> NDArray[np.int64]:
        """Return where the boundaries of each mask of the store begin, (mask + 1,) int64."""
        key = f"{OFFSETS}/c/0"
        data = self._edition.get(key, self._runs.offsets, key)
        offsets = np.empty(self.n_masks + 1, np.int64)
        try:
            decode_chunk(data, offsets.view(np.uint8))
        except DamagedBytes as error:
            raise CorruptStore(f"{self.location}: {OFFSETS} {error}") from error
        counts = np.diff(offsets)
        leads_through = offsets[0] == 0 and offsets[-1] == self._runs.n_boundaries
        is_possible = (counts >= 0) & (counts % 2 == 0) & (counts <= self._most_boundaries)
        if not leads_through or not is_possible.all():
            raise CorruptStore(f"{self.location}: {OFFSETS} does not lead through all boundaries")
        return offsets

    def steps(
        self, first: int, last: int, chunk_of: Callable[[int], NDArray[np.int32]]
    ) -> NDArray[np.int32]:
        """Return the steps from one place to another, (n,), from the chunks that hold them."""
        length = self._runs.chunk_boundaries
        steps = self._space(last - first)
        for number in range(first // length, -(-last // length) if last > first else 0):
            start = number * length
            low, high = max(first, start), min(last, start + length)
            steps[low - first : high - first] = chunk_of(number)[low - start : high - start]
        return steps

    def _space(self, n_steps: int) -> NDArray[np.int32]:
        try:
            return np.empty(n_steps, np.int32)
        except MemoryError as error:
            raise CorruptStore(
                f"{self.location}: {n_steps:,} boundaries of runs, as its manifest says, do not fit"
                " into the memory"
            ) from error

    @property
    def n_chunks(self) -> int:
        """Number of chunks of steps."""
        return len(self._runs.steps)

    def chunk(self, number: int) -> NDArray[np.int32]:
        """Return a chunk of steps, (chunk,) int32; raises as `read` does."""
        key = step_key(number)
        data = self._edition.get(key, self._runs.steps[number], key)
        chunk = np.empty(self._runs.chunk_boundaries, np.int32)
        try:
            decode_steps(data, chunk)
        except DamagedBytes as error:
            raise CorruptStore(f"{self.location}: {STEPS}, chunk {number}: {error}") from error
        if chunk.min() < 0:
            raise CorruptStore(f"{self.location}: {STEPS}, chunk {number}: runs of negative length")
        return chunk


class RunScan:
    """The runs of all masks, in turn, of which a few chunks are in memory at a time.

    Parameters
    ----------
    reader : RunReader
        Reads them.

    Raises
    ------
    CorruptStore
        When the offsets or any chunk are missing or damaged.
    """

    def __init__(self, reader: RunReader) -> None:
        self._reader = reader
        self._places = reader.offsets()
        for number in range(reader.n_chunks):
            reader.chunk(number)
        self._chunk = lru_cache(_SCANNED_CHUNKS)(reader.chunk)

    def has(self, row: int, boundaries: NDArray[np.int32]) -> bool:
        """Whether the runs of a mask have these boundaries."""
        first, last = (int(place) for place in self._places[row : row + 2])
        # No more is made of the stored ones than the pixels have.
        if last - first != len(boundaries):
            return False
        steps = self._reader.steps(first, last, self._chunk)
        return np.array_equal(np.cumsum(steps, dtype=np.int64), boundaries)
