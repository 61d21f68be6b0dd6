"""Where the bytes of a store lie: named objects in a folder, a zip, memory or a bucket.

Everything that maskcube reads from a store or writes to one goes through :class:`Objects`: whole
objects in, ranges of objects out, synchronously. A folder is read and written directly, a URL
through obstore (`maskcube.bucket`), any other place through a zarr ``Store``. Whatever the system
or zarr raise for an object that is there and cannot be read comes out as `CorruptStore`, made in
`folder` and here only.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from maskcube.access import Access, location_of, scheme_of
from maskcube.bucket import Bucket, MemoryBucket, UrlBucket
from maskcube.errors import CorruptStore, InvalidOption, NotAMaskStore
from maskcube.folder import WORK, Folder, reason, unreadable
from maskcube.manifest import Piece
from maskcube.paths import folder_path, of_file_url
from maskcube.plain import PlainObjects
from maskcube.session import SessionObjects

if TYPE_CHECKING:
    from zarr.abc.store import Store

__all__ = [
    "ATTEMPTS",
    "ENTRIES",
    "PLAN",
    "REPLACING",
    "WORK",
    "Folder",
    "Objects",
    "StoreLike",
    "ZarrObjects",
    "get_at_most",
    "get_piece",
    "is_piece",
    "open_objects",
]

PLAN = f"{WORK}/plan.json"
"""Key of the plan of what is being written."""

REPLACING = f"{WORK}/replacing.json"
"""Key of the mark that an old store is being replaced."""

ENTRIES = f"{WORK}/shards"
"""Prefix of the journal's entries, one for each finished shard."""

ATTEMPTS = 3
"""How often to read what comes damaged from afar, before it is said to be."""

StoreLike = Any
"""A path, a URL, or a zarr ``Store`` (an obstore store is wrapped in one)."""


class Objects(Protocol):
    """Named objects. Keys are made by maskcube, never taken from data."""

    location: str
    """Where they are, for messages; without credentials."""
    has_cheap_ranges: bool
    """Whether asking twice costs next to nothing; a request to a bucket takes milliseconds."""
    max_concurrency: int
    """Most requests to have under way at once, where they are not cheap."""

    @property
    def reach(self) -> str:
        """What differs where the same place is reached as somebody else, or in another way."""

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes | None:
        """Return an object, or `length` bytes of it from `start` on; None if it is not there.

        There are fewer bytes where the object ends. Raises `CorruptStore` when it cannot be read,
        `StoreUnreachable` or `AccessDenied` when nobody can tell whether it could be.
        """

    def stamp(self, key: str) -> tuple[int, ...] | None:
        """Return what differs as soon as an object is replaced; None where that takes a request."""

    def size(self, key: str) -> int | None:
        """Return the size of an object in bytes; None if it is not there.

        Raises `CorruptStore` when the system cannot tell.
        """

    def put(self, key: str, data: bytes) -> None:
        """Write an object whole and durably: afterwards it is there or it is as it was."""

    def create(self, key: str, data: bytes) -> bool:
        """Write an object unless another one is there; whether it holds these bytes now."""

    def copy(self, source: str, target: str) -> None:
        """Make an object a copy of another one, if that one is there."""

    def delete(self, *keys: str) -> None:
        """Delete objects, and whatever lies below their names; none there is no error."""

    def keys(self, prefix: str = "") -> Iterator[str]:
        """Yield the keys below a prefix."""

    def zarr_store(self) -> Store:
        """Return the same objects as a read-only zarr store."""


class ZarrObjects(PlainObjects):
    """Objects in any zarr ``Store``: memory, zip, bucket, or one of the user's own."""

    has_cheap_ranges = False
    max_concurrency = 16
    reach = ""

    def __init__(self, store: Store, location: str | None = None) -> None:
        self.store = store
        self.location = location or str(store)

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes | None:
        """Return an object, or a range of it."""
        from zarr.abc.store import OffsetByteRequest, RangeByteRequest
        from zarr.core.buffer import default_buffer_prototype
        from zarr.core.sync import sync

        wanted: RangeByteRequest | OffsetByteRequest | None = None
        if length is not None and (start or self._cuts_ranges()):
            wanted = RangeByteRequest(start, start + length)
        elif start:
            wanted = OffsetByteRequest(start)
        try:
            found = sync(self.store.get(key, default_buffer_prototype(), wanted))
            data = None if found is None else found.to_bytes()
        except FileNotFoundError:
            return None
        except Exception as error:  # stores and their libraries raise whatever they like
            raise unreadable(self.location, key, error) from error
        return data[:length] if data and wanted is None else data

    def _cuts_ranges(self) -> bool:
        """Whether a range may reach beyond the end of an object: with zarr's own stores it may."""
        return type(self.store).__module__.startswith("zarr.storage._")

    def stamp(self, key: str) -> None:  # noqa: ARG002 - as any Objects
        """Return None: asking takes as long as reading."""
        return

    def size(self, key: str) -> int | None:
        """Return the size of an object in bytes."""
        from zarr.core.sync import sync

        try:
            return sync(self.store.getsize(key))
        except FileNotFoundError:
            return None
        except Exception as error:  # stores and their libraries raise whatever they like
            raise unreadable(self.location, key, error) from error

    def put(self, key: str, data: bytes) -> None:
        """Write an object in one request."""
        from zarr.core.buffer import default_buffer_prototype
        from zarr.core.sync import sync

        sync(self.store.set(key, default_buffer_prototype().buffer.from_bytes(data)))

    def create(self, key: str, data: bytes) -> bool:
        """Write an object unless another one is there; not every store can do that in one step."""
        from zarr.core.buffer import default_buffer_prototype
        from zarr.core.sync import sync

        buffer = default_buffer_prototype().buffer.from_bytes(data)
        sync(self.store.set_if_not_exists(key, buffer))
        return self.get(key, 0, len(data) + 1) == data

    def delete(self, *keys: str) -> None:
        """Delete objects, and all below their names."""
        from zarr.core.sync import sync

        for name in keys:
            # Most kinds of stores do not list an object below its own key.
            for key in list(self.keys(f"{name}/")) or [name]:
                sync(self.store.delete(key))

    def keys(self, prefix: str = "") -> Iterator[str]:
        """Yield the keys below a prefix, sorted."""
        from zarr.core.sync import sync

        async def listed() -> list[str]:
            return [key async for key in self.store.list_prefix(prefix)]

        try:
            found = sync(listed())
        except Exception as error:  # plain https cannot list
            raise CorruptStore(f"{self.location} cannot be listed: {reason(error)}") from error
        yield from sorted(found)

    def zarr_store(self) -> Store:
        """Return the store itself."""
        return self.store


def get_at_most(objects: Objects, key: str, most: int) -> bytes | None:
    """Return an object of at most so many bytes; None if it is not there.

    Raises
    ------
    CorruptStore
        When it is larger, of which no more is read, or cannot be read.
    """
    data = objects.get(key, 0, most + 1)
    if data is not None and len(data) > most:
        raise CorruptStore(f"{objects.location}: {key} is larger than the {most:,} bytes it may be")
    return data


def get_piece(objects: Objects, key: str, piece: Piece) -> bytes | None:
    """Return what lies where an object was written, and one byte more if it is longer now.

    What has come from afar otherwise than it was written is asked for again: it may have been
    damaged, or cut off, on its way.
    """
    data = None
    for _ in range(1 if objects.has_cheap_ranges else ATTEMPTS):
        data = objects.get(key, 0, piece.length + 1)
        if data is None or Piece.of(data) == piece:
            break
    return data


def is_piece(objects: Objects, key: str, piece: Piece) -> bool:
    """Whether an object is there and as it was written; hardly more of it is read than that."""
    data = get_piece(objects, key, piece)
    return data is not None and Piece.of(data) == piece


def open_objects(
    store: StoreLike,
    storage_options: dict[str, Any] | None = None,
    *,
    read_only: bool = True,
) -> Objects:
    """Return the objects at a path, at a URL or in a zarr store; reads nothing.

    Raises
    ------
    InvalidOption
        When `store` is none of these, or `storage_options` are given for a local path.
    """
    if isinstance(store, str) and "://" in store and scheme_of(store) != "file":
        return _open_url(store, storage_options or {}, read_only=read_only)
    if storage_options:
        raise InvalidOption(
            f"storage_options are for URLs; {store!r} is none (a source has source_options)"
        )
    path = folder_path(store)
    if path is not None:
        return Folder(path)
    if isinstance(store, str | os.PathLike):
        path = Path(of_file_url(os.fspath(store))).expanduser()
        return _open_zip(path, read_only=read_only)
    return _open_object(store, read_only=read_only)


def _open_object(store: StoreLike, *, read_only: bool) -> Objects:
    # A local folder does not need zarr, whose import takes longer than opening.
    from zarr.abc.store import Store
    from zarr.storage import ObjectStore

    if type(store).__module__.startswith("icechunk"):
        return SessionObjects.open(store, read_only=read_only)
    if isinstance(store, Store):
        if store.read_only and not read_only:
            raise InvalidOption(f"store={store!r} can only be read: open it with read_only=False")
        if type(store) is ObjectStore:
            return Bucket(store.store, _name_of(store.store))
        return ZarrObjects(store)
    if type(store).__module__.startswith("obstore"):
        return Bucket(store, _name_of(store))
    raise InvalidOption(
        f"store={store!r} is a {type(store).__name__}; give a path, a URL or a zarr Store"
    )


def _name_of(store: Any) -> str:  # noqa: ANN401 - obstore's stores have no type in common
    """Return where an obstore store is; the URL of one over https may hold credentials."""
    url = getattr(store, "url", None)
    return location_of(url) if isinstance(url, str) else str(store)


def _open_zip(path: Path, *, read_only: bool) -> Objects:
    from zarr.core.sync import sync
    from zarr.storage import ZipStore

    if not read_only:
        raise InvalidOption(f"store={str(path)!r}: a zip can be read, not written")
    if not path.is_file():
        return Folder(path)
    try:
        return ZarrObjects(sync(ZipStore.open(path, mode="r")), str(path))
    except Exception as error:  # zipfile raises whatever it comes upon
        raise NotAMaskStore(f"{path} cannot be read as a zip: {reason(error)}") from error


def _open_url(url: str, options: dict[str, Any], *, read_only: bool) -> Objects:
    if scheme_of(url) == "memory":
        if options:
            raise InvalidOption(f"storage_options are for what is far away; {url!r} is not")
        return MemoryBucket(url)
    access = Access(url, options)
    if not (read_only or access.is_writable):
        raise InvalidOption(f"{access.location}: what is at {scheme_of(url)}:// can only be read")
    return UrlBucket(access)
