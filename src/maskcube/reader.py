"""A store as one lazy, labelled ``xarray.DataArray`` (mask, y, x)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import xarray as xr
from xarray.backends import BackendArray
from xarray.core import indexing

from maskcube.catalog import Catalog
from maskcube.coordinates import described, stored_variable
from maskcube.errors import InvalidOption
from maskcube.index import MaskIndex
from maskcube.layout import DIMS, Layout
from maskcube.objects import StoreLike, open_objects
from maskcube.readers import open_reader
from maskcube.schema import COORDINATES, INDEXED, MASK_ATTRIBUTES, MASKS
from maskcube.session import SessionObjects
from maskcube.store import MaskStore

if TYPE_CHECKING:
    from maskcube.virtual import VirtualMasks

__all__ = [
    "Chunks",
    "MaskReader",
    "are_whole",
    "mask_dataset",
    "masks_of",
    "open_masks",
    "store_dataset",
]

Chunks = str | int | Mapping[str, Any] | None
"""``"auto"``, a size for every dimension, a size by dimension, or None for no dask."""

_CUT_MASKS = 32
"""Masks to decode at a time when only a part of each is wanted."""


class MaskReader(Protocol):
    """Whatever reads masks by row."""

    layout: Layout

    def read(self, rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Return the masks in these rows, (len(rows), y, x) uint8, in the order asked."""


class MaskArray(BackendArray):
    """Masks as xarray indexes them lazily: rows decide what is read, y and x are cut after it."""

    def __init__(self, reader: MaskReader) -> None:
        self.reader = reader
        self.shape = reader.layout.shape
        self.dtype = np.dtype(np.uint8)

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:  # noqa: ANN401 - as in the base
        if isinstance(key, indexing.VectorizedIndexer):
            return indexing.explicit_indexing_adapter(
                key, self.shape, indexing.IndexingSupport.OUTER, self._read
            )
        return self._read(key.tuple)

    def _read(self, key: tuple[Any, ...]) -> np.ndarray[Any, Any]:
        rows = np.arange(self.shape[0])[key[0]]
        wanted = np.atleast_1d(rows)
        cuts = key[1:]
        if are_whole(cuts, self.shape[1:]):
            masks = self.reader.read(wanted)
        else:
            masks = self._read_cut(wanted, cuts)
        return masks if np.ndim(rows) else masks[0]

    def _read_cut(self, rows: np.ndarray[Any, Any], cuts: tuple[Any, ...]) -> np.ndarray[Any, Any]:
        """Decode a few masks at a time and keep the part of each that is wanted."""
        parts = [
            _cut(self.reader.read(rows[start : start + _CUT_MASKS]), cuts)
            for start in range(0, max(1, len(rows)), _CUT_MASKS)
        ]
        return np.concatenate(parts)


def are_whole(cuts: Iterable[object], sizes: Iterable[int]) -> bool:
    """Whether these cuts of y and x leave every pixel where it is."""
    return all(
        isinstance(cut, slice) and cut.indices(size) == (0, size, 1)
        for cut, size in zip(cuts, sizes, strict=True)
    )


def _cut(masks: np.ndarray[Any, Any], cuts: tuple[Any, ...]) -> np.ndarray[Any, Any]:
    """Cut y, then x; each is an integer, a slice or an array of integers."""
    in_y = masks[:, cuts[0]]
    return np.ascontiguousarray(in_y[..., cuts[1]])


def open_masks(
    store: StoreLike,
    *,
    chunks: Chunks = "auto",
    storage_options: dict[str, Any] | None = None,
) -> xr.DataArray:
    """Open a store as a lazy, labelled array; reads image, noun and instance, and no pixel.

    Parameters
    ----------
    store : path, URL or zarr Store
        A converted store, or one that `virtualize` has made, which has neither area nor crc32c.
    chunks : "auto", int, mapping or None
        dask chunks: ``"auto"`` for tasks of at most 32 MiB, or one for a small selection, and of
        one shard on a dask cluster; ``{}`` for one task a shard; a mapping of sizes, as in
        ``{"mask": 10}``; a size for every dimension, y and x too, as in xarray; None for a lazy
        array without dask.
    storage_options : dict, optional
        For a URL: how to reach it, as in ``{"anon": True}`` or ``{"key": ...,
        "secret": ..., "endpoint_url": ...}``; else as the environment says, or anonymously.

    Returns
    -------
    xarray.DataArray
        ``masks``, (mask, y, x) uint8, 1 where the object is. Along ``mask`` it has the coordinates
        image, noun, instance (these three indexed: ``masks.sel(image=..., noun=...)``), score,
        box_x0, box_y0, box_x1, box_y1 (pixels), localized, mask_file, mask_row, area (pixels) and
        crc32c, each read when it is first used. Reading a mask that is missing or damaged raises
        `CorruptMask`, reading such a coordinate `CorruptStore`.

    Raises
    ------
    StoreNotFound, IncompleteStore, NotAMaskStore
        When there is no complete mask store of a known format.
    CorruptStore
        When image, noun or instance is missing or damaged.
    InvalidOption
        When `chunks` names an unknown dimension.

    Examples
    --------
    >>> masks = open_masks("masks.zarr")
    >>> masks.dims, masks.dtype
    (('mask', 'y', 'x'), dtype('uint8'))
    >>> hands = masks.sel(image="shared_12rep_LAION_cluster_1003_i0.jpg", noun=["hand", "fingers"])
    >>> hands.any("mask").shape
    (1000, 1000)
    """
    objects = open_objects(store, storage_options)
    if isinstance(objects, SessionObjects):
        from maskcube.virtual import VirtualMasks, is_virtual

        if is_virtual(objects):
            return _open_virtual(VirtualMasks(objects), chunks)
    return masks_of(MaskStore(objects, ahead=True), chunks)


def masks_of(opened: MaskStore, chunks: Chunks = "auto") -> xr.DataArray:
    """Return the masks of an opened store: see `open_masks`."""
    reader = open_reader(opened)
    dataset = store_dataset(opened, reader)
    masks = dataset.variables[MASKS]
    if chunks is None:
        return dataset[MASKS]
    from maskcube.dasked import MaskRows, Tasks, default_tasks

    wanted = _chunk_sizes(chunks, opened.layout)
    size = _masks_alone(wanted)
    if size:
        tasks = default_tasks(opened.layout) if chunks == "auto" else Tasks(size, size)
        rows = np.arange(opened.layout.n_masks)
        read = MaskRows(reader, rows, tasks)
        chunked = xr.Variable(masks.dims, read, masks.attrs, masks.encoding)
    else:
        from dask.base import tokenize

        name = f"{MASKS}-{tokenize(*opened.edition.token, wanted)}"
        chunked = masks.chunk(wanted, name=name)
    return dataset.assign({MASKS: chunked})[MASKS]


def _open_virtual(masks: VirtualMasks, chunks: Chunks) -> xr.DataArray:
    """Return masks that are in an HDF5; a task reads whole chunks of it."""
    columns = masks.columns()
    others = {
        name: described(name, xr.Variable(DIMS[:1], values), masks.layout.shard_masks)
        for name, values in columns.items()
        if name not in INDEXED
    }
    catalog = Catalog.of_arrays({name: columns[name] for name in INDEXED})
    dataset = mask_dataset(masks, catalog, others)
    wanted = _chunk_sizes(chunks, masks.layout)
    if wanted is None:
        return dataset[MASKS]
    if isinstance(wanted, dict) and not (isinstance(chunks, Mapping) and DIMS[0] in chunks):
        wanted[DIMS[0]] = max(masks.chunks[0], masks.layout.task_masks)
    return dataset.assign({MASKS: dataset.variables[MASKS].chunk(wanted)})[MASKS]


def store_dataset(store: MaskStore, reader: MaskReader) -> xr.Dataset:
    """Return an opened store as a Dataset without dask: ``masks``, and its indexed coordinates."""
    others = {name: stored_variable(store, name) for name in COORDINATES if name not in INDEXED}
    # What is said of all masks and their pieces is not true of a selection that is saved.
    attributes = {key: value for key, value in store.attributes.items() if key != "maskcube"}
    return mask_dataset(reader, Catalog.of_store(store), others).assign_attrs(attributes)


def mask_dataset(
    reader: MaskReader, catalog: Catalog, others: Mapping[str, xr.Variable]
) -> xr.Dataset:
    """Return masks as a lazy Dataset without dask, with an index over image, noun and instance.

    Parameters
    ----------
    reader : MaskReader
        Reads the pixels.
    catalog : Catalog
        The labels of each mask.
    others : mapping of str to xarray.Variable
        The coordinates that are not indexed, (mask,) each.
    """
    shards = dict(zip(DIMS, reader.layout.shard_shape, strict=True))
    index = MaskIndex(catalog)
    labels = {
        name: described(name, variable, shards[DIMS[0]])
        for name, variable in index.create_variables().items()
    }
    coords = xr.Coordinates({**labels, **others}, indexes=dict.fromkeys(INDEXED, index))
    # xarray's own kinds of arrays are not in its declared types.
    lazy: Any = indexing.LazilyIndexedArray(MaskArray(reader))
    masks = xr.Variable(
        DIMS,
        indexing.CopyOnWriteArray(lazy),
        dict(MASK_ATTRIBUTES),
        {"preferred_chunks": shards, "chunks": reader.layout.chunk_shape},
    )
    return xr.Dataset({MASKS: masks}, coords=coords)


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and (value > 0 or value == -1)


def _are_sizes(values: Iterable[object]) -> bool:
    """Whether these are sizes as xarray takes them: one, one for each chunk, or "auto"."""
    return all(
        value is None
        or value == "auto"
        or _is_size(value)
        or (isinstance(value, tuple) and all(map(_is_size, value)))
        for value in values
    )


def _masks_alone(sizes: int | dict[str, Any] | None) -> int | None:
    """Return how many masks a task reads if it reads them whole; None otherwise."""
    if not isinstance(sizes, dict) or any(sizes[dim] not in (-1, None) for dim in DIMS[1:]):
        return None
    size = sizes[DIMS[0]]
    return size if isinstance(size, int) and size > 0 else None


def _chunk_sizes(chunks: Chunks, layout: Layout) -> int | dict[str, Any] | None:
    """Return what ``chunks=`` means for this layout, in xarray's own words."""
    if chunks is None or (isinstance(chunks, int) and _is_size(chunks)):
        return chunks
    if chunks == "auto":
        return dict(zip(DIMS, (layout.task_masks, -1, -1), strict=True))
    if isinstance(chunks, Mapping) and set(chunks) <= set(DIMS) and _are_sizes(chunks.values()):
        return {**dict(zip(DIMS, (layout.shard_masks, -1, -1), strict=True)), **chunks}
    raise InvalidOption(
        f"chunks={chunks!r}: give 'auto', a number, None, or sizes by dimension of {DIMS}"
    )
