"""A dataset's folder; imported by converters too, which import little."""

from __future__ import annotations

from pathlib import Path

__all__ = ["SHARD_MASKS", "csv_path", "hdf5_path"]

SHARD_MASKS = 64
"""Masks in a shard of our store, and so in those that peers write."""

_HDF5 = "task-images_desc-segmentations.h5"
_CSV = "task-images_desc-segmentations_metadata.csv"


def hdf5_path(folder: Path) -> Path:
    """Return the HDF5 of a dataset's folder."""
    return folder / "stimuli" / _HDF5


def csv_path(folder: Path) -> Path:
    """Return the CSV of a dataset's folder."""
    return folder / "stimuli" / _CSV
