"""Masks that stay in their HDF5, of which icechunk keeps where each chunk lies.

Such a store has labels and no pixels of its own. Its chunks are those of the HDF5, of any shape,
and are read and inflated as from the HDF5 itself: each must fill its place exactly. That is all
that can be said of them: there are no checksums of masks, and nobody has looked whether all pixels
are 0 or 1.

icechunk reads only from where the user has allowed it to, so it is the user who opens the
repository: a store that somebody sent must not read other files.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskcube.chunks import Grid, Offset, RawChunk, read_block
from maskcube.errors import CorruptMask, CorruptStore, NotAMaskStore, StoreNotFound, listed
from maskcube.filters import InflateError, most_stored_bytes
from maskcube.guarded import guarded_array
from maskcube.layout import Block, Layout
from maskcube.manifest import Piece
from maskcube.metadata import MOST_ROWS
from maskcube.objects import Objects, get_at_most
from maskcube.root import MOST_METADATA_BYTES, parsed_metadata
from maskcube.schema import COORDINATES, MASKS, ROOT, value_bytes

__all__ = ["ATTRIBUTE", "CODECS", "COLUMNS", "VirtualMasks", "is_virtual"]

ATTRIBUTE = "maskcube_virtual"
"""Root attribute of such a store: where it is from, and the checksums of its coordinates."""

CODECS = {
    "gzip": "numcodecs.zlib",
    "shuffle": "numcodecs.shuffle",
    "fletcher32": "numcodecs.fletcher32",
}
"""What zarr-python calls the filters of HDF5 that it can undo."""

COLUMNS = tuple(name for name, coordinate in COORDINATES.items() if coordinate.column)
"""The coordinates of such a store: those that are from the CSV."""

_FILTERS = {codec: name for name, codec in CODECS.items()}

_MOST_BYTES = 2**28
"""Of a mask, and of a chunk, as for an HDF5."""

_N_REQUESTS = 16
"""Chunks that are asked for at once."""


def is_virtual(objects: Objects) -> bool:
    """Whether the masks of a store are in an HDF5."""
    root = parsed_metadata(get_at_most(objects, ROOT, MOST_METADATA_BYTES) or b"")
    attributes = root.get("attributes")
    return isinstance(attributes, dict) and isinstance(attributes.get(ATTRIBUTE), dict)


class VirtualMasks:
    """Reads masks from the chunks of an HDF5, by row, and their labels.

    Parameters
    ----------
    objects : Objects
        The store.

    Attributes
    ----------
    layout : Layout
        Shape of the masks.
    chunks : tuple of int
        Shape of a chunk of the HDF5, (mask, y, x).
    attributes : dict
        Root attributes.

    Raises
    ------
    StoreNotFound, NotAMaskStore
        When it is no store as `virtualize` writes it.
    """

    def __init__(self, objects: Objects) -> None:
        self.objects = objects
        root = self._metadata(ROOT)
        array = self._metadata(f"{MASKS}/{ROOT}")
        try:
            self.attributes: dict[str, Any] = root["attributes"]
            self._block: dict[str, Any] = self.attributes[ATTRIBUTE]
            self.shape = tuple(array["shape"])
            self.chunks: Offset = tuple(array["chunk_grid"]["configuration"]["chunk_shape"])
            first, *others = (codec["name"] for codec in array["codecs"])
            self.filters = [_FILTERS[name] for name in others]
            is_known = first == "bytes" and array["data_type"] == "uint8"
            n_masks, height, width = self.shape
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise self._no_store() from error
        sizes = (*self.shape, *self.chunks)
        if (
            not is_known
            or len(sizes) != 6  # noqa: PLR2004 - (mask, y, x), twice
            or not all(type(size) is int and size > 0 for size in sizes)
            or n_masks > MOST_ROWS
            or max(height * width, math.prod(self.chunks)) > _MOST_BYTES
        ):
            raise self._no_store()
        self.layout = Layout(n_masks=n_masks, height=height, width=width)

    def _metadata(self, key: str) -> dict[str, Any]:
        data = get_at_most(self.objects, key, MOST_METADATA_BYTES)
        if data is None:
            raise StoreNotFound(f"no mask store at {self.objects.location}: {key} is missing")
        return parsed_metadata(data)

    def _no_store(self) -> NotAMaskStore:
        return NotAMaskStore(f"{self.objects.location} is not as maskcube.virtualize writes it")

    def columns(self) -> dict[str, NDArray[Any]]:
        """Read the coordinates that are from the CSV, (mask,) each; texts as objects.

        Raises
        ------
        CorruptStore
            When one of them is missing or damaged.
        """
        return {name: self._column(name) for name in COLUMNS}

    def _column(self, name: str) -> NDArray[Any]:
        dtype = COORDINATES[name].dtype
        try:
            array = guarded_array(self.objects.zarr_store(), name, self._metadata(f"{name}/{ROOT}"))
            values = np.asarray(array[:]).astype(object if dtype == "string" else dtype)
            found: Any = Piece.of(value_bytes(name, values))
        except Exception as error:  # zarr and its codecs raise whatever they like
            raise CorruptStore(
                f"{self.objects.location}: coordinate {name!r} cannot be read: {error}"
            ) from error
        written = self._block.get("values")
        if not isinstance(written, dict) or list(found) != written.get(name):
            raise CorruptStore(
                f"{self.objects.location}: coordinate {name!r} is missing or damaged: its checksum"
                " is not the recorded one"
            )
        return values

    def read(self, rows: NDArray[np.integer[Any]]) -> NDArray[np.uint8]:
        """Return the masks in these rows, (len(rows), y, x) uint8, in the order asked.

        Raises
        ------
        CorruptMask
            When a chunk of the HDF5 cannot be read or does not hold exactly its pixels.
        """
        out = np.empty((len(rows), *self.shape[1:]), np.uint8)
        bounds = [0, *(np.flatnonzero(np.diff(rows) != 1) + 1).tolist(), len(rows)]
        for start, stop in pairwise(bounds):
            if stop > start:
                first = int(rows[start])
                self._read_block(Block(first, first + stop - start), out[start:stop])
        return out

    def _read_block(self, block: Block, out: NDArray[np.uint8]) -> None:
        try:
            grid = Grid(self.layout.shape, self.chunks)
            offsets = list(grid.offsets(block))
            with ThreadPoolExecutor(min(_N_REQUESTS, len(offsets))) as pool:
                raw = dict(zip(offsets, pool.map(self._raw, offsets), strict=True))
            read_block(raw.__getitem__, grid, block, out)
        except (CorruptStore, InflateError) as error:
            every = range(block.start, block.stop)
            source = self._block.get("location")
            raise CorruptMask(
                f"{self.objects.location}: masks {listed(every)} cannot be read: {error}; they are"
                f" in {source!r}, which must stay where it was and as it was: virtualize it again,"
                " or convert it",
                every,
            ) from error

    def _raw(self, offset: Offset) -> RawChunk:
        """Return a chunk as it lies in the HDF5; no filter of any was left out."""
        numbers = (str(first // size) for first, size in zip(offset, self.chunks, strict=True))
        key = f"{MASKS}/c/{'/'.join(numbers)}"
        data = self.objects.get(key, 0, most_stored_bytes(math.prod(self.chunks)) + 1)
        if data is None:
            raise CorruptStore(f"{key} is missing")
        return RawChunk(offset, data, tuple(self.filters))

    def __dask_tokenize__(self) -> tuple[str, str, str]:
        return type(self).__name__, self.objects.location, str(self._block)
