"""A store against its checksums, or against the source."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from maskcube.codec import checksum
from maskcube.errors import BadMask, CorruptMask, CorruptStore, VerificationError, listed
from maskcube.layout import Block, block_rows, blocks, worker_count
from maskcube.manifest import Piece
from maskcube.objects import StoreLike
from maskcube.progress import mask_bar
from maskcube.schema import COORDINATES, MASKS, shard_key
from maskcube.shards import ShardReader
from maskcube.source import MaskSource
from maskcube.store import MaskStore

__all__ = ["VerificationReport", "verify"]

_Found = tuple[list[str], dict[int, str]]
"""Faults apart from single masks, and what is wrong with single masks, by row."""

_COMPARED_MASKS = 32
"""Masks to compare with the source at a time."""

_MOST_BYTES = 2**30
"""What reading the source may take; fewer masks are read at a time where a HDF5 chunk has many."""


@dataclass(frozen=True, kw_only=True)
class VerificationReport:
    """What was verified; there is one only if all is well."""

    location: str
    """Where the store is."""
    source: str | None
    """The HDF5 that every pixel was compared with; None when only checksums were."""
    n_masks: int
    n_shards: int
    seconds: float
    """Wall time."""

    def to_json(self) -> dict[str, Any]:
        """Return the same as plain JSON types."""
        return asdict(self)

    def __str__(self) -> str:
        against = f"equal to {self.source}" if self.source else "as their checksums say"
        return (
            f"{self.location}: all {self.n_masks:,} masks in {self.n_shards:,} shards and all"
            f" coordinates are {against}; {self.seconds:.1f} s"
        )


def verify(
    store: StoreLike,
    source: str | Path | None = None,
    *,
    metadata: str | Path | None = None,
    workers: int | None = None,
    progress: bool = False,
    storage_options: dict[str, Any] | None = None,
) -> VerificationReport:
    """Check that no mask and no coordinate of a store is damaged or lost.

    Every object is read: shards and coordinates are compared with the size and the checksum in the
    manifest, every mask's pixels with their own CRC-32C and area. With a source, every pixel and
    every field of the CSV is compared as well.

    Parameters
    ----------
    store : path, URL or zarr Store
        A converted store.
    source : str or pathlib.Path, optional
        The data folder or HDF5 that the store was converted from.
    metadata : str or pathlib.Path, optional
        The source's CSV, when it does not lie beside the HDF5.
    workers : int, optional
        Threads; each holds one decoded shard. One for each core by default.
    progress : bool
        Show a progress bar on stderr.
    storage_options : dict, optional
        For the URL of a store: how to reach it.

    Raises
    ------
    VerificationError
        With every difference; its ``masks`` name image, noun, instance and row of each bad mask.
    StoreNotFound, IncompleteStore, NotAMaskStore
        When there is no complete mask store of a known format.
    SourceError
        When the source has faults of its own.

    Examples
    --------
    >>> verify("masks.zarr", "laion-fmri").n_shards
    5
    """
    started = time.monotonic()
    opened = MaskStore.open(store, storage_options)
    threads = worker_count(workers)
    total = opened.layout.n_masks * (1 if source is None else 2)
    with mask_bar(total, "verifying", show=progress) as bar:
        faults, bad = _check_pieces(opened)
        checked = [_check_shards(opened, threads, bar.update)]
        if source is not None:
            with MaskSource(source, metadata, allow_duplicates=True) as masks:
                masks.check()
                checked.append(_compare(opened, masks, bar.update))
            source = masks.path
    for more_faults, more_bad in checked:
        faults += more_faults
        bad = more_bad | bad
    if faults or bad:
        raise VerificationError(opened.location, faults, _named(opened, bad))
    return VerificationReport(
        location=opened.location,
        source=None if source is None else str(source),
        n_masks=opened.layout.n_masks,
        n_shards=opened.layout.n_shards,
        seconds=time.monotonic() - started,
    )


def _check_pieces(store: MaskStore) -> _Found:
    """Check the coordinates and the arrays' own metadata."""
    faults = []
    for name in COORDINATES:
        try:
            store.coordinate(name)
        except CorruptStore as error:
            faults.append(str(error))
    for name in (MASKS, *COORDINATES):
        consolidated = store.arrays[name]
        data = store.objects.get(f"{name}/zarr.json")
        try:
            same = data is not None and json.loads(data) == consolidated
        except (ValueError, RecursionError):
            same = False
        if not same:
            faults.append(f"metadata of {name!r} is missing or not what the root says")
    return faults, {}


def _check_shards(store: MaskStore, threads: int, told: Callable[[int], object]) -> _Found:
    """Check every shard on threads."""
    reader = ShardReader(store)
    areas, crcs = (_column_or_none(store, name) for name in ("area", "crc32c"))
    faults: list[str] = []
    bad: dict[int, str] = {}

    def check(shard: int) -> _Found:
        return _check_shard(store, reader, shard, areas, crcs)

    with ThreadPoolExecutor(threads) as pool:
        for shard, found in enumerate(pool.map(check, range(store.layout.n_shards))):
            faults += found[0]
            bad |= found[1]
            told(len(store.layout.shard_rows(shard)))
    return faults, bad


def _column_or_none(store: MaskStore, name: str) -> np.ndarray[Any, Any] | None:
    """Return a coordinate; None when it is damaged, which is a fault of its own already."""
    try:
        return store.coordinate(name)
    except CorruptStore:
        return None


def _check_shard(
    store: MaskStore,
    reader: ShardReader,
    shard: int,
    areas: np.ndarray[Any, Any] | None,
    crcs: np.ndarray[Any, Any] | None,
) -> _Found:
    """Compare a shard's bytes with the manifest, and each of its masks with its own checksum."""
    data = store.objects.get(shard_key(shard))
    if data is None:
        rows = store.layout.shard_rows(shard)
        return [f"shard {shard} is missing"], dict.fromkeys(
            range(rows.start, rows.stop), "its shard is missing"
        )
    same = Piece.of(data) == store.manifest.shards[shard]
    faults = [] if same else [f"shard {shard}: size or checksum is not the recorded one"]
    bad: dict[int, str] = {}
    for row, mask in _readable(reader, shard, bad):
        if crcs is not None and checksum(mask) != crcs[row]:
            bad[row] = "its pixels' crc32c differs"
        elif areas is not None and np.count_nonzero(mask) != areas[row]:
            bad[row] = "its area differs"
    return faults, bad


def _readable(
    reader: ShardReader, shard: int, bad: dict[int, str]
) -> Iterator[tuple[int, np.ndarray[Any, Any]]]:
    """Yield each mask of a shard that can be read, with its row; add the others to `bad`."""
    rows = reader.layout.shard_rows(shard)
    for row in range(rows.start, rows.stop):
        try:
            mask = reader.read(np.array([row]))[0]
        except CorruptMask:
            bad[row] = "it cannot be read"
        else:
            yield row, mask


def _compare(store: MaskStore, source: MaskSource, told: Callable[[int], object]) -> _Found:
    """Compare every pixel and every field with the source."""
    if source.layout.shape != store.layout.shape:
        return [f"the source has shape {source.layout.shape}, not {store.layout.shape}"], {}
    faults = _table_faults(store, source.by_row())
    bad: dict[int, str] = {}
    reader = ShardReader(store)
    rows = block_rows(store.layout, source.file.chunks, _MOST_BYTES, workers=1)
    buffer = np.empty((rows, *store.layout.shape[1:]), np.uint8)
    for block in blocks(0, store.layout.n_masks, rows):
        expected = buffer[: len(block)]
        source.file.read(block, expected)
        if store.manifest.source["normalize"]:
            np.minimum(expected, 1, out=expected)
        for part in blocks(block.start, block.stop, _COMPARED_MASKS):
            wanted = expected[part.start - block.start : part.stop - block.start]
            bad |= _different(reader, part, wanted)
            told(len(part))
    return faults, bad


def _different(reader: ShardReader, part: Block, expected: np.ndarray[Any, Any]) -> dict[int, str]:
    """Return the masks of a block whose pixels are not the expected ones."""
    try:
        found = reader.read(np.arange(part.start, part.stop))
    except CorruptMask as error:
        return dict.fromkeys(error.rows, "it cannot be read")
    return {
        row: "its pixels are not those of the source"
        for row, one, other in zip(range(part.start, part.stop), found, expected, strict=True)
        if not np.array_equal(one, other)
    }


def _table_faults(store: MaskStore, table: pd.DataFrame) -> list[str]:
    faults = []
    for name, coordinate in COORDINATES.items():
        found = _column_or_none(store, name)
        if coordinate.column is None or found is None:
            continue
        wanted = table[coordinate.column].to_numpy()
        if found.dtype.kind == "T":
            differs = found.astype(object) != wanted.astype(object)
        else:
            differs = ~((found == wanted) | ((found != found) & (wanted != wanted)))  # noqa: PLR0124 - NaN
        if differs.any():
            rows = np.flatnonzero(differs).tolist()
            faults.append(f"coordinate {name!r} is not that of the source in rows {listed(rows)}")
    return faults


def _named(store: MaskStore, bad: dict[int, str]) -> list[BadMask]:
    """Name the bad masks by their labels, as far as these can be read."""
    labels = {name: _column_or_none(store, name) for name in ("image", "noun", "instance")}

    def label(name: str, row: int) -> Any:  # noqa: ANN401 - text or number
        values = labels[name]
        return "?" if values is None else values[row]

    return [
        BadMask(row, str(label("image", row)), str(label("noun", row)), label("instance", row), why)
        for row, why in sorted(bad.items())
    ]
