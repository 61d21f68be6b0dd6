"""What the answers must be, by straight h5py and pandas: nothing of maskcube is used here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd

HDF5 = "task-images_desc-segmentations.h5"
CSV = "task-images_desc-segmentations_metadata.csv"
COLUMNS = [
    "mask_row",
    "image_name",
    "noun",
    "instance_id",
    "score",
    "box_x0",
    "box_y0",
    "box_x1",
    "box_y1",
    "localized",
    "mask_file",
]
NOUNS = ["hand", "fingers", "nan", "null", "NA", "crème brûlée", "sheet music", "007", "person"]

Masks = np.ndarray[Any, np.dtype[np.uint8]]


@dataclass(frozen=True)
class Source:
    """A source on disk, and what was written to it."""

    folder: Path
    masks: Masks
    table: pd.DataFrame
    """In the order of the CSV."""

    @property
    def hdf5(self) -> Path:
        return self.folder / "stimuli" / HDF5

    @property
    def csv(self) -> Path:
        return self.folder / "stimuli" / CSV

    @property
    def by_row(self) -> pd.DataFrame:
        """The CSV in the order of the HDF5."""
        return self.table.sort_values("mask_row", ignore_index=True)


def write_source(
    folder: Path,
    *,
    n_masks: int = 150,
    shape: tuple[int, int] = (24, 20),
    chunks: tuple[int, int, int] | bool = True,
    sorted_rows: bool = True,
    seed: int = 0,
    change: Callable[[pd.DataFrame], pd.DataFrame] = lambda table: table,
    **storage: Any,
) -> Source:
    """Write a source of random masks; `change` may spoil the table before it is written."""
    rng = np.random.default_rng(seed)
    masks = (rng.random((n_masks, *shape)) < rng.random((n_masks, 1, 1))).astype(np.uint8)
    masks[n_masks // 2] = 0
    table = make_table(n_masks, shape, rng)
    if not sorted_rows:
        table = table.sample(frac=1, random_state=seed, ignore_index=True)
    source = Source(folder, masks, change(table))
    write_files(source, chunks=chunks, **storage)
    return source


def make_table(n_masks: int, shape: tuple[int, int], rng: np.random.Generator) -> pd.DataFrame:
    """Return a table with awkward labels, missing scores and boxes outside of the image."""
    images = np.sort(rng.integers(0, max(1, n_masks // 9), n_masks))
    table = pd.DataFrame(
        {
            "mask_row": np.arange(n_masks),
            "image_name": [f"shared.v2.cluster_{image}_i0.jpg" for image in images],
            "noun": rng.choice(NOUNS, n_masks),
        }
    )
    table["instance_id"] = table.groupby(["image_name", "noun"]).cumcount()
    table["score"] = np.where(rng.random(n_masks) < 0.1, np.nan, rng.random(n_masks))
    for edge, limit in zip(("x0", "y0", "x1", "y1"), (*shape[::-1], *shape[::-1]), strict=True):
        box = rng.uniform(-5, limit + 5, n_masks)
        table[f"box_{edge}"] = np.where(rng.random(n_masks) < 0.05, np.nan, box)
    table["localized"] = (rng.random(n_masks) < 0.8).astype(int)
    table["mask_file"] = [f"{row}/../ä,{row}\n.png" if row % 7 else "" for row in range(n_masks)]
    return table[COLUMNS]


def write_files(
    source: Source,
    *,
    chunks: tuple[int, int, int] | bool = True,
    compression: str | None = "gzip",
    **storage: Any,
) -> None:
    source.hdf5.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(source.hdf5, "w") as file:
        file.create_dataset(
            "masks",
            data=source.masks,
            chunks=chunks,
            compression=compression,
            **{"shuffle": True, **storage},
        )
    source.table.to_csv(source.csv, index=False)


def put_value(source: Source, row: int, value: int) -> None:
    """Give one pixel of a mask another value."""
    with h5py.File(source.hdf5, "r+") as file:
        file["masks"][row, 1, 2] = value


def break_chunk(source: Source, row: int) -> None:
    """Make the HDF5 chunk in which a mask begins unreadable."""
    with h5py.File(source.hdf5, "r+") as file:
        dataset = file["masks"]
        first = row // dataset.chunks[0] * dataset.chunks[0]
        dataset.id.write_direct_chunk((first, 0, 0), b"no deflate stream")


def read_table(csv: Path) -> pd.DataFrame:
    """Read the CSV with pandas, told not to guess."""
    table = pd.read_csv(csv, dtype=str, keep_default_na=False)
    for name in table.columns.difference(["image_name", "noun", "mask_file"]):
        table[name] = pd.to_numeric(table[name].replace("nan", ""), errors="raise")
    return table
