"""What a conversion, or a change of a store, did."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Any

from maskcube.schema import ROOT
from maskcube.source import MaskSource
from maskcube.store import MaskStore

__all__ = ["ConversionReport"]


@dataclass(frozen=True, kw_only=True)
class ConversionReport:
    """What a conversion did."""

    location: str
    """Where the store is."""
    n_masks: int
    n_images: int
    n_nouns: int
    n_shards: int
    n_added: int
    """Masks that are new: all of them, unless they were appended to a store."""
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

    @classmethod
    def of(
        cls, store: MaskStore, masks: MaskSource, *, n_resumed: int | None, started: float
    ) -> ConversionReport:
        """Return the report on a store that a source has just gone into.

        Parameters
        ----------
        store : MaskStore
            The complete store.
        masks : MaskSource
            The source.
        n_resumed : int, optional
            Shards that an earlier run had finished; None when that was all of them.
        started : float
            When it began, by the monotonic clock.
        """
        sizes, n_shards = _sizes(store), store.layout.n_shards
        return cls(
            location=store.location,
            **{f"n_{name}": count for name, count in store.manifest.counts.items()},
            n_shards=n_shards,
            n_added=masks.layout.n_masks,
            n_resumed=n_shards if n_resumed is None else n_resumed,
            source_bytes=masks.path.stat().st_size,
            store_bytes=sum(sizes),
            n_objects=len(sizes),
            seconds=time.monotonic() - started,
        )

    def to_json(self) -> dict[str, Any]:
        """Return the same as plain JSON types."""
        return asdict(self)

    def __str__(self) -> str:
        resumed = f", {self.n_resumed} of them from an earlier run" if self.n_resumed else ""
        all_new = self.n_added == self.n_masks
        added = "" if all_new else f"{self.n_added:,} masks appended; now "
        ratio = f" ({self.store_bytes / self.source_bytes:.2f} of the HDF5)" if all_new else ""
        return (
            f"{self.location}: {added}{self.n_masks:,} masks of {self.n_images:,} images and"
            f" {self.n_nouns:,} nouns in {self.n_shards:,} shards{resumed};"
            f" {self.store_bytes / 1e6:,.1f} MB in {self.n_objects:,} files{ratio};"
            f" {self.seconds:.1f} s, {self.n_added / self.seconds:,.0f} masks/s"
        )


def _sizes(store: MaskStore) -> list[int]:
    """Return the size of every object of a store in bytes."""
    manifest = store.manifest
    pieces = [*manifest.shards, *manifest.coordinates.values()]
    if manifest.runs is not None:
        pieces += [*manifest.runs.steps, manifest.runs.offsets]
    metadata = (store.objects.size(f"{name}/{ROOT}") or 0 for name in store.arrays)
    root = store.edition.identity.length
    return [*(piece.length for piece in pieces), *metadata, root, root]
