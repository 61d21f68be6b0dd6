"""Coordinates as xarray variables that are read, or made from codes, when they are first used."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from xarray import Variable
from xarray.backends import BackendArray
from xarray.core import formatting, indexing

from maskcube.labels import LabelColumn
from maskcube.layout import DIMS
from maskcube.schema import COORDINATES
from maskcube.store import MaskStore

__all__ = ["CoordinateArray", "LabelArray", "described", "label_variable", "stored_variable"]


class CoordinateArray(BackendArray):
    """A coordinate of a store, (mask,), read whole when any of it is first wanted, and kept.

    It pickles without what it has read. Threads may share it: at worst they read it twice.

    Parameters
    ----------
    store : MaskStore
        An opened store.
    name : str
        Name of the coordinate.
    """

    def __init__(self, store: MaskStore, name: str) -> None:
        self.store = store
        self.name = name
        self.shape = (store.layout.n_masks,)
        is_text = COORDINATES[name].dtype == "string"
        # StringDType cannot miss a value, as an outer alignment wants.
        self.dtype = np.dtype(object if is_text else COORDINATES[name].dtype)
        self._values: NDArray[Any] | None = None

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:  # noqa: ANN401 - as in the base
        return indexing.explicit_indexing_adapter(
            key, self.shape, indexing.IndexingSupport.VECTORIZED, self._read
        )

    def _read(self, key: tuple[Any, ...]) -> NDArray[Any]:
        if self._values is None:
            self._values = self.store.coordinate(self.name).astype(self.dtype, copy=False)
        # A copy: what one selection changes, another must not see.
        return np.array(self._values[key])

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_values": None}


class LabelArray(BackendArray):
    """The labels of a column, (mask,), made from its codes when they are first wanted.

    They are read-only: writing to them would leave the index behind with the old labels.

    Parameters
    ----------
    column : LabelColumn
        The labels and codes.
    """

    def __init__(self, column: LabelColumn) -> None:
        self.column = column
        self.shape = (len(column),)
        self.dtype = column.dtype

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:  # noqa: ANN401 - as in the base
        return indexing.explicit_indexing_adapter(
            key, self.shape, indexing.IndexingSupport.VECTORIZED, self.column.array.__getitem__
        )

    def __setitem__(self, key: object, value: object) -> None:
        raise ValueError(
            f"coordinate {self.column.name!r} is read-only, its index would keep the old labels:"
            " use .assign_coords after .drop_indexes"
        )


class _LabelsShown(indexing.LazilyIndexedArray):
    """Labels whose values stand in a repr, as if they were in memory."""

    def _repr_inline_(self, max_width: int) -> str:
        return str(formatting.format_array_flat(np.asarray(self), max_width))


def label_variable(
    dim: Hashable,
    column: LabelColumn,
    attributes: Mapping[Any, Any] | None = None,
    encoding: Mapping[Any, Any] | None = None,
) -> Variable:
    """Return a column as a variable along `dim`, read-only; its values are made when wanted."""
    # xarray's own kinds of arrays are not in its declared types.
    data: Any = column.array if column.is_made else _LabelsShown(LabelArray(column))
    return Variable((dim,), data, attributes, encoding)


def stored_variable(store: MaskStore, name: str) -> Variable:
    """Return a coordinate of a store as a variable, (mask,), that is read when it is first used.

    Using it raises `CorruptStore` when its bytes are missing or damaged.
    """
    lazy: Any = indexing.LazilyIndexedArray(CoordinateArray(store, name))
    # Kept once read, copied once written to: as xarray opens any file.
    cached: Any = indexing.MemoryCachedArray
    data = cached(indexing.CopyOnWriteArray(lazy))
    return described(name, Variable(DIMS[:1], data), store.layout.shard_masks)


def described(name: str, variable: Variable, shard_masks: int) -> Variable:
    """Return a coordinate's variable with the attributes and the encoding of the schema."""
    coordinate = COORDINATES[name]
    variable.attrs = dict(coordinate.attributes)
    variable.encoding = {"preferred_chunks": {DIMS[0]: shard_masks}}
    if coordinate.dtype == "string":
        # Some versions of xarray would write it with a fixed length, which few readers know.
        variable.encoding["dtype"] = object
    return variable
