"""Where the bytes of a store lie: named objects in a folder, a zip, memory or a bucket.

Everything that maskcube reads from a store or writes to one goes through :class:`Objects`: whole
objects in, ranges of objects out, synchronously. A folder is read and written directly; every other
place through a zarr ``Store``, and URLs through obstore. Whatever the system, zarr or obstore raise
for an object that is there and cannot be read comes out as `CorruptStore`, here and only here.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from maskcube.errors import CorruptStore, InvalidOption, NotAMaskStore
from maskcube.folder import WORK, Folder, reason, unreadable
from maskcube.manifest import Piece
from maskcube.session import SessionObjects

if TYPE_CHECKING:
    from zarr.abc.store import Store

__all__ = [
    "ENTRIES",
    "PLAN",
    "REPLACING",
    "WORK",
    "Folder",
    "Objects",
    "StoreLike",
    "ZarrObjects",
    "folder_path",
    "get_at_most",
    "get_piece",
    "is_piece",
    "open_objects",
    "partial_path",
]

_MOST_PIECE_BYTES = 2**28
"""Coordinates and runs are read whole; those of 24,011 masks are 0.7 MB at most."""

PLAN = f"{WORK}/plan.json"
"""Key of the plan of what is being written."""

REPLACING = f"{WORK}/replacing.json"
"""Key of the mark that an old store is being replaced."""

ENTRIES = f"{WORK}/shards"
"""Prefix of the journal's entries, one for each finished shard."""

StoreLike = Any
"""A path, a URL, or a zarr ``Store`` (an obstore store is wrapped in one)."""


class Objects(Protocol):
    """Named objects. Keys are made by maskcube, never taken from data."""

    location: str
    """Where they are, for messages; without credentials."""
    has_cheap_ranges: bool
    """Whether asking twice costs next to nothing; a request to a bucket takes milliseconds."""

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes | None:
        """Return an object, or `length` bytes of it from `start` on; None if it is not there.

        There are fewer bytes where the object ends. Raises `CorruptStore` when it cannot be read.
        """

    def stamp(self, key: str) -> tuple[int, ...] | None:
        """Return what differs as soon as an object is replaced; None where that takes a request."""

    def size(self, key: str) -> int | None:
        """Return the size of an object in bytes; None if it is not there.

        Raises `CorruptStore` when the system cannot tell.
        """

    def put(self, key: str, data: bytes) -> None:
        """Write an object whole and durably: afterwards it is there or it is as it was."""

    def delete(self, prefix: str) -> None:
        """Delete all objects below a prefix; none there is no error."""

    def keys(self, prefix: str = "") -> Iterator[str]:
        """Yield the keys below a prefix."""

    def zarr_store(self) -> Store:
        """Return the same objects as a read-only zarr store."""


class ZarrObjects:
    """Objects in any zarr ``Store``: memory, zip, bucket, or one of the user's own."""

    has_cheap_ranges = False

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

    def delete(self, prefix: str) -> None:
        """Delete an object, or all below a prefix."""
        from zarr.core.sync import sync

        # Most kinds of stores do not list an object below its own key.
        for key in list(self.keys(f"{prefix}/")) or [prefix]:
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


def get_piece(objects: Objects, key: str, piece: Piece | None, what: str) -> bytes:
    """Return an object that is read whole, as the manifest says it was written.

    Parameters
    ----------
    objects : Objects
        Where it is.
    key : str
        Its key.
    piece : Piece or None
        What the manifest says of it, if anything.
    what : str
        What it is, for messages.

    Raises
    ------
    CorruptStore
        When it is missing, of another size or checksum, too large, or cannot be read.
    """
    # A byte more than it should have shows that it has more, without reading how many.
    most = 0 if piece is None else min(piece.length, _MOST_PIECE_BYTES)
    data = objects.get(key, 0, most + 1)
    if data is None:
        raise CorruptStore(f"{objects.location}: {what} is missing")
    if Piece.of(data) != piece:
        raise CorruptStore(f"{objects.location}: {what}: size or checksum is not the recorded one")
    return data


def is_piece(objects: Objects, key: str, piece: Piece) -> bool:
    """Whether an object is there and as it was written; hardly more of it is read than that."""
    data = objects.get(key, 0, piece.length + 1)
    return data is not None and Piece.of(data) == piece


def folder_path(store: StoreLike) -> Path | None:
    """Return the local path that `store` names; None when it is not a folder on this machine."""
    if not isinstance(store, str | os.PathLike):
        return None
    text = os.fspath(store)
    if text.startswith("file://"):
        return Path(urlsplit(text).path)
    if "://" in text or text.endswith(".zip"):
        return None
    if "\0" in text:
        raise InvalidOption(f"store={text!r} is no path: it contains NUL")
    try:
        # Absolute: a worker, or the process itself later, may stand in another folder.
        return Path(text).expanduser().absolute()
    except RuntimeError as error:
        raise InvalidOption(f"store={text!r}: {error}") from error


def partial_path(target: Path) -> Path:
    """Return where a local store is built before it is moved to `target`."""
    return target.with_name(f"{target.name}.partial")


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
    if isinstance(store, str) and "://" in store and not store.startswith("file://"):
        return _open_url(store, storage_options or {}, read_only=read_only)
    if storage_options:
        raise InvalidOption(f"storage_options are for URLs; {store!r} is none")
    path = folder_path(store)
    if path is not None:
        return Folder(path)
    if isinstance(store, str | os.PathLike):
        return _open_zip(Path(store).expanduser(), read_only=read_only)
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
        return ZarrObjects(store)
    if type(store).__module__.startswith("obstore"):
        return ZarrObjects(ObjectStore(store, read_only=read_only))
    raise InvalidOption(
        f"store={store!r} is a {type(store).__name__}; give a path, a URL or a zarr Store"
    )


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
    from obstore.store import from_url
    from zarr.storage import ObjectStore

    parts = urlsplit(url)
    location = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    return ZarrObjects(ObjectStore(from_url(url, **options), read_only=read_only), location)
