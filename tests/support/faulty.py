"""A store whose reads go wrong when a test wants it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

from zarr.abc.store import Store
from zarr.core.buffer import Buffer
from zarr.storage import WrapperStore

Fault = Callable[[Buffer | None], Buffer | None]
"""What becomes of an answer; it may raise instead."""


class FaultyStore(WrapperStore[Store]):
    """A store that answers one read, or each one of some keys, with a fault."""

    def __init__(
        self, store: Store, fault: Fault, *, number: int | None = None, key: str | None = None
    ) -> None:
        super().__init__(store)
        self._fault, self._number, self._key = fault, number, key
        self.n_reads = 0

    def _with_store(self, store: Store) -> Self:
        return type(self)(store, self._fault, number=self._number, key=self._key)

    async def get(self, key: str, *args: Any, **options: Any) -> Buffer | None:
        found = await super().get(key, *args, **options)
        self.n_reads += 1
        hit = key == self._key if self._number is None else self.n_reads == self._number
        return self._fault(found) if hit else found


def raising(error: Exception) -> Fault:
    def fault(found: Buffer | None) -> Buffer | None:
        del found
        raise error

    return fault


def short(found: Buffer | None) -> Buffer | None:
    return found if found is None else found[: len(found) // 2]


def missing(found: Buffer | None) -> Buffer | None:
    del found
    return None
