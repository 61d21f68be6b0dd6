"""Where the bytes of a store lie: named objects in a folder, a zip, memory or a bucket.

Everything that maskcube reads from a store or writes to one goes through :class:`Objects`: whole
objects in, ranges of objects out, synchronously. A folder is read and written directly; every other
place through a zarr ``Store``, and URLs through obstore.
"""

from __future__ import annotations

import os
import shutil
import stat
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit
from zipfile import BadZipFile

from maskcube.errors import InvalidOption, NotAMaskStore

if TYPE_CHECKING:
    from zarr.abc.store import Store

__all__ = [
    "ENTRIES",
    "PLAN",
    "WORK",
    "Folder",
    "Objects",
    "StoreLike",
    "ZarrObjects",
    "folder_path",
    "open_objects",
    "partial_path",
]

WORK = "_maskcube"
"""Prefix of everything that is not part of a finished store: plan, journal, unfinished writes."""

PLAN = f"{WORK}/plan.json"
"""Key of the plan of what is being written."""

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
        """Return an object, or `length` bytes of it from `start` on; None if it is not there."""

    def stamp(self, key: str) -> tuple[int, ...] | None:
        """Return what differs as soon as an object is replaced; None where that takes a request."""

    def size(self, key: str) -> int | None:
        """Return the size of an object in bytes; None if it is not there."""

    def put(self, key: str, data: bytes) -> None:
        """Write an object whole and durably: afterwards it is there or it is as it was."""

    def delete(self, prefix: str) -> None:
        """Delete all objects below a prefix; none there is no error."""

    def keys(self, prefix: str = "") -> Iterator[str]:
        """Yield the keys below a prefix."""

    def zarr_store(self) -> Store:
        """Return the same objects as a read-only zarr store."""


class Folder:
    """Objects as the files of a local folder."""

    has_cheap_ranges = True

    def __init__(self, path: Path) -> None:
        self.path = path
        self.location = str(path)

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes | None:
        """Return an object, or a range of it."""
        try:
            # Not to wait for a writer, should it be a pipe. Making a Path takes as long as reading.
            descriptor = os.open(f"{self.location}/{key}", os.O_RDONLY | os.O_NONBLOCK)
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                return None
            left = max(0, status.st_size - start)
            return os.pread(descriptor, left if length is None else min(length, left), start)
        finally:
            os.close(descriptor)

    def stamp(self, key: str) -> tuple[int, ...] | None:
        """Return inode, time and size of an object's file; all 0 if it is not there."""
        try:
            found = os.stat(f"{self.location}/{key}")  # noqa: PTH116 - half the time of a Path
        except OSError:
            return (0, 0, 0)
        return found.st_ino, found.st_mtime_ns, found.st_size

    def size(self, key: str) -> int | None:
        """Return the size of an object in bytes."""
        path = self.path / key
        return path.stat().st_size if path.is_file() else None

    def put(self, key: str, data: bytes) -> None:
        """Write an object beside its place, flush it to the disk, and move it there."""
        path = self.path / key
        unfinished = self.path / WORK / uuid.uuid4().hex
        unfinished.parent.mkdir(parents=True, exist_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with unfinished.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            unfinished.replace(path)
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise

    def delete(self, prefix: str) -> None:
        """Delete an object, or a folder of them."""
        path = self.path / prefix
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)

    def keys(self, prefix: str = "") -> Iterator[str]:
        """Yield the keys below a prefix, in any order."""
        for path in (self.path / prefix).rglob("*"):
            if path.is_file():
                yield path.relative_to(self.path).as_posix()

    def zarr_store(self) -> Store:
        """Return a zarr ``LocalStore``."""
        from zarr.storage import LocalStore

        return LocalStore(self.path, read_only=True)


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
        if length is not None:
            wanted = RangeByteRequest(start, start + length)
        elif start:
            wanted = OffsetByteRequest(start)
        found = sync(self.store.get(key, default_buffer_prototype(), wanted))
        return None if found is None else found.to_bytes()

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

    def put(self, key: str, data: bytes) -> None:
        """Write an object in one request."""
        from zarr.core.buffer import default_buffer_prototype
        from zarr.core.sync import sync

        sync(self.store.set(key, default_buffer_prototype().buffer.from_bytes(data)))

    def delete(self, prefix: str) -> None:
        """Delete an object, or all below a prefix."""
        from zarr.core.sync import sync

        for key in list(self.keys(prefix)):
            sync(self.store.delete(key))

    def keys(self, prefix: str = "") -> Iterator[str]:
        """Yield the keys below a prefix, sorted."""
        from zarr.core.sync import sync

        async def listed() -> list[str]:
            return [key async for key in self.store.list_prefix(prefix)]

        yield from sorted(sync(listed()))

    def zarr_store(self) -> Store:
        """Return the store itself."""
        return self.store


def folder_path(store: StoreLike) -> Path | None:
    """Return the local path that `store` names; None when it is not a folder on this machine."""
    if not isinstance(store, str | os.PathLike):
        return None
    text = os.fspath(store)
    if text.startswith("file://"):
        return Path(urlsplit(text).path)
    if "://" in text or text.endswith(".zip"):
        return None
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

    if isinstance(store, Store):
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
    except BadZipFile as error:
        raise NotAMaskStore(f"{path} cannot be read as a zip: {error}") from error


def _open_url(url: str, options: dict[str, Any], *, read_only: bool) -> Objects:
    from obstore.store import from_url
    from zarr.storage import ObjectStore

    parts = urlsplit(url)
    location = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    return ZarrObjects(ObjectStore(from_url(url, **options), read_only=read_only), location)
