"""A drop-in for ``laion_fmri.segmentations.Segmentations``, over the HDF5 or a converted store.

The interface and its answers are those of the laion_fmri package [1]_. What differs: nouns such as
"nan" are kept, ``images`` really is in metadata order, and an instance pickles, survives a fork,
and may be used by several threads.

References
----------
.. [1] https://github.com/ViCCo-Group/LAION-fMRI
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, SupportsInt

import numpy as np
from numpy.typing import NDArray

from maskcube.backing import Backing, open_backing
from maskcube.catalog import Catalog
from maskcube.errors import LabelNotFound, MissingDependency, RowNotFound, listed
from maskcube.metadata import COLUMNS
from maskcube.objects import StoreLike
from maskcube.paths import folder_path
from maskcube.schema import COORDINATES

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

__all__ = ["Segmentations"]


class Segmentations:
    """Masks by image, noun and instance, as ``laion_fmri`` gives them.

    Parameters
    ----------
    data_dir : path, URL or zarr Store, optional
        The dataset's folder, of which a converted store is read if there is one in it or in its
        ``stimuli``, and the HDF5 otherwise; or a store itself. At a URL there is a store, or an
        HDF5 in ``stimuli``, of which only what is wanted is fetched. Defaults to the data folder
        that ``laion_fmri`` is configured with.
    storage_options : dict, optional
        For a URL: how to reach it, as in ``{"anon": True}`` or ``{"key": ...,
        "secret": ..., "endpoint_url": ...}``; else as the environment says, or anonymously.

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
        self._asked = given, storage_options
        # Whatever is wrong is said now, not when a mask is asked for.
        _ = self._backing

    @cached_property
    def _backing(self) -> Backing:
        return open_backing(*self._asked)

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
        return self._backing.layout.n_masks

    def __getitem__(self, mask_row: SupportsInt) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """Return one mask by its row in the HDF5, (y, x) uint8.

        Raises
        ------
        RowNotFound
            When there is no such row.
        CorruptMask
            When it is missing or damaged.
        """
        return self._backing.mask(self._checked(mask_row))

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
        return self[self.find(image_name, noun, instance)]

    def find(self, image_name: str, noun: str, instance: int = 0) -> int:
        """Return the row in the HDF5 of the mask of an image, noun and instance.

        Raises
        ------
        LabelNotFound
            When no mask has them; it is a ``KeyError`` and says what there is.
        """
        rows = self._rows(image_name)
        found = rows
        for column, label in zip(self._catalog.columns[1:], (noun, instance), strict=True):
            code = column.code_of(label)
            found = found[column.codes[found] == code] if code is not None else found[:0]
        if not len(found):
            raise _no_mask(self._catalog, rows, image_name, noun, instance)
        return int(found[0])

    def record(self, mask_row: SupportsInt) -> dict[str, Any]:
        """Return one row of `metadata` as Python's own values, without making the table.

        Raises
        ------
        RowNotFound
            When there is no such row.
        """
        row = self._checked(mask_row)
        known = {str(each.name): each.labels[each.codes[row]] for each in self._catalog.columns}
        names = {coordinate.column: name for name, coordinate in COORDINATES.items()}
        return {
            column: known[name] if name in known else self._backing.value(name, row)
            for column, name in ((column, names[column]) for column in COLUMNS)
        }

    def for_image(self, image_name: str) -> pd.DataFrame:
        """Return the rows of `metadata` for one image, a copy; empty when it has no masks."""
        rows = self._rows(image_name)
        positions = rows if self._ranks is None else self._ranks[rows]
        return self._table.iloc[positions].reset_index(drop=True)

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
            rows = rows[self._localized[rows] == 1]
        return _nouns(self._catalog, rows)

    def has_image(self, image_name: str) -> bool:
        """Whether the image has at least one mask."""
        return self._catalog.columns[0].code_of(image_name) is not None

    def images(self) -> list[str]:
        """Return the images that have at least one mask, in metadata order."""
        images, order = self._catalog.columns[0], self._backing.order()
        codes = images.codes if order is None else images.codes[order]
        first = np.unique(codes, return_index=True)[1]
        return list(images.labels[codes[np.sort(first)]])

    def close(self) -> None:
        """Release what is open; the next access opens it again, as it is then."""
        backing = self.__dict__.get("_backing")
        for name, value in vars(type(self)).items():
            if isinstance(value, cached_property):
                self.__dict__.pop(name, None)
        if backing is not None:
            backing.close()

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
    def _catalog(self) -> Catalog:
        return self._backing.catalog()

    @cached_property
    def _localized(self) -> NDArray[Any]:
        return self._backing.column("localized")

    @cached_property
    def _ranks(self) -> NDArray[np.intp] | None:
        """Position of each row in the table; None when the table is in the order of the rows."""
        order = self._backing.order()
        return None if order is None else np.argsort(order)

    def _checked(self, mask_row: SupportsInt) -> int:
        n_masks = len(self)
        row = int(mask_row)
        if not -n_masks <= row < n_masks:
            raise RowNotFound(f"mask_row={row} is outside of the {n_masks:,} masks")
        return row % n_masks

    def _rows(self, image_name: str) -> NDArray[np.intp]:
        """Return the rows of an image's masks, in metadata order."""
        images = self._catalog.columns[0]
        code = images.code_of(image_name)
        if code is None:
            return np.empty(0, np.intp)
        rows = np.flatnonzero(images.codes == code)
        return rows if self._ranks is None else rows[np.argsort(self._ranks[rows])]


def _nouns(catalog: Catalog, rows: NDArray[np.intp]) -> list[str]:
    """Return the nouns of some masks, each once, in the order of the masks."""
    nouns = catalog.columns[1]
    return list(dict.fromkeys(nouns.labels[nouns.codes[rows]]))


def _no_mask(
    catalog: Catalog, rows: NDArray[np.intp], image: str, noun: str, instance: int
) -> LabelNotFound:
    if not len(rows):
        return LabelNotFound(
            f"no mask has image {image!r}; only the shared stimuli have masks, images() lists them"
        )
    shown = _nouns(catalog, rows)
    if noun not in shown:
        return LabelNotFound(f"image {image!r} has no mask of {noun!r}; it has {listed(shown)}")
    _, nouns, instances = catalog.columns
    of_noun = rows[nouns.codes[rows] == nouns.code_of(noun)]
    found = instances.labels[instances.codes[of_noun]].tolist()
    return LabelNotFound(
        f"image {image!r} has no instance {instance!r} of {noun!r}; it has {listed(found)}"
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
