"""Readers of the HDF5 and of the store: those that peers of several sections open."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import xarray as xr

from benchmarks.folder import SHARD_MASKS, hdf5_path
from benchmarks.workload import Workload

if TYPE_CHECKING:
    import dask.array as da

__all__ = ["dask_over", "hdf5_masks", "labelled_hdf5", "tensorstore_masks", "zarr_masks"]

_ZARRS = "zarrs.ZarrsCodecPipeline"


def hdf5_masks(folder: Path) -> h5py.Dataset:
    """Open the HDF5 of a dataset's folder."""
    return h5py.File(hdf5_path(folder), "r")["masks"]


def zarr_masks(store: Path, *, zarrs: bool = False) -> Any:
    """Open the masks of a store with zarr-python, or with zarrs as its codecs."""
    import zarr

    if not zarrs:
        return zarr.open_array(store / "masks", mode="r")
    if find_spec("zarrs") is None:  # zarr imports it by name, when it is too late to say so
        raise ModuleNotFoundError("no zarrs", name="zarrs")
    # The pipeline is bound when the array is opened, not when it is read.
    with zarr.config.set({"codec_pipeline.path": _ZARRS}):
        return zarr.open_array(store / "masks", mode="r")


def tensorstore_masks(store: Path) -> Any:
    """Open the masks of a store with TensorStore."""
    import tensorstore

    files = {"driver": "file", "path": str(store / "masks")}
    return tensorstore.open({"driver": "zarr3", "kvstore": files}, read=True).result()


def dask_over(array: Any, n_masks: int = SHARD_MASKS) -> da.Array:
    """Return a dask array with so many whole masks in a chunk."""
    import dask.array as da

    chunked: da.Array = da.from_array(array, chunks=(n_masks, -1, -1))
    return chunked


def labelled_hdf5(workload: Workload) -> xr.DataArray:
    """Return what one builds by hand: xarray with dask over the HDF5, and a pandas MultiIndex."""
    columns = ["image_name", "noun", "instance_id"]
    index = workload.table[columns].set_axis(["image", "noun", "instance"], axis=1)
    coordinates = xr.Coordinates.from_pandas_multiindex(_multiindex(index), "mask")
    return xr.DataArray(
        dask_over(hdf5_masks(workload.row)), coords=coordinates, dims=("mask", "y", "x")
    )


def _multiindex(table: Any) -> Any:
    import pandas as pd

    return pd.MultiIndex.from_frame(table)
