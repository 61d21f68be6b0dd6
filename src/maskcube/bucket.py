"""A store in a bucket, or wherever else obstore reaches: the objects below a URL.

obstore asks again after most faults. What it does not ask again for (a listing, or an error, that
was cut off on its way) and what takes longer than it waits is asked again here, until a deadline.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from maskcube.access import Access
from maskcube.answers import (
    IsThere,
    NoConditions,
    NotThere,
    OutOfRange,
    Question,
    failure,
    has_status,
    unforeseen,
)
from maskcube.errors import AccessDenied, CorruptStore, InvalidOption, StoreUnreachable

if TYPE_CHECKING:
    from zarr.abc.store import Store

__all__ = ["Bucket", "MemoryBucket", "UrlBucket"]

_Answer = TypeVar("_Answer")

_DEADLINE_SECONDS = 90.0
"""How long to go on asking for one thing."""

_FIRST_PAUSE, _MOST_PAUSE = 0.2, 5.0
"""Seconds from one question to the next."""

_MOST_REQUESTS = 16
"""Requests to have under way at once, in a store that somebody else has opened."""

_asked_in: set[int] = set()
"""The processes that have asked: obstore's threads do not come along into a forked one."""


class Bucket:
    """Objects in a place that obstore reaches.

    Parameters
    ----------
    store : obstore store
        The place; its keys are those of the objects.
    location : str
        Where that is, for messages; without credentials.
    whose : str
        Whose credentials it uses, for messages.
    max_concurrency : int
        Most requests to have under way at once.
    """

    has_cheap_ranges = False

    def __init__(
        self,
        store: Any,  # noqa: ANN401 - obstore's stores have no type in common
        location: str,
        whose: str = "the credentials of the store",
        max_concurrency: int = _MOST_REQUESTS,
    ) -> None:
        self.location = location
        self.max_concurrency = max_concurrency
        self._store = store
        self._whose = whose
        self._turns = threading.BoundedSemaphore(max_concurrency)
        self._has_answered = False

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes | None:
        """Return an object, or a range of it."""
        import obstore

        if length == 0:
            # No range can say that, and obstore would take it for a fault.
            return b""

        def request() -> bytes:
            if length is not None:
                return bytes(obstore.get_range(self._store, key, start=start, length=length))
            rest: Any = {"range": {"offset": start}} if start else None
            return bytes(obstore.get(self._store, key, options=rest).bytes())

        try:
            return self._ask(f"read {key}", request, NotThere, OutOfRange)
        except NotThere:
            return None
        except OutOfRange:
            return b""

    def stamp(self, key: str) -> None:  # noqa: ARG002 - as any Objects
        """Return None: asking takes as long as reading."""
        return

    def size(self, key: str) -> int | None:
        """Return the size of an object in bytes."""
        import obstore

        try:
            return self._ask(
                f"look at {key}", lambda: obstore.head(self._store, key)["size"], NotThere
            )
        except NotThere:
            return None

    def put(self, key: str, data: bytes) -> None:
        """Write an object in one request."""
        self._put(key, data, "overwrite", ())

    def create(self, key: str, data: bytes) -> bool:
        """Write an object unless another one is there; whether it holds these bytes now."""
        try:
            self._put(key, data, "create", (IsThere, NoConditions))
        except IsThere:
            # It may be ours, its answer lost.
            return self.get(key, 0, len(data) + 1) == data
        except NoConditions:
            found = self.get(key, 0, len(data) + 1)
            if found is not None:
                return found == data
            self.put(key, data)
        return True

    def _put(
        self,
        key: str,
        data: bytes,
        mode: Any,  # noqa: ANN401 - obstore's literals
        foreseen: tuple[type[Exception], ...],
    ) -> None:
        import obstore

        def request() -> None:
            obstore.put(self._store, key, data, mode=mode, use_multipart=False)

        self._ask(f"write {key}", request, *foreseen)

    def copy(self, source: str, target: str) -> None:
        """Copy an object, which the server does by itself."""
        import obstore

        with suppress(NotThere):
            self._ask(f"copy {source}", lambda: obstore.copy(self._store, source, target), NotThere)

    def delete(self, *keys: str) -> None:
        """Delete objects, many with one request; one that is not there is no error."""
        import obstore

        if not keys:
            return
        try:
            self._ask(
                f"delete {keys[0]}", lambda: obstore.delete(self._store, list(keys)), NotThere
            )
        except NotThere:
            # Some servers say so, and have not looked at the others.
            for key in keys if len(keys) > 1 else ():
                self.delete(key)

    def keys(self, prefix: str = "") -> Iterator[str]:
        """Yield the keys below a prefix, sorted."""
        import obstore

        def request() -> list[str]:
            listing = obstore.list(self._store, prefix or None, chunk_size=1000)
            return [found["path"] for part in listing for found in part]

        try:
            found = self._ask("list it", request, NotThere)
        except NotThere:
            found = []
        except (AccessDenied, InvalidOption) as error:
            # Plain https cannot, and in a public bucket nobody may.
            raise CorruptStore(f"{self.location} cannot be listed: {error}") from None
        yield from sorted(found)

    def zarr_store(self) -> Store:
        """Return the same objects as a read-only zarr store."""
        from zarr.storage import ObjectStore

        return ObjectStore(self._store, read_only=True)

    def _ask(
        self, purpose: str, request: Callable[[], _Answer], *foreseen: type[Exception]
    ) -> _Answer:
        """Ask until there is an answer, or none can be expected, or the time is over."""
        asked = Question(self.location, purpose, self._whose)
        _refuse_fork(asked)
        deadline = time.monotonic() + _DEADLINE_SECONDS
        pause = _FIRST_PAUSE
        while True:
            try:
                with self._turns:
                    answer = request()
            except Exception as error:  # noqa: BLE001 - obstore raises builtins too
                self._has_answered |= has_status(error)
                failed = failure(error, asked)
            else:
                self._has_answered = True
                return answer
            # Whoever has mistyped a host need not wait: obstore has asked several times.
            may_pass = isinstance(failed, StoreUnreachable) and self._has_answered
            if not may_pass or time.monotonic() + pause > deadline:
                # Not where it was caught: what obstore says may hold what is secret.
                raise failed if isinstance(failed, foreseen) else unforeseen(failed, asked)
            time.sleep(pause * random.uniform(0.5, 1))  # noqa: S311 - no secret
            pause = min(2 * pause, _MOST_PAUSE)

    @cached_property
    def reach(self) -> str:
        """What differs where the same place is reached as somebody else, or in another way."""
        try:
            return hashlib.sha256(pickle.dumps(self)).hexdigest()
        except (InvalidOption, TypeError, AttributeError, pickle.PicklingError):
            # It stays in this process.
            return ""

    def __reduce__(self) -> tuple[Any, ...]:
        given = self._store, self.location, self._whose, self.max_concurrency
        try:
            pickle.dumps(self._store)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException:  # noqa: BLE001 - obstore panics, which is no Exception
            raise InvalidOption(
                f"{self.location} cannot be sent to other processes: build it with keywords, as in"
                " S3Store(bucket, access_key_id=...), or give a URL and storage_options"
            ) from None
        return Bucket, given


class UrlBucket(Bucket):
    """Objects below a URL.

    It pickles as the URL and the options that were given, and opens anew where it is unpickled:
    what is from the environment is from that of the machine where it is used.

    Parameters
    ----------
    access : Access
        How the URL is reached. Nothing is asked for.
    """

    def __init__(self, access: Access) -> None:
        store, whose = access.open()
        super().__init__(store, access.location, whose, access.max_concurrency)
        self._access = access

    def __reduce__(self) -> tuple[Any, ...]:
        return UrlBucket, (self._access,)


class MemoryBucket(Bucket):
    """Objects in the memory of this process: what is at one URL ``memory://`` is there once.

    Parameters
    ----------
    url : str
        Names them.
    """

    def __init__(self, url: str) -> None:
        from obstore.store import MemoryStore

        location = url.rstrip("/")
        store = _memories.setdefault(location, MemoryStore())
        super().__init__(store, location)

    def __reduce__(self) -> tuple[Any, ...]:
        raise InvalidOption(f"{self.location} is in the memory of one process: no other can use it")


_memories: dict[str, Any] = {}


def _refuse_fork(asked: Question) -> None:
    """Raise in a process that was forked from one that had asked: its requests would never end."""
    if not _asked_in:
        _asked_in.add(os.getpid())
    elif os.getpid() not in _asked_in:
        raise StoreUnreachable(
            f"{asked.location}: cannot {asked.purpose}: this process was forked from one that had"
            " read from afar, and the threads for that stay behind; start it by 'spawn' (of torch,"
            " DataLoader(..., multiprocessing_context='spawn'))"
        )
