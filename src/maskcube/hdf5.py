"""The HDF5 of the source: its ``masks`` dataset, open for reading."""

from __future__ import annotations

import atexit
import copy
import os
import socket
import weakref
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager, suppress
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from maskcube.chunks import Grid, RawReader, read_block, read_raw
from maskcube.errors import MaskcubeError, RowNotFound, SourceError, SourceNotFound, listed
from maskcube.inspection import DATASET, faults_of, filters_of, places_of
from maskcube.layout import Block, Layout
from maskcube.ranges import ChunkRanges
from maskcube.remote import RangeFile, RemotePath
from maskcube.spool import Spool

if TYPE_CHECKING:
    import h5py

__all__ = ["MaskFile"]

_READ_ERRORS = (OSError, RuntimeError, ValueError, TypeError, KeyError)


class MaskFile:
    """The ``masks`` dataset of an HDF5, open for reading.

    It pickles as its path, and re-opens by itself in a process that was forked.

    Parameters
    ----------
    path : pathlib.Path or RemotePath
        The HDF5.
    spool : Spool, optional
        A local copy of the one at a URL, which is closed with it. Without one it is read from afar
        by ranges, and the list of its chunks is not looked through: a chunk that cannot be there is
        an error when it is read.
    size : int, optional
        Bytes of one at a URL, if that is known: one request less.

    Raises
    ------
    SourceError
        With every fault that can be seen without reading a pixel.
    """

    def __init__(
        self, path: Path | RemotePath, spool: Spool | None = None, size: int | None = None
    ) -> None:
        # A worker that it is sent to may stand in another folder.
        self.path = path.absolute() if isinstance(path, Path) else path
        self._file: h5py.File | None = None
        self._owner = 0
        self._spool = spool
        self._size = size if spool is None else spool.size
        self.ranges: ChunkRanges | None = None
        """What a worker reads of it instead of all."""
        try:
            faults = faults_of(self._open(), whole=isinstance(path, Path) or spool is not None)
        except MaskcubeError:
            self.close()
            raise
        except Exception as error:  # noqa: BLE001 - of a damaged file h5py raises whatever it likes
            faults = [f"cannot be read as HDF5: {error}"]
        if faults:
            with suppress(*_READ_ERRORS):
                self.close()
            raise SourceError(str(path), faults)
        n_masks, height, width = self.dataset.shape
        self.layout = Layout(n_masks=n_masks, height=height, width=width)
        self.chunks: tuple[int, int, int] = self.dataset.chunks
        """Shape of an HDF5 chunk, (mask, y, x)."""
        self.filters = filters_of(self.dataset)
        """Names of the HDF5 filters, in the order in which they were applied."""

    def _open(self) -> h5py.File:
        import h5py

        if self._file is None or self._owner != os.getpid():
            self._file = h5py.File(self._bytes(), "r")
            self._owner = os.getpid()
            if not isinstance(self.path, Path):
                _from_afar.add(self)
        return self._file

    def _bytes(self) -> Path | Spool | RangeFile:
        """Return what h5py opens."""
        if isinstance(self.path, Path):
            return self.path
        return self._spool or RangeFile(self.path, self.size_bytes)

    @property
    def size_bytes(self) -> int:
        """Size of the file; of one at a URL, as it was when that was first asked for."""
        if isinstance(self.path, Path):
            return self.path.stat().st_size
        if self._size is None:
            self._size = self.path.size()
            if self._size is None:
                raise SourceNotFound(str(self.path), ["no HDF5 there"])
        return self._size

    def check_is_there(self) -> None:
        """Raise `SourceNotFound` if the file cannot be seen: a worker may be elsewhere."""
        if isinstance(self.path, Path) and not self.path.is_file():
            fault = f"cannot be seen from {socket.gethostname()}: give a path or a URL that can"
            raise SourceNotFound(str(self.path), [fault])

    @property
    def grid(self) -> Grid:
        """How the dataset was cut into chunks when it was first opened."""
        return Grid(self.layout.shape, self.chunks)

    @property
    def dataset(self) -> h5py.Dataset:
        """The h5py dataset; opens the file again if need be."""
        return self._open()[DATASET]

    def read(self, block: Block, out: np.ndarray[Any, Any], pool: Executor | None = None) -> None:
        """Read consecutive masks into `out`, (len(block), y, x) uint8.

        Parameters
        ----------
        block : Block
            Their rows.
        out : numpy.ndarray
            Where to put them.
        pool : concurrent.futures.Executor, optional
            Threads on which to inflate chunks; without, this one does it.

        Raises
        ------
        SourceError
            When they cannot be read, or a chunk does not hold exactly its pixels.
        """
        with self.reading(block):
            mapped = map if pool is None else pool.map
            read_block(*self.raw_reader(block), block, out, mapped)

    def raw_reader(self, block: Block) -> tuple[RawReader, Grid]:
        """Return what reads the chunks that hold consecutive masks, and how they are cut."""
        if self.ranges is not None and self.ranges.holds(block):
            return partial(self.ranges.read, self.filters), self.grid
        # Looked up once: that takes h5py as long as reading forty chunks.
        dataset = self.dataset
        return partial(read_raw, dataset, self.filters), Grid(dataset.shape, dataset.chunks)

    def parts(self, blocks: list[Block]) -> list[MaskFile]:
        """Return, for each block of masks, what a worker needs to read it: this file.

        One at a URL comes with the places of these chunks, so that the worker reads nothing else.
        """
        if isinstance(self.path, Path):
            return [self] * len(blocks)
        places = places_of(self.dataset)
        return [self._part(self.path, block, places) for block in blocks]

    def _part(self, path: RemotePath, block: Block, places: NDArray[np.uint64]) -> MaskFile:
        rows, *others = (
            -(-size // chunk) for size, chunk in zip(self.layout.shape, self.chunks, strict=True)
        )
        first, last = block.start // self.chunks[0], -(-block.stop // self.chunks[0])
        those = places.reshape(rows, *others, 3)[first:last].reshape(-1, 3)
        part = copy.copy(self)
        part.ranges = ChunkRanges(path, self.grid, block, those)
        return part

    @contextmanager
    def reading(self, block: Block) -> Iterator[None]:
        """Say of which masks it is that something cannot be read: raises `SourceError`."""
        try:
            yield
        except MaskcubeError:
            # It says itself what could not be reached.
            raise
        except _READ_ERRORS as error:
            rows = (
                f"masks {block.start} to {block.stop - 1}"
                if len(block) > 1
                else f"mask {block.start}"
            )
            fault = f"{rows} cannot be read: {error}; is the file damaged?"
            raise SourceError(str(self.path), [fault]) from error

    def read_rows(self, rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Return the masks in these rows, (len(rows), y, x) uint8, in the order asked.

        Consecutive rows are read together, so that an HDF5 chunk of many masks is inflated once.

        Raises
        ------
        RowNotFound
            When there is no such row.
        SourceError
            When they cannot be read.
        """
        if len(rows) and not 0 <= rows.min() <= rows.max() < self.layout.n_masks:
            raise RowNotFound(f"rows {listed(rows.tolist())} of {self.layout.n_masks:,} masks")
        out = np.empty((len(rows), *self.layout.shape[1:]), np.uint8)
        bounds = [0, *(np.flatnonzero(np.diff(rows) != 1) + 1), len(rows)]
        for start, stop in pairwise(bounds):
            if stop > start:
                first = int(rows[start])
                self.read(Block(first, first + stop - start), out[start:stop])
        return out

    def close(self) -> None:
        """Close the file; the next read opens it again."""
        if self._file is not None and self._owner == os.getpid():
            self._file.close()
        self._file = None
        if self._spool is not None:
            self._spool.close()
            self._spool = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_file": None, "_spool": None}


_from_afar: weakref.WeakSet[MaskFile] = weakref.WeakSet()
"""Those that h5py reads through Python: it would do so once more after the end of Python."""


@atexit.register
def _close_all() -> None:
    for each in list(_from_afar):
        if each._file is not None:  # noqa: SLF001 - of this very module
            each._file.close()  # noqa: SLF001
