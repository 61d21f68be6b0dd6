"""A store against its checksums, or against the source."""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from maskcube.base import rewrite
from maskcube.boundaries import boundaries_of
from maskcube.codec import DamagedBytes, checksum, decode_chunk
from maskcube.comparison import Found, column_or_none, compare
from maskcube.encoded import EncodedShard
from maskcube.errors import BadMask, CorruptMask, CorruptStore, VerificationError
from maskcube.integrity import description_faults, has_runs
from maskcube.layout import Block, worker_count
from maskcube.manifest import REPAIR, Piece
from maskcube.objects import StoreLike
from maskcube.parts import Part, Sources, open_parts
from maskcube.progress import mask_bar
from maskcube.provenance import generator, now
from maskcube.ragged import RunReader, RunScan
from maskcube.readers import StoreReader, open_reader
from maskcube.repair import make_again, remade_shards, restore_root
from maskcube.report import VerificationReport, made_again
from maskcube.schema import COORDINATES, MASKS, ROOT, shard_key
from maskcube.stage import open_stage
from maskcube.store import MaskStore

__all__ = ["verify"]

_MOST_MASK_BYTES = 2**27
"""Of masks that threads hold decoded."""

_MOST_SHARD_BYTES = 2**26
"""Larger shards are read in parts; those of the dataset are 80 kB."""

_PART_BYTES = 2**24


def _tried(keys: Sequence[str]) -> str:
    """Say what a repair did that could not make everything again."""
    rest = "masks need their runs or their source, fields of the CSV every source"
    return f"not all could be made again: {rest}{made_again(keys)}"


def verify(
    store: StoreLike,
    source: Sources = None,
    *,
    metadata: Sources = None,
    repair: bool = False,
    workers: int | None = None,
    progress: bool = False,
    storage_options: dict[str, Any] | None = None,
    source_options: dict[str, Any] | None = None,
) -> VerificationReport:
    """Check that no mask, no coordinate and no run of a store is damaged or lost.

    Every object is read: shards and coordinates are compared with the size and the checksum in the
    manifest, every mask's pixels with their own CRC-32C, area and runs. With a source, every pixel
    and every field of the CSV is compared as well, but for masks that were updated since.

    Parameters
    ----------
    store : path, URL or zarr Store
        A converted store.
    source : str, pathlib.Path or sequence of them, optional
        The data folder or HDF5 that the store was converted from, or its URL, or those that were
        appended too.
    metadata : str, pathlib.Path or sequence of them, optional
        The source's CSV, when it does not lie beside the HDF5.
    repair : bool
        First make damaged objects again, and write them where they have the size and the checksum
        that the manifest says: masks from their runs or the source and runs from the masks, fields
        of the CSV from every source, all else from what is whole. Nothing else is written.
    workers : int, optional
        Threads; each holds an encoded shard and a decoded mask. One for each core by default.
    progress : bool
        Show a progress bar on stderr.
    storage_options : dict, optional
        For the URL of a store: how to reach it, as in ``{"anon": True}`` or ``{"key": ...,
        "secret": ..., "endpoint_url": ...}``; else as the environment says, or anonymously.
    source_options : dict, optional
        For a source at a URL: how to reach it.

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
    StoreChanged
        When another process has changed the store meanwhile.
    InvalidOption
        When it is none of several sources that the store is from.
    StoreExists
        When another process is writing the store that is to be repaired.

    Examples
    --------
    >>> verify("masks.zarr", "laion-fmri").n_shards
    5
    """
    started = time.monotonic()
    restored = [ROOT] if repair and restore_root(store, storage_options) else []
    opened = MaskStore.open(store, storage_options)
    with open_parts(opened, source, metadata, source_options) as parts:
        repaired = restored + (_repaired(store, storage_options, parts) if repair else [])
        # Every object is to be looked at, also those that hold the same.
        opened = MaskStore.open(store, storage_options).unpacked()
        found = _checked(opened, parts, worker_count(workers), show=progress)
        paths = [str(part.masks.path) for part in parts]
        updated = opened.manifest.updated()
        n_compared = sum(
            row not in updated for part in parts for row in range(part.rows.start, part.rows.stop)
        )
    faults, bad = found
    if faults or bad:
        # Parts of another store are no damage.
        opened.edition.check()
        if repair:
            faults.insert(0, _tried(repaired))
        raise VerificationError(opened.location, faults, _named(opened, bad))
    return VerificationReport(
        location=opened.location,
        source=", ".join(paths) or None,
        n_masks=opened.layout.n_masks,
        n_compared=n_compared,
        n_updated=len(updated),
        repaired=tuple(repaired),
        n_shards=opened.layout.n_shards,
        seconds=time.monotonic() - started,
    )


def _repaired(
    store: StoreLike, storage_options: dict[str, Any] | None, parts: list[Part]
) -> list[str]:
    """Repair a store while nobody else writes it; return the keys of what was."""
    with open_stage(store, revise=True, storage_options=storage_options) as stage:
        if stage.recover():
            stage.clean()
        mended = make_again(MaskStore(stage.place), parts)
        shards = remade_shards(MaskStore(stage.place), parts)
        if shards:
            plan = {"action": REPAIR, "generator": generator(), "created": now()}
            change = {"action": REPAIR, "shards": list(shards)}
            # Where more is damaged than these, the store stays as it is.
            with suppress(CorruptStore):
                rewrite(stage, stage.prepare_revision(), plan, shards, change)
                mended += map(shard_key, shards)
        return mended


def _checked(store: MaskStore, parts: list[Part], workers: int, *, show: bool) -> Found:
    """Check everything that there is."""
    # Where masks are huge, fewer at a time.
    threads = min(workers, max(1, _MOST_MASK_BYTES // store.layout.mask_bytes))
    total = store.layout.n_masks + sum(len(part.rows) for part in parts)
    with (
        mask_bar(total, "verifying", show=show) as bar,
        ThreadPoolExecutor(threads) as pool,
    ):
        faults = description_faults(store)
        more_faults, columns = _check_coordinates(store)
        faults += more_faults
        bad: dict[int, str] = {}
        compared = [compare(store, part, pool, bar.update) for part in reversed(parts)]
        for found in [*compared, _check_shards(store, columns, pool, bar.update)]:
            faults += found[0]
            bad |= found[1]
    return faults, bad


def _check_coordinates(store: MaskStore) -> tuple[list[str], dict[str, NDArray[Any]]]:
    """Check the coordinates; return those that masks are compared with as far as they are good."""
    faults: list[str] = []
    found: dict[str, NDArray[Any]] = {}
    for name in COORDINATES:
        try:
            values = store.coordinate(name)
        except CorruptStore as error:
            faults.append(str(error))
        else:
            found |= {name: values} if name in {"area", "crc32c"} else {}
    return faults, found


class _Expected(NamedTuple):
    """What a store says of its masks; None where that is damaged, a fault of its own already."""

    areas: NDArray[np.int32] | None
    crcs: NDArray[np.uint32] | None
    runs: RunScan | None

    def fault(self, row: int, mask: NDArray[np.uint8]) -> str | None:
        """Return what is wrong with the pixels of a mask."""
        if self.crcs is not None and checksum(mask) != self.crcs[row]:
            return "its pixels' crc32c differs"
        if self.areas is not None and np.count_nonzero(mask) != self.areas[row]:
            return "its area differs"
        try:
            if self.runs is not None and not self.runs.has(row, boundaries_of(mask)):
                return "its runs are not those of its pixels"
        except CorruptStore as error:
            return str(error)
        return None


def _check_shards(
    store: MaskStore,
    columns: dict[str, NDArray[Any]],
    pool: Executor,
    told: Callable[[int], object],
) -> Found:
    """Check every shard, and every mask in it."""
    faults: list[str] = []
    bad: dict[int, str] = {}
    runs = None
    if has_runs(store):
        try:
            runs = RunScan(RunReader(store))
        except CorruptStore as error:
            faults.append(str(error))
    expected = _Expected(columns.get("area"), columns.get("crc32c"), runs)
    reader = open_reader(store)

    def check(shard: int) -> Found:
        if not store.is_native(MASKS):
            return _check_masks(reader, store.layout.shard_rows(shard), expected)
        if store.manifest.shards[shard].length > _MOST_SHARD_BYTES:
            return _check_large_shard(store, reader, shard, expected)
        return _check_shard(store, shard, expected)

    for shard, found in enumerate(pool.map(check, range(store.layout.n_shards))):
        faults += found[0]
        bad |= found[1]
        told(len(store.layout.shard_rows(shard)))
    return faults, bad


def _check_shard(store: MaskStore, shard: int, expected: _Expected) -> Found:
    """Compare a shard's bytes with the manifest, and each of its masks with what is said of it."""
    rows = store.layout.shard_rows(shard)
    every = range(rows.start, rows.stop)
    piece = store.manifest.shards[shard]
    try:
        data = store.objects.get(shard_key(shard), 0, piece.length + 1)
    except CorruptStore as error:
        return [f"shard {shard}: {error}"], dict.fromkeys(every, "it cannot be read")
    if data is None:
        return [f"shard {shard} is missing"], dict.fromkeys(every, "its shard is missing")
    same = Piece.of(data) == piece
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


def _check_large_shard(
    store: MaskStore, reader: StoreReader, shard: int, expected: _Expected
) -> Found:
    """Do as `_check_shard` without holding the shard in memory."""
    piece, length, crc = store.manifest.shards[shard], 0, 0
    faults: list[str] = []
    try:
        while data := store.objects.get(
            shard_key(shard), length, min(_PART_BYTES, piece.length + 1 - length)
        ):
            length, crc = length + len(data), zlib.crc32(data, crc)
    except CorruptStore as error:
        faults.append(f"shard {shard}: {error}")
    if Piece(length, crc) != piece:
        faults.append(f"shard {shard}: size or checksum is not the recorded one")
    return faults, _check_masks(reader, store.layout.shard_rows(shard), expected)[1]


def _check_masks(reader: StoreReader, rows: Block, expected: _Expected) -> Found:
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


def _named(store: MaskStore, bad: dict[int, str]) -> list[BadMask]:
    """Name the bad masks by their labels, as far as these can be read."""
    # Each text once, however many masks have it.
    texts: dict[str, str] = {}
    labels = {name: column_or_none(store, name) for name in ("image", "noun", "instance")}

    def label(name: str, row: int) -> Any:  # noqa: ANN401 - text or number
        values = labels[name]
        return "?" if values is None else values[row : row + 1].tolist()[0]

    def text(name: str, row: int) -> str:
        found = str(label(name, row))
        return texts.setdefault(found, found)

    return [
        BadMask(row, text("image", row), text("noun", row), label("instance", row), bad[row])
        for row in sorted(bad)
    ]
