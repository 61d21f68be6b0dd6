"""The threads on which this process decodes.

zstd releases the GIL, so masks decode side by side. The threads are made once, when they are first
needed: starting some for each read would cost more than a few masks do.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from maskcube.layout import worker_count

__all__ = ["spread"]

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

_MOST_THREADS = 8
"""More would only wait for memory."""

_busy = threading.local()
_lock = threading.Lock()
_pools: dict[int, ThreadPoolExecutor] = {}
"""The threads of this process, by their number."""


def spread(
    function: Callable[[_Item], _Result], items: Sequence[_Item], workers: int | None = None
) -> list[_Result]:
    """Return ``function(item)`` for each item, in order, computed on threads.

    Parameters
    ----------
    function : callable
        Must spend its time without the GIL.
    items : sequence
        What to call it with.
    workers : int, optional
        Threads, the caller's included; by default one for each core, at most 8. With one, or on
        one of these threads itself, no other is used.
    """
    threads = min(worker_count(None), _MOST_THREADS) if workers is None else workers
    if threads == 1 or len(items) < 2 or getattr(_busy, "here", False):  # noqa: PLR2004 - one is not spread
        return [function(item) for item in items]
    pool = _pool(threads - 1)
    futures = [pool.submit(function, item) for item in items]
    results: list[_Result] = []
    try:
        # The caller is one of the threads, and begins at the other end. It does itself what no
        # other has begun, so that it never waits for threads that may wait for it.
        for item, future in zip(reversed(items), reversed(futures), strict=True):
            results.append(function(item) if future.cancel() else future.result())
    finally:
        for future in futures:
            future.cancel()
    return results[::-1]


def _pool(threads: int) -> ThreadPoolExecutor:
    with _lock:
        if threads not in _pools:
            _pools[threads] = ThreadPoolExecutor(threads, "maskcube", initializer=_mark)
        return _pools[threads]


def _mark() -> None:
    _busy.here = True


def _begin_anew() -> None:
    """Forget in a forked child the threads that stayed with its parent, and the lock they held."""
    global _lock  # noqa: PLW0603 - nobody else is there yet
    _lock = threading.Lock()
    _busy.here = False
    _pools.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)
