"""Masks as a dask array that knows its rows.

Taking scattered masks from an ordinary dask array reads every chunk that holds one of them, whole.
Here a selection first becomes row numbers and then tasks that read just those rows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import dask
import numpy as np
from dask.array import Array
from dask.base import tokenize
from dask.highlevelgraph import HighLevelGraph
from numpy.typing import NDArray

from maskcube.foreign import StoreReader
from maskcube.layout import Layout
from maskcube.schema import MASKS

__all__ = ["MaskRows", "task_masks"]

_WHOLE = slice(None)


def task_masks(layout: Layout) -> int:
    """Return how many masks to read in one task: a few for threads, a shard for a cluster.

    Threads share their memory and recycle it if a task takes at most 32 MiB; on a cluster a task
    costs a message, and a shard is one request.
    """
    on_cluster = dask.config.get("scheduler", None) in ("distributed", "dask.distributed")
    return layout.shard_masks if on_cluster else layout.task_masks


class MaskRows(Array):
    """Masks in some rows of a store as a dask array, (mask, y, x) uint8.

    Indexing ``mask`` with an integer, a slice, a list or booleans gives the same over just the rows
    that are left; whatever else is done to it gives an ordinary dask array.

    Parameters
    ----------
    reader : StoreReader
        Reads masks by row.
    rows : numpy.ndarray
        (mask,) row numbers in the store.
    size : int
        Masks in a task.
    """

    reader: StoreReader
    rows: NDArray[np.intp]
    masks_a_task: int
    _made_as: str

    def __new__(cls, reader: StoreReader, rows: NDArray[np.intp], size: int) -> Self:
        """Return the array; builds one task for every `size` masks and reads nothing."""
        name = f"{MASKS}-{tokenize(reader, _short(rows), size)}"
        parts = [rows[start : start + size] for start in range(0, len(rows), size)] or [rows]
        of_reader = f"reader-{tokenize(reader)}"
        graph: dict[Any, Any] = {
            (name, task, 0, 0): (_read, of_reader, _short(part)) for task, part in enumerate(parts)
        }
        layers = HighLevelGraph.from_collections(name, {of_reader: reader, **graph})
        height, width = reader.layout.shape[1:]
        chunks = (tuple(map(len, parts)), (height,), (width,))
        self: Self = super().__new__(cls, layers, name, chunks, dtype=np.uint8)  # type: ignore[no-untyped-call]
        self.reader, self.rows, self.masks_a_task = reader, rows, size
        self._made_as = name
        return self

    @property
    def is_read(self) -> bool:
        """Whether this still is what the store holds: assigning to it makes it something else."""
        return bool(self.name == self._made_as)

    def __getitem__(self, index: Any) -> Array:  # noqa: ANN401 - as in dask
        key = index if isinstance(index, tuple) else (index,)
        if not self.is_read or not key or not _takes_rows(key[0]) or _is_whole(key[0]):
            return self._as_ordinary(index)
        rows = self.rows[key[0]]
        taken = type(self)(self.reader, np.atleast_1d(rows), self.masks_a_task)
        rest = (_WHOLE if np.ndim(rows) else 0, *key[1:])
        return taken if all(map(_is_whole, rest)) else taken._as_ordinary(rest)  # noqa: SLF001 - its own class

    def _as_ordinary(self, index: Any) -> Array:  # noqa: ANN401 - as in dask
        indexed: Array = super().__getitem__(index)  # type: ignore[no-untyped-call]
        return indexed

    def copy(self) -> Array:
        """Return the same array, which still knows its rows."""
        if self.is_read:
            return type(self)(self.reader, self.rows, self.masks_a_task)
        copied: Array = super().copy()  # type: ignore[no-untyped-call]
        return copied

    def __reduce__(self) -> tuple[Callable[..., Array], tuple[Any, ...]]:
        if not self.is_read:
            reduced: tuple[Callable[..., Array], tuple[Any, ...]] = super().__reduce__()  # type: ignore[no-untyped-call]
            return reduced
        return _mask_rows, (type(self), self.reader, _short(self.rows), self.masks_a_task)


def _mask_rows(
    kind: type[MaskRows], reader: StoreReader, rows: range | NDArray[np.intp], size: int
) -> MaskRows:
    return kind(reader, np.asarray(rows, np.intp), size)


def _read(reader: StoreReader, rows: range | NDArray[np.intp]) -> NDArray[np.uint8]:
    # dask has as many threads as there are cores already.
    return reader.read(np.asarray(rows, np.intp), workers=1)


def _short(rows: NDArray[np.intp]) -> range | NDArray[np.intp]:
    """Return consecutive rows as a range: graphs are sent around."""
    if len(rows) and bool((np.diff(rows) == 1).all()):
        return range(int(rows[0]), int(rows[-1]) + 1)
    return rows


def _takes_rows(key: object) -> bool:
    if isinstance(key, slice | int | np.integer):
        return not isinstance(key, bool)
    if isinstance(key, list):
        key = np.asarray(key)
    return isinstance(key, np.ndarray) and key.ndim == 1 and key.dtype.kind in "iub"


def _is_whole(key: object) -> bool:
    return isinstance(key, slice) and key == _WHOLE
