"""Masks straight from the byte ranges of their shards.

A shard's index says where each encoded mask lies. In a folder the index is read once and kept, the
ranges of neighbouring masks are fetched together, and each mask is checked and decoded into its
place, on threads. Elsewhere a request costs more than a whole encoded shard of 80 kB does: there a
shard is one request, and stays in memory encoded. What is missing is an error: plain zarr would
give zeros.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import zip_longest
from typing import Any, TypeVar
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import NDArray

from maskcube.codec import DamagedBytes, decode_chunk, index_bytes, unpack_index
from maskcube.encoded import EncodedShard, merged_ranges
from maskcube.errors import CorruptMask, CorruptStore
from maskcube.layout import Layout
from maskcube.manifest import Piece
from maskcube.objects import Objects, get_piece
from maskcube.ragged import RunReader
from maskcube.schema import shard_key
from maskcube.store import MaskStore, name_of
from maskcube.threads import spread

__all__ = ["ShardReader"]

_Result = TypeVar("_Result")

_CACHED_INDEXES = 4096
"""Shard indexes to keep, of about 1 kB each."""

_MOST_WHOLE_BYTES = 4 * 2**20
"""Larger shards are never fetched whole."""

_CACHED_BYTES = 64 * 2**20
"""Encoded shards to keep: those of all 24,011 masks are 29 MB."""

_LEAST_MASKS = 4
"""Masks that a thread decodes before it asks for more, at least: asking costs as much as one."""

_FETCHED_MASKS = 1024
"""Encoded masks to fetch together for a scan, about 1.2 MB."""

_MOST_PARTS = 64
"""Parts in which many masks are decoded; no more are needed to keep all threads busy."""


class ShardReader:
    """Reads masks of a store by row.

    It pickles without what it has cached and holds no file open, so threads, forked processes and
    dask workers may share it. Copies that are unpickled in one process are one reader.

    Parameters
    ----------
    store : MaskStore
        An opened store.

    Attributes
    ----------
    layout : Layout
        Shape of the masks.
    runs : RunReader or None
        Reads their runs, if the store has them.
    """

    def __init__(self, store: MaskStore) -> None:
        self.layout: Layout = store.layout
        self._objects: Objects = store.objects
        self._edition = store.edition
        # Small where it is pickled: a tuple of pieces would be ten times as large.
        self._pieces = np.array(store.manifest.shards, np.int64).reshape(-1, 2)
        self.runs = None if store.manifest.runs is None else RunReader(store)
        self._start_empty()

    def _start_empty(self) -> None:
        self._start_locks()
        self._indexes: dict[int, list[tuple[int, int]]] = {}
        self._shards: OrderedDict[int, tuple[EncodedShard, int]] = OrderedDict()
        self._cached_bytes = 0

    def _start_locks(self) -> None:
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._turns: dict[int, threading.Lock] = {}

    def read(
        self, rows: NDArray[np.integer[Any]], *, workers: int | None = None
    ) -> NDArray[np.uint8]:
        """Return the masks in these rows, (len(rows), y, x) uint8, in the order asked.

        Parameters
        ----------
        rows : numpy.ndarray
            Row numbers, (n,) integer, from 0 on; in any order, repeated or not.
        workers : int, optional
            Threads that decode; one for each core by default, at most 8.

        Raises
        ------
        CorruptMask
            When one of them is missing or damaged.
        """
        out = np.empty((len(rows), *self.layout.shape[1:]), np.uint8)
        numbers = rows.tolist()
        shards = self._fetch(numbers)
        size = max(_LEAST_MASKS, len(numbers) // _MOST_PARTS)

        def decode(start: int) -> None:
            for position, row in enumerate(numbers[start : start + size], start):
                self._decode(row, shards, out[position])

        spread(decode, range(0, len(numbers), size), workers)
        return out

    def mask(self, row: int) -> NDArray[np.uint8]:
        """Return the mask in a row, (y, x) uint8.

        Raises
        ------
        CorruptMask
            When it is missing or damaged.
        """
        out = np.empty(self.layout.shape[1:], np.uint8)
        self._decode(row, self._fetch([row]), out)
        return out

    def each(
        self,
        function: Callable[[NDArray[np.uint8]], _Result],
        rows: NDArray[np.integer[Any]],
        *,
        workers: int | None = None,
    ) -> list[_Result]:
        """Return ``function(mask)`` for the masks in these rows, in the order asked.

        A thread decodes into one buffer: new memory for every mask would double the time.

        Parameters
        ----------
        function : callable
            Takes a mask, (y, x) uint8, that is valid during the call only.
        rows : numpy.ndarray
            Row numbers, (n,) integer, from 0 on; in any order, repeated or not.
        workers : int, optional
            Threads; one for each core by default, at most 8.

        Raises
        ------
        CorruptMask
            When one of them is missing or damaged.
        """
        results: list[_Result] = []
        for asked in self._ahead(rows.tolist()):
            # Small parts for few masks: the function may take longer than decoding does.
            size = min(self.layout.shard_masks, max(1, len(asked) // _MOST_PARTS))
            parts = [asked[start : start + size] for start in range(0, len(asked), size)]
            for found in spread(partial(self._results, function), parts, workers):
                results += found
        return results

    def _ahead(self, rows: list[int]) -> Iterator[list[int]]:
        """Yield the rows; where a request takes long, some whose shards were fetched together."""
        if self._objects.has_cheap_ranges:
            yield rows
            return
        parts = [
            rows[start : start + _FETCHED_MASKS] for start in range(0, len(rows), _FETCHED_MASKS)
        ]
        # While some are decoded the next are on their way. Whoever decodes them finds their shards
        # among those that are kept.
        with ThreadPoolExecutor(1) as pool:
            fetching = pool.submit(self._fetch, parts[0]) if parts else None
            for part, upcoming in zip_longest(parts, parts[1:]):
                if fetching is not None:
                    fetching.result()
                fetching = None if upcoming is None else pool.submit(self._fetch, upcoming)
                yield part

    def _results(
        self, function: Callable[[NDArray[np.uint8]], _Result], rows: list[int]
    ) -> list[_Result]:
        shards = self._fetch(rows)
        mask = np.empty(self.layout.shape[1:], np.uint8)
        found = []
        for row in rows:
            self._decode(row, shards, mask)
            found.append(function(mask))
        return found

    def _decode(self, row: int, shards: dict[int, EncodedShard], out: NDArray[np.uint8]) -> None:
        shard, slot = divmod(row, self.layout.shard_masks)
        try:
            decode_chunk(shards[shard].chunk(slot), out)
        except DamagedBytes as error:
            raise self._corrupt(shard, [slot], str(error)) from error

    def _fetch(self, rows: list[int]) -> dict[int, EncodedShard]:
        """Fetch the encoded masks in these rows, by shard."""
        wanted: dict[int, list[int]] = {}
        for row in rows:
            shard, slot = divmod(row, self.layout.shard_masks)
            wanted.setdefault(shard, []).append(slot)
        if self._objects.has_cheap_ranges:
            found = {shard: self._fetch_ranges(shard, slots) for shard, slots in wanted.items()}
            self._edition.check_cheaply()
            return found
        if self._process != os.getpid():
            # Who held them stayed with the process that was forked.
            self._start_locks()
        at_once = self._objects.max_concurrency
        fetched = spread(lambda asked: self._fetch_whole(*asked), list(wanted.items()), at_once)
        return dict(zip(wanted, fetched, strict=True))

    def _fetch_ranges(self, shard: int, slots: list[int]) -> EncodedShard:
        """Fetch only the encoded masks that are wanted of a shard."""
        found = EncodedShard(self._index(shard, slots))
        if len(slots) == 1:
            offset, length = found.index[slots[0]]
            found.add(offset, self._get(shard, offset, length, slots))
            return found
        for start, stop in merged_ranges(sorted(found.index[slot] for slot in set(slots))):
            found.add(start, self._get(shard, start, stop - start, slots))
        return found

    def _fetch_whole(self, shard: int, slots: list[int]) -> EncodedShard:
        """Fetch a shard with one request, or find it among those that were kept."""
        length = int(self._pieces[shard, 0])
        if length > _MOST_WHOLE_BYTES:
            ranges = self._fetch_ranges(shard, slots)
            # No checksum tells of which store they are.
            self._edition.check()
            return ranges
        with self._lock:
            turn = self._turns.setdefault(shard, threading.Lock())
        # Whoever else wants the same shard meanwhile need not ask for it again.
        with turn:
            with self._lock:
                if shard in self._shards:
                    self._shards.move_to_end(shard)
                    return self._shards[shard][0]
            piece = Piece(length, int(self._pieces[shard, 1]))
            data = self._there(shard, slots, lambda key: get_piece(self._objects, key, piece))
            if Piece.of(data) != piece:
                # Of another store, or damaged: then the masks that are whole can still be read.
                self._edition.check()
            try:
                found = EncodedShard.whole(data, self.layout, shard)
            except DamagedBytes as error:
                raise self._corrupt(shard, slots, str(error)) from error
            self._keep(shard, found, length)
        return found

    def _keep(self, shard: int, found: EncodedShard, length: int) -> None:
        """Keep an encoded shard; let those go that were not used for longest."""
        with self._lock:
            self._shards[shard] = found, length
            self._cached_bytes += length
            while self._cached_bytes > _CACHED_BYTES:
                self._cached_bytes -= self._shards.popitem(last=False)[1][1]

    def _index(self, shard: int, slots: list[int]) -> list[tuple[int, int]]:
        """Return the index of a shard, from the cache or from the end of its object."""
        found = self._indexes.get(shard)
        if found is not None:
            return found
        size = index_bytes(self.layout.shard_masks)
        body = int(self._pieces[shard, 0]) - size
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

    def _get(self, shard: int, start: int, length: int, slots: list[int]) -> bytes:
        data = self._there(shard, slots, lambda key: self._objects.get(key, start, length))
        if len(data) < length:
            raise self._corrupt(shard, slots, "it is shorter than it was written")
        return data

    def _there(self, shard: int, slots: list[int], get: Callable[[str], bytes | None]) -> bytes:
        """Return what is read of a shard's object; raise for these masks if it cannot be."""
        try:
            data = get(shard_key(shard))
        except CorruptStore as error:
            raise self._corrupt(shard, slots, str(error)) from error
        if data is None:
            raise self._corrupt(shard, slots, "it is missing")
        return data

    def _corrupt(self, shard: int, slots: list[int], found: str) -> CorruptMask:
        """Return the error for some masks; raises another one if the store is another one."""
        self._edition.check()
        first = self.layout.shard_rows(shard).start
        rows = [first + slot for slot in sorted(set(slots))]
        more = f" and {len(rows) - 1} more" if len(rows) > 1 else ""
        return CorruptMask(
            f"{self._objects.location}: shard {shard}: {found}; cannot read"
            f" {name_of(self._objects, rows[0])}{more}",
            rows,
        )

    def __dask_tokenize__(self) -> tuple[str, str, Piece, str]:
        return type(self).__name__, *self._edition.token

    def __reduce__(self) -> tuple[Callable[..., ShardReader], tuple[dict[str, Any]]]:
        kept = ("layout", "runs", "_objects", "_edition", "_pieces")
        return _unpickled, ({name: self.__dict__[name] for name in kept},)


_unpickled_readers: WeakValueDictionary[tuple[str, Piece, str], ShardReader] = WeakValueDictionary()


def _unpickled(state: dict[str, Any]) -> ShardReader:
    """Return the reader of this state that is in this process already, or a new one."""
    key = state["_edition"].token
    reader = _unpickled_readers.get(key)
    if reader is None:
        reader = ShardReader.__new__(ShardReader)
        reader.__dict__.update(state)
        reader._start_empty()  # noqa: SLF001 - its own class
        _unpickled_readers[key] = reader
    return reader
