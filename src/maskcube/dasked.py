"""Masks as a dask array that knows its rows.

Taking scattered masks from an ordinary dask array reads every chunk that holds one of them, whole.
Here a selection first becomes row numbers and then tasks that read just those rows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Self

import dask
import numpy as np
from dask.array import Array
from dask.base import tokenize
from dask.highlevelgraph import HighLevelGraph
from numpy.typing import NDArray

from maskcube.layout import Layout
from maskcube.readers import StoreReader
from maskcube.schema import MASKS

__all__ = ["MaskRows", "Tasks", "default_tasks"]

_WHOLE = slice(None)

_SELECTED_BYTES = 128 * 2**20
"""Pixels of a selection that are read in one task: joining the arrays of several takes as long as
reading them."""


class Tasks(NamedTuple):
    """How many masks to read in one task."""

    masks_per_task: int
    """Of many masks."""
    most_in_one: int
    """Of a selection: if there are no more of them, one task reads them all."""


def default_tasks(layout: Layout) -> Tasks:
    """Return how to read masks of this size: a few at a time for threads, a shard for a cluster.

    Threads share their memory and recycle it if a task takes at most 32 MiB; on a cluster a task
    costs a message, and a shard is one request.
    """
    if _on_cluster():
        return Tasks(layout.shard_masks, layout.shard_masks)
    return Tasks(layout.task_masks, max(layout.task_masks, _SELECTED_BYTES // layout.mask_bytes))


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
    tasks : Tasks
        How many masks to read in one task.
    size : int, optional
        Masks in a task of this array, if not as `tasks` says for many.
    """

    reader: StoreReader
    rows: NDArray[np.intp]
    tasks: Tasks
    _size: int
    _made_as: str

    def __new__(
        cls, reader: StoreReader, rows: NDArray[np.intp], tasks: Tasks, size: int | None = None
    ) -> Self:
        """Return the array; builds the tasks and reads nothing."""
        size = tasks.masks_per_task if size is None else size
        known = _as_range(rows)
        name = f"{MASKS}-{tokenize(reader, known, size)}"
        parts = [known[start : start + size] for start in range(0, len(rows), size)] or [known]
        # dask has as many threads as there are cores, if there is something for each of them to do.
        workers = 1 if len(parts) > 1 else None
        of_reader = f"reader-{tokenize(reader)}"
        graph: dict[Any, Any] = {
            (name, task, 0, 0): (_read, of_reader, _as_range(part), workers)
            for task, part in enumerate(parts)
        }
        layers = HighLevelGraph.from_collections(name, {of_reader: reader, **graph})
        height, width = reader.layout.shape[1:]
        chunks = (tuple(map(len, parts)), (height,), (width,))
        self: Self = super().__new__(cls, layers, name, chunks, dtype=np.uint8)  # type: ignore[no-untyped-call]
        self.reader, self.rows, self.tasks = reader, rows, tasks
        self._size = size
        self._made_as = name
        return self

    @property
    def is_untouched(self) -> bool:
        """Whether this still is what the store holds: assigning to it makes it something else."""
        return bool(self.name == self._made_as)

    def __getitem__(self, index: Any) -> Array:  # noqa: ANN401 - as in dask
        key = index if isinstance(index, tuple) else (index,)
        if not self.is_untouched or not key or not _takes_rows(key[0]) or _is_whole(key[0]):
            return self._as_ordinary(index)
        if any(not isinstance(each, slice | int | np.integer) for each in key[1:]):
            # Two arrays together mean points, not rows and columns.
            return self._as_ordinary(index)
        rows = self.rows[key[0]]
        taken = self._taken(np.atleast_1d(rows))
        rest = (_WHOLE if np.ndim(rows) else 0, *key[1:])
        return taken if all(map(_is_whole, rest)) else taken._as_ordinary(rest)  # noqa: SLF001 - its own class

    def _taken(self, rows: NDArray[np.intp]) -> Self:
        size = len(rows) if 0 < len(rows) <= self.tasks.most_in_one else self.tasks.masks_per_task
        return type(self)(self.reader, rows, self.tasks, size)

    def _as_ordinary(self, index: Any) -> Array:  # noqa: ANN401 - as in dask
        indexed: Array = super().__getitem__(index)  # type: ignore[no-untyped-call]
        return indexed

    def copy(self) -> Array:
        """Return the same array, which still knows its rows."""
        if self.is_untouched:
            return type(self)(self.reader, self.rows, self.tasks, self._size)
        copied: Array = super().copy()  # type: ignore[no-untyped-call]
        return copied

    def __dask_postcompute__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        if self.is_untouched and self.npartitions == 1 and not _on_cluster():
            return _sole_result, ()
        ordinary: tuple[Callable[..., Any], tuple[Any, ...]] = super().__dask_postcompute__()  # type: ignore[no-untyped-call]
        return ordinary

    def __reduce__(self) -> tuple[Callable[..., Array], tuple[Any, ...]]:
        if not self.is_untouched:
            reduced: tuple[Callable[..., Array], tuple[Any, ...]] = super().__reduce__()  # type: ignore[no-untyped-call]
            return reduced
        return _mask_rows, (type(self), self.reader, _as_range(self.rows), self.tasks, self._size)


def _sole_result(results: Any) -> NDArray[np.uint8]:  # noqa: ANN401 - lists of lists
    """Return the array that the only task has read.

    dask would copy it, lest somebody else holds it too, and that takes as long as reading it did.
    """
    masks: NDArray[np.uint8] = results[0][0][0]
    return masks


def _on_cluster() -> bool:
    return dask.config.get("scheduler", None) in ("distributed", "dask.distributed")


def _mask_rows(
    kind: type[MaskRows],
    reader: StoreReader,
    rows: range | NDArray[np.intp],
    tasks: Tasks,
    size: int,
) -> MaskRows:
    return kind(reader, np.asarray(rows, np.intp), tasks, size)


def _read(
    reader: StoreReader, rows: range | NDArray[np.intp], workers: int | None
) -> NDArray[np.uint8]:
    return reader.read(np.asarray(rows, np.intp), workers=workers)


def _as_range(rows: range | NDArray[np.intp]) -> range | NDArray[np.intp]:
    """Return consecutive rows as a range: graphs are sent around."""
    if isinstance(rows, range):
        return rows
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
