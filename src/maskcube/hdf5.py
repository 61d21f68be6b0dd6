"""The HDF5 of the source: its ``masks`` dataset, open for reading."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from maskcube.chunks import read_block
from maskcube.errors import RowNotFound, SourceError, listed
from maskcube.inspection import DATASET, faults_of, filters_of
from maskcube.layout import Block, Layout

if TYPE_CHECKING:
    import h5py

__all__ = ["MaskFile"]

_READ_ERRORS = (OSError, RuntimeError, ValueError, TypeError, KeyError)


class MaskFile:
    """The ``masks`` dataset of an HDF5, open for reading.

    It pickles as its path, and re-opens by itself in a process that was forked.

    Parameters
    ----------
    path : pathlib.Path
        The HDF5.

    Raises
    ------
    SourceError
        With every fault that can be seen without reading a pixel.
    """

    def __init__(self, path: Path) -> None:
        # A worker that it is sent to may stand in another folder.
        self.path = path.absolute()
        self._file: h5py.File | None = None
        self._owner = 0
        try:
            faults = faults_of(self._open())
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
            self._file = h5py.File(self.path, "r")
            self._owner = os.getpid()
        return self._file

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
            read_block(self.dataset, self.filters, block, out, mapped)

    @contextmanager
    def reading(self, block: Block) -> Iterator[None]:
        """Say of which masks it is that something cannot be read: raises `SourceError`."""
        try:
            yield
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

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_file": None}
