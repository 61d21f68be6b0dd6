"""The source: an HDF5 of masks and its CSV, checked against each other."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd

from maskcube.errors import SourceError, listed
from maskcube.files import CSV_NAME, HDF5_NAME, SourceFiles
from maskcube.filters import CHECKED
from maskcube.layout import FOLDER, Layout, blocks
from maskcube.remote import RemotePath
from maskcube.schema import COORDINATES

__all__ = ["CSV_NAME", "FOLDER", "HDF5_NAME", "KEYS", "MaskSource", "stray_values"]

KEYS = ("image_name", "noun", "instance_id")
"""The columns that together name one mask."""

_MOST_LISTED = 8


class MaskSource:
    """The masks in an HDF5 and what its CSV says of them.

    Opening reads the CSV and the HDF5's description, and no pixel.

    Parameters
    ----------
    source : str or pathlib.Path
        A data folder that holds ``stimuli/task-images_desc-segmentations.h5``, or an HDF5; the URL
        of either.
    metadata : str or pathlib.Path, optional
        The CSV, when it does not lie beside the HDF5 under the HDF5's name and ``_metadata.csv``.
    allow_duplicates : bool
        Accept several masks with the same image, noun and instance.
    options : dict, optional
        For a URL: how to reach it.
    whole : bool
        Fetch all of an HDF5 that is at a URL, into a temporary file; else what is wanted, when it
        is wanted.

    Attributes
    ----------
    file : MaskFile
        The HDF5's ``masks``.
    table : pandas.DataFrame
        The CSV, in its own order and indexed by line number.
    faults : list of str
        What speaks against a conversion, as far as can be seen without reading pixels.

    Raises
    ------
    SourceNotFound
        When there is no HDF5 or no CSV at that place.
    SourceError
        When the HDF5 cannot be used at all; with the faults of the CSV.
    """

    def __init__(
        self,
        source: str | Path,
        metadata: str | Path | None = None,
        *,
        allow_duplicates: bool = False,
        options: dict[str, Any] | None = None,
        whole: bool = True,
    ) -> None:
        self._files = SourceFiles(source, metadata, options, whole=whole)
        self.path: Path | RemotePath = self._files.masks
        self.metadata_path: Path | RemotePath = self._files.metadata
        self.table, csv_faults = self._files.table()
        self.faults = [f"{self.metadata_path.name}: {fault}" for fault in csv_faults]
        try:
            self.file = self._files.open()
        except SourceError as error:
            raise SourceError(str(self.path), [*error.faults, *self.faults]) from error
        self.faults += _cross_faults(self.table, self.layout.n_masks, whole=not csv_faults)
        if not allow_duplicates:
            self.faults += _duplicate_faults(self.table)

    @property
    def layout(self) -> Layout:
        """Shape of the masks."""
        return self.file.layout

    @property
    def size_bytes(self) -> int:
        """Size of the HDF5."""
        return self.file.size_bytes

    def by_row(self) -> pd.DataFrame:
        """Return the CSV's rows in the order of the HDF5, a copy."""
        return self.table.sort_values("mask_row", kind="stable", ignore_index=True)

    def coordinates(self) -> dict[str, np.ndarray[Any, Any]]:
        """Return the coordinates of a store that are from the CSV, (mask,) each, in row order."""
        table = self.by_row()
        return {
            name: table[coordinate.column].to_numpy()
            for name, coordinate in COORDINATES.items()
            if coordinate.column
        }

    def check(self) -> None:
        """Raise if there are faults that can be seen without reading pixels.

        Raises
        ------
        SourceError
            With every one of them.
        """
        if self.faults:
            raise SourceError(str(self.path), self.faults)

    def pixel_faults(
        self, progress: Callable[[int], object] = lambda _: None, *, normalize: bool = False
    ) -> list[str]:
        """Read every mask and return what is wrong with the pixels; `progress` is told how many.

        With `normalize`, only masks that cannot be read are a fault.
        """
        stray: list[tuple[int, list[int]]] = []
        n_stray = 0
        unreadable: list[str] = []
        rows = max(1, min(self.file.chunks[0], 2**28 // self.layout.mask_bytes))
        buffer = np.empty((rows, *self.layout.shape[1:]), np.uint8)
        for block in blocks(0, self.layout.n_masks, rows):
            try:
                self.file.read(block, buffer)
            except SourceError as error:
                unreadable += error.faults
            else:
                found = np.flatnonzero(buffer[: len(block)].max(axis=(1, 2)) > 1)
                n_stray += len(found)
                for offset in found[: _MOST_LISTED - len(stray)].tolist():
                    values = stray_values(buffer[offset])[:_MOST_LISTED]
                    stray.append((block.start + offset, values))
            progress(len(block))
        faults = unreadable[:_MOST_LISTED]
        if len(unreadable) > _MOST_LISTED:
            faults.append(f"... ({len(unreadable):,} such blocks of masks in all)")
        if n_stray and not normalize:
            more = f", ... ({n_stray:,} in all)" if n_stray > len(stray) else ""
            faults.append(
                f"pixels other than 0 and 1, as (mask_row, values): {listed(stray)}{more};"
                " normalize=True would take every value but 0 as 1"
            )
        return faults

    def fingerprint(self, sha256: str | None = None) -> dict[str, Any]:
        """Return what identifies the source: names, sizes, SHA-256 and the HDF5's layout.

        Parameters
        ----------
        sha256 : str, optional
            What that of the HDF5 must be.

        Raises
        ------
        SourceError
            When it is another one.
        """
        rows = self.table["mask_row"].to_numpy()
        in_order = bool((np.diff(rows) > 0).all())
        masks, metadata = self._files.identities()
        if sha256 is None:
            self._warn_of_no_checksum()
        elif masks["sha256"] != sha256.lower():
            fault = (
                f"its SHA-256 is {masks['sha256']}, not {sha256!r}: it is damaged, or another file"
            )
            raise SourceError(str(self.path), [fault])
        return {
            "masks": {
                **masks,
                "shape": list(self.layout.shape),
                "chunks": list(self.file.chunks),
                "filters": self.file.filters,
            },
            "metadata": {
                **metadata,
                # The CSV's own order, so that it can be given back as it was.
                "order": None if in_order else rows.tolist(),
            },
        }

    def _warn_of_no_checksum(self) -> None:
        if not CHECKED & set(self.file.filters):
            warnings.warn(
                f"{self.path} has neither gzip nor fletcher32: nothing tells a damaged pixel from"
                " another one; give the SHA-256 of the file as sha256=",
                stacklevel=4,
            )

    def close(self) -> None:
        """Close the HDF5."""
        self.file.close()
        self._files.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def stray_values(mask: np.ndarray[Any, Any]) -> list[int]:
    """Return the values in a mask that are neither 0 nor 1."""
    if mask.max(initial=0) <= 1:
        return []
    return [int(value) for value in np.unique(mask) if value > 1]


def _cross_faults(table: pd.DataFrame, n_masks: int, *, whole: bool) -> list[str]:
    """Return how the CSV's rows and the HDF5's masks disagree.

    When the CSV has faults of its own, its rows are not `whole`: counting them would only repeat
    those faults.
    """
    faults = []
    rows = table["mask_row"]
    outside = rows[(rows < 0) | (rows >= n_masks)]
    twice = rows[rows.duplicated(keep=False)]
    if whole and len(rows) != n_masks:
        faults.append(f"the HDF5 has {n_masks:,} masks but the CSV has {len(rows):,} rows")
    if len(outside):
        faults.append(
            f"mask_row outside of the HDF5's {n_masks:,} masks, as (line, mask_row):"
            f" {listed(outside.items())}"
        )
    if len(twice):
        faults.append(f"mask_row more than once, as (line, mask_row): {listed(twice.items())}")
    # The HDF5 may declare any number of masks: look no further than the CSV could reach.
    n_lost = n_masks - len(rows)
    if whole and not len(twice) and not len(outside) and n_lost > 0:
        first = np.setdiff1d(np.arange(len(rows) + min(n_lost, _MOST_LISTED)), rows)
        more = f", ... ({n_lost:,} in all)" if n_lost > _MOST_LISTED else ""
        faults.append(
            f"masks without a row in the CSV: {listed(first[:_MOST_LISTED].tolist())}{more}"
        )
    return faults


def _duplicate_faults(table: pd.DataFrame) -> list[str]:
    twice = table[table.duplicated(list(KEYS), keep=False)]
    if twice.empty:
        return []
    keys = [tuple(key) for key in twice[list(KEYS)].drop_duplicates().itertuples(index=False)]
    found = f"{listed(keys)}, in lines {listed(twice.index)}"
    return [f"the same image, noun and instance twice: {found}; allow_duplicates=True accepts them"]
