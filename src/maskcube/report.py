"""What was done to a store, and what was found in it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from maskcube.errors import listed
from maskcube.schema import ROOT
from maskcube.store import MaskStore
from maskcube.threads import spread

__all__ = ["ConversionReport", "UpdateReport", "VerificationReport", "made_again"]


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
    """Size of the HDF5, or of the files of another format."""
    store_bytes: int
    """Size of everything in the store."""
    n_objects: int
    """Number of files or objects in the store."""
    seconds: float
    """Wall time."""
    workers: Mapping[str, int] = field(default_factory=dict)
    """Most memory that each worker of a client has taken, in bytes, by its name."""

    @classmethod
    def of(
        cls,
        store: MaskStore,
        *,
        n_added: int,
        source_bytes: int,
        n_resumed: int | None,
        started: float,
        workers: Mapping[str, int] | None = None,
    ) -> ConversionReport:
        """Return the report on a store that a source has just gone into.

        Parameters
        ----------
        store : MaskStore
            The complete store.
        n_added : int
            Masks of the source.
        source_bytes : int
            Size of the file or files with the masks.
        n_resumed : int, optional
            Shards that an earlier run had finished; None when that was all of them.
        started : float
            When it began, by the monotonic clock.
        workers : mapping of str to int, optional
            Most memory that each worker has taken.
        """
        sizes, n_shards = _sizes(store), store.layout.n_shards
        return cls(
            location=store.location,
            **{f"n_{name}": count for name, count in store.manifest.counts.items()},
            n_shards=n_shards,
            n_added=n_added,
            n_resumed=n_shards if n_resumed is None else n_resumed,
            source_bytes=source_bytes,
            store_bytes=sum(sizes),
            n_objects=len(sizes),
            seconds=time.monotonic() - started,
            workers=dict(workers or {}),
        )

    def to_json(self) -> dict[str, Any]:
        """Return the same as plain JSON types."""
        return asdict(self)

    def __str__(self) -> str:
        resumed = f", {self.n_resumed} of them from an earlier run" if self.n_resumed else ""
        all_new = self.n_added == self.n_masks
        added = "" if all_new else f"{self.n_added:,} masks appended; now "
        ratio = (
            f" ({self.store_bytes / self.source_bytes:.2f} of the source)"
            if all_new and self.source_bytes
            else ""
        )
        return (
            f"{self.location}: {added}{self.n_masks:,} masks of {self.n_images:,} images and"
            f" {self.n_nouns:,} nouns in {self.n_shards:,} shards{resumed};"
            f" {self.store_bytes / 1e6:,.1f} MB in {self.n_objects:,} files{ratio};"
            f" {self.seconds:.1f} s, {self.n_added / self.seconds:,.0f} masks/s{self._memory()}"
        )

    def _memory(self) -> str:
        if not self.workers:
            return ""
        n_workers = "1 worker" if len(self.workers) == 1 else f"{len(self.workers):,} workers"
        return f"; {n_workers}, at most {max(self.workers.values()) / 2**20:,.0f} MiB each"


@dataclass(frozen=True, kw_only=True)
class UpdateReport:
    """Which mask was updated."""

    location: str
    """Where the store is."""
    row: int
    """Row of the store (position along ``mask``)."""
    image: str
    noun: str
    instance: int
    changed: bool
    """Whether the mask had other pixels before."""
    area_before: int
    """Pixels that were 1."""
    area: int
    """Pixels that are 1."""

    def to_json(self) -> dict[str, Any]:
        """Return the same as plain JSON types."""
        return asdict(self)

    def __str__(self) -> str:
        found = f"{self.area_before:,} -> {self.area:,} pixels" if self.changed else "unchanged"
        return (
            f"{self.location}: mask {self.row} (image {self.image!r}, noun {self.noun!r},"
            f" instance {self.instance}): {found}"
        )


@dataclass(frozen=True, kw_only=True)
class VerificationReport:
    """What was verified; there is one only if all is well."""

    location: str
    """Where the store is."""
    source: str | None
    """The HDF5 that pixels were compared with, or several; None when only checksums were."""
    n_masks: int
    n_compared: int
    """Masks whose every pixel was compared with a source."""
    n_updated: int
    """Masks that have other pixels than their source since `update`; these are not compared."""
    repaired: tuple[str, ...]
    """Keys of the objects that were damaged and are whole again."""
    n_shards: int
    seconds: float
    """Wall time."""

    def to_json(self) -> dict[str, Any]:
        """Return the same as plain JSON types."""
        return asdict(self)

    def __str__(self) -> str:
        against = "as their checksums say"
        if self.n_compared == self.n_masks:
            against = f"equal to {self.source}"
        elif self.source:
            against += f", {self.n_compared:,} of them equal to {self.source}"
        n_updated = f"; {self.n_updated:,} updated since" if self.n_updated else ""
        return (
            f"{self.location}: all {self.n_masks:,} masks in {self.n_shards:,} shards and all"
            f" coordinates are {against}{n_updated}{made_again(self.repaired)};"
            f" {self.seconds:.1f} s"
        )


def made_again(keys: Sequence[str]) -> str:
    """Say which objects were made again, if any."""
    n_objects = "1 object" if len(keys) == 1 else f"{len(keys):,} objects"
    return f"; {n_objects} made again: {listed(keys)}" if keys else ""


def _sizes(store: MaskStore) -> list[int]:
    """Return the size of every object of a store in bytes."""
    manifest = store.manifest
    pieces = [*manifest.shards, *manifest.coordinates.values()]
    if manifest.packed is not None:
        pieces.append(manifest.packed)
    if manifest.runs is not None:
        pieces += [*manifest.runs.steps, manifest.runs.offsets]
    metadata = spread(
        store.objects.size,
        [f"{name}/{ROOT}" for name in store.arrays],
        store.objects.max_concurrency,
    )
    root = store.edition.identity.length
    return [*(piece.length for piece in pieces), *(size or 0 for size in metadata), root, root]
