"""The HDF5 of the source: its ``masks`` dataset, and what must be true of it before a byte is read.

HDF5 can make other files part of a file: external links, external raw storage and virtual datasets
read whatever the process may read, and an unknown filter makes the library look for a plugin to
load. Only a plain chunked dataset with filters that are built in is accepted.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from maskcube.chunks import can_inflate, read_block
from maskcube.errors import RowNotFound, SourceError, listed
from maskcube.layout import Block, Layout

if TYPE_CHECKING:
    import h5py

__all__ = ["DATASET", "MaskFile"]

DATASET = "masks"

_FILTERS = {1: "gzip", 2: "shuffle", 3: "fletcher32", 4: "szip", 32000: "lzf"}
_MOST_BYTES = 2**30
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
            faults = _faults(self._open())
        except _READ_ERRORS as error:
            faults = [f"cannot be read as HDF5: {error}"]
        if faults:
            self.close()
            raise SourceError(str(path), faults)
        n_masks, height, width = self.dataset.shape
        self.layout = Layout(n_masks=n_masks, height=height, width=width)
        self.chunks: tuple[int, int, int] = self.dataset.chunks
        """Shape of an HDF5 chunk, (mask, y, x)."""
        self.filters = [_FILTERS[code] for code in _filter_codes(self.dataset)]
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
            if can_inflate(self.filters):
                mapped = map if pool is None else pool.map
                read_block(self.dataset, self.filters, block, out, mapped)
            else:
                self._read_by_library(block, out)

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

    def _read_by_library(self, block: Block, out: np.ndarray[Any, Any]) -> None:
        dataset = self.dataset
        # HDF5 keeps booleans as an enumeration that it does not convert to uint8.
        target = out.view(np.bool_) if dataset.dtype == np.bool_ else out
        dataset.read_direct(target, np.s_[block.start : block.stop], np.s_[: len(block)])

    def read_rows(self, rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Return the masks in these rows, (len(rows), y, x) uint8, in the order asked.

        Consecutive rows are read together, so that an HDF5 chunk of many masks is inflated once.

        Raises
        ------
        RowNotFound
            When there is no such row.
        SourceError
            When the HDF5 library cannot read them.
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


def _faults(file: h5py.File) -> list[str]:
    """Return what is wrong with the file, from its metadata alone."""
    import h5py

    link = file.get(DATASET, getclass=True, getlink=True)
    if link is None:
        return [f"has no dataset {DATASET!r}; it holds: {listed(file) or 'nothing'}"]
    if link is not h5py.HardLink:
        return [f"{DATASET!r} is a link ({link.__name__}), which may lead elsewhere: refused"]
    dataset = file[DATASET]
    if not isinstance(dataset, h5py.Dataset):
        return [f"{DATASET!r} is a {type(dataset).__name__.lower()}, expected a dataset"]
    return _storage_faults(dataset) or [*_shape_faults(dataset), *_chunk_faults(dataset)]


def _storage_faults(dataset: h5py.Dataset) -> list[str]:
    """Return what would make reading the dataset read, or load, something else."""
    if dataset.is_virtual:
        return [f"{DATASET!r} is a virtual dataset, which reads other files: refused"]
    if dataset.external:
        return [f"{DATASET!r} keeps its bytes in other files (external storage): refused"]
    if dataset.chunks is None:
        advice = f"create_dataset({DATASET!r}, data=..., chunks=True, compression='gzip')"
        return [f"{DATASET!r} is not chunked; write it with {advice}"]
    unknown = [code for code in _filter_codes(dataset) if code not in _FILTERS]
    if unknown:
        known = ", ".join(_FILTERS.values())
        return [f"{DATASET!r} uses HDF5 filters {listed(unknown)}; known are {known}"]
    return []


def _shape_faults(dataset: h5py.Dataset) -> list[str]:
    faults = []
    if dataset.ndim != 3:  # noqa: PLR2004 - (mask, y, x)
        faults.append(f"{DATASET!r} has shape {dataset.shape}, expected (mask, y, x)")
    elif 0 in dataset.shape:
        faults.append(f"{DATASET!r} has shape {dataset.shape}: there is nothing to convert")
    elif math.prod(dataset.shape[1:]) > _MOST_BYTES:
        faults.append(f"{DATASET!r} has shape {dataset.shape}: more than 1 GiB for one mask")
    if dataset.dtype not in (np.uint8, np.bool_):
        faults.append(f"{DATASET!r} has dtype {dataset.dtype}, expected uint8 (or bool)")
    return faults


def _chunk_faults(dataset: h5py.Dataset) -> list[str]:
    if math.prod(dataset.chunks) * dataset.dtype.itemsize > _MOST_BYTES:
        return [f"{DATASET!r} has chunks of shape {dataset.chunks}: more than 1 GiB each"]
    pairs = zip(dataset.shape, dataset.chunks, strict=True)
    expected = math.prod(math.ceil(size / chunk) for size, chunk in pairs)
    inside: set[tuple[int, ...]] = set()

    def note(chunk: Any) -> None:  # noqa: ANN401 - h5py has no types
        offsets = zip(chunk.chunk_offset, dataset.shape, dataset.chunks, strict=True)
        if all(offset < size and not offset % length for offset, size, length in offsets):
            inside.add(chunk.chunk_offset)

    dataset.id.chunk_iter(note)
    found = len(inside)
    if found != expected:
        # HDF5 would read them as empty masks without a word.
        return [f"{expected - found:,} of {expected:,} chunks of {DATASET!r} were never written"]
    return []


def _filter_codes(dataset: h5py.Dataset) -> list[int]:
    created = dataset.id.get_create_plist()
    return [created.get_filter(i)[0] for i in range(created.get_nfilters())]
