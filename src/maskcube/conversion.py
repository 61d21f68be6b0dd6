"""Source to store, shard by shard."""

from __future__ import annotations

import datetime as dt
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from maskcube.errors import InvalidOption, SourceError, missing
from maskcube.journal import Entry, Journal
from maskcube.layout import Block, Layout, block_rows, blocks, memory_bytes, worker_count
from maskcube.manifest import Manifest, Piece, RunPieces
from maskcube.objects import StoreLike
from maskcube.progress import mask_bar
from maskcube.ragged import put_steps, steps_chunk
from maskcube.schema import OFFSETS, build, value_bytes
from maskcube.slabs import StrayPixels, held_bytes
from maskcube.source import MaskSource
from maskcube.stage import ROOT, open_stage
from maskcube.writer import ShardWriter

__all__ = ["ConversionReport", "convert"]


@dataclass(frozen=True, kw_only=True)
class ConversionReport:
    """What a conversion did."""

    location: str
    """Where the store is."""
    n_masks: int
    n_images: int
    n_nouns: int
    n_shards: int
    n_resumed: int
    """Shards that an earlier, interrupted run had finished."""
    source_bytes: int
    """Size of the HDF5."""
    store_bytes: int
    """Size of everything in the store."""
    n_objects: int
    """Number of files or objects in the store."""
    seconds: float
    """Wall time."""

    def to_json(self) -> dict[str, Any]:
        """Return the same as plain JSON types."""
        return asdict(self)

    def __str__(self) -> str:
        resumed = f", {self.n_resumed} of them from an earlier run" if self.n_resumed else ""
        return (
            f"{self.location}: {self.n_masks:,} masks of {self.n_images:,} images and"
            f" {self.n_nouns:,} nouns in {self.n_shards:,} shards{resumed};"
            f" {self.store_bytes / 1e6:,.1f} MB in {self.n_objects:,} files"
            f" ({self.store_bytes / self.source_bytes:.2f} of the HDF5);"
            f" {self.seconds:.1f} s, {self.n_masks / self.seconds:,.0f} masks/s"
        )


def convert(
    source: str | Path,
    store: StoreLike,
    *,
    metadata: str | Path | None = None,
    overwrite: bool = False,
    normalize: bool = False,
    allow_duplicates: bool = False,
    workers: int | None = None,
    memory: str | int = "1GiB",
    client: Any = None,  # noqa: ANN401 - distributed is an optional library
    progress: bool = True,
    storage_options: dict[str, Any] | None = None,
    license: str = "that of the source",  # noqa: A002 - the attribute's name
) -> ConversionReport:
    """Convert the HDF5 of masks and its CSV to a chunked Zarr store.

    The source is checked before anything is written. The store is built beside its place and
    appears there when it is complete; run the same conversion again to resume an interrupted one.

    Parameters
    ----------
    source : str or pathlib.Path
        A data folder that holds ``stimuli/task-images_desc-segmentations.h5``, or an HDF5.
    store : path, URL or zarr Store
        The target.
    metadata : str or pathlib.Path, optional
        The CSV, when it does not lie beside the HDF5 under the HDF5's name and ``_metadata.csv``.
    overwrite : bool
        Replace a mask store that is at the target. A local one stays until the new one is
        complete; elsewhere, where nothing can be renamed, it is deleted first.
    normalize : bool
        Take every pixel but 0 as 1, instead of refusing values other than 0 and 1.
    allow_duplicates : bool
        Accept several masks with the same image, noun and instance.
    workers : int, optional
        Threads that encode; one for each core by default.
    memory : str or int
        Most memory that the process may take, in bytes or as a text like ``"1GiB"``; with a
        client, each of its workers.
    client : distributed.Client, optional
        Convert on its workers, which must see the source and the target under the same paths.
    progress : bool
        Show a progress bar on stderr and print the report on stdout.
    storage_options : dict, optional
        For a URL: how to reach it.
    license : str
        The licence of the masks, for the store's attributes.

    Returns
    -------
    ConversionReport
        Counts, sizes and time.

    Raises
    ------
    SourceError
        With every fault of the source; nothing is left at the target.
    StoreExists
        When something is at the target, a half conversion of something else, or another process
        that converts to it.
    InvalidOption
        When an argument has no meaning, or `memory` is too little for two masks.

    Examples
    --------
    >>> report = convert("laion-fmri", "new.zarr", progress=False)
    >>> report.n_images
    24
    """
    started = time.monotonic()
    budget, n_workers = memory_bytes(memory), worker_count(workers)
    with (
        MaskSource(source, metadata, allow_duplicates=allow_duplicates) as masks,
        open_stage(store, overwrite=overwrite, storage_options=storage_options) as stage,
    ):
        rows = block_rows(
            masks.layout, masks.file.chunks, held_bytes(masks.file), budget, n_workers
        )
        if masks.faults:
            # Pixels are read only now, so that every fault can be told at once.
            pixel_faults = _pixel_faults(masks, normalize=normalize, show=progress)
            raise SourceError(str(masks.path), [*masks.faults, *pixel_faults])
        plan = _plan(masks, normalize=normalize, license=license)
        journal = Journal.begin(stage, plan, anew=overwrite)
        finished = journal.finished()
        writer = ShardWriter(masks.file, journal, rows, n_workers, normalize=normalize)
        with mask_bar(masks.layout.n_masks, "converting", show=progress) as bar:
            bar.update(sum(len(masks.layout.shard_rows(shard)) for shard in finished))
            try:
                _write(writer, list(_unfinished(masks.layout, finished)), client, bar.update)
            except (StrayPixels, SourceError) as error:
                pixel_faults = _pixel_faults(masks, normalize=normalize, show=progress)
                if not pixel_faults:
                    # The disk had a bad moment, the source is good: what is done stays done.
                    raise
                stage.discard()
                raise SourceError(str(masks.path), pixel_faults) from error
        sizes = _finish(masks, journal)
        stage.promote()
    report = ConversionReport(
        location=stage.location,
        **_counts(masks),
        n_shards=masks.layout.n_shards,
        n_resumed=len(finished),
        source_bytes=masks.path.stat().st_size,
        store_bytes=sum(sizes),
        n_objects=len(sizes),
        seconds=time.monotonic() - started,
    )
    if progress:
        print(report)  # noqa: T201 - asked for
    return report


def _pixel_faults(masks: MaskSource, *, normalize: bool, show: bool) -> list[str]:
    """Return every fault of the pixels, which takes reading them all."""
    with mask_bar(masks.layout.n_masks, "looking for every fault", show=show) as bar:
        return masks.pixel_faults(bar.update, normalize=normalize)


def _unfinished(layout: Layout, finished: Mapping[int, Entry]) -> Iterator[Block]:
    """Yield the longest runs of rows whose shards are still to be written."""
    start = None
    for shard in range(layout.n_shards + 1):
        if shard < layout.n_shards and shard not in finished:
            start = layout.shard_rows(shard).start if start is None else start
        elif start is not None:
            yield Block(start, layout.shard_rows(shard - 1).stop)
            start = None


def _write(
    writer: ShardWriter,
    spans: list[Block],
    client: Any,  # noqa: ANN401 - distributed is an optional library
    told: Callable[[int], object],
) -> None:
    """Write the shards of all spans, here or on a client's workers; a shard has one writer."""
    if client is None:
        for span in spans:
            writer.write(span, told)
        return
    try:
        from distributed import as_completed, wait
    except ImportError:
        raise missing("distributed", "cluster", "client=") from None

    size = writer.task_shards * writer.journal.layout.shard_masks
    parts = [part for span in spans for part in blocks(span.start, span.stop, size)]
    futures = client.map(writer.write, parts, pure=False)
    try:
        for future in as_completed(futures):
            told(future.result())
    except (StrayPixels, SourceError):
        # The caller will delete what was written: nobody may be writing then.
        wait(futures)
        raise
    finally:
        client.cancel(futures)


def _plan(masks: MaskSource, *, normalize: bool, license: str) -> dict[str, Any]:  # noqa: A002
    """Return everything that decides the bytes of the store."""
    return {
        "generator": f"maskcube {version('maskcube')}",
        "created": _now(),
        "source": {**masks.fingerprint(), "normalize": normalize},
        "layout": asdict(masks.layout),
        "license": license,
    }


def _now() -> str:
    """Return the time for the store's records, which SOURCE_DATE_EPOCH [1]_ can fix.

    .. [1] https://reproducible-builds.org/specs/source-date-epoch/
    """
    fixed = os.environ.get("SOURCE_DATE_EPOCH")
    if fixed and not fixed.isdecimal():
        raise InvalidOption(f"SOURCE_DATE_EPOCH={fixed!r} is no number of seconds")
    seconds = int(fixed) if fixed else time.time()
    return dt.datetime.fromtimestamp(seconds, dt.UTC).isoformat(timespec="seconds")


def _finish(masks: MaskSource, journal: Journal) -> list[int]:
    """Write everything but the shards, the root last; return the size of every object."""
    layout = journal.layout
    entries = list(journal.read_back())
    coordinates = masks.coordinates()
    coordinates["area"] = np.array([n for entry in entries for n in entry.areas], np.int32)
    coordinates["crc32c"] = np.array([n for entry in entries for n in entry.crcs], np.uint32)
    offsets = np.cumsum([0, *(n for entry in entries for n in entry.counts)], dtype=np.int64)
    steps = put_steps(
        journal.objects,
        [sum(entry.counts) for entry in entries],
        (entry.steps for entry in entries),
    )
    chunk_steps = steps_chunk(int(offsets[-1]))

    def attributes(pieces: Mapping[str, Piece]) -> dict[str, Any]:
        manifest = Manifest(
            generator=journal.plan["generator"],
            created=journal.plan["created"],
            source=journal.plan["source"],
            layout=layout,
            counts={name.removeprefix("n_"): count for name, count in _counts(masks).items()},
            shards=tuple(entry.piece for entry in entries),
            coordinates={name: pieces[name] for name in coordinates},
            values={
                name: Piece.of(value_bytes(name, values)) for name, values in coordinates.items()
            },
            runs=RunPieces(int(offsets[-1]), chunk_steps, steps, pieces[OFFSETS]),
        )
        return _root_attributes(manifest, journal.plan["license"])

    objects = build(layout, coordinates, offsets, chunk_steps, attributes)
    root = objects.pop(ROOT)
    for key, data in [*objects.items(), (ROOT, root)]:
        journal.objects.put(key, data)
    sizes = [piece.length for piece in (*(entry.piece for entry in entries), *steps)]
    return [*sizes, *map(len, objects.values()), len(root)]


def _root_attributes(manifest: Manifest, license: str) -> dict[str, Any]:  # noqa: A002
    source = manifest.source
    return {
        "Conventions": "CF-1.11",
        "title": "LAION-fMRI object masks",
        "license": license,
        "history": (
            f"{manifest.created} {manifest.generator}: converted from"
            f" {source['masks']['file']} and {source['metadata']['file']}"
        ),
        "maskcube": manifest.to_json(),
    }


def _counts(masks: MaskSource) -> dict[str, int]:
    return {
        "n_masks": masks.layout.n_masks,
        "n_images": masks.table["image_name"].nunique(),
        "n_nouns": masks.table["noun"].nunique(),
    }
