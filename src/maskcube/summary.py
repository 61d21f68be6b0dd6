"""What a store says of itself, without a pixel being read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from maskcube.errors import listed
from maskcube.manifest import APPEND, UPDATE
from maskcube.objects import StoreLike
from maskcube.store import MaskStore

__all__ = ["StoreInfo", "info"]


_SHOWN = 8
"""Changes to tell of, the last ones; `StoreInfo.revisions` has all."""


@dataclass(frozen=True, kw_only=True)
class StoreInfo:
    """What a store says of itself."""

    location: str
    """Where it is."""
    format_version: int
    n_masks: int
    n_images: int
    n_nouns: int
    height: int
    """Pixels along y."""
    width: int
    """Pixels along x."""
    shard_masks: int
    """Masks in a shard."""
    n_shards: int
    shard_bytes: int
    """Size of all shards, encoded."""
    run_bytes: int
    """Size of the runs, encoded; 0 if there are none."""
    raw_bytes: int
    """Size of all masks, decoded."""
    generator: str
    """Name and version of what wrote it."""
    created: str
    """When the conversion began, UTC."""
    source: dict[str, Any]
    """The HDF5 and the CSV that it is from."""
    revisions: list[dict[str, Any]]
    """What was appended and updated since, and when."""

    def to_json(self) -> dict[str, Any]:
        """Return the same as plain JSON types."""
        return asdict(self)

    def __str__(self) -> str:
        files = [
            f"{file['file']} ({file['size_bytes'] / 1e6:,.1f} MB, sha256 {file['sha256'][:12]}...)"
            for file in (self.source["masks"], self.source["metadata"])
        ]
        n_earlier = len(self.revisions) - _SHOWN
        more = f"\n  and {n_earlier:,} changes before" if n_earlier > 0 else ""
        return (
            f"{self.location}\n"
            f"  {self.n_masks:,} masks of {self.height} x {self.width} pixels:"
            f" {self.n_images:,} images, {self.n_nouns:,} nouns\n"
            f"  {self.n_shards:,} shards of {self.shard_masks} masks,"
            f" {self.shard_bytes / 1e6:,.1f} MB for {self.raw_bytes / 1e9:,.2f} GB of pixels,"
            f" and {self.run_bytes / 1e6:,.1f} MB of runs\n"
            f"  from {files[0]}\n   and {files[1]}\n"
            f"  by {self.generator}, {self.created}, format_version {self.format_version}"
            f"{''.join(map(_told, self.revisions[-_SHOWN:]))}{more}"
        )


def info(store: StoreLike, *, storage_options: dict[str, Any] | None = None) -> StoreInfo:
    """Return what a store says of itself; reads its metadata only.

    Parameters
    ----------
    store : path, URL or zarr Store
        A converted store.
    storage_options : dict, optional
        For a URL: how to reach it, as in ``{"anon": True}`` or ``{"key": ...,
        "secret": ..., "endpoint_url": ...}``; else as the environment says, or anonymously.

    Raises
    ------
    StoreNotFound, IncompleteStore, NotAMaskStore
        When there is no complete mask store of a known format.

    Examples
    --------
    >>> info("masks.zarr").n_images
    24
    """
    opened = MaskStore.open(store, storage_options)
    manifest, layout = opened.manifest, opened.layout
    return StoreInfo(
        location=opened.location,
        format_version=opened.attributes["maskcube"]["format_version"],
        n_masks=layout.n_masks,
        n_images=manifest.counts["images"],
        n_nouns=manifest.counts["nouns"],
        height=layout.height,
        width=layout.width,
        shard_masks=layout.shard_masks,
        n_shards=layout.n_shards,
        shard_bytes=sum(piece.length for piece in manifest.shards),
        run_bytes=0 if manifest.runs is None else manifest.runs.n_bytes,
        raw_bytes=layout.n_masks * layout.mask_bytes,
        generator=manifest.generator,
        created=manifest.created,
        source=_without_order(manifest.source),
        revisions=[
            {**each, "source": _without_order(each["source"])} if "source" in each else dict(each)
            for each in manifest.revisions
        ],
    )


def _told(revision: dict[str, Any]) -> str:
    """Say on a line of its own what was changed."""
    if revision["action"] == APPEND:
        file = revision["source"]["masks"]
        what = f"masks from row {revision['first_row']:,} on appended from {file['file']}"
    elif revision["action"] == UPDATE:
        what = f"mask {revision['row']:,} updated"
    else:
        what = f"shards {listed(revision['shards'])} repaired"
    return f"\n  {what} by {revision['generator']}, {revision['created']}"


def _without_order(source: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out the CSV's own order, which is as long as the store has masks."""
    table = {key: value for key, value in source["metadata"].items() if key != "order"}
    return {**source, "metadata": table}
