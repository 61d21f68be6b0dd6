"""Masks of a store that somebody has rewritten: in other chunks, without shards, otherwise encoded.

Plain zarr reads them, under guard. It shows what is missing as zeros, and other codecs may have no
checksum, so the pixels of every mask are compared with the CRC-32C that the store keeps of them.
"""

from __future__ import annotations

from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskcube.codec import checksum
from maskcube.errors import CorruptMask
from maskcube.layout import Layout
from maskcube.manifest import Piece
from maskcube.schema import MASKS
from maskcube.store import MaskStore, name_of

__all__ = ["ZarrReader"]


class ZarrReader:
    """Reads masks of a store by row, through plain zarr.

    Parameters
    ----------
    store : MaskStore
        An opened store.

    Attributes
    ----------
    layout : Layout
        Shape of the masks.
    """

    def __init__(self, store: MaskStore) -> None:
        self.layout: Layout = store.layout
        self._objects = store.objects
        self._edition = store.edition
        self._array: Any = store.zarr_array(MASKS)

    def __getstate__(self) -> dict[str, Any]:
        # zarr would leave its guard behind.
        return {**self.__dict__, "_array": None}

    def _opened(self) -> Any:  # noqa: ANN401 - zarr's own types tell the dtype, which is data
        if self._array is None:
            self._array = MaskStore(self._objects).zarr_array(MASKS)
        return self._array

    @cached_property
    def _crcs(self) -> NDArray[np.uint32]:
        return MaskStore(self._objects).coordinate("crc32c")

    def read(
        self, rows: NDArray[np.integer[Any]], *, workers: int | None = None
    ) -> NDArray[np.uint8]:
        """Return the masks in these rows, (len(rows), y, x) uint8, in the order asked.

        Parameters
        ----------
        rows : numpy.ndarray
            Row numbers, (n,) integer, from 0 on; in any order, repeated or not.
        workers : int, optional
            As for a `ShardReader`; plain zarr has threads of its own.

        Raises
        ------
        CorruptMask
            When one of them is missing or damaged.
        CorruptStore
            When the coordinate crc32c is.
        """
        del workers
        out = np.empty((len(rows), *self.layout.shape[1:]), np.uint8)
        bounds = [0, *(np.flatnonzero(np.diff(rows) != 1) + 1).tolist(), len(rows)]
        for start, stop in pairwise(bounds):
            if stop > start:
                first = int(rows[start])
                out[start:stop] = self._slice(first, first + stop - start)
        for row, mask in zip(rows.tolist(), out, strict=True):
            if checksum(mask) != self._crcs[row]:
                raise self._corrupt(row, "its pixels are not those that were converted")
        self._edition.check_cheaply()
        return out

    def mask(self, row: int) -> NDArray[np.uint8]:
        """Return the mask in a row, (y, x) uint8; raises as `read` does."""
        mask: NDArray[np.uint8] = self.read(np.array([row]))[0]
        return mask

    def _slice(self, start: int, stop: int) -> NDArray[np.uint8]:
        try:
            masks = np.asarray(self._opened()[start:stop])
        except Exception as error:  # zarr and its codecs raise whatever they like
            raise self._corrupt(start, f"zarr cannot read it: {error}") from error
        if masks.dtype != np.uint8 or masks.shape != (stop - start, *self.layout.shape[1:]):
            raise self._corrupt(start, f"zarr reads {masks.dtype} of shape {masks.shape}")
        return masks

    def _corrupt(self, row: int, found: str) -> CorruptMask:
        self._edition.check()
        name = name_of(self._objects, row)
        return CorruptMask(f"{self._objects.location}: {found}; cannot read {name}", [row])

    def __dask_tokenize__(self) -> tuple[str, str, Piece, str]:
        return type(self).__name__, *self._edition.token
