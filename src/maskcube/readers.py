"""Which reader a store needs: the fast one, or plain zarr where somebody has rewritten it."""

from __future__ import annotations

from maskcube.foreign import ZarrReader
from maskcube.schema import MASKS
from maskcube.shards import ShardReader
from maskcube.store import MaskStore

__all__ = ["StoreReader", "open_reader"]

StoreReader = ShardReader | ZarrReader
"""Reads masks of a store by row: ``read`` and ``mask``."""


def open_reader(store: MaskStore) -> StoreReader:
    """Return the reader of a store's masks; reads no pixel."""
    return ShardReader(store) if store.is_native(MASKS) else ZarrReader(store)
