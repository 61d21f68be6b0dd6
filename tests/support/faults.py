"""A store in memory whose n-th change fails, in one way or another."""

from __future__ import annotations

import errno
import os
from collections.abc import Awaitable, Callable
from functools import partial
from typing import NamedTuple

from zarr.core.buffer import Buffer, default_buffer_prototype
from zarr.storage import MemoryStore, WrapperStore

BUFFER = default_buffer_prototype().buffer


class Fault(NamedTuple):
    """How a change fails."""

    raised: int | None
    """Number of the system's error; None when success is reported."""
    kept: float | None = None
    """Which part of the bytes is written all the same."""


BROKEN = Fault(errno.EIO)


class Faults(WrapperStore[MemoryStore]):
    """Memory whose n-th change fails.

    Parameters
    ----------
    store : MemoryStore
        What is really there.
    at : int
        Which change fails, from 1; 0 for none.
    fault : Fault
        How it fails.
    """

    def __init__(self, store: MemoryStore, at: int = 0, fault: Fault = BROKEN) -> None:
        super().__init__(store)
        self.at = at
        self.fault = fault
        self.changes: list[list[str]] = []
        """The key of each change."""

    async def set(self, key: str, value: Buffer) -> None:
        """Put an object, unless that is what fails."""
        await self._change(key, partial(self._store.set, key), value)

    async def set_if_not_exists(self, key: str, value: Buffer) -> None:
        """Put an object if none is there, unless that is what fails."""
        await self._change(key, partial(self._store.set_if_not_exists, key), value)

    async def delete(self, key: str) -> None:
        """Delete an object, unless that is what fails."""

        async def change(_: Buffer) -> None:
            await self._store.delete(key)

        await self._change(key, change, BUFFER.from_bytes(b""))

    async def _change(
        self, key: str, change: Callable[[Buffer], Awaitable[None]], value: Buffer
    ) -> None:
        self.changes.append([key])
        if len(self.changes) != self.at:
            await change(value)
            return
        if self.fault.kept is not None:
            await change(value[: int(len(value) * self.fault.kept)])
        if self.fault.raised is not None:
            raise OSError(self.fault.raised, os.strerror(self.fault.raised))
