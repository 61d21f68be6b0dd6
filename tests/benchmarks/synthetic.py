"""A store of as many masks as one likes, without their pixels: what opening and graphs need."""

from __future__ import annotations

import itertools
import pickle
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import maskcube
from maskcube.bucket import MemoryBucket
from maskcube.layout import Layout
from maskcube.manifest import Piece, RunPieces
from maskcube.schema import COORDINATES, OFFSETS, PACKED, ROOT, build, value_bytes
from maskcube.store import MaskStore

__all__ = ["Synthetic", "put_store"]

_numbers = itertools.count()
_STEPS = 2**20


@dataclass(frozen=True)
class Synthetic:
    """Where such a store is, in memory, and its root metadata."""

    url: str
    root: bytes

    @property
    def root_bytes(self) -> int:
        """Size of the root metadata."""
        return len(self.root)

    def open(self) -> None:
        """Open it, until its labels can be asked for."""
        masks = maskcube.open_masks(self.url, chunks=None)
        index: Any = masks.xindexes["image"]
        index.rows({"instance": 0})

    def parse(self) -> None:
        """Read what its root says."""
        MaskStore.open(self.url)

    def graph_bytes(self) -> int:
        """Return the size of the tasks that read all of it, a shard each, as they are sent."""
        masks = maskcube.open_masks(self.url, chunks={}).data
        reader = masks.reader
        graph = {key: task for key, task in masks.dask.items() if task is not reader}
        return len(pickle.dumps(graph))


def put_store(template: Path, n_masks: int, shard_masks: int) -> Synthetic:
    """Put a store of so many masks into memory: those of another, again and again.

    Parameters
    ----------
    template : pathlib.Path
        A store.
    n_masks, shard_masks : int
        How many, and how many of them in a shard.
    """
    store = MaskStore.open(template)
    layout = replace(store.layout, n_masks=n_masks, shard_masks=shard_masks)
    columns = {name: _repeated(name, store.coordinate(name), n_masks) for name in COORDINATES}
    objects = _objects(store, layout, columns)
    url = f"memory://synthetic-{next(_numbers)}"
    bucket = MemoryBucket(url)
    for key, data in objects.items():
        bucket.put(key, data)
    return Synthetic(url, objects[ROOT])


def _objects(
    store: MaskStore, layout: Layout, columns: dict[str, np.ndarray[Any, Any]]
) -> dict[str, bytes]:
    manifest, rng = store.manifest, np.random.default_rng(20261121)
    steps = (
        2 * 300 if manifest.runs is None else manifest.runs.n_boundaries // manifest.layout.n_masks
    )
    offsets = np.arange(layout.n_masks + 1, dtype=np.int64) * steps
    sizes = rng.integers(60_000, 90_000, layout.n_shards)
    crcs = rng.integers(2**32, size=layout.n_shards)
    shards = tuple(Piece(int(size), int(crc)) for size, crc in zip(sizes, crcs, strict=True))
    n_chunks = -(-int(offsets[-1]) // _STEPS)

    def attributes(pieces: Any) -> dict[str, Any]:
        found = replace(
            manifest,
            layout=layout,
            counts={"masks": layout.n_masks, **_distinct(columns)},
            shards=shards,
            coordinates={name: pieces[name] for name in columns},
            values={name: Piece.of(value_bytes(name, values)) for name, values in columns.items()},
            packed=pieces[PACKED],
            runs=RunPieces(
                int(offsets[-1]), _STEPS, (Piece(500_000, 1),) * n_chunks, pieces[OFFSETS]
            ),
            metadata={},
            revisions=(),
        )
        return {"maskcube": found.to_json()}

    return build(layout, columns, offsets, _STEPS, attributes)


def _distinct(columns: dict[str, np.ndarray[Any, Any]]) -> dict[str, int]:
    return {f"{name}s": len(set(columns[name].tolist())) for name in ("image", "noun")}


def _repeated(name: str, values: np.ndarray[Any, Any], n_masks: int) -> np.ndarray[Any, Any]:
    """Return as many values; images and files of each repetition have names of their own."""
    rows = np.arange(n_masks)
    if name == "mask_row":
        return rows
    if name == "crc32c":
        return np.random.default_rng(1).integers(2**32, size=n_masks, dtype=np.uint32)
    found = values[rows % len(values)]
    if name not in {"image", "mask_file"}:
        return found
    named = zip((rows // len(values)).tolist(), found.tolist(), strict=True)
    return np.array([f"{text}-{number}" if number else text for number, text in named], found.dtype)
