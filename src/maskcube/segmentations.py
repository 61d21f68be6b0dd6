"""A drop-in for ``laion_fmri.segmentations.Segmentations``, over the HDF5 or a converted store.

The interface and its answers are those of the laion_fmri package [1]_. What differs: nouns such as
"nan" are kept, ``images`` really is in metadata order, and an instance pickles, survives a fork,
and may be used by several threads.

References
----------
.. [1] https://github.com/ViCCo-Group/LAION-fMRI
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self, SupportsInt

import numpy as np
import pandas as pd

from maskcube.errors import (
    InvalidOption,
    LabelNotFound,
    MaskcubeError,
    MissingDependency,
    RowNotFound,
    listed,
)
from maskcube.layout import Layout
from maskcube.metadata import COLUMNS
from maskcube.objects import Folder, StoreLike, folder_path
from maskcube.schema import COORDINATES
from maskcube.shards import ShardReader
from maskcube.source import FOLDER, MaskSource
from maskcube.stage import ROOT
from maskcube.store import MaskStore

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["Segmentations"]


class Backing(Protocol):
    """Where the masks and the table are from."""

    layout: Layout

    def read(self, rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Return the masks in these rows, (len(rows), y, x) uint8."""

    def table(self) -> pd.DataFrame:
        """Return the columns of the CSV, in its order."""

    def masks(self) -> xr.DataArray:
        """Return the masks as a lazy, labelled array."""

    def close(self) -> None:
        """Release what is open."""


class Segmentations:
    """Masks by image, noun and instance, as ``laion_fmri`` gives them.

    Parameters
    ----------
    data_dir : path, URL or zarr Store, optional
        The dataset's folder, of which a converted store is read if there is one in it or in its
        ``stimuli``, and the HDF5 otherwise; or a store itself. Defaults to the data folder that
        ``laion_fmri`` is configured with.
    storage_options : dict, optional
        For the URL of a store: how to reach it.

    Raises
    ------
    StoreNotFound, SourceNotFound
        When nothing is there; both are a ``FileNotFoundError``.
    SourceError
        When the HDF5 and its CSV do not fit together.
    InvalidOption
        When the folder holds several stores.

    Examples
    --------
    >>> with Segmentations("laion-fmri") as segmentations:
    ...     nouns = segmentations.nouns("shared_12rep_LAION_cluster_1003_i0.jpg")
    ...     mask = segmentations.get("shared_12rep_LAION_cluster_1003_i0.jpg", "fingers")
    >>> nouns[:2], mask.shape, mask.dtype
    (['fingers', 'hand'], (1000, 1000), dtype('uint8'))
    """

    def __init__(
        self,
        data_dir: StoreLike | None = None,
        *,
        storage_options: dict[str, Any] | None = None,
    ) -> None:
        given = _configured_data_dir() if data_dir is None else data_dir
        self.data_dir: Any = given if folder_path(given) is None else Path(given).expanduser()
        self._backing = _open_backing(given, storage_options)

    @cached_property
    def metadata(self) -> pd.DataFrame:
        """One row for each mask, in the order and with the columns of the CSV.

        mask_row, image_name, noun, instance_id, score, box_x0, box_y0, box_x1, box_y1 (pixels),
        localized, mask_file. The same object each time; changing it changes no answer.
        """
        return self._table.copy()

    @property
    def masks(self) -> xr.DataArray:
        """All masks, lazy and labelled, (mask, y, x) uint8: see `maskcube.open_masks`."""
        return self._backing.masks()

    def __len__(self) -> int:
        return len(self._table)

    def __getitem__(self, mask_row: SupportsInt) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """Return one mask by its row in the HDF5, (y, x) uint8.

        Raises
        ------
        RowNotFound
            When there is no such row.
        CorruptMask
            When it is missing or damaged.
        """
        n_masks = self._backing.layout.n_masks
        row = int(mask_row)
        if not -n_masks <= row < n_masks:
            raise RowNotFound(f"mask_row={row} is outside of the {n_masks:,} masks")
        mask: np.ndarray[Any, np.dtype[np.uint8]] = self._backing.read(np.array([row % n_masks]))[0]
        return mask

    def get(
        self, image_name: str, noun: str, instance: int = 0
    ) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """Return the mask of an image, noun and instance, (y, x) uint8.

        Raises
        ------
        LabelNotFound
            When no mask has them; it is a ``KeyError`` and says what there is.
        CorruptMask
            When it is missing or damaged.
        """
        rows = self._rows(image_name)
        match = rows[(rows["noun"] == noun) & (rows["instance_id"] == instance)]
        if match.empty:
            raise _no_mask(rows, image_name, noun, instance)
        return self[match["mask_row"].iloc[0]]

    def for_image(self, image_name: str) -> pd.DataFrame:
        """Return the rows of `metadata` for one image, a copy; empty when it has no masks."""
        return self._rows(image_name).reset_index(drop=True)

    def nouns(self, image_name: str, localized_only: bool = True) -> list[str]:  # noqa: FBT001, FBT002 - laion_fmri's signature
        """Return the nouns of an image in metadata order; empty when it has no masks.

        Parameters
        ----------
        image_name : str
            File name of the stimulus.
        localized_only : bool
            Leave out nouns that were found nowhere in particular.
        """
        rows = self._rows(image_name)
        if localized_only:
            rows = rows[rows["localized"] == 1]
        return [str(noun) for noun in rows["noun"].unique()]

    def has_image(self, image_name: str) -> bool:
        """Whether the image has at least one mask."""
        return image_name in self._positions

    def images(self) -> list[str]:
        """Return the images that have at least one mask, in metadata order."""
        return [str(name) for name in self._table["image_name"].unique()]

    def close(self) -> None:
        """Release what is open; the next access opens it again."""
        self._backing.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Segmentations({str(self.data_dir)!r}: {len(self):,} masks)"

    @cached_property
    def _table(self) -> pd.DataFrame:
        return self._backing.table()

    @cached_property
    def _positions(self) -> Mapping[Any, np.ndarray[Any, Any]]:
        """Positions of each image's rows in the table."""
        indices: dict[Any, Any] = self._table.groupby("image_name", sort=False).indices
        return indices

    def _rows(self, image_name: str) -> pd.DataFrame:
        return self._table.iloc[self._positions.get(image_name, np.array([], np.intp))]


class StoreBacking:
    """A converted store."""

    def __init__(self, store: MaskStore) -> None:
        self.store = store
        self.layout = store.layout
        self._reader = ShardReader(store)

    def read(self, rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Return the masks in these rows."""
        return self._reader.read(rows)

    def table(self) -> pd.DataFrame:
        """Return the columns of the CSV, in its order."""
        names = {coord.column: name for name, coord in COORDINATES.items() if coord.column}
        table = pd.DataFrame({name: self._column(names[name]) for name in COLUMNS})
        order = self.store.manifest.source["metadata"]["order"]
        return table if order is None else table.iloc[order].reset_index(drop=True)

    def _column(self, name: str) -> np.ndarray[Any, Any]:
        values = self.store.coordinate(name)
        if values.dtype.kind == "T":
            return values.astype(object)
        # pandas reads every whole number of a CSV as int64.
        return values.astype(np.int64) if values.dtype.kind == "i" else values

    def masks(self) -> xr.DataArray:
        """Return the masks as `open_masks` does."""
        from maskcube.reader import open_masks

        return open_masks(self.store.objects.zarr_store())

    def close(self) -> None:
        """Do nothing: no file is kept open."""


class SourceBacking:
    """The HDF5 and its CSV."""

    def __init__(self, source: MaskSource) -> None:
        self.source = source
        self.layout = source.layout

    def read(self, rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Return the masks in these rows."""
        return self.source.file.read_rows(rows)

    def table(self) -> pd.DataFrame:
        """Return the columns of the CSV, in its order."""
        return self.source.table.astype({"localized": np.int64}).reset_index(drop=True)

    def masks(self) -> xr.DataArray:
        """Return the masks, with coordinates as a store has them, but for area and crc32c."""
        from maskcube.reader import mask_dataset

        rows = max(self.source.file.chunks[0], self.layout.task_masks)
        dataset = mask_dataset(self, self.source.coordinates())
        chunked = dataset.variables["masks"].chunk({"mask": rows, "y": -1, "x": -1})
        return dataset.assign(masks=chunked)["masks"]

    def close(self) -> None:
        """Close the HDF5."""
        self.source.close()


def _open_backing(given: StoreLike, storage_options: dict[str, Any] | None) -> Backing:
    """Return the store that `given` is or holds, or else the HDF5 in it."""
    folder = folder_path(given)
    if folder is None or storage_options:
        return StoreBacking(MaskStore.open(given, storage_options))
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
    source = MaskSource(folder, allow_duplicates=True)
    source.check()
    return SourceBacking(source)


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


def _no_mask(rows: pd.DataFrame, image: str, noun: str, instance: int) -> LabelNotFound:
    if rows.empty:
        return LabelNotFound(
            f"no mask has image {image!r}; only the shared stimuli have masks, images() lists them"
        )
    if noun not in set(rows["noun"]):
        return LabelNotFound(
            f"image {image!r} has no mask of {noun!r}; it has {listed(rows['noun'].unique())}"
        )
    instances = rows.loc[rows["noun"] == noun, "instance_id"].tolist()
    return LabelNotFound(
        f"image {image!r} has no instance {instance!r} of {noun!r}; it has {listed(instances)}"
    )


def _configured_data_dir() -> Path:
    """Return the folder that laion_fmri keeps its data in."""
    try:
        from laion_fmri.config import get_data_dir
    except ImportError:
        raise MissingDependency(
            "Segmentations() without a folder asks laion_fmri for its data folder, but laion_fmri"
            " is not installed: give data_dir, or pip install laion-fmri"
        ) from None
    return Path(get_data_dir())
