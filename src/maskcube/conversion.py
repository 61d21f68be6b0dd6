"""Source to store, shard by shard."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from maskcube.cluster import Cluster
from maskcube.commit import Origin, commit
from maskcube.entry import Entry
from maskcube.errors import SourceError, StoreExists
from maskcube.journal import Journal
from maskcube.layout import Block, Layout, memory_bytes, worker_count
from maskcube.manifest import CONVERT
from maskcube.objects import StoreLike
from maskcube.progress import mask_bar
from maskcube.provenance import generator, now
from maskcube.report import ConversionReport
from maskcube.slabs import Masks, StrayPixels, rows_at_once
from maskcube.source import MaskSource
from maskcube.stage import Stage, open_stage
from maskcube.store import MaskStore
from maskcube.writer import ShardWriter

__all__ = ["Source", "convert", "finish_earlier", "refuse_faults", "write_shards", "write_store"]


class Source(Protocol):
    """Masks, and what is said of them, checked against each other: `MaskSource`, for example."""

    @property
    def path(self) -> object:
        """Where they are."""

    @property
    def layout(self) -> Layout:
        """Shape of the masks."""

    @property
    def file(self) -> Masks:
        """What the masks are read from."""

    @property
    def faults(self) -> list[str]:
        """What speaks against a conversion, as far as can be seen without reading pixels."""

    @property
    def size_bytes(self) -> int:
        """Size of the file or files with the masks."""

    def coordinates(self) -> dict[str, np.ndarray[Any, Any]]:
        """Return the coordinates that do not come from the pixels, (mask,) each, in row order."""

    def fingerprint(self, sha256: str | None = None) -> dict[str, Any]:
        """Return what identifies the source; raises `SourceError` if that is not `sha256`."""

    def pixel_faults(
        self, progress: Callable[[int], object] = ..., *, normalize: bool = False
    ) -> list[str]:
        """Read every mask and return what is wrong with the pixels."""


def convert(
    source: str | Path,
    store: StoreLike,
    *,
    metadata: str | Path | None = None,
    overwrite: bool = False,
    normalize: bool = False,
    allow_duplicates: bool = False,
    sha256: str | None = None,
    workers: int | None = None,
    memory: str | int = "1GiB",
    client: Any = None,  # noqa: ANN401 - distributed is an optional library
    progress: bool = True,
    storage_options: dict[str, Any] | None = None,
    source_options: dict[str, Any] | None = None,
    license: str = "that of the source",  # noqa: A002 - the attribute's name
) -> ConversionReport:
    """Convert the HDF5 of masks and its CSV to a chunked Zarr store.

    The source is checked before anything is written. The store is built beside its place and
    appears there when it is complete; run the same conversion again to resume an interrupted one.

    Parameters
    ----------
    source : str or pathlib.Path
        A data folder that holds ``stimuli/task-images_desc-segmentations.h5``, or an HDF5; the URL
        of either, of which both files are fetched once, into the temporary folder.
    store : path, URL or zarr Store
        The target.
    metadata : str or pathlib.Path, optional
        The CSV, or its URL, when it does not lie beside the HDF5 under the HDF5's name and
        ``_metadata.csv``.
    overwrite : bool
        Replace a mask store that is at the target. A local one stays until the new one is
        complete; elsewhere, where nothing can be moved, it is deleted first.
    normalize : bool
        Take every pixel but 0 as 1, instead of refusing values other than 0 and 1.
    allow_duplicates : bool
        Accept several masks with the same image, noun and instance.
    sha256 : str, optional
        SHA-256 of the HDF5, as its publisher gives it: another file is refused.
    workers : int, optional
        Threads that encode; one for each core by default, one for each task of a client.
    memory : str or int
        Most memory that the process may take, in bytes or as a text like ``"1GiB"``; with a
        client, each of its workers, however many tasks it has at once.
    client : distributed.Client, optional
        Convert on its workers, which must see the source and the target under the same paths or
        URLs. They are told how to reach these, credentials among it.
    progress : bool
        Show a progress bar on stderr and print the report on stdout.
    storage_options : dict, optional
        For a store at a URL: how to reach it, as in ``{"anon": True}`` or ``{"key": ...,
        "secret": ..., "endpoint_url": ...}``; else as the environment says, or anonymously.
    source_options : dict, optional
        For a source at a URL: how to reach it, in the words of `storage_options`.
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
    # A wrong word is told before a source is fetched.
    budget = memory_bytes(memory)
    started = time.monotonic()
    with MaskSource(
        source, metadata, allow_duplicates=allow_duplicates, options=source_options
    ) as masks:
        return write_store(
            masks,
            store,
            overwrite=overwrite,
            normalize=normalize,
            sha256=sha256,
            workers=workers,
            memory=budget,
            client=client,
            progress=progress,
            storage_options=storage_options,
            license=license,
            started=started,
        )


def write_store(
    masks: Source,
    store: StoreLike,
    *,
    overwrite: bool,
    normalize: bool = False,
    sha256: str | None = None,
    workers: int | None,
    memory: str | int,
    client: Any = None,  # noqa: ANN401 - distributed is an optional library
    progress: bool,
    storage_options: dict[str, Any] | None,
    license: str,  # noqa: A002 - the attribute's name
    started: float | None = None,
) -> ConversionReport:
    """Write the masks of an opened source to a store: see `convert`.

    Parameters
    ----------
    masks : Source
        The masks, and what is said of them.
    started : float, optional
        When it began, by the monotonic clock.
    """
    started = time.monotonic() if started is None else started
    budget, cluster = memory_bytes(memory), None if client is None else Cluster(client)
    # Its other tasks keep the other cores of a worker busy.
    n_workers = worker_count(workers if cluster is None else workers or 1)
    with open_stage(store, overwrite=overwrite, storage_options=storage_options) as stage:
        if cluster is not None:
            cluster.check_reach(stage.place)
            budget = cluster.task_bytes(budget)
        rows = rows_at_once(masks.file, budget, n_workers)
        refuse_faults(masks, normalize=normalize, show=progress)
        plan = {
            "action": CONVERT,
            "generator": generator(),
            "created": now(),
            "source": {**masks.fingerprint(sha256), "normalize": normalize},
            "layout": asdict(masks.layout),
            "license": license,
        }
        n_resumed = None
        if not finish_earlier(stage, plan):
            stage.prepare()
            journal = Journal.begin(stage, plan, anew=overwrite)
            writer = ShardWriter(masks.file, journal, rows, n_workers, normalize=normalize)
            with journal.shared(stage):
                n_resumed = write_shards(writer, masks, stage, cluster=cluster, show=progress)
                commit(journal, masks.coordinates(), _origin(journal.plan))
                stage.promote()
                stage.clean()
        report = ConversionReport.of(
            MaskStore(stage.place),
            n_added=masks.layout.n_masks,
            source_bytes=masks.size_bytes,
            n_resumed=n_resumed,
            started=started,
            workers={} if cluster is None else cluster.peaks,
        )
    if progress:
        print(report)  # noqa: T201 - asked for
    return report


def refuse_faults(masks: Source, *, normalize: bool, show: bool) -> None:
    """Raise `SourceError` if the source has faults; pixels are read only then, to tell all."""
    if masks.faults:
        pixel_faults = _pixel_faults(masks, normalize=normalize, show=show)
        raise SourceError(str(masks.path), [*masks.faults, *pixel_faults])


def finish_earlier(stage: Stage, plan: dict[str, Any]) -> bool:
    """End what an earlier run has left; whether that was this one, all but the cleaning up."""
    if not stage.recover():
        return False
    same = Journal.is_of(stage, plan)
    stage.clean()
    return same


def write_shards(
    writer: ShardWriter,
    masks: Source,
    stage: Stage,
    *,
    cluster: Cluster | None = None,
    show: bool,
) -> int:
    """Write the shards that are not finished; return how many an earlier run had finished.

    Raises
    ------
    SourceError
        With every fault of the pixels; what was written is deleted then.
    """
    journal, layout = writer.journal, writer.journal.layout
    finished = journal.finished()
    resumed = [layout.shard_rows(shard) for shard in finished if shard not in journal.kept]
    with mask_bar(masks.layout.n_masks, "converting", show=show) as bar:
        bar.update(sum(len(writer.of_source(rows)) for rows in resumed))
        try:
            spans = list(_unfinished(layout, finished))
            if cluster is not None:
                cluster.write(writer, spans, bar.update)
            else:
                for span in spans:
                    writer.write(span, bar.update)
        except (StrayPixels, SourceError) as error:
            pixel_faults = _pixel_faults(masks, normalize=writer.normalize, show=show)
            if not pixel_faults:
                # The disk had a bad moment, the source is good: what is done stays done.
                raise
            with suppress(StoreExists):
                # What somebody else has put there meanwhile stays.
                journal.check_is_ours()
                stage.discard()
            raise SourceError(str(masks.path), pixel_faults) from error
    return len(resumed)


def _pixel_faults(masks: Source, *, normalize: bool, show: bool) -> list[str]:
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


def _origin(plan: dict[str, Any]) -> Origin:
    source = plan["source"]
    what, how = "LAION-fMRI object masks", "converted"
    if "format" in source:
        what, how = "Object masks", f"imported by {source['format']}"
    files = dict.fromkeys(source[part]["file"] for part in ("masks", "metadata"))
    return Origin(
        generator=plan["generator"],
        created=plan["created"],
        source=source,
        attributes={
            "Conventions": "CF-1.11",
            "title": what,
            "license": plan["license"],
            "history": (f"{plan['created']} {plan['generator']}: {how} from {' and '.join(files)}"),
        },
    )
