"""The workload: one dataset in both layouts of the HDF5, its store, and what is asked of them."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd

import maskcube
from benchmarks.folder import SHARD_MASKS, csv_path, hdf5_path

__all__ = ["Label", "Workload", "rewrite"]

AUTO_CHUNKS = (376, 32, 32)
"""What h5py guesses for the 24,011 masks; for fewer it would guess otherwise."""

_SMALL_NOUN = 90
_N_ROWS = 32

Label = tuple[str, str, int]
"""Image, noun and instance."""


@dataclass(frozen=True)
class Workload:
    """Where the data are.

    Parameters
    ----------
    row, auto : pathlib.Path
        Folders of the dataset with one mask a HDF5 chunk, and with h5py's automatic chunks.
    store : pathlib.Path
        The store of `row`.
    work : pathlib.Path
        Folder for what a section makes itself.
    """

    row: Path
    auto: Path
    store: Path
    work: Path

    @classmethod
    def prepare(cls, work: Path, sources: Sequence[Path], n_images: int) -> Workload:
        """Make, or find in `work`, whatever is missing of the sample or the given sources."""
        work.mkdir(parents=True, exist_ok=True)
        given = {_layout(folder): folder for folder in sources}
        if not given:
            sample = work / f"sample-{n_images}"
            if not csv_path(sample).exists():
                maskcube.sample_dataset(sample, n_images=n_images)
            given["row"] = sample
        n_masks = _n_masks(next(iter(given.values())))
        for layout in {"row", "auto"} - set(given):
            source = next(iter(given.values()))
            given[layout] = rewrite(source, work / f"{layout}-{n_masks}", layout, n_masks)
        store = work / f"masks-{n_masks}.zarr"
        if not store.exists():
            maskcube.convert(given["row"], store, progress=False)
        return cls(given["row"], given["auto"], store, work)

    @cached_property
    def table(self) -> pd.DataFrame:
        """Row and labels of each mask, in the order of the rows."""
        columns = ["mask_row", "image_name", "noun", "instance_id"]
        table = pd.read_csv(csv_path(self.row), usecols=columns, keep_default_na=False)
        return table.sort_values("mask_row", ignore_index=True)

    @property
    def n_masks(self) -> int:
        """Return the number of masks."""
        return len(self.table)

    @cached_property
    def rows(self) -> list[int]:
        """Random rows, the same in every run."""
        rng = np.random.default_rng(20261121)
        return [int(row) for row in rng.integers(self.n_masks, size=_N_ROWS)]

    @cached_property
    def labels(self) -> list[Label]:
        """Labels of `rows` that every peer can find."""
        # `pandas.read_csv` takes the noun "nan" for a missing value: no peer would find it.
        table = self.table.iloc[self.rows]
        table = table[~table["noun"].str.lower().isin(["nan", "null", "none", "na"])]
        columns = (table["image_name"], table["noun"], table["instance_id"].tolist())
        return list(zip(*columns, strict=True))

    @cached_property
    def images(self) -> list[str]:
        """Images with the median number of masks, at most four."""
        counts = self.table["image_name"].value_counts(sort=False)
        median = int(counts.median())
        nearest = (counts - median).abs().sort_values(kind="stable").index
        return [str(name) for name in nearest[:4]]

    @cached_property
    def noun(self) -> str:
        """The noun with about ninety masks."""
        counts = self.table["noun"].value_counts(sort=False).drop("nan", errors="ignore")
        return str((counts - _SMALL_NOUN).abs().sort_values(kind="stable").index[0])

    def rows_of(self, column: str, label: str) -> np.ndarray[Any, np.dtype[np.intp]]:
        """Return the rows of an image or a noun, ascending."""
        return np.flatnonzero((self.table[column] == label).to_numpy())

    def subset(self, layout: str, n_masks: int) -> Path:
        """Return the folder of the first masks in a layout: the dataset's own when that is all."""
        folder = {"row": self.row, "auto": self.auto}[layout]
        if n_masks >= self.n_masks:
            return folder
        return rewrite(folder, self.work / f"{layout}-{n_masks}-of-{self.n_masks}", layout, n_masks)


def rewrite(source: Path, target: Path, layout: str, n_masks: int) -> Path:
    """Write the first masks of a dataset to another folder, in another layout, unless it is there.

    Parameters
    ----------
    source, target : pathlib.Path
        Folders of datasets.
    layout : "row" or "auto"
        One mask a HDF5 chunk, or `AUTO_CHUNKS`, or h5py's own guess when the masks are fewer.
    n_masks : int
        How many.
    """
    if target.exists():
        return target
    partial = target.with_name(f"{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    (partial / "stimuli").mkdir(parents=True)
    with h5py.File(hdf5_path(source)) as old, h5py.File(hdf5_path(partial), "w") as new:
        _copy(old["masks"], new, layout, n_masks)
    rows = pd.read_csv(csv_path(source), dtype=str, keep_default_na=False)
    rows[rows["mask_row"].astype(int) < n_masks].to_csv(csv_path(partial), index=False)
    return partial.rename(target)


def _copy(old: h5py.Dataset, file: h5py.File, layout: str, n_masks: int) -> None:
    shape = (n_masks, *old.shape[1:])
    chunks: Any = (1, *shape[1:])
    if layout == "auto":
        fits = all(length <= limit for length, limit in zip(AUTO_CHUNKS, shape, strict=True))
        chunks = AUTO_CHUNKS if fits else True
    filters = {"compression": old.compression, "compression_opts": old.compression_opts}
    new = file.create_dataset("masks", shape, old.dtype, chunks=chunks, shuffle=True, **filters)
    # Whole chunks of both: each is inflated and compressed once.
    step = max(old.chunks[0], new.chunks[0], SHARD_MASKS)
    for start in range(0, n_masks, step):
        stop = min(start + step, n_masks)
        new[start:stop] = old[start:stop]


def _layout(folder: Path) -> str:
    with h5py.File(hdf5_path(folder)) as file:
        chunks = file["masks"].chunks
    return "row" if chunks is not None and chunks[0] == 1 else "auto"


def _n_masks(folder: Path) -> int:
    with h5py.File(hdf5_path(folder)) as file:
        return int(file["masks"].shape[0])
