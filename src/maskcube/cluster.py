"""Writing shards on the workers of a dask cluster.

Each worker opens source and target for itself and puts whole shards where they belong. Nothing of
them passes through the scheduler: what comes back is how many masks that were, and the memory that
it took.
"""

from __future__ import annotations

import pickle
import re
import resource
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

from maskcube.errors import (
    AccessDenied,
    InvalidOption,
    SourceError,
    StoreExists,
    missing,
)
from maskcube.hdf5 import MaskFile
from maskcube.layout import Block, blocks, shared_bytes
from maskcube.objects import Objects, ZarrObjects
from maskcube.slabs import StrayPixels
from maskcube.writer import ShardWriter

__all__ = ["Cluster"]

_RETRIES = 3
"""How often dask begins a part anew that has failed for another reason than the data."""

_REFUSALS = (StrayPixels, SourceError, StoreExists, InvalidOption, AccessDenied)
"""What would fail again just so."""


class _Done(NamedTuple):
    """What a worker tells of a part."""

    n_masks: int
    worker: str
    peak_bytes: int
    """Most memory that its process has ever taken."""
    refusal: Exception | None


class Cluster:
    """The workers of a client.

    Parameters
    ----------
    client : distributed.Client
        Connected, and not asynchronous.

    Attributes
    ----------
    peaks : dict of str to int
        Most memory that each worker's process has taken, in bytes, by its name.

    Raises
    ------
    InvalidOption
        When it is no such client.
    MissingDependency
        When distributed is not installed.
    """

    def __init__(self, client: Any) -> None:  # noqa: ANN401 - distributed is an optional library
        try:
            from distributed import Client
        except ImportError:
            raise missing("distributed", "cluster", "client=") from None
        if not isinstance(client, Client):
            raise InvalidOption(
                f"client={client!r} is a {type(client).__name__}: give a distributed.Client, of a"
                " cluster Client(cluster)"
            )
        if client.asynchronous or client.status != "running":
            state = "asynchronous" if client.asynchronous else client.status
            raise InvalidOption(f"client={client!r} is {state}: give one that is connected")
        self._client = client
        self.peaks: dict[str, int] = {}

    def task_bytes(self, memory: int) -> int:
        """Return what one task may take where a worker may take `memory` bytes."""
        return shared_bytes(memory, max(self._client.nthreads().values(), default=1))

    def check_reach(self, place: Objects) -> None:
        """Raise `InvalidOption` if the workers cannot write there."""
        in_memory = isinstance(place, ZarrObjects) and "Memory" in type(place.store).__name__
        try:
            pickle.dumps(place)
        except (TypeError, AttributeError, pickle.PicklingError):
            in_memory = True
        if in_memory:
            raise InvalidOption(
                f"client=: {place.location} is in the memory of this process; give a path or a URL"
                " that its workers reach too"
            )

    def write(
        self, writer: ShardWriter, spans: Sequence[Block], told: Callable[[int], object]
    ) -> None:
        """Write the shards of all spans; a shard has one writer.

        Parameters
        ----------
        writer : ShardWriter
            Sent to the workers.
        spans : sequence of Block
            Rows of the store, from the first row of a shard to the last row of one.
        told : callable
            Hears how many masks of the source were written.

        Raises
        ------
        StrayPixels, SourceError
            As `ShardWriter.write` does; nobody writes any more then.
        StoreExists
            When somebody else is writing there, or a worker does not see the place.
        """
        from distributed import as_completed

        size = writer.task_shards * writer.journal.layout.shard_masks
        parts = [part for span in spans for part in blocks(span.start, span.stop, size)]
        files = _hdf5(writer).parts([writer.of_source(part) for part in parts])
        writers = [writer.reading(file) for file in files]
        futures = self._client.map(_write_part, writers, parts, pure=False, retries=_RETRIES)
        try:
            for future in as_completed(futures):
                done: _Done = future.result()
                self.peaks[done.worker] = max(self.peaks.get(done.worker, 0), done.peak_bytes)
                if done.refusal is not None:
                    self._stop(futures)
                    raise done.refusal
                told(done.n_masks)
        finally:
            self._client.cancel(futures)

    def _stop(self, futures: list[Any]) -> None:
        """Begin nothing more, and wait for what has begun: the caller may delete what it writes."""
        from distributed import wait

        running = {key for keys in self._client.processing().values() for key in keys}
        self._client.cancel([future for future in futures if future.key not in running])
        wait([future for future in futures if future.key in running])


def _write_part(writer: ShardWriter, part: Block) -> _Done:
    """Write the shards of some rows, on a worker."""
    from distributed import get_worker

    refusal: Exception | None = None
    try:
        _hdf5(writer).check_is_there()
        writer.write(part)
    except _REFUSALS as error:
        refusal = error
    name = f"{socket.gethostname()} {get_worker().address}"
    return _Done(len(writer.of_source(part)), name, _peak_bytes(), refusal)


def _hdf5(writer: ShardWriter) -> MaskFile:
    """Return what a writer reads from: `convert` alone has clients."""
    return cast("MaskFile", writer.file)


def _peak_bytes() -> int:
    """Return the most memory that this process has taken."""
    status = Path("/proc/self/status")
    if status.exists():
        # What getrusage says of a process on Linux is not less than what its parent had taken.
        found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text())
        return int(found[1]) * 2**10 if found else 0
    unit = 1 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
