"""The xarray engine: ``xarray.open_dataset(store, engine="maskcube")``."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any, ClassVar

import xarray as xr
from xarray.backends import BackendEntrypoint

__all__ = ["MaskcubeBackend"]

_SUFFIX = ".masks.zarr"


class MaskcubeBackend(BackendEntrypoint):
    """Opens a mask store as a Dataset of ``masks`` (mask, y, x) uint8 with its index.

    ``chunks="auto"`` is not for Datasets with texts in xarray: leave out the one that is not
    indexed, ``drop_variables="mask_file"``.
    """

    description = "Open maskcube stores of object masks"
    open_dataset_parameters: ClassVar[tuple[str, ...]] = (
        "filename_or_obj",
        "drop_variables",
        "storage_options",
    )

    def open_dataset(
        self,
        filename_or_obj: Any,  # noqa: ANN401 - whatever names a store
        *,
        drop_variables: str | Iterable[str] | None = None,
        storage_options: dict[str, Any] | None = None,
    ) -> xr.Dataset:
        """Open a store; reads all coordinates and no pixel. See `maskcube.open_masks`."""
        from maskcube.reader import store_dataset
        from maskcube.readers import open_reader
        from maskcube.store import MaskStore

        store = MaskStore.open(filename_or_obj, storage_options, ahead=True)
        dataset = store_dataset(store, open_reader(store))
        dropped = [drop_variables] if isinstance(drop_variables, str) else drop_variables or []
        dataset = dataset.drop_vars(dropped, errors="ignore")
        # With chunks= xarray would cut lazy ones into as many tasks as there are shards.
        for name in dataset.coords:
            dataset.variables[name].load()
        return dataset

    def guess_can_open(self, filename_or_obj: object) -> bool:
        """Answer for our own suffix only: any other Zarr store is zarr's."""
        if not isinstance(filename_or_obj, str | os.PathLike):
            return False
        return os.fspath(filename_or_obj).rstrip("/").endswith(_SUFFIX)
