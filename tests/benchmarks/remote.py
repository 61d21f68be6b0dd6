"""Readers of a bucket: each opens what it reads, until its labels can be asked for."""

from __future__ import annotations

import os
from typing import Any, Protocol

import numpy as np
import pandas as pd

import maskcube
from benchmarks.bucket import Bucket
from benchmarks.contest import NotPossible
from benchmarks.workload import Label, Workload

__all__ = ["CSV", "HDF5", "STORE", "Hdf5", "Obstore", "Ours", "Reader", "S3fs", "TensorStore"]

STORE, HDF5, CSV = "masks.zarr", "masks.h5", "masks.csv"
"""What lies in the bucket."""

_LABELS = ("image", "noun", "instance")
_BOXES = ("box_x0", "box_y0", "box_x1", "box_y1")
_OURS = {"image_name": "image", "instance_id": "instance"}

Columns = dict[str, np.ndarray[Any, Any]]


class Reader(Protocol):
    """Something open, whose labels are there."""

    def rows(self, column: str, label: str) -> Any:
        """Return the rows of an image or a noun."""

    def mask(self, label: Label) -> Any:
        """Return a mask by image, noun and instance."""

    def masks(self, column: str, label: str) -> Any:
        """Return all masks of an image or a noun."""

    def columns(self) -> Columns:
        """Return everything that is known of the masks."""


class Ours:
    """maskcube."""

    def __init__(self, bucket: Bucket) -> None:
        self._masks = maskcube.open_masks(
            bucket.url(STORE), chunks=None, storage_options=bucket.options
        )

    def rows(self, column: str, label: str) -> Any:
        index: Any = self._masks.xindexes["image"]
        return index.rows({column: label})

    def mask(self, label: Label) -> Any:
        return self._masks.sel(dict(zip(_LABELS, label, strict=True))).to_numpy()

    def masks(self, column: str, label: str) -> Any:
        return self._masks.sel({column: label}).to_numpy()

    def columns(self) -> Columns:
        return _loaded(self._masks)


class _Labelled:
    """Rows by comparing labels, as one does without an index."""

    _labels: Columns

    def rows(self, column: str, label: str) -> Any:
        return np.flatnonzero(self._labels[column] == label)

    def _row(self, label: Label) -> int:
        named = zip(_LABELS, label, strict=True)
        found = np.logical_and.reduce([self._labels[name] == value for name, value in named])
        return int(np.flatnonzero(found)[0])


class _Zarr(_Labelled):
    """Plain xarray over plain zarr, told all that saves requests."""

    def __init__(self, store: Any) -> None:
        import xarray as xr

        self._dataset = xr.open_zarr(store, chunks=None, zarr_format=3, consolidated=True)
        self._labels = {name: self._dataset[name].to_numpy() for name in _LABELS}

    def mask(self, label: Label) -> Any:
        return self._dataset["masks"][self._row(label)].to_numpy()

    def masks(self, column: str, label: str) -> Any:
        return self._dataset["masks"][_sliced(self.rows(column, label))].to_numpy()

    def columns(self) -> Columns:
        return _loaded(self._dataset)


class S3fs(_Zarr):
    """zarr over s3fs."""

    def __init__(self, bucket: Bucket) -> None:
        from zarr.storage import FsspecStore

        files = _s3fs(bucket, asynchronous=True)
        super().__init__(FsspecStore(files, read_only=True, path=f"{bucket.name}/{STORE}"))


class Obstore(_Zarr):
    """zarr over obstore."""

    def __init__(self, bucket: Bucket) -> None:
        from zarr.storage import ObjectStore

        super().__init__(ObjectStore(bucket.obstore(STORE), read_only=True))


class Hdf5(_Labelled):
    """h5py over s3fs, and the CSV by pandas."""

    def __init__(self, bucket: Bucket, **cache: Any) -> None:
        import h5py

        files = _s3fs(bucket)
        with files.open(f"{bucket.name}/{CSV}") as lines:
            # The words for a missing value are nouns here.
            empty = {name: ["", "nan"] for name in ("score", *_BOXES)}
            table = pd.read_csv(lines, keep_default_na=False, na_values=empty)
        self._table = table.sort_values("mask_row", ignore_index=True).rename(columns=_OURS)
        self._labels = {name: self._table[name].to_numpy() for name in _LABELS}
        self._pixels = h5py.File(files.open(f"{bucket.name}/{HDF5}", **cache))["masks"]

    def mask(self, label: Label) -> Any:
        return self._pixels[self._row(label)]

    def masks(self, column: str, label: str) -> Any:
        rows = _sliced(self.rows(column, label))
        # Row by row: h5py takes twenty times as long for a list of rows.
        return self._pixels[rows] if isinstance(rows, slice) else np.stack([*map(self._one, rows)])

    def _one(self, row: Any) -> Any:
        return self._pixels[int(row)]

    def columns(self) -> Columns:
        return {str(name): self._table[name].to_numpy() for name in self._table}


class TensorStore:
    """TensorStore, which reads no texts: it is told the rows."""

    def __init__(self, bucket: Bucket, workload: Workload) -> None:
        import tensorstore

        self._workload = workload
        # It looks for a configuration, and for keys, unless it need not sign.
        os.environ.setdefault("AWS_EC2_METADATA_DISABLED", "true")
        place = {
            "driver": "s3",
            "bucket": bucket.name,
            "path": f"{STORE}/masks/",
            "endpoint": bucket.endpoint,
            "aws_region": "us-east-1",
            "aws_credentials": {"type": "anonymous"},
        }
        self._pixels = tensorstore.open({"driver": "zarr3", "kvstore": place}, read=True).result()

    def rows(self, column: str, label: str) -> Any:
        raise NotPossible(f"it reads no texts: {column}={label!r}")

    def mask(self, label: Label) -> Any:
        table = self._workload.table
        is_it = (table[["image_name", "noun", "instance_id"]] == [*label]).all(axis=1)
        return self._pixels[int(np.flatnonzero(is_it)[0])].read().result()

    def masks(self, column: str, label: str) -> Any:
        names = {"image": "image_name", "noun": "noun"}
        rows = self._workload.rows_of(names[column], label)
        return self._pixels[rows].read().result()

    def columns(self) -> Columns:
        raise NotPossible("it reads no texts")


def _loaded(opened: Any) -> Columns:
    return {str(name): opened[name].to_numpy() for name in opened.coords if name not in ("y", "x")}


def _sliced(rows: Any) -> Any:
    """Return rows that lie together as a slice, which costs fewer requests."""
    first, last = int(rows[0]), int(rows[-1])
    return slice(first, last + 1) if last - first + 1 == len(rows) else rows


def _s3fs(bucket: Bucket, **options: Any) -> Any:
    import s3fs

    given = bucket.options
    region = {"region_name": given.pop("region")}
    return s3fs.S3FileSystem(
        **given, **options, client_kwargs=region, skip_instance_cache=True, use_listings_cache=False
    )
