"""A store against its checksums, or against the source."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from maskcube.boundaries import boundaries_of
from maskcube.codec import DamagedBytes, checksum, decode_chunk
from maskcube.encoded import EncodedShard
from maskcube.errors import BadMask, CorruptMask, CorruptStore, VerificationError, listed
from maskcube.layout import Block, block_rows, blocks, worker_count
from maskcube.manifest import Piece
from maskcube.objects import StoreLike
from maskcube.progress import mask_bar
from maskcube.ragged import RunReader, Runs
from maskcube.readers import StoreReader, open_reader
from maskcube.schema import COORDINATES, MASKS, OFFSETS, RUNS, STEPS, shard_key
from maskcube.slabs import Slab, StrayPixels, held_bytes, open_slab
from maskcube.source import MaskSource
from maskcube.store import MaskStore

__all__ = ["VerificationReport", "verify"]

_Found = tuple[list[str], dict[int, str]]
"""Faults apart from single masks, and what is wrong with single masks, by row."""

_COMPARED_MASKS = 8
"""Masks that a thread compares with the source before it asks for more."""

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
    """Check that no mask, no coordinate and no run of a store is damaged or lost.

    Every object is read: shards and coordinates are compared with the size and the checksum in the
    manifest, every mask's pixels with their own CRC-32C, area and runs. With a source, every pixel
    and every field of the CSV is compared as well.

    Parameters
    ----------
    store : path, URL or zarr Store
        A converted store.
    source : str or pathlib.Path, optional
        The data folder or HDF5 that the store was converted from.
    metadata : str or pathlib.Path, optional
        The source's CSV, when it does not lie beside the HDF5.
    workers : int, optional
        Threads; each holds an encoded shard and a decoded mask. One for each core by default.
    progress : bool
        Show a progress bar on stderr.
    storage_options : dict, optional
        For the URL of a store: how to reach it.

    Returns
    -------
    VerificationReport
        What was verified, and how long it took.

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
        faults = _check_pieces(opened)
        with ThreadPoolExecutor(threads) as pool:
            checked = [_check_shards(opened, pool, bar.update)]
            if source is not None:
                with MaskSource(source, metadata, allow_duplicates=True) as masks:
                    masks.check()
                    checked.append(_compare(opened, masks, pool, bar.update))
                source = masks.path
    bad: dict[int, str] = {}
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


def _check_pieces(store: MaskStore) -> list[str]:
    """Check the coordinates and the arrays' own metadata."""
    faults = []
    for name in COORDINATES:
        try:
            store.coordinate(name)
        except CorruptStore as error:
            faults.append(str(error))
    names = [MASKS, *COORDINATES]
    if _has_runs(store):
        names += [RUNS, STEPS, OFFSETS]
    for name in names:
        data = store.objects.get(f"{name}/zarr.json")
        try:
            same = data is not None and _described(json.loads(data)) == _described(
                store.arrays[name]
            )
        except (ValueError, RecursionError, KeyError, AttributeError):
            same = False
        if not same:
            faults.append(f"metadata of {name!r} is missing or not what the root says")
    return faults


def _has_runs(store: MaskStore) -> bool:
    """Whether the store has runs; where the masks were rewritten, nobody reads any."""
    return store.manifest.runs is not None and store.is_native(MASKS)


def _described(metadata: dict[str, Any]) -> dict[str, Any]:
    """Return the metadata of an array or group without the copies of what is below it."""
    return {key: value for key, value in metadata.items() if key != "consolidated_metadata"}


class _Expected(NamedTuple):
    """What a store says of its masks; None where that is damaged, a fault of its own already."""

    areas: NDArray[np.int32] | None
    crcs: NDArray[np.uint32] | None
    runs: Runs | None

    def fault(self, row: int, mask: NDArray[np.uint8]) -> str | None:
        """Return what is wrong with the pixels of a mask."""
        if self.crcs is not None and checksum(mask) != self.crcs[row]:
            return "its pixels' crc32c differs"
        if self.areas is not None and np.count_nonzero(mask) != self.areas[row]:
            return "its area differs"
        if self.runs is not None:
            boundaries, offsets = self.runs
            wanted = boundaries[offsets[row] : offsets[row + 1]]
            if not np.array_equal(boundaries_of(mask), wanted):
                return "its runs are not those of its pixels"
        return None


def _check_shards(store: MaskStore, pool: Executor, told: Callable[[int], object]) -> _Found:
    """Check every shard, and every mask in it."""
    faults: list[str] = []
    bad: dict[int, str] = {}
    runs = None
    if _has_runs(store):
        try:
            runs = RunReader(store).read(np.arange(store.layout.n_masks))
        except CorruptStore as error:
            faults.append(str(error))
    expected = _Expected(_column_or_none(store, "area"), _column_or_none(store, "crc32c"), runs)

    reader = None if store.is_native(MASKS) else open_reader(store)

    def check(shard: int) -> _Found:
        if reader is not None:
            return _check_masks(reader, store.layout.shard_rows(shard), expected)
        return _check_shard(store, shard, expected)

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


def _check_shard(store: MaskStore, shard: int, expected: _Expected) -> _Found:
    """Compare a shard's bytes with the manifest, and each of its masks with what is said of it."""
    rows = store.layout.shard_rows(shard)
    every = range(rows.start, rows.stop)
    data = store.objects.get(shard_key(shard))
    if data is None:
        return [f"shard {shard} is missing"], dict.fromkeys(every, "its shard is missing")
    same = Piece.of(data) == store.manifest.shards[shard]
    faults = [] if same else [f"shard {shard}: size or checksum is not the recorded one"]
    try:
        found = EncodedShard.whole(data, store.layout, shard)
    except DamagedBytes as error:
        return [*faults, f"shard {shard}: {error}"], dict.fromkeys(every, "it cannot be read")
    mask = np.empty(store.layout.shape[1:], np.uint8)
    bad: dict[int, str] = {}
    for slot, row in enumerate(every):
        try:
            decode_chunk(found.chunk(slot), mask)
        except DamagedBytes:
            bad[row] = "it cannot be read"
        else:
            fault = expected.fault(row, mask)
            if fault:
                bad[row] = fault
    return faults, bad


def _check_masks(reader: StoreReader, rows: Block, expected: _Expected) -> _Found:
    """Compare masks with what is said of them where there are no shards as a conversion writes."""
    bad: dict[int, str] = {}
    for row in range(rows.start, rows.stop):
        try:
            fault = expected.fault(row, reader.mask(row))
        except (CorruptMask, CorruptStore):
            fault = "it cannot be read"
        if fault:
            bad[row] = fault
    return [], bad


def _compare(
    store: MaskStore, source: MaskSource, pool: Executor, told: Callable[[int], object]
) -> _Found:
    """Compare every pixel and every field with the source."""
    if source.layout.shape != store.layout.shape:
        return [f"the source has shape {source.layout.shape}, not {store.layout.shape}"], {}
    faults = _table_faults(store, source.by_row())
    bad: dict[int, str] = {}
    file, reader = source.file, open_reader(store)
    # The pool's threads are not counted: their buffers are small beside a gibibyte.
    rows = block_rows(store.layout, file.chunks, held_bytes(file), _MOST_BYTES, workers=1)
    slab = open_slab(file, rows, normalize=store.manifest.source["normalize"])

    def different(part: Block) -> dict[int, str]:
        return _different(reader, slab, part)

    for block in blocks(0, store.layout.n_masks, rows):
        try:
            slab.load(block, pool)
            for found in pool.map(different, blocks(block.start, block.stop, _COMPARED_MASKS)):
                bad |= found
        except StrayPixels:
            faults.append(
                f"masks {block.start} to {block.stop - 1} of the source have pixels other than 0"
                " and 1, the store has not"
            )
        told(len(block))
    return faults, bad


def _different(reader: StoreReader, slab: Slab, part: Block) -> dict[int, str]:
    """Return the masks of a block whose pixels are not those of the source."""
    bad: dict[int, str] = {}
    for row in range(part.start, part.stop):
        try:
            found = reader.read(np.array([row]), workers=1)[0]
        except (CorruptMask, CorruptStore):
            bad[row] = "it cannot be read"
        else:
            if not np.array_equal(found, slab.mask(row)):
                bad[row] = "its pixels are not those of the source"
    return bad


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
