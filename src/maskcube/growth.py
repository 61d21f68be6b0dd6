"""Masks of a later source after those of a store.

The new store is built beside the old one, whose full shards it shares, and takes its place in one
step. The same journal as for a conversion makes it resumable.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskcube.base import columns_of, encoded_masks, kept_entries, open_base, revised
from maskcube.commit import commit
from maskcube.conversion import finish_earlier, refuse_faults, write_shards
from maskcube.errors import SourceError, StoreExists, listed
from maskcube.journal import Journal
from maskcube.layout import memory_bytes, worker_count
from maskcube.manifest import APPEND
from maskcube.objects import StoreLike
from maskcube.provenance import generator, now
from maskcube.report import ConversionReport
from maskcube.schema import INDEXED
from maskcube.slabs import rows_at_once
from maskcube.source import KEYS, MaskSource
from maskcube.stage import Stage, open_stage
from maskcube.store import MaskStore
from maskcube.writer import ShardWriter

__all__ = ["append"]


def append(
    source: str | Path,
    store: StoreLike,
    *,
    metadata: str | Path | None = None,
    normalize: bool = False,
    allow_duplicates: bool = False,
    sha256: str | None = None,
    workers: int | None = None,
    memory: str | int = "1GiB",
    progress: bool = True,
    storage_options: dict[str, Any] | None = None,
    source_options: dict[str, Any] | None = None,
) -> ConversionReport:
    """Append the masks of another source to a store, after its last row.

    Readers find the old store until the new one is complete; whoever opened the old one is told by
    `StoreChanged`. Run the same again to resume an interrupted run. ``mask_row`` goes on counting:
    the source's first mask stands in the row after the store's last one.

    Parameters
    ----------
    source : str or pathlib.Path
        A data folder or an HDF5, as for `convert`; its masks are of the store's size.
    store : path, URL or zarr Store
        A store that `convert` has written.
    metadata : str or pathlib.Path, optional
        The CSV, when it does not lie beside the HDF5 under the HDF5's name and ``_metadata.csv``.
    normalize : bool
        Take every pixel but 0 as 1, instead of refusing values other than 0 and 1.
    allow_duplicates : bool
        Accept several masks of the source with the same image, noun and instance. Those that the
        store has already are always refused.
    sha256 : str, optional
        SHA-256 of the HDF5, as its publisher gives it: another file is refused.
    workers : int, optional
        Threads that encode; one for each core by default.
    memory : str or int
        Most memory that the process may take, in bytes or as a text like ``"1GiB"``.
    progress : bool
        Show a progress bar on stderr and print the report on stdout.
    storage_options : dict, optional
        For a store at a URL: how to reach it, as in ``{"anon": True}`` or ``{"key": ...,
        "secret": ..., "endpoint_url": ...}``; else as the environment says, or anonymously.
    source_options : dict, optional
        For a source at a URL: how to reach it, in the words of `storage_options`.

    Returns
    -------
    ConversionReport
        Counts, sizes and time.

    Raises
    ------
    SourceError
        With every fault of the source, masks that the store has already among them; the store
        stays as it is.
    StoreNotFound, IncompleteStore, NotAMaskStore
        When there is no complete mask store as a conversion writes it.
    StoreExists
        When the store has the masks of this source already, another change is unfinished, or
        another process is writing.
    CorruptStore
        When the store is damaged where it must be read.

    Examples
    --------
    >>> from maskcube import sample_dataset
    >>> later = sample_dataset("later", n_images=2, first_image=24)
    >>> report = append(later, "masks.zarr", progress=False)
    >>> report.n_images, report.n_added
    (26, 30)
    """
    started = time.monotonic()
    budget, n_workers = memory_bytes(memory), worker_count(workers)
    with (
        MaskSource(
            source, metadata, allow_duplicates=allow_duplicates, options=source_options
        ) as masks,
        open_stage(store, revise=True, storage_options=storage_options) as stage,
    ):
        rows = rows_at_once(masks.file, budget, n_workers)
        refuse_faults(masks, normalize=normalize, show=progress)
        plan = {
            "action": APPEND,
            "generator": generator(),
            "created": now(),
            "source": {**masks.fingerprint(sha256), "normalize": normalize},
        }
        n_resumed = None
        if not finish_earlier(stage, plan):
            n_resumed = _append(masks, stage, plan, rows, n_workers, show=progress)
        report = ConversionReport.of(
            MaskStore(stage.place),
            n_added=masks.layout.n_masks,
            source_bytes=masks.size_bytes,
            n_resumed=n_resumed,
            started=started,
        )
    if progress:
        print(report)  # noqa: T201 - asked for
    return report


def _append(
    masks: MaskSource,
    stage: Stage,
    plan: dict[str, Any],
    rows: int,
    n_workers: int,
    *,
    show: bool,
) -> int:
    """Write the shards that are new, and the one that is not full; return how many were there."""
    base = open_base(stage)
    _refuse_again(plan, base)
    _refuse_misfits(masks, base)
    first_row = base.layout.n_masks
    layout = replace(base.layout, n_masks=first_row + masks.layout.n_masks)
    full, partial = divmod(first_row, layout.shard_masks)
    journal = Journal.begin(
        stage,
        {**plan, "layout": asdict(layout), "base": base.edition.identity},
        kept=kept_entries(base, range(full)),
    )
    writer = ShardWriter(
        masks.file,
        journal,
        rows,
        n_workers,
        normalize=plan["source"]["normalize"],
        before=encoded_masks(base, full) if partial else (),
        first_row=first_row,
    )
    n_resumed = 0
    with journal.shared(stage):
        n_resumed = write_shards(writer, masks, stage, show=show)
        change = {"action": APPEND, "first_row": first_row, "source": plan["source"]}
        columns = _joined(columns_of(base), masks.coordinates())
        commit(journal, columns, revised(base, journal.plan, change))
        stage.promote()
        stage.clean()
    return n_resumed


def _refuse_again(plan: Mapping[str, Any], base: MaskStore) -> None:
    """Raise if the store is from this very source already."""
    new = plan["source"]
    for rows, source in base.manifest.sources():
        if all(source[file]["sha256"] == new[file]["sha256"] for file in ("masks", "metadata")):
            raise StoreExists(
                f"{base.location} has the masks of {source['masks']['file']} already, in rows"
                f" {rows.start} to {rows.stop - 1}"
            )


def _refuse_misfits(masks: MaskSource, base: MaskStore) -> None:
    """Raise if masks have another size than those of the store, or are in it already."""
    if masks.layout.shape[1:] != base.layout.shape[1:]:
        fault = (
            f"masks of {masks.layout.height} x {masks.layout.width} pixels, those of"
            f" {base.location} have {base.layout.height} x {base.layout.width}"
        )
        raise SourceError(str(masks.path), [fault])
    columns = [base.coordinate(name).tolist() for name in INDEXED]
    there = set(zip(*columns, strict=True))
    asked = masks.table[list(KEYS)].itertuples(name=None)
    found = [(line, key) for line, *key in asked if tuple(key) in there]
    if found:
        shown = listed((line, *key) for line, key in found)
        fault = (
            f"masks that {base.location} has already, as (line, image, noun, instance): {shown};"
            " append takes new ones only, update replaces one"
        )
        raise SourceError(str(masks.path), [fault])


def _joined(
    before: Mapping[str, NDArray[Any]], after: Mapping[str, NDArray[Any]]
) -> dict[str, NDArray[Any]]:
    """Return columns one after the other; ``mask_row`` goes on counting."""
    n_before = len(before["mask_row"])
    after = {**after, "mask_row": after["mask_row"] + n_before}
    return {
        name: np.concatenate([values, after[name].astype(values.dtype)])
        for name, values in before.items()
    }
