"""What `maskcube.segmentations` reads from: a converted store, or the HDF5 and its CSV.

A store is opened and asked without xarray, pandas, zarr or h5py; each is imported by what needs it.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from maskcube.catalog import Catalog
from maskcube.errors import (
    InvalidOption,
    MaskcubeError,
    SourceNotFound,
    StoreNotFound,
    listed,
)
from maskcube.layout import DIMS, FOLDER, Layout
from maskcube.metadata import COLUMNS
from maskcube.objects import Folder, Objects, StoreLike, open_objects
from maskcube.paths import folder_path
from maskcube.readers import open_reader
from maskcube.remote import is_url
from maskcube.schema import COORDINATES, INDEXED, ROOT
from maskcube.store import MaskStore

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

    from maskcube.source import MaskSource

__all__ = ["Backing", "SourceBacking", "StoreBacking", "open_backing"]


class Backing(Protocol):
    """Where the masks and the table are from; rows are those of the HDF5."""

    layout: Layout

    def mask(self, row: int) -> NDArray[np.uint8]:
        """Return the mask in a row, (y, x) uint8."""

    def catalog(self) -> Catalog:
        """Return the labels of each mask."""

    def order(self) -> NDArray[np.intp] | None:
        """Return the rows in the order of the CSV, (mask,); None when that is ascending."""

    def column(self, name: str) -> NDArray[Any]:
        """Return a coordinate of the schema, (mask,)."""

    def value(self, name: str, row: int) -> str | float:
        """Return a coordinate of one mask."""

    def table(self) -> pd.DataFrame:
        """Return the columns of the CSV, in its order."""

    def masks(self) -> xr.DataArray:
        """Return the masks as a lazy, labelled array."""

    def close(self) -> None:
        """Release what is open."""


class StoreBacking:
    """A converted store."""

    def __init__(self, store: MaskStore) -> None:
        self.store = store
        self.layout = store.layout
        self._reader = open_reader(store)

    def mask(self, row: int) -> NDArray[np.uint8]:
        """Return the mask in a row."""
        return self._reader.mask(row)

    def catalog(self) -> Catalog:
        """Return the labels of each mask."""
        return Catalog.of_store(self.store)

    def order(self) -> NDArray[np.intp] | None:
        """Return the rows in the order of the CSV; None when that is ascending."""
        order = self.store.manifest.order()
        return None if order is None else np.array(order, np.intp)

    def column(self, name: str) -> NDArray[Any]:
        """Return a coordinate, (mask,)."""
        return self.store.coordinate(name)

    def value(self, name: str, row: int) -> str | float:
        """Return a coordinate of one mask."""
        if COORDINATES[name].dtype == "string":
            return self.store.text(name, row)
        value: float = self.store.coordinate(name)[row].item()
        return value

    def table(self) -> pd.DataFrame:
        """Return the columns of the CSV, in its order."""
        import pandas as pd

        names = {coord.column: name for name, coord in COORDINATES.items() if coord.column}
        table = pd.DataFrame({name: self._column(names[name]) for name in COLUMNS})
        order = self.order()
        return table if order is None else table.iloc[order].reset_index(drop=True)

    def _column(self, name: str) -> np.ndarray[Any, Any]:
        values = self.store.coordinate(name)
        if values.dtype.kind == "T":
            return values.astype(object)
        # pandas reads every whole number of a CSV as int64.
        return values.astype(np.int64) if values.dtype.kind == "i" else values

    def masks(self) -> xr.DataArray:
        """Return the masks as `open_masks` does."""
        from maskcube.reader import masks_of

        return masks_of(self.store)

    def close(self) -> None:
        """Do nothing: no file is kept open."""


class SourceBacking:
    """The HDF5 and its CSV."""

    def __init__(self, source: MaskSource) -> None:
        self.source = source
        self.layout = source.layout

    def read(self, rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Return the masks in these rows, (len(rows), y, x) uint8."""
        return self.source.file.read_rows(rows)

    def mask(self, row: int) -> NDArray[np.uint8]:
        """Return the mask in a row."""
        mask: NDArray[np.uint8] = self.read(np.array([row]))[0]
        return mask

    @cached_property
    def _columns(self) -> dict[str, NDArray[Any]]:
        return self.source.coordinates()

    def catalog(self) -> Catalog:
        """Return the labels of each mask."""
        return Catalog.of_arrays({name: self._columns[name] for name in INDEXED})

    def order(self) -> NDArray[np.intp] | None:
        """Return the rows in the order of the CSV."""
        return self.source.table["mask_row"].to_numpy()

    def column(self, name: str) -> NDArray[Any]:
        """Return a coordinate, (mask,)."""
        return self._columns[name]

    def value(self, name: str, row: int) -> str | float:
        """Return a coordinate of one mask."""
        found: str | float = self._columns[name][row : row + 1].tolist()[0]
        return found

    def table(self) -> pd.DataFrame:
        """Return the columns of the CSV, in its order."""
        return self.source.table.astype({"localized": np.int64}).reset_index(drop=True)

    def masks(self) -> xr.DataArray:
        """Return the masks, with coordinates as a store has them, but for area and crc32c."""
        from xarray import Variable

        from maskcube.coordinates import described
        from maskcube.reader import mask_dataset

        rows = max(self.source.file.chunks[0], self.layout.task_masks)
        others = {
            name: described(name, Variable(DIMS[:1], values), self.layout.shard_masks)
            for name, values in self._columns.items()
            if name not in INDEXED
        }
        dataset = mask_dataset(self, self.catalog(), others)
        chunked = dataset.variables["masks"].chunk({"mask": rows, "y": -1, "x": -1})
        return dataset.assign(masks=chunked)["masks"]

    def close(self) -> None:
        """Close the HDF5."""
        self.source.close()


def open_backing(given: StoreLike, storage_options: dict[str, Any] | None) -> Backing:
    """Return the store that `given` is or holds, or else the HDF5 in it.

    Raises
    ------
    StoreNotFound, SourceNotFound
        When nothing is there.
    IncompleteStore, NotAMaskStore
        When no complete store is there, and no HDF5.
    SourceError
        When the HDF5 and its CSV do not fit together.
    InvalidOption
        When the folder holds several stores.
    """
    folder = folder_path(given)
    if folder is None and isinstance(given, str) and is_url(given):
        return _backing_at(given, storage_options)
    if folder is None or storage_options:
        return StoreBacking(MaskStore.open(given, storage_options, ahead=True))
    stores = _stores_in(folder)
    if len(stores) > 1:
        raise InvalidOption(
            f"{folder} holds several mask stores: {listed(str(store) for store in stores)};"
            " give the path of one"
        )
    if stores:
        return StoreBacking(MaskStore.open(stores[0]))
    if folder.suffix == ".zarr" or not folder.is_dir():
        return StoreBacking(MaskStore.open(folder))
    from maskcube.source import MaskSource

    source = MaskSource(folder, allow_duplicates=True)
    source.check()
    return SourceBacking(source)


def _backing_at(url: str, options: dict[str, Any] | None) -> Backing:
    """Return the store at a URL, or else the HDF5 below it, of which little is read."""
    objects = open_objects(url, options)
    # Its name says what it is, or a request must.
    if url.rstrip("/").endswith(".zarr") or _has_root(objects):
        return StoreBacking(MaskStore(objects, ahead=True))
    from maskcube.source import MaskSource

    try:
        source = MaskSource(url, allow_duplicates=True, options=options, whole=False)
    except (SourceNotFound, InvalidOption) as missing:
        found = missing.faults[0] if isinstance(missing, SourceNotFound) else str(missing)
        try:
            return StoreBacking(MaskStore(objects))
        except StoreNotFound as error:
            raise StoreNotFound(f"{error}; {found}") from missing
    source.check()
    return SourceBacking(source)


def _has_root(objects: Objects) -> bool:
    try:
        return objects.get(ROOT, 0, 1) is not None
    except PermissionError:
        # A bucket that nobody may list says so of whatever is not there.
        return False


def _stores_in(folder: Path) -> list[Path]:
    """Return the folder itself if it is a store, or the complete mask stores in it."""
    if (folder / ROOT).is_file():
        return [folder]
    stores = []
    for path in sorted([*folder.glob("*.zarr"), *(folder / FOLDER).glob("*.zarr")]):
        try:
            MaskStore(Folder(path))
        except MaskcubeError:
            continue
        stores.append(path)
    return stores
